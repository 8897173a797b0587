"""Reductions: over kept positions in vectors where the memory allows, else along the lanes."""

from __future__ import annotations

from dataclasses import replace

from ....ir.dims import Size, hint, product
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.loops import Combine, Compute, Fill, For, Ramp, Reduce
from ....ir.kernel.memory import Access
from ....ir.kernel.spaces import coalesce, order_of
from ..emitter import Block, Emitter

__all__ = ["arg_reduce", "reduce"]

_OPS = {"sum": "add", "max": "max", "min": "min"}


def _start(op: str, dtype: DType) -> float | int | bool:
    """The neutral element."""
    if op == "add":
        return 0
    if dtype.is_float:
        return float("-inf") if op == "max" else float("inf")
    bits: int = 8 * dtype.itemsize - 1
    return -(1 << bits) if op == "max" else (1 << bits) - 1


def _lane_axis(shape: tuple[Size, ...], kept: list[int], loads: tuple[Access, ...]) -> int | None:
    """A contiguous axis with enough places, a kept one if possible; None if all are single."""
    wide = [a for a in range(len(shape)) if shape[a] != 1]
    if not wide:
        return None

    def worth(axis: int) -> tuple[bool, int, bool, int]:
        contiguous = sum(a.strides[axis] == 1 for a in loads)
        return (contiguous > 0 and hint(shape[axis]) >= 4, contiguous, axis in kept,
                hint(shape[axis]))  # fmt: skip

    return max(wide, key=worth)


def _merge(em: Emitter, axes: tuple[int, ...]) -> None:
    """Reduced axes over which all accesses step evenly as one: longer loops, and full vectors."""
    before = em.kernel.before
    accesses = list(em.kernel.operands)
    if before is not None:
        accesses += [*before.loads, *(a for _, a in before.stores)]
    shape = list(before.shape if before is not None else accesses[0].shape)
    if any(len(a.shape) != len(shape) for a in accesses):
        return
    order = [a for a in order_of(accesses[0]) if a in axes]
    groups = coalesce(shape, order, [a.strides for a in accesses])
    for group in groups:
        size = product(shape[a] for a in group)
        for a in group:
            shape[a] = size if a == group[-1] else 1

    def with_shape(access: Access) -> Access:
        return replace(access, shape=tuple(shape))

    if before is not None:
        before = replace(
            before,
            shape=tuple(shape),
            loads=tuple(map(with_shape, before.loads)),
            stores=tuple((p, with_shape(a)) for p, a in before.stores),
        )
    operands = tuple(map(with_shape, em.kernel.operands))
    em.kernel = replace(em.kernel, operands=operands, before=before)


def reduce(em: Emitter) -> None:
    """Strategy for Reduce."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Reduce)
    _merge(em, anchor.axes)
    after, before = em.kernel.after, em.kernel.before
    source = before.shape if before else em.kernel.operands[0].shape
    loads = before.loads if before else em.kernel.operands
    dtype = after.program.inputs[0]
    op = _OPS[anchor.op]
    kept = [a for a in range(len(source)) if a not in anchor.axes]
    lane = _lane_axis(source, kept, loads)
    # reduced axes from the outermost in memory to the innermost
    reduced = sorted(
        (a for a in anchor.axes if a != lane and source[a] != 1),
        key=lambda a: -max((abs(hint(x.strides[a])) for x in loads), default=0),
    )

    def value(at: list[Size], axis: int | None, part: Size | None) -> tuple[Block, str]:
        if before is not None:
            body, results = em.region(before, at, axis, part)
            return body, results[0]
        name, load = em.load(em.kernel.operands[0], at, axis, part)
        return [load], name

    def out_at(at: list[Size]) -> list[Size]:
        if anchor.keepdims:
            return [0 if a in anchor.axes else at[a] for a in range(len(source))]
        return [at[a] for a in kept]

    def accumulate(at: list[Size], acc: str, axis: int | None, part: Size | None) -> Block:
        """Combine everything over the reduced axes that are not lanes."""

        def nest(left: list[int], at: list[Size]) -> Block:
            if not left:
                return innermost(at)
            i = em.var("k")
            inner = list(at)
            inner[left[0]] = i
            return [For(i.name, 0, source[left[0]], tuple(nest(left[1:], inner)))]

        def innermost(at: list[Size]) -> Block:
            if axis is not None and axis in anchor.axes:

                def one(i: Size, rest: Size | None) -> Block:
                    place = list(at)
                    place[axis] = i
                    body, name = value(place, axis, rest)
                    return [*body, Combine(acc, name, dtype, op, rest)]

                return em.vectors(0, source[axis], one, "k")
            body, name = value(at, axis, part)
            return [*body, Combine(acc, name, dtype, op)]

        return nest(reduced, at)

    outer = [a for a in kept if a != lane and source[a] != 1]
    work = max(1, hint(product(source[a] for a in anchor.axes)))
    kept_lane = lane is not None and lane in kept
    order = [*outer, lane] if kept_lane and lane is not None else outer

    def body_of(places: list[Size], part: Size | None) -> Block:
        at: list[Size] = [0] * len(source)
        for a, i in zip(order, places, strict=True):
            at[a] = i
        acc = em.name("acc")
        body: Block = [Fill(acc, dtype, _start(op, dtype))]
        body += accumulate(at, acc, lane, part)
        total = acc
        axis: int | None = None
        if kept_lane:
            axis = lane if anchor.keepdims else kept.index(lane)  # type: ignore[arg-type]
        elif lane is not None:
            total = em.name("total")
            body.append(Reduce(total, acc, dtype, op))
        return body + em.region(after, out_at(at), axis, part, total)[0]

    em.phase(em.spread([source[a] for a in order], body_of, vector=kept_lane, work=work))


def arg_reduce(em: Emitter) -> None:
    """Strategy for ArgReduce: the first of equal elements wins, and a NaN over all."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.ArgReduce)
    (operand,) = em.kernel.operands
    after = em.kernel.after
    dtype, result = operand.dtype, after.program.inputs[0]
    rank = len(operand.shape)
    kept = [a for a in range(rank) if a != anchor.axis]
    wide = [a for a in kept if operand.shape[a] != 1]
    wide.sort(key=lambda a: -abs(hint(operand.strides[a])))
    compare = "gt" if anchor.op == "max" else "lt"

    def body_of(places: list[Size], part: Size | None) -> Block:
        at: list[Size] = [0] * rank
        for a, i in zip(wide, places, strict=True):
            at[a] = i
        axis = wide[-1] if wide else None
        first, load = em.load(operand, at, axis, part)
        best, index = em.name("best"), em.name("index")
        body: Block = [load, Fill(best, dtype, 0), Combine(best, first, dtype, "add")]
        body.append(Fill(index, result, 0))
        k = em.var("k")
        inner = list(at)
        inner[anchor.axis] = k
        x, more = em.load(operand, inner, axis, part)
        above, nan, number = em.name("above"), em.name("nan"), em.name("number")
        known, fresh, better = em.name("nan"), em.name("fresh"), em.name("better")
        loop: Block = [
            more,
            Compute(above, DType.BOOL, compare, (x, best), dtype),
            Compute(nan, DType.BOOL, "ne", (x, x), dtype),
            Compute(known, DType.BOOL, "eq", (best, best), dtype),
            Compute(fresh, DType.BOOL, "or", (above, nan), DType.BOOL),
            Compute(better, DType.BOOL, "and", (fresh, known), DType.BOOL),
            Ramp(number, result, k, 0),
            Combine(best, x, dtype, "select", mask=better),
            Combine(index, number, result, "select", mask=better),
        ]
        body.append(For(k.name, 1, operand.shape[anchor.axis], tuple(loop)))
        if anchor.keepdims:
            place = [0 if a == anchor.axis else at[a] for a in range(rank)]
            out_axis = axis
        else:
            place = [at[a] for a in kept]
            out_axis = None if axis is None else kept.index(axis)
        return body + em.region(after, place, out_axis, part, index)[0]

    sizes = [operand.shape[a] for a in wide]
    em.phase(em.spread(sizes, body_of, vector=bool(wide), work=hint(operand.shape[anchor.axis])))
