"""The weight gradient of a convolution that is max-pooled, with examples in the lanes.

Every window's gradient is masked once for each of its places, and then meets each tap: as many
products as without the pool, all of them on whole vectors. An image of few channels has lines of
taps that fill few lanes, and sums over windows (``pooled``) are slower there.
"""

from __future__ import annotations

from ....ir.dims import Size, product
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.loops import Compute, Fill, Fma, For, IndexOp, Let, Parallel, Reduce, Store
from ....ir.kernel.memory import Access, contiguous_strides
from ..emitter import Block, Emitter, index_of
from .common import anchor_target, copied, epilogue, filled
from .taps import fixed

__all__ = ["cycles", "pooled_weight_grad_by_taps"]


def cycles(em: Emitter, places: int, taps: int, channels: int) -> float:
    """Of one window of one example and output channel: two multiply-adds start in each."""
    return 1.2 * places * taps * channels / (2 * em.lanes)


def pooled_weight_grad_by_taps(em: Emitter) -> None:
    """Strategy for PooledWeightGrad where the batch is innermost."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.PooledWeightGrad)
    _ByTaps(em, anchor).run()


class _ByTaps:
    def __init__(self, em: Emitter, anchor: anchors.PooledWeightGrad) -> None:
        self.em, self.anchor = em, anchor
        self.x, self.index, self.v = em.kernel.operands
        self.target = anchor_target(em)
        self.dtype = self.v.dtype
        high, wide = (fixed(k) for k in self.target.shape[2:])
        self.wide = wide
        # sums, the window's masked gradients, and a vector of the image
        held = em.vectors_held - anchor.window[0] * anchor.window[1] - 2
        #: rows of taps, and taps of a row, whose sums are held in registers at once
        self.columns = wide if wide <= held else max(1, held)
        rows = max(1, held // self.columns)
        self.rows = -(-high // -(-high // rows))
        self.high = high

    def run(self) -> None:
        em = self.em
        x = self._padded()
        outputs, depth = self.target.shape[:2]
        chunk, o, c = em.var("c"), em.var("o"), em.var("channel")
        body: Block = [
            Let(o.name, IndexOp("div", chunk, depth)),
            Let(c.name, IndexOp("mod", chunk, depth)),
        ]
        for top in range(0, self.high, self.rows):
            for left in range(0, self.wide, self.columns):
                rows = range(top, min(self.high, top + self.rows))
                columns = range(left, min(self.wide, left + self.columns))
                body += self._sums(x, o, c, [(ky, kx) for ky in rows for kx in columns])
        em.phase(Parallel(chunk.name, IndexOp("mul", outputs, depth), tuple(body)), "sums of taps")
        epilogue(em, self.target)

    def _padded(self) -> Access:
        """The image with zeros around it, if it has any."""
        em, x, padding = self.em, self.x, self.anchor.padding
        if all(p == (0, 0) for p in padding):
            return x
        sizes = tuple(n + lo + hi for n, (lo, hi) in zip(x.shape[2:], padding, strict=True))
        shape = (*x.shape[:2], *sizes)
        buffer = em.scratch_buffer("image", x.dtype, product(shape))
        strides = contiguous_strides(shape, (1, 2, 3, 0))
        whole = Access(buffer.name, x.dtype, 0, shape, strides)
        filled(em, whole, 0.0)
        first = sum(lo * s for (lo, _), s in zip(padding, strides[2:], strict=True))
        copied(em, x, Access(buffer.name, x.dtype, first, x.shape, strides))
        return whole

    def _sums(self, x: Access, o: Size, c: Size, taps: list[tuple[int, int]]) -> Block:
        """The sums of some taps over all windows and examples."""
        em = self.em
        accs = {tap: em.name("s") for tap in taps}
        y, place = em.var("y"), em.var("x")
        (high, wide), (down, right) = self.anchor.window, self.anchor.stride

        def examples(n: Size, part: Size | None) -> Block:
            at = [n, o, y, place]
            value, load_v = em.load(self.v, at, 0, part, "d")
            number, load_n = em.load(self.index, at, 0, part, "number")
            zero = em.name("zero")
            out: Block = [load_v, load_n, Fill(zero, self.dtype, 0)]
            masked: dict[tuple[int, int], str] = {}
            for i in range(high):
                for j in range(wide):
                    const, here, result = em.name("v"), em.name("v"), em.name("d")
                    out += [
                        Compute(const, DType.I32, "const", (), DType.I32, i * wide + j),
                        Compute(here, DType.BOOL, "eq", (number, const), DType.I32),
                        Compute(result, self.dtype, "select", (here, value, zero), self.dtype),
                    ]
                    masked[i * down, j * right] = result
            # each place of the image meets all the taps that it can be under
            reads = sorted({(i + ky, j + kx) for i, j in masked for ky, kx in taps})
            for row, column in reads:
                image = [n, c, y * (high * down) + row, place * (wide * right) + column]
                vector, load = em.load(x, image, 0, part)
                out.append(load)
                for (i, j), d in masked.items():
                    tap = row - i, column - j
                    if tap in accs:
                        out.append(Fma(accs[tap], vector, d, self.dtype))
            return out

        batch = em.vectors(0, self.v.shape[0], examples, "n")
        line = For(place.name, 0, self.v.shape[3], tuple(batch))
        body: Block = [Fill(s, self.dtype, 0) for s in accs.values()]
        body.append(For(y.name, 0, self.v.shape[2], (line,)))
        for (ky, kx), s in accs.items():
            total = em.name("total")
            body.append(Reduce(total, s, self.dtype, "add"))
            at = index_of(self.target, [o, c, ky, kx])
            body.append(Store(total, self.dtype, self.target.buffer, at, 1, 1))
        return body
