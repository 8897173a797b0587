"""Operators that move elements: reshaping, slicing, joining, padding, and new tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...errors import ImportModelError, UnsupportedError
from ...ir.bricks import arithmetic
from ...ir.bricks import shape as shapes
from ...ir.bricks.activation import logistic
from ...ir.bricks.convert import stop_gradient
from ...ir.bricks.indexing import gather
from ...ir.dims import Dim, DimExpr, Size, product
from ...ir.dtypes import DType
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import (
    Out,
    Result,
    axis_of,
    fixed,
    promoted,
    to,
)

__all__ = ["LARGEST_LIST", "VIEWS", "halves", "part"]

of = trace.of
#: a size as an argument of an operator
Extent = int | Dim | DimExpr
#: elements of a list of indices that is written into the program
LARGEST_LIST = 2**18
#: an integer that says "to the end"
_END = 2**63 - 1


def part(x: Value, axis: int, start: int, stop: Size, step: int = 1) -> Value:
    """start:stop:step of one axis."""
    lo, hi, by = [0] * x.rank, list(x.shape), [1] * x.rank
    lo[axis], hi[axis], by[axis] = start, stop, step
    return shapes.slice_(x, lo, hi, by)


def halves(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Both halves of an axis."""
    axis = axis_of(x, dim)
    n = fixed(x.shape[axis]) if x.rank else 1
    if n % 2:
        raise ImportModelError("an axis without halves", got=x.type)
    return of(part(x, axis, 0, n // 2)), of(part(x, axis, n // 2, n))


def glu(out: Out, x: Tensor, dim: int = -1) -> Tensor:
    a, b = halves(x, dim)
    return of(arithmetic.mul(a, logistic(b)))


# ── one tensor in another shape ──────────────────────────────────────────────────────────


def identity(out: Out, x: Tensor) -> Tensor:
    return x


def clone(out: Out, x: Tensor, *, memory_format: object = None) -> Tensor:
    return x


def contiguous(out: Out, x: Tensor, *, memory_format: object = None) -> Tensor:
    return x


def detach(out: Out, x: Tensor) -> Tensor:
    return of(stop_gradient(x))


def to_copy(
    out: Out, x: Tensor, *, dtype: DType | None = None, layout: object = None,
    device: object = None, pin_memory: bool | None = None, non_blocking: bool = False,
    memory_format: object = None,
) -> Tensor:  # fmt: skip
    return to(x, dtype or x.dtype)


def to_dtype(
    out: Out, x: Tensor, dtype: DType, non_blocking: bool = False, copy: bool = False,
    memory_format: object = None,
) -> Tensor:  # fmt: skip
    return to(x, dtype)


def type_as(out: Out, x: Tensor, other: Tensor) -> Tensor:
    return to(x, other.dtype)


def view(out: Out, x: Tensor, size: Sequence[Extent]) -> Tensor:
    return of(shapes.reshape(x, size))


def flatten(out: Out, x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    if x.rank == 0:
        return of(shapes.reshape(x, (1,)))
    a, b = axis_of(x, start_dim), axis_of(x, end_dim)
    return of(shapes.reshape(x, (*x.shape[:a], product(x.shape[a : b + 1]), *x.shape[b + 1 :])))


def unflatten(out: Out, x: Tensor, dim: int, sizes: Sequence[Extent]) -> Tensor:
    a = axis_of(x, dim)
    known = product(n for n in sizes if n != -1)
    inner = [n if n != -1 else fixed(x.shape[a]) // fixed(known) for n in sizes]
    return of(shapes.reshape(x, (*x.shape[:a], *inner, *x.shape[a + 1 :])))


def permute(out: Out, x: Tensor, dims: Sequence[int]) -> Tensor:
    return of(shapes.transpose(x, [axis_of(x, d) for d in dims])) if x.rank else x


def transpose(out: Out, x: Tensor, dim0: int, dim1: int) -> Tensor:
    if x.rank == 0:
        return x
    order = list(range(x.rank))
    a, b = axis_of(x, dim0), axis_of(x, dim1)
    order[a], order[b] = b, a
    return of(shapes.transpose(x, order))


def t(out: Out, x: Tensor) -> Tensor:
    return transpose(out, x, 0, 1) if x.rank == 2 else x


def expand(out: Out, x: Tensor, size: Sequence[Extent], *, implicit: bool = False) -> Tensor:
    lead = len(size) - x.rank
    if lead < 0:
        raise ImportModelError("expand to fewer axes", got=list(size), expected=x.type)
    full = tuple(x.shape[a - lead] if n == -1 and a >= lead else n for a, n in enumerate(size))
    return of(shapes.broadcast_to(x, full))


def broadcast(out: Out, x: Tensor, size: Sequence[Extent]) -> Tensor:
    return expand(out, x, size)


def squeeze(out: Out, x: Tensor) -> Tensor:
    return of(shapes.reshape(x, [n for n in x.shape if n != 1]))


def squeeze_dims(out: Out, x: Tensor, dim: int | Sequence[int]) -> Tensor:
    axes = [dim] if isinstance(dim, int) else dim
    gone = {axis_of(x, a) for a in axes}
    return of(shapes.reshape(x, [n for a, n in enumerate(x.shape) if a not in gone or n != 1]))


def unsqueeze(out: Out, x: Tensor, dim: int) -> Tensor:
    a = axis_of(x, dim, extra=1)
    return of(shapes.reshape(x, (*x.shape[:a], 1, *x.shape[a:])))


def slice_(
    out: Out, x: Tensor, dim: int = 0, start: Extent | None = None, end: Extent | None = None,
    step: int = 1,
) -> Tensor:  # fmt: skip
    axis = axis_of(x, dim)
    first, last = _bounds(x.shape[axis], start, end)
    return (
        x if (first, last, step) == (0, x.shape[axis], 1) else of(part(x, axis, first, last, step))
    )


def _bounds(size: Size, start: Size | None, end: Size | None) -> tuple[int, Size]:
    """Python's rules for slices, as far as a size is known."""
    if isinstance(size, int):
        first = fixed(0 if start is None else start)
        last = fixed(_END if end is None else end)
        first, last, _ = slice(first, last).indices(size)
        return first, max(first, last)
    whole = end is None or end == size or (isinstance(end, int) and end >= 2**31)
    first = fixed(0 if start is None else start)
    if first < 0:
        raise UnsupportedError("a slice that is counted from the end of a named dim", got=first)
    if whole:
        return first, size
    assert end is not None
    if isinstance(end, int) and end < 0:
        return first, size + end
    return first, end


def select(out: Out, x: Tensor, dim: int, index: int) -> Tensor:
    axis = axis_of(x, dim)
    n = x.shape[axis] if x.rank else 0
    if isinstance(n, int):
        if not -n <= index < n:
            raise ImportModelError("an index out of its axis", got=index, expected=x.type)
        index %= n
    elif index < 0:
        raise UnsupportedError("an index that is counted from the end of a named dim", got=index)
    one = part(x, axis, index, index + 1)
    return of(shapes.reshape(one, (*x.shape[:axis], *x.shape[axis + 1 :])))


def narrow(out: Out, x: Tensor, dim: int, start: Extent, length: Extent) -> Tensor:
    first = fixed(start)
    return slice_(out, x, dim, first, first + length)


# ── several tensors ──────────────────────────────────────────────────────────────────────


def cat(out: Out, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    if not tensors:
        raise ImportModelError("cat of nothing")
    dtype = promoted(*tensors)
    # torch lets an empty vector stand among tensors of any shape
    some = [x for x in tensors if x.shape != (0,)] or list(tensors[:1])
    return of(shapes.concat([to(x, dtype) for x in some], axis_of(some[0], dim)))


def stack(out: Out, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    if not tensors:
        raise ImportModelError("stack of nothing")
    return cat(out, [unsqueeze(out, x, dim) for x in tensors], axis_of(tensors[0], dim, 1))


def split_sizes(out: Out, x: Tensor, split_sizes: Sequence[Extent], dim: int = 0) -> Result:
    axis = axis_of(x, dim)
    first, parts = 0, []
    for size in split_sizes:
        last = first + fixed(size)
        parts.append(of(part(x, axis, first, last)))
        first = last
    return tuple(parts)


def split(out: Out, x: Tensor, split_size: Extent, dim: int = 0) -> Result:
    n, size = fixed(x.shape[axis_of(x, dim)]), fixed(split_size)
    if size <= 0 or n // size > 10_000:
        if n == 0 and size == 0:
            return (x,)
        raise ImportModelError("an impossible split", got=f"{n} into parts of {size}")
    starts = range(0, n, size) if n else range(1)
    return split_sizes(out, x, [min(size, n - s) for s in starts], dim)


def chunk(out: Out, x: Tensor, chunks: int, dim: int = 0) -> Result:
    n = fixed(x.shape[axis_of(x, dim)])
    if chunks < 1:
        raise ImportModelError("an impossible number of chunks", got=chunks)
    return split(out, x, max(1, -(-n // chunks)), dim)


def unbind(out: Out, x: Tensor, dim: int = 0) -> Result:
    n = fixed(x.shape[axis_of(x, dim)])
    if n > 10_000:
        raise UnsupportedError("an axis taken apart into so many tensors", got=n)
    return tuple(select(out, x, dim, k) for k in range(n))


# ── orders, repetition, padding ──────────────────────────────────────────────────────────


# ── diagonals and triangles ──────────────────────────────────────────────────────────────


# ── new tensors ──────────────────────────────────────────────────────────────────────────


def sym_size(out: Out, x: Tensor, dim: int) -> Result:
    return x.shape[axis_of(x, dim)]


def sym_numel(out: Out, x: Tensor) -> Result:
    return x.type.size


def slice_scatter(
    out: Out, x: Tensor, src: Tensor, dim: int = 0, start: Extent | None = None,
    end: Extent | None = None, step: int = 1,
) -> Tensor:  # fmt: skip
    axis = axis_of(x, dim)
    n = fixed(x.shape[axis])
    if n > LARGEST_LIST:
        raise UnsupportedError("a part stored into so long an axis", got=n)
    first, last = _bounds(n, start, end)
    src = to(src, x.dtype)
    rows = list(range(n))
    fresh = {r: k for k, r in enumerate(range(first, fixed(last), step))}
    if not fresh:
        return x
    both = shapes.concat([x, src], axis)
    picks = [n + fresh[r] if r in fresh else r for r in rows]
    return of(gather(both, trace.literal(picks, "i64"), axis))


def select_scatter(out: Out, x: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    a = axis_of(x, dim)
    n = fixed(x.shape[a])
    index = index % n if n else 0
    return slice_scatter(out, x, unsqueeze(out, src, a), a, index, index + 1)


def meshgrid(out: Out, tensors: Sequence[Tensor]) -> Result:
    rank = len(tensors)
    sizes = tuple(x.shape[0] if x.rank else 1 for x in tensors)
    made = []
    for k, x in enumerate(tensors):
        thin = shapes.reshape(x, [sizes[k] if a == k else 1 for a in range(rank)])
        made.append(of(shapes.broadcast_to(thin, sizes)))
    return tuple(made)


VIEWS: dict[str, Callable[..., Result]] = {
    "view.default": view, "_unsafe_view.default": view, "view_copy.default": view,
    "reshape.default": view, "_reshape_copy.default": view, "flatten.using_ints": flatten,
    "unflatten.int": unflatten, "permute.default": permute, "permute_copy.default": permute,
    "transpose.int": transpose, "transpose_copy.int": transpose, "swapaxes.default": transpose,
    "t.default": t, "expand.default": expand, "expand_copy.default": expand,
    "broadcast_to.default": broadcast, "squeeze.default": squeeze, "squeeze.dim": squeeze_dims,
    "squeeze.dims": squeeze_dims, "squeeze_copy.default": squeeze,
    "squeeze_copy.dim": squeeze_dims, "squeeze_copy.dims": squeeze_dims,
    "unsqueeze.default": unsqueeze, "unsqueeze_copy.default": unsqueeze, "slice.Tensor": slice_,
    "slice_copy.Tensor": slice_, "select.int": select, "select_copy.int": select,
    "narrow.default": narrow, "cat.default": cat, "concat.default": cat, "stack.default": stack,
    "split.Tensor": split, "split_copy.Tensor": split, "split_with_sizes.default": split_sizes,
    "split_with_sizes_copy.default": split_sizes, "chunk.default": chunk, "unbind.int": unbind,
    "unbind_copy.int": unbind, "clone.default": clone, "alias.default": identity,
    "alias_copy.default": identity, "lift_fresh_copy.default": identity,
    "lift_fresh.default": identity, "lift.default": identity, "contiguous.default": contiguous,
    "detach.default": detach, "detach_copy.default": identity, "_to_copy.default": to_copy,
    "to.dtype": to_dtype, "type_as.default": type_as, "sym_size.int": sym_size,
    "sym_numel.default": sym_numel, "slice_scatter.default": slice_scatter,
    "select_scatter.default": select_scatter, "narrow_copy.default": narrow,
    "meshgrid.default": meshgrid, "glu.default": glu,
}  # fmt: skip
