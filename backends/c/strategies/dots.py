"""Products whose operands both lie along the sum: the lanes are terms of it."""

from __future__ import annotations

from ....ir.dims import Size, hint
from ....ir.kernel import anchors
from ....ir.kernel.loops import Fill, Fma, IndexOp, Let, Reduce
from ..emitter import Block, Emitter, round_up
from .operand import Operand
from .tile import steps

__all__ = ["dots", "is_dot"]


def is_dot(
    a: Operand, b: Operand, sizes: dict[str, Size], lane: str, row: str, contracted: list[str]
) -> bool:
    """True if both operands lie along the sum, and too little is reused to turn one around."""
    if len(contracted) != 1 or not lane or lane in a.letters or b.stride(lane) == 1:
        return False
    (k,) = contracted
    few = (not row or hint(sizes[row]) < 4) and isinstance(sizes[lane], int)
    return few and a.stride(k) == 1 and b.stride(k) == 1


def dots(em: Emitter, a: Operand, b: Operand, sizes: dict[str, Size], lane: str, k: str) -> None:
    """Sums along the lanes, some elements of the result at a time."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Contract)
    after = em.kernel.after
    dtype = after.program.inputs[0]
    outer = [c for c in anchor.result if c != lane]

    def body_of(places: list[Size], part: Size | None) -> Block:
        at = dict(zip([*outer, "block"], places, strict=True))
        start = em.var("first")
        stop = em.var("last")

        def group(indices: list[Size]) -> Block:
            accs = [em.name("s") for _ in indices]
            out: Block = [Fill(s, dtype, 0) for s in accs]

            def step(i: Size, rest: Size | None) -> Block:
                here = {**at, k: i}
                name, load = em.load(
                    a.access, [here[c] for c in a.letters], a.letters.index(k), rest, "a"
                )
                inner: Block = [load]
                for s, index in zip(accs, indices, strict=True):
                    here[lane] = index
                    other, load = em.load(
                        b.access, [here[c] for c in b.letters], b.letters.index(k), rest, "b"
                    )
                    inner += [load, Fma(s, name, other, dtype)]
                return inner

            out += em.vectors(0, sizes[k], step, "k")
            for s, index in zip(accs, indices, strict=True):
                total = em.name("total")
                here = {**at, lane: index}
                out.append(Reduce(total, s, dtype, "add"))
                out += em.region(after, [here[c] for c in anchor.result], None, None, total)[0]
            return out

        return [
            Let(start.name, at["block"] * 8),
            Let(stop.name, IndexOp("min", sizes[lane], start + 8)),
            *steps(em, start, stop, 8, group, sizes[lane]),
        ]

    blocks = round_up(sizes[lane], 8)
    assert isinstance(blocks, int)
    index_space = [*(sizes[c] for c in outer), blocks]
    em.phase(em.spread(index_space, body_of, vector=False, work=8 * hint(sizes[k])))
