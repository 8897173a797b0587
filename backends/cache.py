"""Files that save work from one compilation to the next: keyed by content, safe to delete.

``BRICKC_CACHE_DIR`` names the folder, and switches the cache off where it is empty; otherwise it
is ``brickc`` below the user's folder for caches. An entry holds its own digest: one that was cut
off or changed counts as missing. Several processes may read and write at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

__all__ = ["cache_folder", "read_entry", "write_entry"]

#: variable of the environment with the folder
VARIABLE = "BRICKC_CACHE_DIR"


def cache_folder() -> Path | None:
    """Where entries lie; None if nothing is to be kept."""
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "brickc"


def read_entry(kind: str, key: str) -> bytes | None:
    """What was kept under the key; None if there is nothing, or nothing that is whole."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        content = _path(folder, kind, key).read_bytes()
    except OSError:
        return None
    digest, _, data = content.partition(b"\n")
    return data if digest == _digest(data) else None


def write_entry(kind: str, key: str, data: bytes) -> None:
    """Keep data under the key, whole or not at all; where nothing can be written, nothing is."""
    folder = cache_folder()
    if folder is None:
        return
    path = _path(folder, kind, key)
    # a cache that cannot be written (read-only home, full disk) costs time, nothing else
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_digest(data) + b"\n" + data)
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise


def _path(folder: Path, kind: str, key: str) -> Path:
    return folder / kind / key[:2] / key


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()
