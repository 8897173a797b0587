"""A copy of the rows of an image that a thread works on, for some examples, without gaps.

With the batch innermost, a vector of examples is as far from the next place's as the batch is
long. Where that is a multiple of many cache lines, vectors of neighbouring places share few sets
of the first cache, which then holds a fraction of what it could. Every vector is read once for
each tap and each tile of output channels, so that one copy is soon paid for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....ir.dims import Size, hint
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.loops import For, IndexOp, Let, Load, Store, When
from ....ir.kernel.memory import Access, Buffer, Space
from ..emitter import Block, Emitter
from .taps import fixed

__all__ = ["NEAR_BYTES", "Near", "near"]

#: bytes of vectors that one block of the sum reads, of the first cache
NEAR_BYTES = 16 * 1024

#: most bytes of a copy, which stays in the second cache
COPY_BYTES = 128 * 1024

#: times that each vector of the copy is read at least, with tiles of six output channels
READ = 10
TILE_ROWS = 6


@dataclass
class Near:
    """The copy: [channels][rows][width][columns][lanes]."""

    em: Emitter
    x: Access
    anchor: anchors.Convolution
    buffer: Buffer
    #: rows of the image, and places that the chunk makes along the outermost axis
    rows: int
    lines: int
    depth: int
    #: vectors of examples, side by side, and the row of the image that is the copy's first
    columns: int = 1
    origin: Size = 0

    def fill(self, channel: Size, line: Size, at: Sequence[Size], part: Size | None) -> Block:
        """Copy what the places of a line, or of a line of windows, read of some examples.

        ``channel`` is the first one of the group.
        """
        em, x = self.em, self.x
        self.columns = len(at)
        stride, (lo, hi) = self.anchor.stride[0], self.anchor.padding[0]
        self.origin = line * (self.lines * stride) - lo
        c, row, place, y = em.var("c"), em.var("row"), em.var("i"), em.var("y")
        body: Block = []
        for k, n in enumerate(at):
            name, load = em.load(x, [n, channel + c, y, place], 0, part)
            body += [load, Store(name, x.dtype, self.buffer.name, self._at(c, row, place, k), 1)]
        inner: Block = [For(place.name, 0, x.shape[3], tuple(body))]
        if lo or hi:
            inside = IndexOp("min", y, x.shape[2] - 1 - y)
            inner = [When(-1, inside, tuple(inner))]
        inner = [Let(y.name, self.origin + row), *inner]
        return [For(c.name, 0, self.depth, (For(row.name, 0, self.rows, tuple(inner)),))]

    def load(self, channel: Size, image: Sequence[Size], column: int) -> tuple[str, Load]:
        """A vector of the copy. ``image`` is its place in the image itself."""
        name = self.em.name("x")
        index = self._at(channel, image[0] - self.origin, image[1], column)
        return name, Load(name, self.x.dtype, self.buffer.name, index, 1)

    def _at(self, channel: Size, row: Size, place: Size, column: int) -> Size:
        index = (channel * self.rows + row) * fixed(self.x.shape[3]) + place
        return (index * self.columns + column) * self.em.lanes


def near(
    em: Emitter, anchor: anchors.Convolution, depth: int, outputs: int, columns: int, lines: int
) -> Near | None:
    """Memory for such a copy, if it pays.

    ``depth`` and ``outputs`` are the channels of a group, ``columns`` the vectors of examples of a
    tile, and ``lines`` the places that a chunk makes along the outermost axis.
    """
    x, w = em.kernel.operands
    if len(x.shape) != 4 or x.strides[0] != 1 or not isinstance(x.shape[3], int):
        return None
    taps = fixed(w.shape[2]) * fixed(w.shape[3])
    rows = (lines - 1) * anchor.stride[0] + (fixed(w.shape[2]) - 1) * anchor.dilation[0] + 1
    size = depth * rows * x.shape[3] * columns * em.lanes
    # a vector's neighbours along the batch are read with it, if the tile takes them all
    gaps = hint(x.shape[0]) > columns * em.lanes and x.dtype is DType.F32
    reads = taps * outputs * lines // (rows * anchor.stride[1] * TILE_ROWS)
    wanted = gaps and size * x.dtype.itemsize <= COPY_BYTES and reads >= READ
    fits = size * x.dtype.itemsize <= 4 * COPY_BYTES
    if not fits or not em.pick("near", int(wanted), (0, 1)):
        return None
    buffer = Buffer(em.name("near"), x.dtype, size, Space.ARENA)
    return Near(em, x, anchor, buffer, rows, lines, depth)
