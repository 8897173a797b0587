"""The catalogue: every brick by its mnemonic, one class each."""

from __future__ import annotations

from ..brick import Brick, Input, Parameter, State
from .activation import (
    ELU,
    GELU,
    LeakyReLU,
    Logistic,
    PReLU,
    ReLU,
    SiLU,
    Softplus,
    Tanh,
)
from .arithmetic import (
    Abs,
    Add,
    Ceil,
    Clip,
    Cos,
    Div,
    Equal,
    Erf,
    Exp,
    Expm1,
    Floor,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Log,
    Log1p,
    LogicalAnd,
    LogicalNot,
    LogicalOr,
    Maximum,
    Minimum,
    Mul,
    Neg,
    NotEqual,
    Pow,
    Power,
    Reciprocal,
    Sign,
    Sin,
    Sqrt,
    Square,
    Sub,
    Where,
)
from .contract import Contract
from .convert import Cast, StopGradient
from .convolution import Convolution, ConvolutionInputGrad, ConvolutionWeightGrad
from .elementwise import Map
from .indexing import Gather, ScatterAdd
from .loss import Accuracy, SoftmaxLoss, SquareLoss
from .mode import ByMode
from .normalization import BatchNorm, LogSoftmax, LRNAcross, LRNWithin, Normalize, Softmax
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

__all__ = ["CATALOGUE"]

#: mnemonic -> class, family by family
CATALOGUE: dict[str, type[Brick]] = {
    brick.mnemonic: brick
    for brick in (
        # leaves and sources
        Input, Parameter, State, Constant, Literal, DimSize, Iota,
        # elementwise
        Map, Add, Sub, Mul, Div, Neg, Exp, Expm1, Log, Log1p, Sqrt, Abs, Sign, Square,
        Reciprocal, Power, Pow, Maximum, Minimum, Clip, Floor, Ceil, Sin, Cos, Erf, Less,
        LessEqual, Greater, GreaterEqual, Equal, NotEqual, LogicalAnd, LogicalOr, LogicalNot,
        Where, Tanh, Logistic, ReLU, LeakyReLU, PReLU, ELU, GELU, SiLU, Softplus,
        # conversions and placement
        Cast, StopGradient, Copy, Prefer,
        # reductions
        ReduceSum, ReduceMax, ReduceMin, ArgMax, ArgMin,
        # shapes and indices
        Reshape, Transpose, BroadcastTo, Slice, Reverse, Unfold, Fold, Pad, Concat, Gather,
        ScatterAdd,
        # products and windows
        Contract, Convolution, ConvolutionInputGrad, ConvolutionWeightGrad, WindowSum,
        WindowSumGrad, WindowMax, WindowMaxScatter, WindowMaxGather,
        # composites
        Softmax, LogSoftmax, LRNAcross, LRNWithin, Normalize, BatchNorm, SoftmaxLoss, SquareLoss,
        Accuracy, RandomUniform, Dropout, ByMode, WindowArgMax, PooledWeightGrad, PooledInputGrad,
    )
}  # fmt: skip
