"""Images as Winograd's transforms read them: whole tiles, zeros around, lanes side by side."""

from __future__ import annotations

from ....ir.dims import Size, product
from ....ir.kernel.loops import Fill, For, IndexOp, Let, Parallel, Store, When
from ....ir.kernel.memory import Access, contiguous_strides
from ..emitter import Block, Emitter, index_of
from .taps import fixed

__all__ = ["padded", "patch_index"]


def padded(
    em: Emitter,
    image: Access,
    m: int,
    tiles: tuple[int, int],
    before: tuple[int, int],
    beyond: int,
    *,
    flat: bool,
) -> tuple[Access, int]:
    """A copy of the image with ``before`` zeros in front, and as many after it as tiles reach.

    Tiles are m places apart and read ``beyond`` more. The copy is [example / L][channel][y][x][L],
    or, if ``flat``, [channel][y][x mod m][x / m][example]: neighbouring tiles share a vector, and
    what they read is contiguous then. Also returns the elements of one vector of examples.
    """
    lanes, examples = em.lanes, image.shape[0]
    channels = fixed(image.shape[1])
    rows, wide = tiles[0] * m + beyond, tiles[1] * m + beyond
    height, width = fixed(image.shape[2]), fixed(image.shape[3])
    top, left = before
    x_end = min(width, wide - left)
    shape: tuple[int, ...] = (channels, rows, wide, lanes)
    if flat:
        # whole vectors may reach beyond the last tile
        batch = fixed(examples)
        shape = (channels, rows, m, -(-wide // m) + lanes // batch, batch)
    strides = contiguous_strides(shape, tuple(range(len(shape))))
    size: Size = product(shape)
    per_vector = fixed(size)
    if not flat:
        whole = isinstance(examples, int)
        size = channels * rows * wide * (examples + (0 if whole else lanes - 1))
    buffer = em.scratch_buffer("padded", image.dtype, size)
    target = Access(buffer.name, image.dtype, 0, shape, strides)
    chunk, channel, y = em.var("c"), em.var("k"), em.var("y")
    row_size = fixed(product(shape[2:]))

    def zeros(base: Size, start: int, stop: int) -> Block:
        """Elements of a row, whose first is ``base``."""

        def fill(i: Size, part: Size | None) -> Block:
            name = em.name("zero")
            return [Fill(name, image.dtype, 0),
                    Store(name, image.dtype, buffer.name, base + i, 1, part)]  # fmt: skip

        return em.vectors(start, stop, fill)

    def copy(x: Size, n: Size, index: Size, part: Size | None) -> Block:
        name, load = em.load(image, [n, channel, y - top, x], 0, part)
        kept = part if flat else None
        return [load, Store(name, image.dtype, buffer.name, index, 1, kept)]

    def row(n: Size, part: Size | None) -> Block:
        """One row of a vector of examples, or of all examples."""
        base, step, x = em.var("base"), em.var("s"), em.var("x")
        first = index_of(target, [channel, y, *(0,) * (len(shape) - 2)])
        out: Block = []
        inside: Block = []
        if flat:
            out.append(Let(base.name, first))
            inside += zeros(base, 0, row_size)
            for phase in range(m):
                # x + left = step·m + phase
                least = max(0, -(-(left - phase) // m))
                most = (x_end - 1 + left - phase) // m + 1
                at = base + step * strides[3] + phase * strides[2]
                body = copy(step * m + (phase - left), n, at, part)
                inside.append(For(step.name, least, most, tuple(body)))
        else:
            vector = em.var("v")
            out.append(Let(vector.name, IndexOp("div", n, lanes)))
            out.append(Let(base.name, first + vector * per_vector))
            inside += zeros(base, 0, left * lanes)
            body = copy(x, n, base + (x + left) * lanes, part)
            inside.append(For(x.name, 0, x_end, tuple(body)))
            inside += zeros(base, (x_end + left) * lanes, row_size)
        within = IndexOp("min", y - top, (height - 1 + top) - y)
        out += [When(-1, within, tuple(inside)),
                When(within, 0, tuple(zeros(base, 0, row_size)))]  # fmt: skip
        return out

    rows_of = row(0, examples) if flat else em.vectors(0, examples, row, "n")
    body: Block = [
        Let(channel.name, IndexOp("div", chunk, rows)),
        Let(y.name, IndexOp("mod", chunk, rows)),
        *rows_of,
    ]
    em.phase(Parallel(chunk.name, channels * rows, tuple(body)), "zeros around")
    return target, per_vector


def patch_index(
    target: Access, channel: Size, y: Size, x: Size, j: int, m: int, lanes: int, *, flat: bool
) -> Size:
    """Element of the vector for tile ``x`` (a vector of tiles, if ``flat``), j places on."""
    if flat:
        return index_of(target, [channel, y, j % m, j // m, 0]) + x * lanes
    return index_of(target, [channel, y, x * m + j, 0])
