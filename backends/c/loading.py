"""A built library inside the compiler itself, for as long as it is needed."""

from __future__ import annotations

import _ctypes
import ctypes
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import BuildError

__all__ = ["opened"]


@contextmanager
def opened(built: bytes) -> Iterator[Any]:
    """The library, loaded from its bytes; unloaded afterwards, so it must start no threads."""
    with tempfile.TemporaryDirectory(prefix="brickc-so-") as folder:
        path = Path(folder) / "libmodel.so"
        try:
            path.write_bytes(built)
        except OSError as error:
            raise BuildError("the library that was built cannot be written", where=folder,
                             got=error.strerror, hint="TMPDIR names another folder",
                             ) from None  # fmt: skip
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            said = str(error).removeprefix(f"{path}: ")
            raise BuildError("the library that was built cannot be loaded", got=said,
                             expected="a shared library for this machine",
                             hint="CC names another compiler") from None  # fmt: skip
        try:
            yield library
        finally:
            _ctypes.dlclose(library._handle)
