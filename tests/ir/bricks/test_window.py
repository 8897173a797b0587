"""Sliding windows and pooling beside torch, and beside loops that leave nothing to chance."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from ladder import check_brick, derivatives
from torch_check import agree_with_torch

from brickc.errors import BrickcError, DtypeError, ShapeError, UnsupportedError
from brickc.ir.brick import Brick
from brickc.ir.bricks.window import (
    WindowMax,
    WindowMaxGather,
    WindowMaxScatter,
    WindowSum,
    WindowSumGrad,
    max_pool,
    mean_pool,
    window_max,
    window_sum,
)
from brickc.ir.dims import Dim, Size
from brickc.ir.dtypes import DType
from brickc.ir.types import TensorType
from brickc.ir.value import Abstract, Eager

F = torch.nn.functional
Array = Any
Rng = np.random.Generator
Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
N = Dim("N")
H = Dim("H", 3, 100)
MAX_POOL: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEAN_POOL: dict[int, Callable[..., Any]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def distinct(*shape: int) -> Array:
    """No two elements are near each other: no ties within a central difference."""
    return np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape) * 0.1


def of(*shape: Size, dtype: DType = DType.F64) -> TensorType:
    return TensorType(dtype, shape)


@dataclass(frozen=True)
class Case:
    """Windows over all axes of an array."""

    x: Ints
    window: Ints
    stride: Ints
    padding: Pairs

    @property
    def geometry(self) -> tuple[Ints, Ints, Pairs]:
        return self.window, self.stride, self.padding

    @property
    def y(self) -> Ints:
        return WindowSum(*self.geometry).infer_type([of(*self.x)]).concrete({})

    def patches(self, x: torch.Tensor, fill: float) -> torch.Tensor:
        """The elements of every window, row-major, on a new last axis."""
        pads = [p for pair in reversed(self.padding) for p in pair]
        y = F.pad(x, pads, value=fill)
        for axis, (k, s) in enumerate(zip(self.window, self.stride, strict=True)):
            y = y.unfold(axis, k, s)
        return y.flatten(len(self.x))

    def places(self) -> torch.Tensor:
        """For every element of every window, its index in flat x; -1 in the padding."""
        index = torch.arange(1, int(np.prod(self.x)) + 1, dtype=torch.float64).reshape(self.x)
        return self.patches(index, 0.0).long() - 1

    def winners(self, x: torch.Tensor) -> torch.Tensor:
        """The index in flat x of every window's first maximum."""
        best = self.patches(x.detach(), -torch.inf).argmax(-1, keepdim=True)
        return self.places().gather(-1, best).flatten()

    def their_sum_grad(self, dy: torch.Tensor) -> torch.Tensor:
        x = torch.zeros(self.x, dtype=dy.dtype, requires_grad=True)
        return torch.autograd.grad(self.patches(x, 0.0).sum(-1), x, dy, create_graph=True)[0]

    def their_scatter(self, x: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        flat = torch.zeros(int(np.prod(self.x)), dtype=v.dtype)
        return flat.index_add(0, self.winners(x), v.flatten()).reshape(self.x)

    def their_gather(self, x: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return v.flatten()[self.winners(x)].reshape(self.y)


NONE = (0, 0)
CASES = {
    "tiles": Case((2, 3, 4, 6), (1, 1, 2, 3), (1, 1, 2, 3), (NONE,) * 4),
    "overlap": Case((2, 2, 7, 6), (1, 1, 3, 3), (1, 1, 2, 1), (NONE,) * 4),
    "gaps": Case((1, 2, 8, 9), (1, 1, 2, 1), (1, 1, 3, 4), (NONE,) * 4),
    "padding": Case((1, 2, 5, 6), (1, 1, 3, 3), (1, 1, 2, 1), (NONE, NONE, (1, 1), (2, 0))),
    "whole": Case((2, 2, 3, 4), (1, 1, 3, 4), (1, 1, 1, 1), (NONE,) * 4),
    "channels": Case((2, 5, 3), (1, 3, 1), (1, 1, 1), (NONE, (1, 1), NONE)),
    "all axes": Case((4, 5, 6), (2, 3, 2), (1, 2, 3), ((1, 0), (1, 1), (0, 1))),
    "batch alone": Case((5, 2), (2, 1), (2, 1), (NONE, NONE)),
    "one": Case((3, 2), (1, 1), (2, 1), (NONE, NONE)),
    "3-d": Case((1, 2, 4, 3, 5), (1, 1, 2, 2, 3), (1, 1, 2, 1, 2), (NONE,) * 4 + ((1, 1),)),
    "vector": Case((7,), (3,), (2,), ((1, 1),)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_window_sum(case: Case) -> None:
    brick = WindowSum(*case.geometry)
    check_brick(brick, [normal(*case.x)], lambda x: case.patches(x, 0.0).sum(-1))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_window_sum_grad(case: Case) -> None:
    brick = WindowSumGrad(*case.geometry, case.x)
    check_brick(brick, [normal(*case.y)], case.their_sum_grad)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_window_max(case: Case) -> None:
    brick = WindowMax(*case.geometry)
    check_brick(brick, [distinct(*case.x)], lambda x: case.patches(x, -torch.inf).amax(-1))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_window_max_scatter_and_gather(case: Case) -> None:
    x = distinct(*case.x)
    y = WindowMax(*case.geometry).evaluate([x], {})
    inside, outside = normal(*case.x, seed=1), normal(*case.y, seed=2)
    check_brick(WindowMaxScatter(*case.geometry), [x, y, outside], case.their_scatter)
    check_brick(WindowMaxGather(*case.geometry), [x, y, inside], case.their_gather)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pairs_are_adjoint(case: Case) -> None:
    x = np.random.default_rng(0).integers(0, 3, case.x).astype(np.float64)  # many ties
    v, dy = normal(*case.x, seed=1), normal(*case.y, seed=2)
    g = case.geometry
    total = (WindowSum(*g).evaluate([v], {}) * dy).sum()
    spread = WindowSumGrad(*g, case.x).evaluate([dy], {})
    np.testing.assert_allclose((spread * v).sum(), total, rtol=1e-9)
    y = WindowMax(*g).evaluate([x], {})
    picked = (WindowMaxGather(*g).evaluate([x, y, v], {}) * dy).sum()
    put = WindowMaxScatter(*g).evaluate([x, y, dy], {})
    np.testing.assert_allclose((put * v).sum(), picked, rtol=1e-9)
    np.testing.assert_array_equal(WindowMaxGather(*g).evaluate([x, y, x], {}), y)


# ── ties, infinities, NaN ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_ties_go_to_the_first(case: Case) -> None:
    """First in row-major order of the window; loops over everything."""
    x = np.random.default_rng(0).integers(0, 2, case.x).astype(np.float64)
    dy = normal(*case.y)
    expected = np.zeros(case.x)
    for o in itertools.product(*map(range, case.y)):
        best: Ints | None = None
        for k in itertools.product(*map(range, case.window)):
            at = tuple(
                a * s - lo + j
                for a, s, (lo, _), j in zip(o, case.stride, case.padding, k, strict=True)
            )
            if all(0 <= a < n for a, n in zip(at, case.x, strict=True)):
                if best is None or x[at] > x[best]:
                    best = at
        assert best is not None
        expected[best] += dy[o]
    (dx,) = derivatives(WindowMax(*case.geometry), [x], dy)
    np.testing.assert_allclose(dx, expected, rtol=1e-12, atol=1e-12)


def test_ties_by_hand() -> None:
    x = np.array([[3.0, 3.0, 1.0], [3.0, 3.0, 3.0]])
    (dx,) = derivatives(WindowMax((2, 2), (1, 1), (NONE, NONE)), [x], np.array([[1.0, 10.0]]))
    np.testing.assert_array_equal(dx, [[1, 10, 0], [0, 0, 0]])


@pytest.mark.parametrize("padding", [0, 1])
def test_ties_as_in_torch(padding: int, rng: Rng) -> None:
    x = rng.integers(0, 2, (2, 3, 6, 6)).astype(np.float64)
    agree_with_torch(
        lambda v: max_pool(v, 3, 2, padding),
        lambda t: F.max_pool2d(t, 3, 2, padding),
        [x],
        rng,
    )


@pytest.mark.parametrize("odd", [np.nan, -np.inf, np.inf])
def test_odd_numbers_as_in_torch(odd: float, rng: Rng) -> None:
    """NaN wins; a window of -inf alone gives to its first element, never to the padding.

    Of several NaN the first one wins here, as in arg_max; in torch it is the last.
    """
    for share in (0.2, 1.0):
        x = rng.normal(size=(2, 2, 5, 5))
        x[rng.random(x.shape) < share] = odd
        dy = rng.normal(size=(2, 2, 3, 3))
        t = torch.tensor(x, requires_grad=True)
        y = F.max_pool2d(t, 3, 2, 1)
        brick = WindowMax((1, 1, 3, 3), (1, 1, 2, 2), (NONE, NONE, (1, 1), (1, 1)))
        np.testing.assert_array_equal(brick.evaluate([x], {}), y.detach().numpy())
        expected = torch.autograd.grad(y, t, torch.from_numpy(dy))[0].numpy()
        (dx,) = derivatives(brick, [x], dy)
        if not np.isnan(odd):
            np.testing.assert_allclose(dx, expected, rtol=1e-12)
        np.testing.assert_allclose(dx.sum(), dy.sum(), rtol=1e-12)


def test_first_of_several_nan() -> None:
    x = np.array([1.0, np.nan, np.nan, 2.0])
    (dx,) = derivatives(WindowMax((4,), (1,), (NONE,)), [x], np.array([5.0]))
    np.testing.assert_array_equal(dx, [0, 5, 0, 0])


# ── pooling ──────────────────────────────────────────────────────────────────────────────────

POOLS: list[tuple[Ints, Any, Any, Any]] = [
    ((2, 3, 6, 8), 2, None, 0),  # side by side
    ((2, 3, 7, 7), 3, 2, 0),  # overlapping
    ((1, 2, 7, 8), 2, 2, 0),  # a rest that ceil mode sees
    ((1, 2, 8, 8), 3, 2, 1),
    ((1, 2, 6, 5), (3, 2), (2, 1), (1, 0)),
    ((1, 2, 7, 7), 2, 3, 1),  # gaps
    ((1, 2, 5, 5), 3, 3, 1),  # the last window would start in the padding
    ((2, 2, 9), 3, 2, 1),
    ((2, 2, 7), 2, None, 0),
    ((1, 2, 5, 6, 4), 2, None, 0),
    ((1, 1, 5, 4, 6), (3, 2, 3), (2, 1, 2), (1, 0, 1)),
]


@pytest.mark.parametrize(("shape", "window", "stride", "padding"), POOLS)
@pytest.mark.parametrize("ceil", [False, True])
def test_max_pool(
    shape: Ints, window: Any, stride: Any, padding: Any, ceil: bool, rng: Rng
) -> None:
    agree_with_torch(
        lambda v: max_pool(v, window, stride, padding, ceil),
        lambda t: MAX_POOL[len(shape) - 2](t, window, stride, padding, 1, ceil),
        [rng.normal(size=shape)],
        rng,
    )


@pytest.mark.parametrize(("shape", "window", "stride", "padding"), POOLS)
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("include", [False, True])
def test_mean_pool(
    shape: Ints, window: Any, stride: Any, padding: Any, ceil: bool, include: bool, rng: Rng
) -> None:
    agree_with_torch(
        lambda v: mean_pool(v, window, stride, padding, ceil, include),
        lambda t: MEAN_POOL[len(shape) - 2](t, window, stride, padding, ceil, include),
        [rng.normal(size=shape)],
        rng,
    )


@given(st.data())
def test_any_pooling(data: st.DataObject) -> None:
    """Sizes and values of pooling in any geometry that torch takes."""
    rank = data.draw(st.integers(1, 2))
    shape = (1, 2, *data.draw(st.lists(st.integers(1, 9), min_size=rank, max_size=rank)))
    window = data.draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank))
    stride = data.draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank))
    padding = [data.draw(st.integers(0, k // 2)) for k in window]
    ceil, include = data.draw(st.booleans()), data.draw(st.booleans())
    fits = all(
        n + 2 * p >= k - (s - 1 if ceil else 0)
        for n, p, k, s in zip(shape[2:], padding, window, stride, strict=True)
    )
    assume(fits)
    x = normal(*shape)
    value, tensor = Eager.of(x, {}), torch.from_numpy(x)
    for ours, theirs in (
        (max_pool(value, window, stride, padding, ceil),
         MAX_POOL[rank](tensor, window, stride, padding, 1, ceil)),
        (mean_pool(value, window, stride, padding, ceil, include),
         MEAN_POOL[rank](tensor, window, stride, padding, ceil, include)),
    ):  # fmt: skip
        assert isinstance(ours, Eager)
        np.testing.assert_allclose(ours.array, theirs.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("n", "k", "s", "p", "floor", "ceil"),
    [
        (8, 2, 2, 0, 4, 4),
        (7, 2, 2, 0, 3, 4),
        (7, 3, 2, 0, 3, 3),
        (8, 3, 2, 0, 3, 4),
        (2, 3, 2, 0, None, 1),  # only ceil mode lets a window hang over
        (5, 3, 3, 1, 2, 2),  # a third window would start in the right padding
        (6, 3, 4, 0, 1, 2),
        (4, 2, 4, 1, 2, 2),
        (5, 2, 4, 0, 1, 2),
        (4, 1, 4, 0, 1, 1),  # a second window would start outside
    ],
)
def test_counts_of_windows(n: int, k: int, s: int, p: int, floor: int | None, ceil: int) -> None:
    x = Abstract(of(1, 1, n))
    for pool in (max_pool, mean_pool):
        if floor is None:
            with pytest.raises(ShapeError, match="larger than axis 2"):
                pool(x, k, s, p)
        else:
            assert pool(x, k, s, p).shape == (1, 1, floor)
        assert pool(x, k, s, p, ceil_mode=True).shape == (1, 1, ceil)


def test_means_of_clipped_windows() -> None:
    """By hand: what is divided by, at both ends."""
    ones = Eager.of(np.ones((1, 1, 6)), {})
    # windows start at -1, 2 and 5; the third reaches over the pad's end at 7
    included = mean_pool(ones, 3, 3, 1, ceil_mode=True)
    excluded = mean_pool(ones, 3, 3, 1, ceil_mode=True, count_include_pad=False)
    np.testing.assert_allclose(_array(included), [[[2 / 3, 1, 1 / 2]]])
    np.testing.assert_allclose(_array(excluded), [[[1, 1, 1]]])
    uneven = mean_pool(ones, 2, 2, [(1, 1)])
    np.testing.assert_allclose(_array(uneven), [[[1 / 2, 1, 1, 1 / 2]]])


def _array(value: Any) -> Array:
    assert isinstance(value, Eager)
    return value.array


# ── sizes that are not known ─────────────────────────────────────────────────────────────────


def check_symbolic(brick: Brick, *types: TensorType) -> TensorType:
    """Shapes as inferred, for several sizes; cotangents of the operands' types."""
    result = brick.infer_type(types)
    for dims in ({"N": 1, "H": 3}, {"N": 3, "H": 8}):
        arrays = [normal(*t.concrete(dims)) for t in types]
        assert brick.evaluate(arrays, dims).shape == result.concrete(dims)
    values = [Abstract(t) for t in types]
    gradients = brick.vjp(values, Abstract(result), Abstract(result))
    for gradient, type in zip(gradients, types, strict=True):
        assert gradient is None or gradient.type == type
    return result


def test_any_size() -> None:
    geometry = (1, 1, 3, 2), (1, 1, 1, 2), (NONE, NONE, (1, 0), (0, 1))
    x, y = of(N, 3, H, 7), of(N, 3, H - 1, 4)
    assert check_symbolic(WindowSum(*geometry), x) == y
    assert check_symbolic(WindowSumGrad(*geometry, x.shape), y) == x
    assert check_symbolic(WindowMax(*geometry), x) == y
    assert check_symbolic(WindowMaxScatter(*geometry), x, y, y) == x
    assert check_symbolic(WindowMaxGather(*geometry), x, y, x) == y


def test_pools_of_any_size() -> None:
    x = Abstract(of(N, 3, H, 8))
    assert max_pool(x, (3, 2), (1, 2), (1, 0)).shape == (N, 3, H, 4)
    assert mean_pool(x, (3, 2), (1, 2), (1, 0)).shape == (N, 3, H, 4)
    batch = Abstract(of(N, 3, 7, 8))
    assert mean_pool(batch, 3, 2, 1, True, False).shape == (N, 3, 4, 5)
    with pytest.raises(UnsupportedError, match="ceil mode"):
        max_pool(x, 3, 1, ceil_mode=True)
    with pytest.raises(UnsupportedError, match="count_include_pad"):
        mean_pool(x, 3, 1, 1, count_include_pad=False)
    with pytest.raises(UnsupportedError, match="stride of 1"):
        max_pool(x, 3, 2)


def test_windows_must_fit_every_size() -> None:
    for brick in (WindowSum((4,), (1,), (NONE,)), WindowMax((4,), (1,), (NONE,))):
        with pytest.raises(ShapeError, match="whole of the dims' ranges"):
            brick.infer_type([of(H)])


# ── what is refused ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("brick", "types", "message"),
    [
        (WindowSum((2,), (1,), (NONE,)), [of(3, 3)], "one window per axis"),
        (WindowSum((2, 2), (1,), (NONE,) * 2), [of(3, 3)], "one window per axis"),
        (WindowSum((0,), (1,), (NONE,)), [of(3)], "bad attributes"),
        (WindowSum((2,), (0,), (NONE,)), [of(3)], "bad attributes"),
        (WindowSum((2,), (1,), ((0, -1),)), [of(3)], "bad attributes"),
        (WindowSum((4,), (1,), (NONE,)), [of(3)], "larger than axis 0"),
        (WindowSumGrad((2,), (1,), (NONE,), (4,)), [of(4)], "sizes do not fit"),
        (WindowSumGrad((2,), (1,), (NONE,), (4, 1)), [of(3)], "one size per axis"),
        (WindowMax((2,), (1,), ((2, 0),)), [of(3)], "padding alone"),
        (WindowMax((2,), (1,), ((0, 2),)), [of(3)], "padding alone"),
        (WindowMax((2,), (1,), ((1, 1),)), [of(0)], "padding alone"),
        (WindowMaxScatter((2,), (1,), (NONE,)), [of(3), of(2), of(3)], "types do not fit"),
        (WindowMaxScatter((2,), (1,), (NONE,)), [of(3), of(3), of(3)], "types do not fit"),
        (WindowMaxGather((2,), (1,), (NONE,)), [of(3), of(2), of(2)], "types do not fit"),
        (WindowMaxGather((2,), (1,), (NONE,)), [of(3), of(3), of(3)], "types do not fit"),
    ],
)
def test_shape_errors(brick: Brick, types: list[TensorType], message: str) -> None:
    with pytest.raises(ShapeError, match=message) as caught:
        brick.infer_type(types)
    assert caught.value.got is not None
    assert caught.value.expected


def test_dtype_errors() -> None:
    bricks: Sequence[Brick] = [WindowSum((2,), (1,), (NONE,)), WindowMax((2,), (1,), (NONE,))]
    for brick in bricks:
        with pytest.raises(DtypeError, match="float"):
            brick.infer_type([of(3, dtype=DType.I32)])
    narrow = of(2, dtype=DType.F32)
    with pytest.raises(ShapeError, match="types do not fit"):
        WindowMaxScatter((2,), (1,), (NONE,)).infer_type([of(3), narrow, narrow])


@pytest.mark.parametrize("pool", [max_pool, mean_pool])
def test_bad_pools(pool: Any) -> None:
    x = Abstract(of(1, 2, 5, 5))
    for arguments in ((2, 2, (1,)), (2, 0), (2, 2, -1), (0,), ((2, 2, 2),), (2, (1,))):
        with pytest.raises(ShapeError, match="pooling"):
            pool(x, *arguments)
        with pytest.raises(ShapeError, match="pooling"):
            pool(x, *arguments, ceil_mode=True)
    with pytest.raises(ShapeError, match="larger than axis 3"):
        pool(x, (2, 6))
    with pytest.raises(ShapeError, match=r"\[N, C, \*S\]"):
        pool(Abstract(of(2, 3)), 2)


def test_windows_in_the_padding_alone() -> None:
    x = Abstract(of(1, 2, 5))
    with pytest.raises(ShapeError, match="padding alone"):
        max_pool(x, 2, 1, [(0, 3)])
    with pytest.raises(ShapeError, match="padding alone"):
        mean_pool(x, 2, 1, [(0, 3)], count_include_pad=False)
    assert mean_pool(x, 2, 1, [(0, 3)]).shape == (1, 2, 7)


def test_functions_and_messages() -> None:
    x = Eager.of(normal(4), {})
    np.testing.assert_allclose(
        _array(window_sum(x, (2,), (1,), (NONE,))), x.array[1:] + x.array[:-1]
    )
    np.testing.assert_array_equal(
        _array(window_max(x, (2,), (2,), (NONE,))), x.array.reshape(2, 2).max(1)
    )
    with pytest.raises(BrickcError) as caught:
        window_sum(x, (5,), (1,), (NONE,))
    assert str(caught.value) == (
        "window_sum: the window is larger than axis 0 with its padding; got 5 > 4; "
        "expected at most 4; use a smaller window or more padding"
    )
