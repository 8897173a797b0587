"""Anchors: the operations around which kernels are fused.

An anchor makes one value over the kernel's index space from its operands. How it is
carried out is the business of a backend's strategy.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..dims import Size
from ..dtypes import DType

__all__ = ["Anchor", "ArgReduce", "Concat", "Contract", "Convolution", "ConvolutionInputGrad",
           "ConvolutionWeightGrad", "Fold", "Gather", "Iota", "Pad", "PooledInputGrad",
           "PooledWeightGrad", "RandomUniform", "Reduce", "ScatterAdd", "WindowArgMax", "WindowMax",
           "WindowMaxGather", "WindowMaxScatter", "WindowSum", "WindowSumGrad"]  # fmt: skip

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Anchor:
    """Base of all anchors."""

    @property
    def kind(self) -> str:
        """Name in dumps, statistics and capabilities."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Contract(Anchor):
    """Σ over the letters that the result lacks: ``a`` and ``b`` are the operands' letters."""

    a: str
    b: str
    result: str


@dataclass(frozen=True)
class Reduce(Anchor):
    """``op`` (sum, max, min) over ``axes``; the axes stay with size 1 if ``keepdims``."""

    op: str
    axes: tuple[int, ...]
    keepdims: bool


@dataclass(frozen=True)
class ArgReduce(Anchor):
    """First index of the maximum or minimum (``op``) along ``axis``."""

    op: str
    axis: int
    keepdims: bool


@dataclass(frozen=True)
class _Window(Anchor):
    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs


@dataclass(frozen=True)
class WindowSum(_Window):
    """Sum over a sliding window on every axis; padding counts as zero."""


@dataclass(frozen=True)
class WindowSumGrad(_Window):
    """Adjoint of WindowSum: every element goes to all places of its window."""


@dataclass(frozen=True)
class WindowMax(_Window):
    """Maximum over a sliding window; padding never wins."""


@dataclass(frozen=True)
class WindowArgMax(_Window):
    """The number, row-major in its window, of the first maximum; windows lie side by side."""


@dataclass(frozen=True)
class WindowMaxScatter(_Window):
    """Operands x, y and v: v goes to the first maximum (y) of its window of x."""


@dataclass(frozen=True)
class WindowMaxGather(_Window):
    """Operands x, y and v: v at the first maximum (y) of every window of x."""


@dataclass(frozen=True)
class _Convolution(Anchor):
    stride: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True)
class Convolution(_Convolution):
    """x [N, C, *S] and w [O, C/groups, *K] -> [N, O, *S']."""


@dataclass(frozen=True)
class ConvolutionInputGrad(_Convolution):
    """dy and w -> dx."""


@dataclass(frozen=True)
class ConvolutionWeightGrad(_Convolution):
    """x and dy -> dw."""


@dataclass(frozen=True)
class _Pooled(_Convolution):
    """The convolution's result, of spatial ``size``, is max-pooled in ``window``s side by side."""

    window: tuple[int, ...]
    size: tuple[int, ...]


@dataclass(frozen=True)
class PooledWeightGrad(_Pooled):
    """x, numbers of winners and gradients of maxima -> dw."""


@dataclass(frozen=True)
class PooledInputGrad(_Pooled):
    """Numbers of winners, gradients of maxima and w -> dx."""


@dataclass(frozen=True)
class Fold(Anchor):
    """Adjoint of a sliding view: the last axis, k, is added at ``axis·stride + k·dilation``."""

    axis: int
    stride: int
    dilation: int


@dataclass(frozen=True)
class Pad(Anchor):
    """``value`` around (lo, hi) and between (interior) the elements of every axis."""

    lo: tuple[int, ...]
    hi: tuple[int, ...]
    interior: tuple[int, ...]
    value: float


@dataclass(frozen=True)
class Concat(Anchor):
    """The operands one after the other along ``axis``."""

    axis: int


@dataclass(frozen=True)
class Gather(Anchor):
    """Operands x and indices: x taken along ``axis``."""

    axis: int


@dataclass(frozen=True)
class ScatterAdd(Anchor):
    """Operands indices and updates: the adjoint of Gather, into ``size`` places of ``axis``."""

    axis: int
    size: Size


@dataclass(frozen=True)
class Iota(Anchor):
    """The index along ``axis``."""

    axis: int
    dtype: DType


@dataclass(frozen=True)
class RandomUniform(Anchor):
    """Operands seed and counter: Philox 4x32-10 of (seed, counter, stream, index)."""

    stream: int
