"""Loop programs: kernels as loops over vectors, before they are C text.

A vector holds ``L`` neighbouring elements along one axis, the lanes; ``L`` is fixed by the
instruction set and is the same for every dtype. Values of the scalar programs become vectors;
flags are masks of lanes. Everything that a strategy decides (loops, tiles, tails, what runs in
parallel) is explicit here, so that a printer decides nothing.

Indices are the polynomials of ``ir.dims``, with loop variables as further names. What is not
a polynomial (minima, quotients) is bound to a name by ``Let``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal as OneOf

from ..dims import Dim, Size
from ..dtypes import DType
from .choices import UNDECIDED, Choice, Options
from .kernel import Kernel
from .memory import Buffer
from .scalar import Literal

__all__ = ["Bound", "Combine", "Compute", "Fill", "Fma", "For", "IndexOp", "Let", "LetLoad",
           "Load", "LoopKernel", "Parallel", "Phase", "Prefetch", "Ramp", "Reduce", "Split",
           "Statement", "Store", "Transpose", "When", "var"]  # fmt: skip


def var(name: str) -> Dim:
    """A loop variable or another integer of the kernel, for use in indices.

    Its range says nothing: indices may be zero, and lowering never asks for bounds.
    """
    return Dim(name, 1, 2**31 - 1)


@dataclass(frozen=True)
class IndexOp:
    """An integer that is no polynomial; quotients round down, towards minus infinity."""

    op: OneOf["min", "max", "div", "mod", "add", "sub", "mul"]
    a: Bound
    b: Bound


Bound = Size | IndexOp


@dataclass(frozen=True)
class Let:
    """``name`` = an integer."""

    name: str
    value: Bound


@dataclass(frozen=True)
class LetLoad:
    """``name`` = one integer element of a buffer, checked to be in 0..``limit``-1.

    An element out of range ends the kernel's function with an error for the caller. Without a
    limit nothing is checked: a kernel of the same program has made the number.
    """

    name: str
    buffer: str
    dtype: DType
    index: Size
    limit: Size | None


@dataclass(frozen=True)
class Load:
    """``name`` = elements ``index``, ``index + stride``, … of a buffer, one a lane.

    Stride 0 repeats one element. ``part`` is the number of lanes that exist, None for all;
    the others hold ``fill``.
    """

    name: str
    dtype: DType
    buffer: str
    index: Size
    stride: Size
    part: Size | None = None
    fill: Literal = 0


@dataclass(frozen=True)
class Store:
    """Elements ``index``, ``index + stride``, … of a buffer = the lanes of ``value``."""

    value: str
    dtype: DType
    buffer: str
    index: Size
    stride: Size
    part: Size | None = None


@dataclass(frozen=True)
class Prefetch:
    """The memory around an element will be read soon; it may lie outside of the buffer."""

    buffer: str
    dtype: DType
    index: Size


@dataclass(frozen=True)
class Ramp:
    """``name`` = start, start + step, start + 2·step, …, one a lane."""

    name: str
    dtype: DType
    start: Size
    step: Size


@dataclass(frozen=True)
class Compute:
    """``name`` = one instruction of a scalar program, on vectors; see ``scalar.Instr``."""

    name: str
    dtype: DType
    op: str
    args: tuple[str, ...]
    #: dtype of the arguments
    source: DType
    literal: Literal | None = None
    size: Size | None = None


@dataclass(frozen=True)
class Fill:
    """``name`` = a vector of one literal, to be changed by Fma and Combine."""

    name: str
    dtype: DType
    literal: Literal


@dataclass(frozen=True)
class Fma:
    """``acc`` += a·b"""

    acc: str
    a: str
    b: str
    dtype: DType


@dataclass(frozen=True)
class Combine:
    """``acc`` = op(acc, value) for op add, or, min, max or select; lanes from ``part`` on keep acc.

    min and max keep a NaN. "select" takes the value where ``mask`` is set.
    """

    acc: str
    value: str
    dtype: DType
    op: str
    part: Size | None = None
    mask: str = ""


@dataclass(frozen=True)
class Reduce:
    """``name`` = the lanes of ``value`` reduced by op (add, min, max), in every lane.

    Pairs are combined in a fixed order.
    """

    name: str
    value: str
    dtype: DType
    op: str


@dataclass(frozen=True)
class Transpose:
    """A square of ``L`` rows and columns copied to another buffer as columns and rows.

    Element (i, j) goes from ``source + i·source_stride + j`` to ``target + j·target_stride + i``.
    """

    dtype: DType
    source: str
    source_index: Size
    source_stride: Size
    target: str
    target_index: Size
    target_stride: Size


@dataclass(frozen=True)
class For:
    """``for (var = start; var < stop; var += step)``"""

    name: str
    start: Bound
    stop: Bound
    body: tuple[Statement, ...]
    step: Size = 1


@dataclass(frozen=True)
class When:
    """``body`` if a < b."""

    a: Bound
    b: Bound
    body: tuple[Statement, ...]


Statement = (
    Let
    | LetLoad
    | Load
    | Prefetch
    | Ramp
    | Store
    | Compute
    | Fill
    | Fma
    | Combine
    | Reduce
    | Transpose
    | For
    | When
)


@dataclass(frozen=True)
class Split:
    """An axis that is cut into one piece a thread: each works on its own examples.

    ``lo`` and ``hi`` name the ends of the piece, multiples of ``L`` but for the last. Kernel
    after kernel a thread gets the same piece, which is then in its own cache. An axis with too
    little for that stays whole.
    """

    size: Size
    lo: str
    hi: str


@dataclass(frozen=True)
class Parallel:
    """Work for all threads: ``body`` for ``name`` in 0..``count``-1, in any order.

    Neighbouring numbers go to the same thread. With ``split`` that is done for every piece.
    """

    name: str
    count: Bound
    body: tuple[Statement, ...]
    split: Split | None = None


@dataclass(frozen=True)
class Phase:
    """A part of a kernel that ends when all threads have finished it."""

    work: Parallel
    #: small arrays that each thread has for itself
    private: tuple[Buffer, ...] = ()
    #: what it does, for a comment; empty if the kernel has one phase
    note: str = ""
    #: up to how many times the typical sizes one thread does it all; 0 if never
    alone: float = 0.0


@dataclass(frozen=True)
class LoopKernel:
    """A kernel with its strategy's result, what the strategy decided, and what else it could.

    The phases are stated over formal buffers. Equal kernels have the very same ``phases``.
    """

    kernel: Kernel
    strategy: str
    phases: tuple[Phase, ...]
    scratch: tuple[Buffer, ...] = ()
    choice: Choice = UNDECIDED
    options: Options = ()
    #: (name in the phases, buffer of the program or of ``scratch``); others mean themselves
    arguments: tuple[tuple[str, str], ...] = ()


def count(body: Sequence[Statement]) -> int:
    """Statements of a program, those of loops counted once."""
    total = 0
    for s in body:
        total += 1
        if isinstance(s, For | When):
            total += count(s.body)
    return total
