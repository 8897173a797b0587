"""Operands that lie in memory as matrices: with an even step each way, or read by descriptors.

A descriptor (TMA) says where a matrix lies and how large a tile of it is; one instruction brings
the tile to shared memory, zero where it hangs over the edge. It is made by the kernel itself, in
scratch memory of its program, so that pointers and sizes stay the only parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ....ir.dims import Size, exact_div, maximum
from ....ir.dtypes import DType
from ....ir.kernel.memory import Access
from ....ir.kernel.spaces import coalesce, project, sizes_of
from ..launches import DESCRIPTORS, LOADS, POINTERS
from ..options import Options
from ..writer import Coord, Tile, Writer, is_aligned
from .common import Context

__all__ = ["Matrix", "by_descriptors", "matrix_of"]

#: addresses and distances of rows are multiples of so many bytes
STEP = 16


@dataclass(frozen=True)
class Matrix:
    """An operand whose free and whose summed positions are each evenly spaced.

    ``along``: the summed positions are neighbours; otherwise the free ones are. The others are
    ``lead`` elements apart.
    """

    access: Access
    free: Size
    summed: Size
    along: bool
    lead: Size

    def descriptor(self, w: Writer, free_block: int, summed_block: int) -> str:
        """A new variable: the descriptor, rows as they lie in memory."""
        shape, block = (self.free, self.summed), (free_block, summed_block)
        if not self.along:
            shape, block = shape[::-1], block[::-1]
        place = w.pointer(self.access.buffer)
        if self.access.offset != 0:
            place += f" + {w.size(self.access.offset)}"
        return w.let(
            "box", f"tl.make_tensor_descriptor({place}, [{w.size(shape[0])}, {w.size(shape[1])}], "
            f"[{w.size(self.lead)}, 1], {list(block)})",
        )  # fmt: skip

    def load_at(self, w: Writer, free: Coord, summed: Coord, tile: Tile, prefix: str) -> str:
        """The elements at these positions, by pointers."""
        access = replace(
            self.access,
            shape=(self.free, self.summed),
            strides=(self.lead, 1) if self.along else (1, self.lead),
        )
        there = replace(tile, coords=(free, summed))
        return w.load(access, there, full=True, other="0.0", prefix=prefix, raw=True)

    def load(
        self, w: Writer, descriptor: str, free: str, summed: str, prefix: str, first: bool
    ) -> str:
        """The tile at these positions, as a product's ``first`` or second operand."""
        at = [f"tl.cast({x}, tl.int32)" if w.wide else x for x in (free, summed)]
        if not self.along:
            at.reverse()
        # the first operand has free rows, the second one free columns
        turned = ".T" if self.along != first else ""
        return w.let(prefix, f"{descriptor}.load([{', '.join(at)}]){turned}")


def matrix_of(
    context: Context,
    access: Access,
    free: Sequence[tuple[Size, Size]],
    summed: Sequence[tuple[Size, Size]],
) -> Matrix | None:
    """The operand as a matrix; None if it is none, or lies so that no descriptor can say it.

    ``free`` and ``summed`` are sizes and strides of the axes, outermost first.
    """
    outer, within = _evenly(free), _evenly(summed)
    if outer is None or within is None:
        return None
    (rows, step), (columns, inner) = outer, within
    along = inner == 1
    lead = step if along else inner
    vector = STEP // access.dtype.itemsize
    buffer = context.buffers.get(access.buffer)
    if (
        (not along and step != 1)
        or (buffer is not None and not is_aligned(buffer))
        or any(exact_div(x, vector) is None for x in (access.offset, lead))
        or maximum(lead) <= 0
        or max(maximum(rows), maximum(columns)) >= 2**31
    ):
        return None
    return Matrix(access, rows, columns, along, lead)


def by_descriptors(
    context: Context, matrices: Sequence[Matrix | None], dtype: DType
) -> tuple[Matrix | None, ...]:
    """Those of the operands that descriptors are used for.

    A decision, where the target has them. They were never timed: by the rules nothing uses them,
    a tuner may choose otherwise.
    """
    if not any(matrices) or not has_descriptors(context.options, dtype):
        return (None,) * len(matrices)
    wanted = context.picks.pick(LOADS, POINTERS, (DESCRIPTORS,)) == DESCRIPTORS
    return tuple(x if wanted else None for x in matrices)


def has_descriptors(options: Options, dtype: DType) -> bool:
    """Whether operands of tensor cores may be read by descriptors.

    Kernels that are compiled where they run may: Triton makes pointers of them for other GPUs.
    Phases of one kernel may not: such loads do not see what the kernel itself has written.
    """
    if options.form == "persistent":
        return False
    architecture = options.architecture
    there = architecture is None or (architecture.api == "cuda" and architecture.number == 90)
    return there and (dtype.is_half or (dtype is DType.F32 and options.precision == "tf32"))


def _evenly(axes: Sequence[tuple[Size, Size]]) -> tuple[Size, Size] | None:
    """Size and stride of the axes as one; None if there is none, or no such stride."""
    shape, strides = [n for n, _ in axes], [s for _, s in axes]
    groups = coalesce(shape, range(len(shape)), [strides])
    if len(groups) != 1:
        return None
    (step,) = project(shape, strides, groups) or (0,)
    return sizes_of(shape, groups)[0], step
