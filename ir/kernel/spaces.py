"""Index spaces as arrays see them: axes merged where every array's strides allow it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..dims import Size, hint, product
from .memory import Access

__all__ = ["Groups", "coalesce", "order_of", "project", "sizes_of"]

#: axes of an index space, outermost first; the axes of a group are walked as one
Groups = tuple[tuple[int, ...], ...]


def order_of(access: Access) -> tuple[int, ...]:
    """Axes by falling stride, repeated axes (stride 0) outermost."""
    return tuple(
        sorted(
            range(len(access.shape)),
            key=lambda a: (access.strides[a] != 0, -abs(hint(access.strides[a])), a),
        )
    )


def coalesce(
    shape: Sequence[Size],
    order: Sequence[int],
    strides: Sequence[Sequence[Size]],
    apart: frozenset[int] = frozenset(),
) -> Groups:
    """Merge neighbouring axes of ``order`` where every array steps evenly over both.

    Axes of size 1 vanish. An axis in ``apart`` only merges with others in ``apart``.
    """
    groups: list[list[int]] = []
    for axis in order:
        if shape[axis] == 1:
            continue
        if groups:
            outer = groups[-1][-1]
            if (outer in apart) == (axis in apart) and all(
                s[outer] == s[axis] * shape[axis] for s in strides
            ):
                groups[-1].append(axis)
                continue
        groups.append([axis])
    return tuple(tuple(g) for g in groups)


def sizes_of(shape: Sequence[Size], groups: Groups) -> tuple[Size, ...]:
    """Number of steps of each group."""
    return tuple(product(shape[a] for a in g) for g in groups)


def project(
    shape: Sequence[Size], strides: Sequence[Size], groups: Groups
) -> tuple[Size, ...] | None:
    """One stride per group; None if an array does not step evenly over some group."""
    result: list[Size] = []
    for group in groups:
        axes = [a for a in group if shape[a] != 1]
        for outer, inner in pairwise(axes):
            if strides[outer] != strides[inner] * shape[inner]:
                return None
        result.append(strides[axes[-1]] if axes else 0)
    return tuple(result)
