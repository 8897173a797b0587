"""What the commands share: the two consoles, JSON, errors as exit codes, files."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..errors import ArtifactError, BrickcError

__all__ = ["err", "out", "print_json", "progress_bar", "reported", "write_file"]

#: what is no bug wherever it happens: a disk that is full or cannot be written
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def reported(as_json: bool) -> Iterator[None]:
    """brickc's errors as one line and an exit code; anything else is a bug and shows itself."""
    try:
        yield
    except BrickcError as error:
        _fail(error, as_json)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        _fail(ArtifactError("a file cannot be written", where=str(error.filename or ""),
                            got=error.strerror, hint="make room, or choose another folder"),
              as_json)  # fmt: skip
    except KeyboardInterrupt:
        err.print("brickc: interrupted", markup=False)
        raise typer.Exit(130) from None


def _fail(error: BrickcError, as_json: bool) -> NoReturn:
    if as_json:
        print_json(error.as_dict())
    else:
        err.print(f"brickc: {type(error).__name__}: {error}", markup=False)
    raise typer.Exit(error.exit_code) from None


def print_json(value: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=str))
    sys.stdout.write("\n")


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress]:
    """A bar on terminals, nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
    )
    hidden = quiet or not err.is_terminal
    with Progress(*columns, console=err, disable=hidden, transient=True) as progress:
        yield progress


def write_file(path: Path, data: bytes) -> None:
    """Beside the file first, then over it."""
    temporary = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise ArtifactError(f"{path} cannot be written", got=error.strerror) from None
