"""Launches: what the printer of the Triton backend writes down. All decisions are in here."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Size
from ...ir.kernel.choices import UNDECIDED, Choice, Options
from ...ir.kernel.kernel import Kernel
from ...ir.kernel.memory import Buffer

__all__ = ["Grid", "Launch", "TritonKernel"]


@dataclass(frozen=True)
class Grid:
    """Number of tiles: the product of ``ceil(size / block)``."""

    factors: tuple[tuple[Size, int], ...]


@dataclass(frozen=True)
class Launch:
    """One ``@triton.jit`` function and how it is started.

    The body works on one tile, whose number is its parameter ``tile``: in a kernel of its own that
    is the program's number, in a phase of a larger kernel (``persistent``) a loop's.
    The other parameters are pointers ``p0``, ``p1``, … to the ``pointers`` (names of buffers), then
    the sizes of ``dims``. Everything else is written into the text as a number, so that two
    launches with equal ``body`` and ``helpers`` are one kernel.
    """

    name: str
    body: tuple[str, ...]
    pointers: tuple[Buffer, ...]
    #: whether each pointer's address is a multiple of 16 bytes wherever it is used
    aligned: tuple[bool, ...]
    dims: tuple[str, ...]
    grid: Grid
    helpers: frozenset[str]
    warps: int = 4
    stages: int = 1
    #: what the tiles are, for the comment above the kernel
    tiling: str = ""


@dataclass(frozen=True)
class TritonKernel:
    """The launches that carry out one kernel, and the memory that they need in between."""

    kernel: Kernel
    launches: tuple[Launch, ...]
    scratch: tuple[Buffer, ...] = ()
    choice: Choice = UNDECIDED
    options: Options = ()
