"""What an importer of torch programs works on: calls of operators on names, nothing of torch.

Two readers make it: ``live`` from ``torch.export`` in this process, ``archive`` from a .pt2
file's JSON. Everything after them is the same for both, and needs no torch.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy.typing as npt

from ...ir.origin import Origin
from ...ir.types import TensorType

__all__ = ["Argument", "Call", "Exported", "InputKind", "InputSpec", "OutputKind", "OutputSpec",
           "Ref", "Unused", "plain", "source_of"]  # fmt: skip

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Ref:
    """The value of that name."""

    name: str


class Unused:
    """A value that brickc does not compute: an error names it if anyone reads it."""

    def __init__(self, what: str) -> None:
        self.what = what


#: a Ref, a number, text, a DType, None, or a list of these
Argument = Any


@dataclass(frozen=True)
class Call:
    """One operator applied to values.

    ``target`` is torch's name, ``aten.conv2d.default``. ``results`` are the names of what it
    returns; with ``whole`` there is one name for all of it, whatever it is. ``types`` are
    the types that the program states, None where it states none that brickc has.
    """

    target: str
    args: tuple[Argument, ...]
    kwargs: Mapping[str, Argument]
    results: tuple[str, ...]
    types: tuple[TensorType | None, ...]
    whole: bool
    origin: Origin


class InputKind(Enum):
    """What a placeholder stands for."""

    USER = "input"
    PARAMETER = "parameter"
    BUFFER = "buffer"
    CONSTANT = "constant"
    #: a number, text or None that was given to ``forward`` and is part of the program
    FIXED = "fixed"


@dataclass(frozen=True)
class InputSpec:
    """A placeholder: the name in the graph, and torch's name of what it stands for."""

    kind: InputKind
    name: str
    target: str = ""
    type: TensorType | None = None
    persistent: bool = True
    value: Argument = None


class OutputKind(Enum):
    """What becomes of a result."""

    USER = "output"
    #: the value that a buffer has after the call
    BUFFER = "buffer"


@dataclass(frozen=True)
class OutputSpec:
    """A result: a Ref or a constant, and the buffer that it goes to."""

    kind: OutputKind
    value: Argument
    target: str = ""


@dataclass(frozen=True)
class Exported:
    """A program: inputs, calls in order, results, and the arrays of parameters and buffers."""

    name: str
    inputs: Sequence[InputSpec]
    calls: Sequence[Call]
    outputs: Sequence[OutputSpec]
    #: torch's name -> array; parameters, buffers and constants
    arrays: Mapping[str, Array]
    #: names of arrays that are another one: tied weights
    aliases: Mapping[str, str] = field(default_factory=dict)
    #: names of the user's outputs, as far as ``forward`` names them
    output_names: Sequence[str] = field(default_factory=tuple)


# ── places ───────────────────────────────────────────────────────────────────────────────

_FRAME = re.compile(r'File "([^"\n]+)", line (\d{1,9})\b')


def source_of(trace: str, path: str, program: str) -> Origin:
    """The line of the user's that a call comes from: the last frame outside torch's files.

    Source file, line and module path are what the program says; they only name things.
    """
    layer = plain(path.partition("@")[0])
    frames = [(f, n) for f, n in _FRAME.findall(trace) if not _of_torch(f)]
    if not frames:
        return Origin(layer=layer) if layer else Origin(note=program)
    file, line = frames[-1]
    return Origin(plain(os.path.basename(file)), int(line), layer)


def plain(text: str) -> str:
    """Text that may stand in a comment: printable, of one line, not long."""
    return "".join(c if c.isprintable() and c not in "\"'\\#" else "_" for c in text[:120])


def _of_torch(file: str) -> bool:
    return file.startswith("torch/") or "/site-packages/torch/" in file.replace("\\", "/")
