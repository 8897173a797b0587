"""Operators that ask for shapes, or give a tensor another one."""

from __future__ import annotations

import numpy as np

from ....ir.bricks.arithmetic import (
    add,
    equal,
    greater_equal,
    less_equal,
    logical_and,
    mul,
    where,
)
from ....ir.bricks.convert import cast
from ....ir.bricks.elementwise import broadcast_shapes
from ....ir.bricks.shape import broadcast_to, reshape, transpose
from ....ir.bricks.source import constant, iota
from ....ir.dims import Size, product
from ....ir.dtypes import DType
from ....ir.types import TensorType
from ....ir.value import Value
from ..node import Node
from ..reading import DTYPES, array_of
from ..values import Known, Listed, Stored, sizes_array
from .kind import Table

__all__ = ["TABLE", "squeezed", "unsqueezed"]


def shape_of(node: Node) -> Known:
    """From opset 15 a part of the shape."""
    shape = node.shape_of(0)
    rank = len(shape)
    start = node.get_int("start", 0)
    end = node.get_int("end", rank)
    start = max(0, min(rank, start + rank if start < 0 else start))
    end = max(0, min(rank, end + rank if end < 0 else end))
    return Known(sizes_array(shape[start:end]))


def size_of(node: Node) -> Known:
    size = product(node.shape_of(0))
    return Known(sizes_array([size]).reshape(()))


def identity(node: Node) -> object:
    return node.item(0) if isinstance(node.item(0), Known | Listed | Stored) else node.tensor(0)


def reshape_to(node: Node) -> Value:
    x, wanted = node.tensor(0), list(node.sizes(1))
    if not node.get_flag("allowzero"):
        for axis, size in enumerate(wanted):
            if size == 0:
                if axis >= x.rank:
                    raise node.wrong("a size is copied from an axis that is not there", wanted)
                wanted[axis] = x.shape[axis]
    if any(isinstance(n, int) and n < -1 for n in wanted):
        raise node.wrong("a size is negative", wanted)
    if -1 in wanted and x.type.size == 0:
        return reshape(x, [0 if n == -1 else n for n in wanted])
    return reshape(x, wanted)


def flatten(node: Node) -> Value:
    x = node.tensor(0)
    axis = node.get_int("axis", 1)
    if not -x.rank <= axis <= x.rank:
        raise node.wrong("no such axis", axis, f"-{x.rank} to {x.rank}")
    axis = axis + x.rank if axis < 0 else axis
    return reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))


def transposed(node: Node) -> Value:
    x = node.tensor(0)
    order = node.get_ints("perm", tuple(reversed(range(x.rank))))
    return transpose(x, [node.axis(k, x.rank) for k in order]) if x.rank else x


def squeezed(x: Value, axes: tuple[int, ...]) -> Value:
    return reshape(x, tuple(n for k, n in enumerate(x.shape) if k not in axes))


def unsqueezed(x: Value, axes: tuple[int, ...]) -> Value:
    """x with axes of size 1, which are numbered as in the result."""
    sizes = iter(x.shape)
    rank = x.rank + len(axes)
    return reshape(x, tuple(1 if k in axes else next(sizes) for k in range(rank)))


def squeeze(node: Node) -> Value:
    x = node.tensor(0)
    axes = node.axes(x.rank, 1)
    if axes is None:
        axes = tuple(k for k, n in enumerate(x.shape) if n == 1)
    if any(x.shape[k] != 1 for k in axes):
        raise node.wrong("an axis that is squeezed has not size 1", x.type, f"axes {axes}")
    return squeezed(x, axes)


def unsqueeze(node: Node) -> Value:
    x = node.tensor(0)
    given = node.integers(1) if node.has(1) else node.get_ints("axes")
    axes = tuple(node.axis(k, x.rank + len(given)) for k in given)
    if len(set(axes)) != len(axes):
        raise node.wrong("an axis comes twice", given)
    return unsqueezed(x, axes)


def expand(node: Node) -> Value:
    """Broadcast both ways: sizes of 1 in the shape keep x's."""
    x = node.tensor(0)
    return broadcast_to(x, broadcast_shapes([x.shape, node.sizes(1)], "Expand"))


def constant_of_shape(node: Node) -> Value:
    value = np.zeros(1, np.float32)
    if node.given("value"):
        value = array_of(node.attribute("value", "TENSOR", None), None, node.where)
    if value.size != 1:
        raise node.wrong("the value is no single number", list(value.shape))
    shape = node.sizes(0)
    if any(isinstance(n, int) and n < 0 for n in shape):
        raise node.wrong("a size is negative", list(shape))
    return broadcast_to(node.literal(value.reshape(())), shape)


def constant_node(node: Node) -> Known:
    if len(node.attributes) != 1:
        raise node.wrong("a constant has one value", len(node.attributes), 1)
    (name,) = node.attributes
    match name:
        case "value":
            tensor = node.attribute(name, "TENSOR", None)
            return Known(array_of(tensor, node.importer.folder, node.where))
        case "value_float":
            return Known(np.asarray(node.get_float(name), np.float32))
        case "value_floats":
            return Known(np.asarray(node.get_floats(name), np.float32))
        case "value_int":
            return Known(np.asarray(node.get_int(name), np.int64))
        case "value_ints":
            return Known(np.asarray(node.get_ints(name), np.int64))
    raise node.unsupported("a constant of this kind", name)


def range_of(node: Node) -> object:
    """start, start + delta, … below limit: its length must be known."""
    start, limit, delta = (node.known(k).reshape(()) for k in range(3))
    if not delta or not np.all(np.isfinite([start, limit, delta])):
        raise node.wrong("no such range", f"{start}, {limit}, {delta}")
    count = max(0, int(np.ceil((float(limit) - float(start)) / float(delta))))
    if count > 2**22:
        place = node.literal(start)
        steps = iota(place, TensorType(place.dtype, (count,)), 0)
        return add(mul(steps, node.literal(delta)), place)
    return Known((start + np.arange(count) * delta).astype(start.dtype))


def eye_like(node: Node) -> Value:
    shape = node.shape_of(0)
    if len(shape) != 2:
        raise node.wrong("no matrix", list(shape))
    wanted = DTYPES.get(node.get_int("dtype", 0)) if node.given("dtype") else None
    if node.given("dtype") and wanted is None:
        raise node.unsupported("an element type that brickc has not", node.get_int("dtype", 0))
    return diagonal(node, shape, node.get_int("k", 0), wanted or node.type_of(0).dtype)


def diagonal(node: Node, shape: tuple[Size, ...], k: int, dtype: DType) -> Value:
    rows, columns = corner(node, shape)
    return cast(broadcast_to(equal(add(rows, k), columns), shape), dtype)


def corner(node: Node, shape: tuple[Size, ...]) -> tuple[Value, Value]:
    """Row and column numbers that broadcast to a matrix."""
    place = node.number(0, DType.I64)
    rows = iota(place, TensorType(DType.I64, (shape[-2], 1)), 0)
    return rows, iota(place, TensorType(DType.I64, (1, shape[-1])), 1)


def trilu(node: Node) -> Value:
    """The upper or lower triangle, zeros elsewhere."""
    x = node.tensor(0)
    k = int(node.scalar(1)) if node.has(1) else 0
    if x.rank < 2:
        raise node.wrong("no matrix", x.type)
    rows, columns = corner(node, x.shape)
    first = add(rows, k)
    upper = node.get_flag("upper", True)
    kept = greater_equal(columns, first) if upper else less_equal(columns, first)
    if x.dtype is DType.BOOL:
        return logical_and(x, cast(kept, DType.BOOL))
    return where(kept, x, constant(x, 0, x.dtype))


TABLE: Table = {
    "Shape": shape_of,
    "Size": size_of,
    "Identity": identity,
    "Reshape": reshape_to,
    "Flatten": flatten,
    "Transpose": transposed,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Expand": expand,
    "ConstantOfShape": constant_of_shape,
    "Constant": constant_node,
    "Range": range_of,
    "EyeLike": eye_like,
    "Trilu": trilu,
}
