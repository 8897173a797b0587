"""Looking up and adding up by index, beside torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ladder import check_brick

from brickc.errors import DataError, DtypeError, ShapeError
from brickc.ir.brick import Brick
from brickc.ir.bricks.indexing import Gather, ScatterAdd, gather, one_hot, scatter_add
from brickc.ir.dims import Dim, Size
from brickc.ir.dtypes import DType
from brickc.ir.types import TensorType
from brickc.ir.value import Abstract, Eager

Ints = tuple[int, ...]
N = Dim("N")
V = Dim("V", 1, 100)
INDICES: list[Ints] = [(), (1,), (6,), (2, 3), (2, 0), (2, 1, 2)]


def normal(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape)


def integers(high: int, shape: Ints, dtype: type = np.int32) -> Any:
    return np.random.default_rng(1).integers(0, high, shape).astype(dtype)


def of(*shape: Size, dtype: DType = DType.F64) -> TensorType:
    return TensorType(dtype, shape)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", INDICES)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_gather(axis: int, shape: Ints, dtype: type) -> None:
    x, indices = normal(3, 4, 2), integers((3, 4, 2)[axis], shape, dtype)

    def theirs(t: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        rows = t.index_select(axis, i.reshape(-1).long())
        return rows.reshape(*t.shape[:axis], *shape, *t.shape[axis + 1 :])

    check_brick(Gather(axis), [x, indices], theirs)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", INDICES)
def test_scatter_add(axis: int, shape: Ints) -> None:
    """Many indices are equal: what is added at one place adds up."""
    size, lead, tail = 3, (2, 4)[:axis], (4, 2)[axis:]
    indices, updates = integers(size, shape), normal(*lead, *shape, *tail)

    def theirs(i: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        flat = u.reshape(*lead, i.numel(), *tail)
        y = torch.zeros(*lead, size, *tail, dtype=u.dtype)
        return y.index_add(axis, i.reshape(-1).long(), flat)

    check_brick(ScatterAdd(axis, size), [indices, updates], theirs)


def test_they_are_adjoint() -> None:
    x, indices, dy = normal(2, 5, 3), integers(5, (4, 2)), normal(2, 4, 2, 3)
    left = (Gather(1).evaluate([x, indices], {}) * dy).sum()
    right = (ScatterAdd(1, 5).evaluate([indices, dy], {}) * x).sum()
    np.testing.assert_allclose(left, right, rtol=1e-12)


def test_gather_of_other_dtypes() -> None:
    x = np.arange(6, dtype=np.int64).reshape(3, 2)
    found = gather(Eager.of(x, {}), Eager.of(np.array([2, 0], np.int32), {}))
    np.testing.assert_array_equal(found.array, x[[2, 0]])  # type: ignore[attr-defined]
    assert found.dtype is DType.I64


@pytest.mark.parametrize("wrong", [-1, 3, 2**31 - 1])
def test_indices_out_of_range(wrong: int) -> None:
    indices = np.array([0, wrong], np.int32)
    bricks: list[tuple[Brick, list[Any]]] = [
        (Gather(0), [normal(3, 2), indices]),
        (ScatterAdd(0, 3), [indices, normal(2, 2)]),
    ]
    for brick, arrays in bricks:
        with pytest.raises(DataError, match="out of range") as caught:
            brick.evaluate(arrays, {})
        assert caught.value.expected == "0..2"


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64])
def test_one_hot(dtype: DType) -> None:
    indices = integers(4, (2, 3))
    found = one_hot(Eager.of(indices, {}), 4, dtype)
    wanted = torch.nn.functional.one_hot(torch.from_numpy(indices).long(), 4)
    np.testing.assert_array_equal(found.array, wanted.numpy())  # type: ignore[attr-defined]
    assert found.dtype is dtype
    outside = one_hot(Eager.of(np.array([-1, 4], np.int64), {}), 4)
    np.testing.assert_array_equal(outside.array, np.zeros((2, 4)))  # type: ignore[attr-defined]


def test_functions_count_axes_from_the_end() -> None:
    x, indices = Abstract(of(2, 3, 4)), Abstract(of(5, dtype=DType.I32))
    assert gather(x, indices).shape == (5, 3, 4)
    assert gather(x, indices, -1).shape == (2, 3, 5)
    assert scatter_add(indices, Abstract(of(2, 5)), 1, 7).shape == (2, 7)
    for axis in (3, 7, -4):
        with pytest.raises(ShapeError, match="no such axis"):
            gather(x, indices, axis)


def test_symbolic_sizes() -> None:
    x, indices = Abstract(of(V, 8)), Abstract(of(N, 5, dtype=DType.I64))
    y = gather(x, indices)
    assert y.shape == (N, 5, 8)
    dx, none = Gather(0).vjp([x, indices], y, y)
    assert none is None
    assert dx is not None
    assert dx.type == x.type
    none, dy = ScatterAdd(0, V).vjp([indices, y], dx, dx)
    assert none is None
    assert dy is not None
    assert dy.type == y.type
    dims = {"V": 6, "N": 2}
    found = ScatterAdd(0, V).evaluate([integers(6, (2, 5)), normal(2, 5, 8)], dims)
    assert found.shape == (6, 8)


@pytest.mark.parametrize(
    ("brick", "types", "error"),
    [
        (Gather(2), [of(2, 3), of(2, dtype=DType.I32)], ShapeError),
        (Gather(0), [of(), of(2, dtype=DType.I32)], ShapeError),
        (Gather(-1), [of(2, 3), of(2, dtype=DType.I32)], ShapeError),
        (Gather(0), [of(2, 3), of(2)], DtypeError),
        (Gather(0), [of(2, 3), of(2, dtype=DType.BOOL)], DtypeError),
        (ScatterAdd(0, 3), [of(2), of(2)], DtypeError),
        (ScatterAdd(0, 3), [of(2, dtype=DType.I32), of(3)], ShapeError),
        (ScatterAdd(1, 3), [of(2, dtype=DType.I32), of(2)], ShapeError),
        (ScatterAdd(-1, 3), [of(2, dtype=DType.I32), of(2)], ShapeError),
        (ScatterAdd(5, 3), [of(dtype=DType.I32), of(2)], ShapeError),
    ],
)
def test_refusals(brick: Brick, types: list[TensorType], error: type[Exception]) -> None:
    with pytest.raises(error):
        brick.infer_type(types)
