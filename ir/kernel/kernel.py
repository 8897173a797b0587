"""Kernels and kernel programs: the output of lowering, the input of backends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..dims import Dim, Size, hint, product
from ..dtypes import DType
from .anchors import Anchor
from .memory import Access, Buffer, Space
from .scalar import ScalarProgram

__all__ = ["Kernel", "KernelProgram", "Pool", "Region"]


@dataclass(frozen=True)
class Region:
    """A scalar program over an index space.

    Inputs of the program are, in order: the anchor's value (in the region after an anchor),
    then ``loads``. Every access has the region's ``shape``. ``stores`` names a program
    result by position and where it goes.
    """

    shape: tuple[Size, ...]
    program: ScalarProgram
    loads: tuple[Access, ...]
    stores: tuple[tuple[int, Access], ...]


@dataclass(frozen=True)
class Pool:
    """Windows, side by side and without padding, over what the region after an anchor computes.

    ``op`` is sum or max, ``source`` the position of the result that is pooled; what does not fill
    a window is left out. Inputs of ``after``'s program are, in order: the window's value, with
    ``numbered`` the number (i32, row-major in the window) of its first maximum or first NaN, then
    ``loads``.
    """

    op: str
    window: tuple[int, ...]
    source: int
    numbered: bool
    after: Region


@dataclass(frozen=True)
class Kernel:
    """Prologue, anchor, epilogue, as one unit of execution.

    Without an anchor it is a map: ``after`` alone. ``before`` exists only with an anchor
    that takes its first operand from scalar results (a fused reduction): result 0 of its
    program is that operand. ``operands`` are the anchor's other operands in memory. ``pool``
    exists only with an anchor: windows over the index space of ``after``.
    """

    name: str
    anchor: Anchor | None
    operands: tuple[Access, ...]
    before: Region | None
    after: Region
    #: one line per fused brick: formula, types, origin
    notes: tuple[str, ...] = ()
    #: ids of the graph's nodes that this kernel computes
    nodes: tuple[int, ...] = ()
    pool: Pool | None = None

    @property
    def kind(self) -> str:
        return self.anchor.kind if self.anchor else "map"

    def reads(self) -> tuple[Access, ...]:
        """Everything that is read from memory."""
        return (*self.operands, *(access for r in self.regions() for access in r.loads))

    def writes(self) -> tuple[Access, ...]:
        """Everything that is written to memory."""
        return tuple(access for r in self.regions() for _, access in r.stores)

    def regions(self) -> tuple[Region, ...]:
        """The scalar programs: before the anchor, after it, after a pool."""
        before = () if self.before is None else (self.before,)
        return (*before, self.after, *(() if self.pool is None else (self.pool.after,)))

    @property
    def bytes_moved(self) -> Size:
        """Bytes of the operands and results, each counted once."""
        total: Size = 0
        for access in {*self.reads(), *self.writes()}:
            total = total + access.nbytes
        return total

    @property
    def flops(self) -> int:
        """Arithmetic operations at the typical sizes."""
        from .cost import flops  # a table by anchor kind, apart from this definition

        return flops(self)


@dataclass(frozen=True)
class KernelProgram:
    """One compiled function before it becomes source text."""

    name: str
    dims: Mapping[str, Dim]
    buffers: Mapping[str, Buffer]
    kernels: tuple[Kernel, ...]
    #: name -> access to a staged argument
    inputs: Mapping[str, Access]
    #: name -> access to a result
    outputs: Mapping[str, Access]
    #: name of an integer input -> every element must be below this
    limits: Mapping[str, int] = field(default_factory=dict)
    #: labels of leaves that must lie one after the other, without gaps
    adjacent: tuple[tuple[str, ...], ...] = ()

    @property
    def bytes_moved(self) -> int:
        """Bytes that all kernels move, at the typical sizes."""
        return sum(hint(k.bytes_moved) for k in self.kernels)

    def rounds_leaf(self, kernel: Kernel) -> bool:
        """True for a kernel that does nothing but round a parameter or state to a half."""
        region = kernel.after
        if kernel.anchor is not None or len(region.loads) != 1 or len(region.stores) != 1:
            return False
        load, (_, store) = region.loads[0], region.stores[0]
        leaf = self.buffers[load.buffer].space in (Space.PARAMETER, Space.STATE)
        casts = [i.op for i in region.program.instrs] == ["cast"]
        fixed = all(isinstance(n, int) for n in region.shape)
        return leaf and casts and fixed and load.dtype is DType.F32 and store.dtype.is_half


def elements(shape: tuple[Size, ...]) -> int:
    """Number of elements at the typical sizes."""
    return hint(product(shape))
