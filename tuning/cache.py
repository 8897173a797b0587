"""What was measured, on disk: one JSON file for everything that times depend on.

    $BRICKC_CACHE, else $XDG_CACHE_HOME/brickc, else ~/.cache/brickc
        tune/TARGET-HASH.json     HASH is that of the environment: processor, compiler, …

A file holds choices by kernel (``ir.kernel.choices.kernel_key``: anchor, shapes, dtypes, layouts,
epilogue). Files appear complete or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backends.cache import cache_folder
from ..errors import UsageError
from ..ir.kernel.choices import Choice

__all__ = ["Entry", "Memory", "cache_folder"]

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """What is known of one kernel."""

    #: its name where it was measured; for readers of the file
    kernel: str
    choice: Choice
    seconds: float
    #: of what the cost model takes
    default_seconds: float
    #: all choices that were measured, as text
    tried: frozenset[str]
    #: nothing is left to try
    settled: bool


class Memory:
    """Results for one environment."""

    def __init__(self, environment: Mapping[str, str], folder: Path | None = None) -> None:
        self.environment = dict(environment)
        text = json.dumps(self.environment, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        name = f"{self.environment.get('target', 'target')}-{digest}.json"
        self.path = (folder or cache_folder()) / "tune" / name
        self.entries = self._read(_ignored)

    def _read(self, ignored: Callable[[Path, Exception], None]) -> dict[str, Entry]:
        """The file's entries; none, and ``ignored`` is told why, if it is not what we wrote."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            ignored(self.path, error)
            return {}
        try:
            data = json.loads(text)
            if data["format"] != FORMAT or data["environment"] != self.environment:
                raise ValueError("it is of another format or environment")
            return {str(key): _entry(value) for key, value in data["kernels"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            ignored(self.path, error)
            return {}

    def store(self, entries: Mapping[str, Entry]) -> None:
        """Add entries, and keep what another process has added meanwhile.

        Raises UsageError if the folder cannot be written.
        """
        # what cannot be read was said at the start, and is written over now
        there = self._read(lambda path, error: None)
        self.entries = {**self.entries, **there, **entries}
        data = {
            "format": FORMAT,
            "environment": self.environment,
            "kernels": {key: _plain(entry) for key, entry in sorted(self.entries.items())},
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".tune-", dir=self.path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(data, file, indent=1, sort_keys=True)
                    file.write("\n")
                os.replace(temporary, self.path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise UsageError(
                "results of tuning cannot be kept",
                got=f"{self.path}: {error.strerror}",
                hint="BRICKC_CACHE names another folder",
            ) from None


def _ignored(path: Path, error: Exception) -> None:
    warnings.warn(
        f"{path}: results of tuning cannot be read; got {type(error).__name__}: {error}; "
        f"they are measured again",
        stacklevel=4,
    )


def _plain(entry: Entry) -> dict[str, Any]:
    return {
        "kernel": entry.kernel,
        "choice": [list(pair) for pair in entry.choice.values],
        "seconds": entry.seconds,
        "default_seconds": entry.default_seconds,
        "tried": sorted(entry.tried),
        "settled": entry.settled,
    }


def _entry(data: Mapping[str, Any]) -> Entry:
    values = []
    for name, value in data["choice"]:
        if not isinstance(name, str) or not isinstance(value, int | str):
            raise TypeError(f"{name!r}: {value!r} is no decision")
        values.append((name, value))
    tried = data["tried"]
    if not isinstance(tried, list) or not all(isinstance(t, str) for t in tried):
        raise TypeError("'tried' is no list of texts")
    return Entry(
        str(data["kernel"]), Choice(tuple(values)), float(data["seconds"]),
        float(data["default_seconds"]), frozenset(tried), bool(data["settled"]),
    )  # fmt: skip
