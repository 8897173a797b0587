"""Small examples of every brick in the catalogue: what gradient checks and conformance tests run.

Floats are drawn in float64; whoever tests another dtype casts. Values keep away from kinks,
where a central difference means nothing; kinks have exact tests of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import sympy as sp

from ..brick import Brick
from ..dtypes import DType
from ..expression import operand
from ..types import TensorType
from . import activation, arithmetic
from .contract import Contract
from .convert import Cast, StopGradient
from .convolution import Convolution, ConvolutionInputGrad, ConvolutionWeightGrad
from .elementwise import Map
from .indexing import Gather, ScatterAdd
from .loss import Accuracy, SoftmaxLoss, SquareLoss
from .mode import ByMode
from .normalization import BatchNorm, LogSoftmax, LRNAcross, LRNWithin, Softmax
from .placement import Copy, Prefer
from .pooled import PooledInputGrad, PooledWeightGrad, WindowArgMax
from .random import Dropout, RandomUniform
from .reduce import ArgMax, ArgMin, ReduceMax, ReduceMin, ReduceSum
from .shape import (
    BroadcastTo,
    Concat,
    Pad,
    Reshape,
    Reverse,
    Slice,
    Transpose,
)
from .source import Constant, DimSize, Iota, Literal
from .unfold import Fold, Unfold
from .window import WindowMax, WindowMaxGather, WindowMaxScatter, WindowSum, WindowSumGrad

__all__ = ["Sample", "samples"]

Array = npt.NDArray[Any]
Ints = tuple[int, ...]
Draw = Callable[[np.random.Generator], Array]


@dataclass(frozen=True)
class Sample:
    """A brick and how to draw its operands."""

    brick: Brick
    operands: tuple[Draw, ...]
    label: str = ""
    dims: Mapping[str, int] = field(default_factory=dict)
    #: replaces operands that follow from others (the maximum that a scatter is given)
    derive: Callable[[list[Array]], list[Array]] | None = None

    def draw(self, rng: np.random.Generator) -> list[Array]:
        """Operands; floats are float64."""
        drawn = [d(rng) for d in self.operands]
        return self.derive(drawn) if self.derive else drawn


def normal(*shape: int) -> Draw:
    """Normal, but at least 0.05 away from zero."""

    def draw(rng: np.random.Generator) -> Array:
        a = rng.standard_normal(shape)
        return np.asarray(np.where(np.abs(a) < 0.05, a + np.where(a < 0, -0.1, 0.1), a))

    return draw


def positive(*shape: int) -> Draw:
    """Between 0.5 and 2."""
    return lambda rng: rng.random(shape) * 1.5 + 0.5


def distinct(*shape: int) -> Draw:
    """All different by at least 0.1: no ties, no kink within a step."""
    return lambda rng: rng.permutation(int(np.prod(shape))).reshape(shape) * 0.1


def integers(high: int, *shape: int, dtype: type = np.int32) -> Draw:
    return lambda rng: rng.integers(0, high, shape).astype(dtype)


def flags(*shape: int) -> Draw:
    return lambda rng: rng.random(shape) < 0.5


def number(value: int) -> Draw:
    return lambda rng: np.asarray(value, np.int64)


def _with_maximum(window: WindowMax) -> Callable[[list[Array]], list[Array]]:
    """Operand 1 becomes the windows' maxima of operand 0."""

    def derive(drawn: list[Array]) -> list[Array]:
        return [drawn[0], window.evaluate([drawn[0]], {}), *drawn[2:]]

    return derive


def samples() -> list[Sample]:
    """At least one sample of every brick."""
    return [
        *_elementwise(), *_sources(), *_reductions(), *_shapes(), *_products(), *_windows(),
        *_pooled(), *_composites(),
    ]  # fmt: skip


def _elementwise() -> list[Sample]:
    a, x0, x1 = arithmetic, operand(0), operand(1)
    pair = (normal(3, 4), normal(3, 4))
    spread = (normal(2, 3, 4), normal(3, 1))
    found = [Sample(b, pair) for b in (a.Add(), a.Sub(), a.Mul(), a.Div())]
    found += [Sample(b, spread, f"{b.mnemonic} broadcast") for b in (a.Add(), a.Mul(), a.Div())]
    found += [Sample(b, (distinct(3, 4), normal(3, 4))) for b in (a.Maximum(), a.Minimum())]
    smooth: list[Brick] = [
        a.Neg(), a.Exp(), a.Expm1(), a.Abs(), a.Square(), a.Reciprocal(), a.Sin(), a.Cos(),
        a.Erf(), a.Power(2.0), a.Power(3.0), a.Clip(-0.7, None), a.Clip(-0.5, 0.6),
        activation.Tanh(), activation.Logistic(), activation.ReLU(), activation.LeakyReLU(0.1),
        activation.ELU(0.7), activation.GELU(False), activation.GELU(True), activation.SiLU(),
        activation.Softplus(),
    ]  # fmt: skip
    found += [Sample(b, (normal(3, 5),)) for b in smooth]
    roots: list[Brick] = [a.Log(), a.Log1p(), a.Sqrt(), a.Power(-0.75), a.Power(1.5)]
    found += [Sample(b, (positive(3, 5),)) for b in roots]
    found += [
        Sample(activation.PReLU(), (normal(2, 3, 4), normal(3, 1))),
        Sample(a.Pow(), (positive(3, 4), normal(3, 4))),
        Sample(a.Where(), (flags(3, 4), normal(3, 4), normal(3, 4))),
    ]
    steps: list[Brick] = [a.Sign(), a.Floor(), a.Ceil()]
    found += [Sample(b, (normal(3, 5),)) for b in steps]
    compare: list[Brick] = [
        a.Less(), a.LessEqual(), a.Greater(), a.GreaterEqual(), a.Equal(), a.NotEqual(),
    ]  # fmt: skip
    found += [Sample(b, pair) for b in compare]
    found += [Sample(b, (flags(3, 4), flags(3, 4))) for b in (a.LogicalAnd(), a.LogicalOr())]
    found.append(Sample(a.LogicalNot(), (flags(3, 4),)))
    formula = x0 * sp.tanh(x1) + sp.exp(-(x0**2)) / (1 + x1**2)
    found.append(Sample(Map(formula, 2), (normal(4, 3), normal(3)), "map of a formula"))
    found += [
        Sample(Cast(DType.F64), (normal(3, 4),)),
        Sample(StopGradient(), (normal(3, 4),)),
        Sample(Copy((1, 0)), (normal(3, 4),)),
        Sample(Prefer((1, 0)), (normal(3, 4),)),
    ]
    return found


def _sources() -> list[Sample]:
    data = np.arange(6, dtype=np.float64)
    return [
        Sample(Constant(2.5, DType.F64), ()),
        Sample(Literal(data.tobytes(), TensorType(DType.F64, (2, 3))), ()),
        Sample(DimSize(7, DType.F64), ()),
        Sample(Iota(TensorType(DType.I32, (3, 4)), 1), ()),
    ]


def _reductions() -> list[Sample]:
    found = []
    for axes, keep in (((0,), False), ((1, 2), False), ((0, 2), True), ((0, 1, 2), False)):
        found.append(Sample(ReduceSum(axes, keep), (normal(2, 3, 4),)))
        found.append(Sample(ReduceMax(axes, keep), (distinct(2, 3, 4),)))
        found.append(Sample(ReduceMin(axes, keep), (distinct(2, 3, 4),)))
    found.append(Sample(ArgMax(1, False), (distinct(2, 3, 4),)))
    found.append(Sample(ArgMin(2, True), (distinct(2, 3, 4),)))
    return found


def _shapes() -> list[Sample]:
    return [
        Sample(Reshape((6, 4)), (normal(2, 3, 4),)),
        Sample(Reshape((2, 2, 6)), (normal(2, 3, 4),), "reshape across axes"),
        Sample(Transpose((2, 0, 1)), (normal(2, 3, 4),)),
        Sample(BroadcastTo((2, 3, 4)), (normal(3, 1),)),
        Sample(Slice((0, 1, 1), (2, 3, 4), (1, 1, 2)), (normal(2, 3, 5),)),
        Sample(Reverse((0, 2)), (normal(2, 3, 4),)),
        Sample(Unfold(1, 3, 2, 1), (normal(2, 7, 3),)),
        Sample(Unfold(2, 2, 1, 2), (normal(2, 3, 6),), "unfold dilated"),
        Sample(Fold(1, 8, 2, 1), (normal(2, 3, 4, 3),)),
        Sample(Fold(1, 9, 1, 3), (normal(2, 3, 2, 3),), "fold dilated"),
        Sample(Pad((1, 0), (2, 1), (0, 0), 0.5), (normal(3, 4),)),
        Sample(Pad((0, 1), (1, 0), (1, 2), 0.0), (normal(3, 4),), "pad between"),
        Sample(Concat(1), (normal(2, 3, 2), normal(2, 1, 2), normal(2, 4, 2))),
        Sample(Gather(1), (normal(2, 5, 3), integers(5, 2, 2))),
        Sample(ScatterAdd(0, 5), (integers(5, 4), normal(4, 3))),
    ]


def _products() -> list[Sample]:
    found = [
        Sample(Contract("nk,ok->no"), (normal(3, 4), normal(5, 4))),
        Sample(Contract("bmk,bkn->bmn"), (normal(2, 3, 4), normal(2, 4, 5)), "contract batched"),
        Sample(Contract("nchw,oc->nohw"), (normal(2, 3, 4, 4), normal(5, 3)), "contract 1x1"),
        Sample(Contract("i,j->ij"), (normal(3), normal(4)), "contract outer"),
        Sample(Contract("ij,ij->"), (normal(3, 4), normal(3, 4)), "contract inner"),
    ]
    geometries: list[tuple[str, tuple[int, ...], tuple[int, ...], int, tuple[Any, ...]]] = [
        ("plain", (2, 3, 6, 7), (4, 3, 3, 2), 1, ((1, 1), ((0, 0), (0, 0)), (1, 1))),
        ("stride, padding", (2, 2, 7, 8), (3, 2, 3, 3), 1, ((2, 3), ((1, 1), (0, 2)), (1, 1))),
        ("dilation", (1, 2, 8, 9), (2, 2, 3, 2), 1, ((1, 2), ((2, 1), (1, 1)), (2, 3))),
        ("groups", (2, 4, 5, 6), (6, 2, 2, 3), 2, ((1, 1), ((1, 0), (1, 1)), (1, 1))),
        ("depthwise", (2, 3, 5, 5), (3, 1, 3, 3), 3, ((1, 1), ((1, 1), (1, 1)), (1, 1))),
        ("pointwise", (2, 3, 5, 4), (4, 3, 1, 1), 1, ((1, 1), ((0, 0), (0, 0)), (1, 1))),
        ("pointwise, stride", (2, 3, 5, 6), (4, 3, 1, 1), 1, ((2, 2), ((0, 0), (0, 0)), (1, 1))),
        ("1-d", (2, 3, 9), (4, 3, 3), 1, ((2,), ((1, 1),), (2,))),
        ("3-d", (1, 2, 4, 5, 4), (3, 2, 2, 3, 2), 1,
         ((1, 2, 1), ((0, 0), (1, 1), (0, 1)), (1, 1, 2))),
    ]  # fmt: skip
    for label, x, w, groups, (stride, padding, dilation) in geometries:
        forward = Convolution(stride, padding, dilation, groups)
        type = forward.infer_type([TensorType(DType.F64, x), TensorType(DType.F64, w)])
        y = type.concrete({})
        found += [
            Sample(forward, (normal(*x), normal(*w)), f"convolution {label}"),
            Sample(ConvolutionInputGrad(stride, padding, dilation, groups, x[2:]),
                   (normal(*y), normal(*w)), f"convolution_input_grad {label}"),
            Sample(ConvolutionWeightGrad(stride, padding, dilation, groups, w[2:]),
                   (normal(*x), normal(*y)), f"convolution_weight_grad {label}"),
        ]  # fmt: skip
    return found


def _windows() -> list[Sample]:
    found = []
    geometries: list[tuple[str, Ints, tuple[Ints, Ints, tuple[tuple[int, int], ...]]]] = [
        ("tiles", (2, 3, 4, 6), ((1, 1, 2, 2), (1, 1, 2, 2), ((0, 0),) * 4)),
        ("overlap", (2, 2, 7, 7), ((1, 1, 3, 3), (1, 1, 2, 2), ((0, 0),) * 4)),
        ("padding", (1, 2, 5, 6), ((1, 1, 3, 2), (1, 1, 2, 1), ((0, 0), (0, 0), (1, 1), (0, 1)))),
        ("channels", (2, 5, 3), ((1, 3, 1), (1, 1, 1), ((0, 0), (1, 1), (0, 0)))),
    ]
    for label, x, geometry in geometries:
        y = WindowSum(*geometry).infer_type([TensorType(DType.F64, x)]).concrete({})
        maximum = WindowMax(*geometry)
        derive = _with_maximum(maximum)
        found += [
            Sample(WindowSum(*geometry), (normal(*x),), f"window_sum {label}"),
            Sample(WindowSumGrad(*geometry, x), (normal(*y),), f"window_sum_grad {label}"),
            Sample(maximum, (distinct(*x),), f"window_max {label}"),
            Sample(WindowMaxScatter(*geometry), (distinct(*x), normal(*y), normal(*y)),
                   f"window_max_scatter {label}", derive=derive),
            Sample(WindowMaxGather(*geometry), (distinct(*x), normal(*y), normal(*x)),
                   f"window_max_gather {label}", derive=derive),
        ]  # fmt: skip
    return found


def _pooled() -> list[Sample]:
    found = []
    geometries: list[tuple[str, Ints, Ints, Ints, tuple[tuple[int, int], ...], Ints]] = [
        # x, w, stride, padding, window
        ("tiles", (3, 2, 7, 9), (4, 2, 4, 2), (1, 1), ((0, 0), (0, 0)), (2, 2)),
        ("rests", (2, 3, 8, 8), (3, 3, 3, 3), (2, 1), ((1, 1), (0, 1)), (2, 3)),
        ("rows", (2, 1, 6, 5), (5, 1, 1, 5), (1, 1), ((0, 0), (2, 2)), (3, 1)),
    ]
    for label, x, w, stride, padding, window in geometries:
        geometry = (stride, padding, (1, 1), 1)
        image = TensorType(DType.F64, x), TensorType(DType.F64, w)
        y = Convolution(*geometry).infer_type(image).concrete({})
        size = y[2:]
        pooled = (*y[:2], *(n // k for n, k in zip(size, window, strict=True)))
        index = integers(math.prod(window), *pooled)
        found += [
            Sample(WindowArgMax((1, 1, *window)), (distinct(*y),), f"window_arg_max {label}"),
            Sample(PooledWeightGrad(*geometry, window, size, w[2:]),
                   (normal(*x), index, normal(*pooled)), f"pooled_weight_grad {label}"),
            Sample(PooledInputGrad(*geometry, window, size, x[2:]),
                   (index, normal(*pooled), normal(*w)), f"pooled_input_grad {label}"),
        ]  # fmt: skip
    return found


def _composites() -> list[Sample]:
    return [
        Sample(Softmax(1), (normal(3, 5),)),
        Sample(LogSoftmax(1), (normal(3, 5, 2),)),
        Sample(LRNAcross(3, 0.5, 0.75, 1.0), (normal(2, 6, 3, 3),)),
        Sample(LRNWithin(3, 0.5, 0.75, 1.0), (normal(2, 2, 5, 5),)),
        Sample(BatchNorm(0.1, 1e-5),
               (normal(4, 3, 2, 2), normal(3), normal(3), normal(3), positive(3))),
        Sample(SoftmaxLoss(), (normal(4, 5), integers(5, 4))),
        Sample(SoftmaxLoss(), (normal(2, 5, 3), integers(5, 2, 3)), "softmax_loss spatial"),
        Sample(SquareLoss(), (normal(4, 3), normal(4, 3))),
        Sample(Accuracy(), (normal(6, 4), integers(4, 6))),
        Sample(RandomUniform((3, 5), 2, DType.F64), (number(7), number(11))),
        Sample(Dropout(0.4, 1), (normal(3, 4), number(7), number(11))),
        Sample(ByMode(), (normal(3, 4), normal(3, 4))),
    ]  # fmt: skip
