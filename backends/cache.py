"""Files that save work from one compilation to the next: keyed by content, safe to delete.

``BRICKC_CACHE`` names the folder; otherwise it is ``brickc`` below the user's folder for caches. An
entry holds its own digest: one that was cut off or changed counts as missing. Several processes may
read and write at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

__all__ = ["cache_folder", "read_entry", "write_entry"]


def cache_folder() -> Path:
    """Where entries lie."""
    given = os.environ.get("BRICKC_CACHE", "")
    if given:
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "brickc"


def read_entry(kind: str, key: str) -> bytes | None:
    """What was kept under the key; None if there is nothing, or nothing that is whole."""
    try:
        content = _path(kind, key).read_bytes()
    except OSError:
        return None
    digest, _, data = content.partition(b"\n")
    return data if digest == _digest(data) else None


def write_entry(kind: str, key: str, data: bytes) -> None:
    """Keep data under the key, whole or not at all; where nothing can be written, nothing is."""
    path = _path(kind, key)
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


def _path(kind: str, key: str) -> Path:
    return cache_folder() / kind / key[:2] / key


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()
