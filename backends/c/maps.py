"""Maps: a scalar program at every point of an index space."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...ir.dims import Size, hint, product
from ...ir.kernel.kernel import Region
from ...ir.kernel.loops import Bound, For, IndexOp, Let, Parallel, Transpose, When
from ...ir.kernel.memory import Access
from ...ir.kernel.spaces import Groups, coalesce, order_of, sizes_of
from .emitter import BYTE, Block, Emitter, index_of, leader, round_up

__all__ = ["map_region", "positions"]

#: strips of squares of a transposition that are too few to be shared out
FEW_STRIPS = 8


def positions(groups: Groups, at: Sequence[Size], rank: int) -> list[Size]:
    """A position for each axis: a group's index stands on its innermost axis.

    The other axes of a group stay at 0: over a group every access steps evenly.
    """
    found: list[Size] = [0] * rank
    for group, index in zip(groups, at, strict=True):
        found[group[-1]] = index
    return found


def map_region(em: Emitter, region: Region) -> None:
    """One phase that walks the region as its result lies in memory."""
    accesses = [*region.loads, *(a for _, a in region.stores)]
    order = order_of(leader(region))
    # the batch stays an axis of its own: threads have their own examples
    apart = frozenset(a for a in order[-1:] if not isinstance(region.shape[a], int))
    groups = coalesce(region.shape, order, [a.strides for a in accesses], apart)
    rank = len(region.shape)
    if not groups:
        body, _ = em.region(region, [0] * rank, None)
        em.phase(Parallel(em.var("c").name, 1, tuple(body)))
        return
    steps = sum(i.op not in ("const", "size", "cast") for i in region.program.instrs)
    moved = sum(hint(a.nbytes) for a in {*accesses})
    cost = steps * hint(product(region.shape)) + BYTE * moved
    if _is_transpose(region, groups):
        _transpose(em, region, groups, cost)
        return
    axis = groups[-1][-1]

    def body_of(at: list[Size], part: Size | None) -> Block:
        return em.region(region, positions(groups, at, rank), axis, part)[0]

    work = em.spread(sizes_of(region.shape, groups), body_of, work=max(1, steps // 4))
    em.phase(work, cost=cost)


def _unit(access: Access, groups: Groups) -> int | None:
    """Number of the group along which the access is contiguous."""
    for k, group in enumerate(groups):
        if access.strides[group[-1]] == 1:
            return k
    return None


def _is_transpose(region: Region, groups: Groups) -> bool:
    """True for a copy between two orders of axes, each contiguous along another one."""
    if not region.program.is_identity or len(region.loads) != 1 or len(region.stores) != 1:
        return False
    source, target = region.loads[0], region.stores[0][1]
    a, b = _unit(source, groups), _unit(target, groups)
    return a is not None and b is not None and a != b and source.dtype is target.dtype


def _transpose(em: Emitter, region: Region, groups: Groups, cost: int) -> None:
    """Squares of vectors; what is left at the edges element by element."""
    source, target = region.loads[0], region.stores[0][1]
    a, b = _unit(source, groups), _unit(target, groups)
    assert a is not None
    assert b is not None
    rank = len(region.shape)
    sizes = sizes_of(region.shape, groups)
    rest = [k for k in range(len(groups)) if k not in (a, b)]

    def at_axes(at: dict[int, Size]) -> list[Size]:
        return positions(groups, [at[k] for k in range(len(groups))], rank)

    width = em.lanes

    def square(at: dict[int, Size], i: Size, j: Size) -> Block:
        """Lanes i.. of the source's axis, j.. of the target's."""
        place = at_axes({**at, a: i, b: j})
        return [
            Transpose(source.dtype, source.buffer, index_of(source, place),
                      source.strides[groups[b][-1]], target.buffer, index_of(target, place),
                      target.strides[groups[a][-1]])
        ]  # fmt: skip

    def edge(at: dict[int, Size], i: Size, j: Size, part: Size | None) -> Block:
        return em.region(region, at_axes({**at, a: i, b: j}), groups[b][-1], part)[0]

    fixed = sizes[b]
    tail = isinstance(fixed, int) and fixed >= width

    def strip(at: dict[int, Size], start: Size, *, full: bool) -> Block:
        """All of the target's axis for the source's lanes [start, start + width).

        Where squares do not fill an axis of known size, the last one reaches back over elements
        that another has copied. ``full`` says that all lanes of the source exist.
        """
        stop = em.var("stop")
        whole, end = em.var("whole"), em.var("whole")
        i, j = em.var("i"), em.var("j")
        if full and tail:
            assert isinstance(fixed, int)
            out: Block = [
                For(j.name, 0, fixed // width * width, tuple(square(at, start, j)), width)
            ]
            return out + (square(at, start, fixed - width) if fixed % width else [])
        covered: Bound = IndexOp("sub", sizes[b], IndexOp("mod", sizes[b], width))
        complete = IndexOp("div", IndexOp("sub", stop, start), width)
        out = [
            Let(stop.name, start + width if full else IndexOp("min", sizes[a], start + width)),
            Let(whole.name, covered),
            # squares only where all lanes of the source exist
            Let(end.name, IndexOp("mul", whole, complete)),
            For(j.name, 0, end, tuple(square(at, start, j)), width),
        ]
        left: Bound = end
        if tail:
            assert isinstance(fixed, int)
            left = IndexOp("mul", fixed, complete)
            if fixed % width:
                out.append(When(0, end, tuple(square(at, start, fixed - width))))
        rest = em.vectors(left, sizes[b], lambda n, part: edge(at, i, n, part))
        return [*out, For(i.name, start, stop, tuple(rest))]

    def nest(
        at: dict[int, Size], left: Sequence[int], inner: Callable[[dict[int, Size]], Block]
    ) -> Block:
        if not left:
            return inner(at)
        i = em.var("i")
        return [For(i.name, 0, sizes[left[0]], tuple(nest({**at, left[0]: i}, left[1:], inner)))]

    along = sizes[a]
    chunk = em.var("c")
    few = isinstance(along, int) and width <= along < FEW_STRIPS * width
    if few and rest and hint(sizes[rest[0]]) >= FEW_STRIPS:
        # few strips are too few for the threads
        def strips(at: dict[int, Size]) -> Block:
            assert isinstance(along, int)
            i = em.var("i")
            inner = strip(at, i, full=True)
            out: Block = [For(i.name, 0, along // width * width, tuple(inner), width)]
            return out + (strip(at, along - width, full=True) if along % width else [])

        body = nest({rest[0]: chunk}, rest[1:], strips)
        em.phase(Parallel(chunk.name, sizes[rest[0]], tuple(body)), cost=cost)
        return
    body = nest({}, rest, lambda at: strip(at, chunk * width, full=False))
    em.phase(Parallel(chunk.name, round_up(sizes[a], width), tuple(body)), cost=cost)
