"""Other sizes for named dims, other dtypes: the same change all through a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from .brick import Brick
from .dims import Dim, DimExpr, Size, product
from .dtypes import DType
from .graph import Graph
from .types import TensorType

__all__ = ["retype", "substitute"]


def substitute(graph: Graph, sizes: Mapping[str, Size]) -> Graph:
    """The graph with every dim in ``sizes`` replaced, in types and attributes alike.

    Node ids stay. Raises ShapeError if a brick does not allow the new sizes.
    """

    def change(value: Any) -> Any:
        return size_with(value, sizes) if isinstance(value, Dim | DimExpr) else value

    return _changed(graph, change)


def retype(graph: Graph, dtypes: Mapping[DType, DType]) -> Graph:
    """The graph with dtypes replaced, in types and attributes alike; node ids stay."""

    def change(value: Any) -> Any:
        return dtypes.get(value, value) if isinstance(value, DType) else value

    return _changed(graph, change)


def _changed(graph: Graph, change: Callable[[Any], Any]) -> Graph:
    new = Graph(graph.name)
    for node in graph.nodes():
        new.add(_brick(node.brick, change), node.operands, node.origin, id=node.id)
    new.reserve(graph.next_id)
    new.outputs = dict(graph.outputs)
    new.updates = dict(graph.updates)
    return new


def _brick(brick: Brick, change: Callable[[Any], Any]) -> Brick:
    old = {f.name: getattr(brick, f.name) for f in fields(brick) if f.init}  # type: ignore[arg-type]
    changed = {name: _value(value, change) for name, value in old.items()}
    if all(changed[n] is old[n] for n in old):
        return brick
    data, before, after = old.get("data"), old.get("type"), changed.get("type")
    if isinstance(data, bytes) and isinstance(before, TensorType) and isinstance(after, TensorType):
        # an array that is part of the program: its bytes follow its dtype
        stored = np.frombuffer(data, before.dtype.numpy.newbyteorder("<"))
        changed["data"] = stored.astype(after.dtype.numpy.newbyteorder("<")).tobytes()
    result: Brick = replace(brick, **changed)  # type: ignore[type-var]
    return result


def _value(value: Any, change: Callable[[Any], Any]) -> Any:
    """The value itself, not a copy, if nothing in it changes."""
    match value:
        case TensorType():
            dtype = change(value.dtype)
            shape = tuple(change(s) for s in value.shape)
            same = dtype is value.dtype and all(
                a is b for a, b in zip(shape, value.shape, strict=True)
            )
            return value if same else TensorType.of(dtype, shape)
        case tuple():
            items = tuple(_value(v, change) for v in value)
            return value if all(a is b for a, b in zip(items, value, strict=True)) else items
    return change(value)


def size_with(size: Size, sizes: Mapping[str, Size]) -> Size:
    """A size with dims replaced."""
    if isinstance(size, int):
        return size
    if isinstance(size, Dim):
        return sizes.get(size.name, size)
    dims = {d.name: d for d in size.dims}
    total: Size = 0
    for monomial, coefficient in size.terms:
        total = total + product(sizes.get(n, dims[n]) for n in monomial) * coefficient
    return total
