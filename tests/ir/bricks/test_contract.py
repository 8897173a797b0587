"""Contractions beside torch.einsum; matrix products with all their ranks beside torch.matmul."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ladder import check_brick
from torch_check import agree_with_torch

from brickc.errors import DtypeError, ShapeError
from brickc.ir.bricks.contract import Contract, contract, linear, matmul
from brickc.ir.dims import Dim, Size
from brickc.ir.dtypes import DType
from brickc.ir.types import TensorType
from brickc.ir.value import Abstract

Ints = tuple[int, ...]
N = Dim("N")
T = Dim("T")


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def of(*shape: Size, dtype: DType = DType.F64) -> TensorType:
    return TensorType(dtype, shape)


SIZES = {"n": 3, "k": 4, "o": 5, "b": 2, "c": 3, "h": 2, "w": 4, "i": 3, "j": 2, "m": 2}


@pytest.mark.parametrize(
    "spec",
    [
        "nk,ok->no",  # a linear layer
        "nk,ok->on",
        "nk,ko->no",
        "kn,ko->no",
        "bmk,bkn->bmn",  # batched
        "bmk,bkn->nbm",
        "nchw,oc->nohw",  # a pointwise convolution
        "i,j->ij",
        "i,i->",
        "i,i->i",  # elementwise
        "ij,ij->",
        "ij,ji->j",
        ",i->i",
        "ij,->ji",
        ",->",
        "bhwk,hk->bwh",
    ],
)
def test_contract(spec: str) -> None:
    a, b, _ = Contract(spec).letters()
    arrays = [normal(*(SIZES[c] for c in part), seed=k) for k, part in enumerate((a, b))]
    check_brick(Contract(spec), arrays, lambda x, y: torch.einsum(spec, x, y))


@given(st.data())
def test_any_contraction(data: st.DataObject) -> None:
    """Random letters: values beside einsum, cotangents beside the adjoint's definition."""
    letters = "abcde"
    a = data.draw(st.permutations(letters).map(lambda p: "".join(p[:3])), "a")
    b = data.draw(st.permutations(letters).map(lambda p: "".join(p[:3])), "b")
    kept = set(a) ^ set(b)
    shared = sorted(set(a) & set(b))
    kept |= data.draw(st.sets(st.sampled_from(shared)), "kept") if shared else set()
    c = "".join(data.draw(st.permutations(sorted(kept)), "c"))
    size = dict(zip(letters, (2, 3, 1, 4, 2), strict=True))
    x, y, g = (normal(*(size[i] for i in part), seed=k) for k, part in enumerate((a, b, c)))
    brick = Contract(f"{a},{b}->{c}")
    expected = np.einsum(brick.spec, x, y)
    np.testing.assert_allclose(brick.evaluate([x, y], {}), expected, rtol=1e-12, atol=1e-12)
    whole = float((expected * g).sum())
    values = [Abstract(of(*v.shape)) for v in (x, y)]
    result = values[0].apply(brick, *values)
    for operand, gradient in zip(values, brick.vjp(values, result, result), strict=True):
        assert gradient is not None
        assert gradient.type == operand.type
    da = Contract(f"{c},{b}->{a}").evaluate([g, y], {})
    db = Contract(f"{a},{c}->{b}").evaluate([x, g], {})
    np.testing.assert_allclose([(da * x).sum(), (db * y).sum()], [whole] * 2, rtol=1e-9, atol=1e-9)


def test_contract_of_nothing() -> None:
    y = Contract("nk,ok->no").evaluate([normal(3, 0), normal(5, 0)], {})
    np.testing.assert_array_equal(y, np.zeros((3, 5)))
    assert Contract("nk,ok->no").evaluate([normal(0, 2), normal(5, 2)], {}).shape == (0, 5)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (2, 1, 3, 4)])
def test_linear(shape: Ints, rng: np.random.Generator) -> None:
    arrays = [normal(*shape), normal(5, 4, seed=1)]
    agree_with_torch(linear, torch.nn.functional.linear, arrays, rng)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 4), (4, 2)),
        ((2, 3, 4), (2, 4, 2)),
        ((2, 3, 4), (4, 2)),
        ((3, 4), (2, 4, 2)),
        ((5, 1, 3, 4), (2, 4, 2)),
        ((1, 3, 4), (2, 4, 2)),
        ((4,), (4,)),
        ((4,), (4, 2)),
        ((3, 4), (4,)),
        ((2, 3, 4), (4,)),
        ((4,), (2, 4, 3)),
    ],
)
def test_matmul(a: Ints, b: Ints, rng: np.random.Generator) -> None:
    agree_with_torch(matmul, torch.matmul, [normal(*a), normal(*b, seed=1)], rng)


def test_symbolic_sizes() -> None:
    x, w = Abstract(of(N, 4)), Abstract(of(5, 4))
    y = linear(x, w)
    assert y.shape == (N, 5)
    gradients = Contract("ak,ok->ao").vjp([x, w], y, y)
    assert [g.type if g else None for g in gradients] == [x.type, w.type]
    assert matmul(Abstract(of(N, T, 4)), Abstract(of(N, 4, T))).shape == (N, T, T)
    assert matmul(Abstract(of(N, 3, 4)), Abstract(of(4, T))).shape == (N, 3, T)
    assert contract("nt,nt->n", Abstract(of(N, T * 2)), Abstract(of(N, T * 2))).shape == (N,)
    with pytest.raises(ShapeError, match="two sizes"):
        contract("nt,nt->n", Abstract(of(N, T)), Abstract(of(N, N)))


@pytest.mark.parametrize(
    "spec",
    ["nk->n", "nk,ok", "nk,ok->no,n", "nn,nk->k", "nk,ok->nn", "nk,ok->n", "nk,ok->noz", "n1,1->n",
     "nk, ok->no", "n...,o->no", "a,b,c->abc", "é,n->én"],
)  # fmt: skip
def test_bad_specs(spec: str) -> None:
    with pytest.raises(ShapeError, match="contract") as caught:
        Contract(spec).infer_type([of(2, 3), of(4, 3)])
    assert caught.value.got == spec
    assert caught.value.expected


def test_bad_operands() -> None:
    brick = Contract("nk,ok->no")
    with pytest.raises(ShapeError, match="'k' has two sizes"):
        brick.infer_type([of(2, 3), of(4, 5)])
    with pytest.raises(ShapeError, match="wrong number of axes"):
        brick.infer_type([of(2, 3, 1), of(4, 3)])
    with pytest.raises(DtypeError, match="one float dtype"):
        brick.infer_type([of(2, 3), of(4, 3, dtype=DType.F32)])
    with pytest.raises(DtypeError, match="one float dtype"):
        brick.infer_type([of(2, 3, dtype=DType.I32)] * 2)
    with pytest.raises(ShapeError, match="linear"):
        linear(Abstract(of(2, 3)), Abstract(of(3)))
    with pytest.raises(ShapeError, match="matmul of a scalar"):
        matmul(Abstract(of()), Abstract(of(3)))
    with pytest.raises(ShapeError, match="two sizes"):
        matmul(Abstract(of(2, 3)), Abstract(of(2, 3)))
    with pytest.raises(ShapeError, match="broadcast"):
        matmul(Abstract(of(2, 3, 4)), Abstract(of(3, 4, 5)))
