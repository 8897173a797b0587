"""Bricks that move elements: values and derivatives beside torch, views beside NumPy's strides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ladder import check_brick

from brickc.errors import BrickcError, DtypeError, ShapeError, UnsupportedError
from brickc.ir.brick import Brick, View
from brickc.ir.bricks import shape as s
from brickc.ir.bricks.unfold import Fold, Unfold
from brickc.ir.dims import Dim, Size, evaluate
from brickc.ir.dtypes import DType
from brickc.ir.types import TensorType
from brickc.ir.value import Abstract, Eager, Value

Array = Any
Ints = tuple[int, ...]

N = Dim("N", 2, 5)
M = Dim("M", 1, 4)
#: its typical size is that of a common int, which must not be taken for it
B = Dim("B", 1, 1024, 64)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def of(*shape: Size, dtype: DType = DType.F64) -> TensorType:
    return TensorType(dtype, shape)


def array(value: Value) -> Array:
    assert isinstance(value, Eager)
    return value.array


def dense(shape: Sequence[Size]) -> tuple[Size, ...]:
    """Strides in C order."""
    strides: list[Size] = []
    step: Size = 1
    for n in reversed(shape):
        strides.append(step)
        step = step * n
    return tuple(reversed(strides))


def abstract_vjp(brick: Brick, *operands: TensorType) -> list[TensorType | None]:
    """Types of the operands' cotangents."""
    values = [Abstract(t) for t in operands]
    result = values[0].apply(brick, *values)
    found = brick.vjp(values, result, Abstract(result.type))
    return [None if f is None else f.type for f in found]


# ── values and derivatives ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((2, 3, 4), (6, 4)),
        ((2, 3, 4), (2, 12)),
        ((2, 3, 4), (4, 3, 2)),
        ((6,), (1, 2, 1, 3)),
        ((1,), ()),
        ((), (1, 1)),
        ((0, 3), (3, 0, 2)),
        ((0,), (0, 3)),
    ],
)
def test_reshape(old: Ints, new: Ints) -> None:
    check_brick(s.Reshape(new), [normal(*old)], lambda x: x.reshape(new))


@pytest.mark.parametrize("permutation", [(), (0,), (1, 0), (2, 0, 1), (1, 3, 0, 2)])
def test_transpose(permutation: Ints) -> None:
    x = normal(*(2, 3, 4, 5)[: len(permutation)])
    check_brick(s.Transpose(permutation), [x], lambda t: t.permute(permutation))


@pytest.mark.parametrize(
    ("old", "new"),
    [((3, 1), (2, 3, 4)), ((), (2, 3)), ((1, 1), (1, 1)), ((3,), (3,)), ((2, 1, 3), (2, 0, 3))],
)
def test_broadcast_to(old: Ints, new: Ints) -> None:
    check_brick(s.BroadcastTo(new), [normal(*old)], lambda x: x.expand(new))


@pytest.mark.parametrize(
    ("start", "stop", "step"),
    [
        ((0, 0), (5, 7), (1, 1)),
        ((1, 2), (4, 7), (1, 1)),
        ((0, 1), (5, 7), (2, 3)),
        ((2, 0), (5, 6), (4, 5)),
        ((3, 0), (3, 7), (2, 1)),  # nothing is left
        ((0, 0), (0, 7), (3, 2)),
    ],
)
def test_slice(start: Ints, stop: Ints, step: Ints) -> None:
    index = tuple(map(slice, start, stop, step))
    check_brick(s.Slice(start, stop, step), [normal(5, 7)], lambda x: x[index])


@pytest.mark.parametrize("axes", [(), (0,), (2,), (0, 2), (0, 1, 2)])
def test_reverse(axes: Ints) -> None:
    check_brick(s.Reverse(axes), [normal(2, 3, 4)], lambda x: torch.flip(x, axes))


@pytest.mark.parametrize(
    ("lo", "hi", "interior", "value"),
    [
        ((0, 0), (0, 0), (0, 0), 0.0),
        ((1, 0), (0, 2), (0, 0), 0.0),
        ((0, 2), (1, 0), (0, 0), -1.5),
        ((1, 0), (2, 1), (1, 3), 0.0),
        ((0, 0), (0, 0), (0, 2), 4.0),
    ],
)
@pytest.mark.parametrize("shape", [(3, 4), (1, 2), (0, 2)])
def test_pad(lo: Ints, hi: Ints, interior: Ints, value: float, shape: Ints) -> None:
    def theirs(x: torch.Tensor) -> torch.Tensor:
        counts = [max(0, (n - 1) * (g + 1) + 1) for n, g in zip(shape, interior, strict=True)]
        y = torch.full([a + n + b for a, n, b in zip(lo, counts, hi, strict=True)], value,
                       dtype=x.dtype)  # fmt: skip
        inside = (slice(a, a + n, g + 1) for a, n, g in zip(lo, counts, interior, strict=True))
        y[tuple(inside)] = x
        return y

    check_brick(s.Pad(lo, hi, interior, value), [normal(*shape)], theirs)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sizes", [(2,), (1, 3), (2, 0, 1, 2)])
def test_concat(axis: int, sizes: Ints) -> None:
    shapes = [tuple(n if a == axis else (2, 3, 4)[a] for a in range(3)) for n in sizes]
    arrays = [normal(*shape, seed=k) for k, shape in enumerate(shapes)]
    check_brick(s.Concat(axis), arrays, lambda *xs: torch.cat(xs, axis))


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.int64, np.bool_])
def test_any_dtype_moves(dtype: type) -> None:
    x: Array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    bricks: list[Brick] = [
        s.Reshape((6, 4)), s.Transpose((2, 0, 1)), s.BroadcastTo((2, 2, 3, 4)), s.Reverse((1,)),
        s.Slice((0, 1, 0), (2, 3, 4), (1, 1, 3)), Unfold(2, 2, 1, 1),
        s.Pad((1, 0, 0), (0, 0, 1), (0, 1, 0), 1.0), s.Concat(0),
    ]  # fmt: skip
    for brick in bricks:
        y = brick.evaluate([x], {})
        assert y.dtype == dtype
        assert brick.infer_type([of(2, 3, 4, dtype=DType.of(dtype))]).shape == y.shape


def test_functions() -> None:
    x = Eager.of(normal(2, 3, 4), {})
    assert s.reshape(x, (4, -1)).shape == (4, 6)
    assert s.reshape(x, (2, 3, 4)) is x
    assert s.flatten(x).shape == (2, 12)
    assert s.flatten(x, 0).shape == (24,)
    assert s.flatten(x, -2).shape == (2, 12)
    assert s.broadcast_to(x, x.shape) is x
    assert s.concat([x, x], -1).shape == (2, 3, 8)
    np.testing.assert_array_equal(array(s.reverse(x, (1,))), x.array[:, ::-1])
    np.testing.assert_array_equal(
        array(s.slice_(x, (0, 1, 0), (2, 3, 4), (1, 1, 2))), x.array[:, 1:3, ::2]
    )
    padded = s.pad(x, (0, 1, 0), (1, 0, 2), 7.0)
    np.testing.assert_array_equal(
        array(padded), np.pad(x.array, ((0, 1), (1, 0), (0, 2)), constant_values=7.0)
    )
    wanted = torch.nn.Upsample(scale_factor=(2, 3))(torch.from_numpy(x.array[None]))
    np.testing.assert_array_equal(array(s.upsample(x, (2, 3))), wanted.numpy()[0])


# ── sizes that are not known ─────────────────────────────────────────────────────────────────


def test_symbolic_reshape() -> None:
    x = Abstract(of(N, 3, 4))
    assert s.flatten(x).shape == (N, 12)
    assert s.reshape(x, (-1, 12)).shape == (N, 12)
    assert s.reshape(x, (N, -1)).shape == (N, 12)
    assert s.reshape(x, (-1,)).shape == (N * 12,)
    assert s.reshape(s.reshape(x, (-1,)), (3, -1, 2)).shape == (3, N * 2, 2)
    assert s.Reshape((12, N)).infer_type([x.type]).shape == (12, N)
    for wanted in ((N, 11), (M, 12), (N + 1, 12)):
        with pytest.raises(ShapeError, match="number of elements"):
            s.Reshape(wanted).infer_type([x.type])
    for wanted in ((-1, 5), (M, -1), (-1, -1)):
        with pytest.raises(ShapeError):
            s.reshape(x, wanted)


@pytest.mark.parametrize(
    ("brick", "types"),
    [
        (s.Reshape((N * 3, 4)), [of(N, 12)]),
        (s.Transpose((1, 0)), [of(N, M)]),
        (s.BroadcastTo((N, M, 3)), [of(M, 1)]),
        (s.BroadcastTo((N, 3)), [of(3)]),
        (s.Slice((1, 0), (N, 3), (1, 2)), [of(N, 5)]),
        (s.Slice((2, 0), (N * 2 - 1, 3), (1, 1)), [of(N * 2, 3)]),
        (s.Slice((1, 0), (N * 2, 3), (2, 1)), [of(N * 2, 3)]),
        (s.Reverse((0,)), [of(N, 3)]),
        (Unfold(0, 2, 1, 1), [of(N, 3)]),
        (Unfold(1, 3, 2, 1), [of(N, 7)]),
        (Fold(0, N + 2, 1, 1), [of(N, 4, 3)]),
        (Fold(0, N + 5, 1, 2), [of(N, 4, 3)]),
        (s.Pad((1, 0), (2, 1), (0, 0), 0.0), [of(N, 3)]),
        (s.Pad((1, 0), (2, 1), (3, 0), 0.0), [of(N, 3)]),
        (s.Concat(1), [of(N, 2), of(N, 3)]),
        (s.Concat(0), [of(2, 3), of(N, 3)]),
    ],
)
def test_symbolic_types(brick: Brick, types: list[TensorType]) -> None:
    """What is inferred is right for every size, and the derivative has the operands' types."""
    result = brick.infer_type(types)
    for dims in ({"N": 2, "M": 1}, {"N": 3, "M": 4}, {"N": 5, "M": 2}):
        arrays = [normal(*t.concrete(dims)) for t in types]
        assert brick.evaluate(arrays, dims).shape == result.concrete(dims)
    assert abstract_vjp(brick, *types) == types


def test_what_must_hold_for_every_size() -> None:
    """A size is not taken for its typical value: Dim N starts at 2."""
    with pytest.raises(ShapeError, match="whole of the dims' ranges"):
        s.Slice((3,), (N,), (1,)).infer_type([of(N)])
    with pytest.raises(ShapeError, match="whole of the dims' ranges"):
        s.Slice((0,), (3,), (1,)).infer_type([of(N)])
    with pytest.raises(ShapeError, match="whole of the dims' ranges"):
        Unfold(0, 3, 1, 1).infer_type([of(N)])
    with pytest.raises(ShapeError, match="whole of the dims' ranges"):
        Fold(0, 5, 1, 1).infer_type([of(N, 2)])
    assert s.Slice((0,), (2,), (1,)).infer_type([of(N)]).shape == (2,)


def test_derivatives_that_need_unknown_offsets() -> None:
    with pytest.raises(UnsupportedError, match="fixed size"):
        abstract_vjp(s.Slice((0,), (2,), (1,)), of(N))
    with pytest.raises(UnsupportedError, match="fixed size first"):
        abstract_vjp(s.Concat(0), of(N), of(3))


# ── views ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("shape", "strides", "new", "expected"),
    [
        ((2, 3, 4), (12, 4, 1), (24,), (1,)),
        ((24,), (1,), (2, 3, 4), (12, 4, 1)),
        ((24,), (5,), (2, 3, 4), (60, 20, 5)),
        ((2, 3, 4), (4, 8, 1), (2, 12), None),  # axes that were exchanged
        ((2, 3, 4), (4, 8, 1), (2, 3, 2, 2), (4, 8, 2, 1)),
        ((3, 2, 4), (100, 4, 1), (3, 8), (100, 1)),
        ((3, 2, 4), (100, 4, 1), (6, 4), None),
        ((3, 2, 4), (100, 4, 1), (3, 4, 2), (100, 2, 1)),
        ((1, 3, 1), (7, 2, 9), (3,), (2,)),
        ((3,), (2,), (1, 3, 1), (0, 2, 0)),
        ((3, 4), (0, 0), (12,), (0,)),  # broadcast twice
        ((3, 4), (0, 1), (12,), None),
        ((3, 4), (-4, -1), (12,), (-1,)),  # reversed twice
        ((0, 3), (3, 1), (0, 5, 7), (0, 0, 0)),
        ((), (), (1, 1), (0, 0)),
        ((N, 3, 4), (12, 4, 1), (N, 12), (12, 1)),
        ((N, 3, 4), (12, 4, 1), (N * 12,), (1,)),
        ((N * 12,), (1,), (N, 3, 4), (12, 4, 1)),
        ((N, 3, M), (M * 3, M, 1), (N * 3, M), (M, 1)),
        ((3, N, 4), (N * 4, 4, 1), (3, N * 2, 2), (N * 4, 2, 1)),
        ((3, N), (1, 3), (N * 3,), None),
        ((B, 64), (64, 1), (64, B), (B, 1)),  # equally large as a rule, but not the same
        ((B, 64), (100, 1), (64, B), None),
        ((N, 1, 4), (4, 9, 1), (1, N * 4), (0, 1)),
    ],
)
def test_reshape_of_strides(
    shape: tuple[Size, ...],
    strides: tuple[Size, ...],
    new: tuple[Size, ...],
    expected: tuple[Size, ...] | None,
) -> None:
    found = s.Reshape(new).restride(of(*shape), of(*new), 7, strides)
    assert found == (None if expected is None else (7, expected))


def test_restride_by_hand() -> None:
    x = of(N, 5)
    cases: list[tuple[View, tuple[Size, tuple[Size, ...]]]] = [
        (s.Transpose((1, 0)), (3, (1, 5))),
        (s.BroadcastTo((2, N, 5)), (3, (0, 5, 1))),
        (s.Slice((1, 2), (N, 5), (1, 2)), (3 + 5 + 2, (5, 2))),
        (s.Reverse((0, 1)), (N * 5 - 5 + 4 + 3, (-5, -1))),
        (Unfold(1, 2, 2, 3), (3, (5, 2, 3))),
    ]
    for brick, expected in cases:
        assert brick.restride(x, brick.infer_type([x]), 3, (5, 1)) == expected


class Buffer:
    """A buffer, and an array that lies in it by offset and strides, in elements."""

    def __init__(self, shape: Sequence[Size], dims: Mapping[str, int]) -> None:
        self.dims = dims
        self.type = of(*shape)
        self.memory = np.arange(evaluate(self.type.size, dims), dtype=np.float64)
        self.offset: Size = 0
        self.strides = dense(shape)

    def array(self) -> Array:
        # the constructor raises where strides leave the buffer, which as_strided does not
        return np.ndarray(
            self.type.concrete(self.dims),
            np.float64,
            self.memory,
            evaluate(self.offset, self.dims) * 8,
            tuple(evaluate(n, self.dims) * 8 for n in self.strides),
        )

    def view(self, brick: View) -> bool:
        """Apply the brick by strides, if they can say it, and compare with its value."""
        before = self.array()
        expected = brick.evaluate([before], self.dims)
        result = brick.infer_type([self.type])
        assert expected.shape == result.concrete(self.dims)
        found = brick.restride(self.type, result, self.offset, self.strides)
        if found is None:
            assert isinstance(brick, s.Reshape), "only a reshape may need a copy"
            return False
        self.type, (self.offset, self.strides) = result, found
        np.testing.assert_array_equal(self.array(), expected)
        return True


def merged(draw: Callable[..., Any], shape: Sequence[Size]) -> list[Size]:
    """Another shape of as many elements: axes split, merged, exchanged, of size 1."""
    sizes: list[Size] = []
    for n in shape:
        if isinstance(n, int) and n in (4, 6, 12) and draw(st.booleans()):
            sizes += draw(st.sampled_from([[2, n // 2], [n // 2, 2]]))
        elif n != 1 or draw(st.booleans()):
            sizes.append(n)
    if sizes and draw(st.integers(0, 4)) == 0:
        sizes = draw(st.permutations(sizes))
    if len(sizes) > 1 and draw(st.booleans()):
        k = draw(st.integers(0, len(sizes) - 2))
        sizes[k : k + 2] = [sizes[k] * sizes[k + 1]]
    if draw(st.booleans()):
        sizes.insert(draw(st.integers(0, len(sizes))), 1)
    return sizes


def view_of(draw: Callable[..., Any], shape: Sequence[Size]) -> View:
    """Some view of an array of this shape."""
    rank = len(shape)
    kinds = ["reshape", "broadcast", "transpose", "slice", "reverse"] + ["unfold"] * (rank > 0)
    match draw(st.sampled_from(kinds)):
        case "reshape":
            return s.Reshape(tuple(merged(draw, shape)))
        case "transpose":
            return s.Transpose(tuple(draw(st.permutations(range(rank)))))
        case "broadcast":
            wide = [draw(st.sampled_from([1, 3, N])) if n == 1 else n for n in shape]
            return s.BroadcastTo((*draw(st.sampled_from([(), (2,), (N,)])), *wide))
        case "slice":
            start, step = [], []
            for n in shape:
                start.append(draw(st.integers(0, min(n - 1, 2))) if isinstance(n, int) else 0)
                step.append(draw(st.integers(1, 3)) if isinstance(n, int) else 1)
            return s.Slice(tuple(start), tuple(shape), tuple(step))
        case "reverse":
            axes = draw(st.sets(st.integers(0, rank - 1), max_size=2)) if rank else set()
            return s.Reverse(tuple(sorted(axes)))
    axis = draw(st.integers(0, rank - 1))
    size = shape[axis]
    if not isinstance(size, int) or size < 3:
        return Unfold(axis, 1, 1, 1)
    return Unfold(axis, 2, draw(st.integers(1, 2)), draw(st.integers(1, 2)))


@given(st.data())
def test_views_are_what_they_evaluate_to(data: st.DataObject) -> None:
    """Chains of views by strides alone; where a reshape asks for a copy, NumPy needs one too."""
    dims = {"N": data.draw(st.integers(2, 5), "N")}
    sizes: st.SearchStrategy[Size] = st.sampled_from([1, 2, 3, 4, 6, 12, N])
    buffer = Buffer(data.draw(st.lists(sizes, max_size=3), "shape"), dims)
    for _ in range(data.draw(st.integers(1, 5), "steps")):
        brick = view_of(data.draw, buffer.type.shape)
        before = buffer.array()
        if before.size > 5000 or buffer.type.rank > 6:
            return
        if not buffer.view(brick):
            assert isinstance(brick, s.Reshape)
            wanted = of(*brick.shape).concrete(dims)
            if not buffer.type.dims:  # or strides may fit for this one size of N, by chance
                with pytest.raises(ValueError, match="copy"):
                    np.reshape(before, wanted, copy=False)


@given(st.data())
def test_reshape_is_a_view_whenever_numpy_says_so(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), max_size=4))
    buffer = Buffer(shape, {})
    buffer.view(s.Transpose(tuple(data.draw(st.permutations(range(len(shape)))))))
    step = data.draw(st.lists(st.integers(1, 2), min_size=len(shape), max_size=len(shape)))
    buffer.view(s.Slice((0,) * len(shape), buffer.type.shape, tuple(step)))
    before = buffer.array()
    brick = s.Reshape(tuple(merged(data.draw, buffer.type.shape)))
    try:
        np.reshape(before, of(*brick.shape).concrete({}), copy=False)
        possible = True
    except ValueError:
        possible = False
    assert buffer.view(brick) == possible


# ── what is refused ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("brick", "types"),
    [
        (s.Reshape((5,)), [of(2, 3)]),
        (s.Reshape((-2, -3)), [of(2, 3)]),
        (s.Transpose((0,)), [of(2, 3)]),
        (s.Transpose((0, 0)), [of(2, 3)]),
        (s.BroadcastTo((3,)), [of(2, 3)]),
        (s.BroadcastTo((2, 4)), [of(2, 3)]),
        (s.BroadcastTo((M, 3)), [of(N, 3)]),
        (s.Slice((0,), (2,), (1,)), [of(2, 3)]),
        (s.Slice((0,), (3,), (1,)), [of(2)]),
        (s.Slice((-1,), (2,), (1,)), [of(2)]),
        (s.Slice((2,), (1,), (1,)), [of(2)]),
        (s.Slice((0,), (2,), (0,)), [of(2)]),
        (s.Reverse((2,)), [of(2, 3)]),
        (s.Reverse((0, 0)), [of(2, 3)]),
        (Unfold(0, 3, 1, 1), [of(2)]),
        (Unfold(0, 2, 1, 2), [of(2)]),
        (Unfold(1, 2, 1, 1), [of(2)]),
        (Unfold(0, 2, 0, 1), [of(2)]),
        (Fold(0, 3, 1, 1), [of(3, 2)]),
        (Fold(1, 3, 1, 1), [of(3, 2)]),
        (Fold(0, 3, 1, 1), [of(0, 2)]),
        (s.Pad((0,), (0,), (0,), 0.0), [of(2, 3)]),
        (s.Pad((-1,), (0,), (0,), 0.0), [of(2)]),
        (s.Concat(0), []),
        (s.Concat(1), [of(2)]),
        (s.Concat(0), [of(2, 3), of(2, 4)]),
        (s.Concat(0), [of(2, 3), of(2)]),
    ],
)
def test_shape_errors(brick: Brick, types: list[TensorType]) -> None:
    with pytest.raises(ShapeError):
        brick.infer_type(types)


def test_dtype_errors() -> None:
    with pytest.raises(DtypeError, match="one dtype"):
        s.Concat(0).infer_type([of(2), of(2, dtype=DType.F32)])
    with pytest.raises(DtypeError, match="fold"):
        Fold(0, 3, 1, 1).infer_type([of(2, 2, dtype=DType.I32)])


def test_refusals_of_functions() -> None:
    x = Abstract(of(0, 3))
    with pytest.raises(ShapeError):
        s.reshape(x, (0, -1))  # any size would do
    with pytest.raises(ShapeError, match="no such axis"):
        s.concat([x, x], 2)
    with pytest.raises(ShapeError, match="no such axis"):
        s.concat([x, x], -3)
    with pytest.raises(ShapeError, match="nothing"):
        s.concat([], 0)
    for factors in ((2, 2, 2), (0,)):
        with pytest.raises(ShapeError, match="upsample"):
            s.upsample(x, factors)


def test_messages_name_all_parts() -> None:
    with pytest.raises(BrickcError) as caught:
        s.Slice((0, 1), (2, 9), (1, 1)).infer_type([of(2, 3)])
    error = caught.value
    assert (error.what, error.got) == ("slice: axis 1 is out of bounds", "1:9:1")
    assert (error.expected, error.hint) == ("within 0:3", "")
