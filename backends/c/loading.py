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
        path.write_bytes(built)
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            raise BuildError("the library that was built cannot be loaded", got=error) from None
        try:
            yield library
        finally:
            _ctypes.dlclose(library._handle)
