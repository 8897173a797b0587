"""Convolution and its adjoints beside torch: values, derivatives, derivatives of derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ladder import check_brick
from torch_check import agree_with_torch

from brickc.errors import BrickcError, DtypeError, ShapeError, UnsupportedError
from brickc.ir.brick import Brick
from brickc.ir.bricks.convolution import (
    Convolution,
    ConvolutionInputGrad,
    ConvolutionWeightGrad,
    convolution,
)
from brickc.ir.dims import Dim, Size
from brickc.ir.dtypes import DType
from brickc.ir.types import TensorType
from brickc.ir.value import Abstract, Eager

F = torch.nn.functional
Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
N = Dim("N")
H = Dim("H", 5, 100)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def of(*shape: Size, dtype: DType = DType.F64) -> TensorType:
    return TensorType(dtype, shape)


@dataclass(frozen=True)
class Case:
    """A geometry, with the sizes of x and w."""

    x: Ints
    w: Ints
    stride: Ints
    padding: Pairs
    dilation: Ints
    groups: int = 1

    @property
    def geometry(self) -> tuple[Ints, Pairs, Ints, int]:
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def forward(self) -> Convolution:
        return Convolution(*self.geometry)

    @property
    def input_grad(self) -> ConvolutionInputGrad:
        return ConvolutionInputGrad(*self.geometry, self.x[2:])

    @property
    def weight_grad(self) -> ConvolutionWeightGrad:
        return ConvolutionWeightGrad(*self.geometry, self.w[2:])

    @property
    def y(self) -> Ints:
        return self.forward.infer_type([of(*self.x), of(*self.w)]).concrete({})

    def theirs(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(self.stride)]
        pads = [p for pair in reversed(self.padding) for p in pair]
        return function(F.pad(x, pads), w, None, self.stride, 0, self.dilation, self.groups)

    def their_input_grad(self, dy: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        x = torch.zeros(self.x, dtype=dy.dtype, requires_grad=True)
        return torch.autograd.grad(self.theirs(x, w), x, dy, create_graph=True)[0]

    def their_weight_grad(self, x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        w = torch.zeros(self.w, dtype=dy.dtype, requires_grad=True)
        return torch.autograd.grad(self.theirs(x, w), w, dy, create_graph=True)[0]


CASES = {
    "plain": Case((2, 3, 6, 7), (4, 3, 3, 2), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "pointwise": Case((2, 3, 4, 5), (2, 3, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "pointwise, stride": Case((2, 3, 4, 5), (2, 3, 1, 1), (2, 3), ((0, 0), (0, 0)), (1, 1)),
    "same": Case((1, 2, 5, 5), (3, 2, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "whole": Case((2, 3, 4, 3), (5, 3, 4, 3), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "stride": Case((2, 2, 7, 8), (3, 2, 3, 2), (2, 3), ((0, 0), (0, 0)), (1, 1)),
    "stride, rest": Case((1, 2, 8, 9), (2, 2, 3, 3), (3, 4), ((0, 0), (0, 0)), (1, 1)),
    "stride over kernel": Case((1, 2, 9, 8), (2, 2, 2, 1), (4, 3), ((1, 0), (0, 1)), (1, 1)),
    "uneven padding": Case((1, 2, 5, 4), (2, 2, 3, 3), (1, 2), ((2, 0), (0, 3)), (1, 1)),
    "wide padding": Case((1, 2, 3, 3), (2, 2, 2, 2), (1, 1), ((3, 3), (4, 2)), (1, 1)),
    "dilation": Case((1, 2, 8, 9), (2, 2, 3, 2), (1, 1), ((0, 0), (0, 0)), (2, 3)),
    "all": Case((2, 4, 9, 8), (6, 2, 3, 2), (2, 3), ((2, 1), (0, 3)), (2, 3), 2),
    "groups": Case((2, 6, 4, 4), (4, 3, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 2),
    "depthwise": Case((2, 3, 5, 5), (3, 1, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 3),
    "depthwise, twice": Case((1, 3, 5, 5), (6, 1, 3, 3), (2, 1), ((1, 1), (0, 0)), (1, 1), 3),
    "1-d": Case((2, 3, 9), (4, 3, 3), (2,), ((1, 1),), (2,)),
    "1-d groups": Case((2, 4, 6), (4, 2, 2), (1,), ((0, 1),), (1,), 2),
    "3-d": Case((1, 2, 4, 5, 4), (3, 2, 2, 3, 2), (1, 2, 1), ((0, 0), (1, 1), (0, 1)), (1, 1, 2)),
    "3-d groups": Case(
        (2, 2, 3, 3, 3), (2, 1, 2, 2, 2), (2, 1, 1), ((1, 1), (0, 0), (0, 1)), (1, 1, 1), 2
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_convolution(case: Case) -> None:
    check_brick(case.forward, [normal(*case.x), normal(*case.w, seed=1)], case.theirs)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_input_grad(case: Case) -> None:
    arrays = [normal(*case.y), normal(*case.w, seed=1)]
    check_brick(case.input_grad, arrays, case.their_input_grad)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_weight_grad(case: Case) -> None:
    arrays = [normal(*case.x), normal(*case.y, seed=1)]
    check_brick(case.weight_grad, arrays, case.their_weight_grad)


def test_four_and_six_spatial_axes() -> None:
    """Where torch has nothing, differences still have."""
    four = Case((1, 2, 3, 2, 3, 2), (2, 2, 2, 1, 2, 2), (1, 1, 2, 1),
                ((1, 0), (0, 0), (0, 1), (0, 0)), (1,) * 4)  # fmt: skip
    six = Case((1, 1, 2, 1, 2, 1, 2, 2), (1, 1, 2, 1, 1, 1, 2, 1), (1,) * 6, ((0, 0),) * 6,
               (1,) * 6)  # fmt: skip
    for case in (four, six):
        x, w, y = normal(*case.x), normal(*case.w, seed=1), normal(*case.y, seed=2)
        check_brick(case.forward, [x, w])
        check_brick(case.input_grad, [y, w])
        check_brick(case.weight_grad, [x, y])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any geometry that fits."""
    rank = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    x = [draw(st.integers(0, 2)), groups * draw(st.integers(1, 2))]
    w = [groups * draw(st.integers(1, 2)), x[1] // groups]
    stride, padding, dilation = [], [], []
    for _ in range(rank):
        k, d = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        lo, hi = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        least = max(1, (k - 1) * d + 1 - lo - hi)
        x.append(draw(st.integers(least, least + 4)))
        w.append(k)
        stride.append(draw(st.integers(1, 3)))
        padding.append((lo, hi))
        dilation.append(d)
    return Case(tuple(x), tuple(w), tuple(stride), tuple(padding), tuple(dilation), groups)


@given(cases())
def test_the_three_are_adjoint(case: Case) -> None:
    """⟨y, conv(x, w)⟩ = ⟨input_grad(y, w), x⟩ = ⟨weight_grad(x, y), w⟩, and torch agrees."""
    x, w, y = normal(*case.x), normal(*case.w, seed=1), normal(*case.y, seed=2)
    value = case.forward.evaluate([x, w], {})
    if x.size:
        expected = case.theirs(torch.from_numpy(x), torch.from_numpy(w))
        np.testing.assert_allclose(value, expected.numpy(), rtol=1e-9, atol=1e-11)
    dx = case.input_grad.evaluate([y, w], {})
    dw = case.weight_grad.evaluate([x, y], {})
    assert (dx.shape, dw.shape) == (case.x, case.w)
    found = [(dx * x).sum(), (dw * w).sum()]
    np.testing.assert_allclose(found, [(value * y).sum()] * 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("output_padding", [0, 1])
def test_transposed_convolution(output_padding: int, rng: np.random.Generator) -> None:
    """torch's conv_transpose2d: its weights [in, out/groups, *K] are ours [O, C/groups, *K]."""
    x, w = normal(2, 4, 5, 3), normal(4, 3, 3, 2, seed=1)
    size = tuple((n - 1) * 2 - 2 + (k - 1) + 1 + output_padding
                 for n, k in zip((5, 3), (3, 2), strict=True))  # fmt: skip
    brick = ConvolutionInputGrad((2, 2), ((1, 1), (1, 1)), (1, 1), 2, size)
    agree_with_torch(
        lambda a, b: a.apply(brick, a, b),
        lambda a, b: F.conv_transpose2d(a, b, None, 2, 1, output_padding, 2),
        [x, w],
        rng,
    )


def test_the_function() -> None:
    x, w = Abstract(of(N, 4, 9, 8)), Abstract(of(6, 2, 3, 2))
    assert convolution(x, w, groups=2).shape == (N, 6, 7, 7)
    assert convolution(x, w, 2, 1, 2, 2).shape == (N, 6, 4, 4)
    assert convolution(x, w, (2, 1), [(2, 1), 0], [1, 3], 2).shape == (N, 6, 5, 5)
    value = convolution(
        Eager.of(normal(1, 2, 5), {}), Eager.of(normal(1, 2, 3), {}), padding=[(1, 0)]
    )
    assert value.shape == (1, 1, 4)


# ── sizes that are not known ─────────────────────────────────────────────────────────────────


def check_symbolic(brick: Brick, *types: TensorType) -> TensorType:
    """Shapes as inferred, for several sizes; cotangents, twice over, of the operands' types."""
    result = brick.infer_type(types)
    for dims in ({"N": 1, "H": 5}, {"N": 3, "H": 8}):
        arrays = [normal(*t.concrete(dims)) for t in types]
        assert brick.evaluate(arrays, dims).shape == result.concrete(dims)
    values = [Abstract(t) for t in types]
    first = brick.vjp(values, Abstract(result), Abstract(result))
    assert [f.type if f else None for f in first] == list(types)
    return result


def test_any_batch() -> None:
    case = CASES["all"]
    x, w, y = of(N, *case.x[1:]), of(*case.w), of(N, *case.y[1:])
    assert check_symbolic(case.forward, x, w) == y
    assert check_symbolic(case.input_grad, y, w) == x
    assert check_symbolic(case.weight_grad, x, y) == w


def test_any_spatial_size() -> None:
    geometry = (1, 2), ((1, 0), (1, 1)), (2, 1), 1
    x, w, y = of(N, 3, H, 7), of(4, 3, 3, 3), of(N, 4, H - 3, 4)
    assert check_symbolic(Convolution(*geometry), x, w) == y
    assert check_symbolic(ConvolutionInputGrad(*geometry, (H, 7)), y, w) == x
    assert check_symbolic(ConvolutionWeightGrad(*geometry, (3, 3)), x, y) == w
    strided = Convolution((2,), ((0, 0),), (1,), 1)
    assert strided.infer_type([of(N, 3, H * 2), of(4, 3, 2)]).shape == (N, 4, H)
    with pytest.raises(UnsupportedError, match="stride of 1"):
        strided.infer_type([of(N, 3, H), of(4, 3, 2)])


def test_the_kernel_must_fit_every_size() -> None:
    """Though it would fit the typical one."""
    brick = Convolution((1,), ((0, 0),), (1,), 1)
    brick.infer_type([of(N, 3, H), of(4, 3, 5)])
    with pytest.raises(ShapeError, match="whole of the dims' ranges") as caught:
        brick.infer_type([of(N, 3, H), of(4, 3, 6)])
    assert caught.value.got == "6 > H"


# ── what is refused ──────────────────────────────────────────────────────────────────────────

PLAIN = ((1, 1), ((0, 0), (0, 0)), (1, 1), 1)
X, W, Y = of(2, 4, 5, 5), of(6, 4, 3, 3), of(2, 6, 3, 3)


@pytest.mark.parametrize(
    ("brick", "types", "message"),
    [
        (Convolution(*PLAIN), [X, of(6, 3, 3, 3)], "channels do not fit"),
        (Convolution((1, 1), ((0, 0), (0, 0)), (1, 1), 2), [X, W], "channels do not fit"),
        (Convolution((1, 1), ((0, 0), (0, 0)), (1, 1), 2), [X, of(5, 2, 3, 3)], "groups"),
        (Convolution(*PLAIN), [X, of(6, 4, 6, 3)], "larger than the padded input"),
        (Convolution((1, 1), ((0, 0), (0, 0)), (1, 3), 1), [X, W], "larger than the padded input"),
        (Convolution(*PLAIN), [X, of(6, 4, 0, 3)], "empty kernel"),
        (Convolution(*PLAIN), [of(2, 4, 5), W], "number of axes"),
        (Convolution(*PLAIN), [X, of(6, 4, 3)], "number of axes"),
        (Convolution((1,), ((0, 0),), (1,), 1), [X, W], "number of axes"),
        (Convolution((1,), ((0, 0),) * 2, (1, 1), 1), [X, W], "one number per spatial axis"),
        (Convolution((), (), (), 1), [of(2, 4), of(6, 4)], "one number per spatial axis"),
        (Convolution((0, 1), ((0, 0),) * 2, (1, 1), 1), [X, W], "bad attributes"),
        (Convolution((1, 1), ((0, -1),) * 2, (1, 1), 1), [X, W], "bad attributes"),
        (Convolution((1, 1), ((0, 0),) * 2, (1, 0), 1), [X, W], "bad attributes"),
        (Convolution((1, 1), ((0, 0),) * 2, (1, 1), 0), [X, W], "bad attributes"),
        (ConvolutionInputGrad(*PLAIN, (5, 5)), [of(2, 5, 3, 3), W], "channels do not fit"),
        (ConvolutionInputGrad(*PLAIN, (5, 6)), [Y, W], "sizes do not fit"),
        (ConvolutionInputGrad(*PLAIN, (5,)), [Y, W], "one size per spatial axis"),
        (
            ConvolutionInputGrad((1, 1), ((0, 0),) * 2, (1, 1), 4, (5, 5)),
            [Y, of(6, 1, 3, 3)],
            "groups do not divide the output",
        ),
        (ConvolutionWeightGrad(*PLAIN, (3, 3)), [X, of(3, 6, 3, 3)], "batches differ"),
        (ConvolutionWeightGrad(*PLAIN, (3, 2)), [X, Y], "sizes do not fit"),
        (ConvolutionWeightGrad(*PLAIN, (3,)), [X, Y], "one size per spatial axis"),
        (
            ConvolutionWeightGrad((1, 1), ((0, 0),) * 2, (1, 1), 3, (3, 3)),
            [X, Y],
            "groups do not divide the input",
        ),
        (
            ConvolutionWeightGrad((1, 1), ((0, 0),) * 2, (1, 1), 4, (3, 3)),
            [X, Y],
            "groups do not divide the output",
        ),
    ],
)
def test_shape_errors(brick: Brick, types: list[TensorType], message: str) -> None:
    with pytest.raises(ShapeError, match=message) as caught:
        brick.infer_type(types)
    assert caught.value.what.startswith(type(brick).mnemonic)
    assert caught.value.got
    assert caught.value.expected


def test_dtype_errors() -> None:
    brick = Convolution(*PLAIN)
    for types in ([X, W.with_dtype(DType.F32)], [t.with_dtype(DType.I32) for t in (X, W)]):
        with pytest.raises(DtypeError, match="one float dtype"):
            brick.infer_type(types)


def test_kernels_must_be_known() -> None:
    x, w = Abstract(of(N, 3, H)), Abstract(of(4, 3, Dim("K", 1, 5)))
    y = convolution(x, w)
    with pytest.raises(UnsupportedError, match="known at compile time"):
        Convolution((1,), ((0, 0),), (1,), 1).vjp([x, w], y, y)


def test_messages_name_all_parts() -> None:
    with pytest.raises(BrickcError) as caught:
        Convolution(*PLAIN).infer_type([X, of(6, 3, 3, 3)])
    assert str(caught.value) == (
        "convolution: channels do not fit; got 4 input channels; expected 3 (3 × 1 groups); "
        "the weights are [out, in/groups, *kernel]"
    )
