"""Softmax, local response, batch and layer normalisation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...errors import DtypeError, ShapeError, UsageError
from ..brick import Composite, ModeDependent
from ..dims import Size, product
from ..types import TensorType
from ..value import Value
from .arithmetic import add, div, exp, log, maximum, mul, power, reciprocal, sqrt, square, sub
from .reduce import reduce_max, reduce_mean, reduce_sum
from .shape import reshape
from .source import dim_size
from .window import WindowSum

__all__ = ["BatchNorm", "LRNAcross", "LRNWithin", "LogSoftmax", "Normalize", "Softmax",
           "batch_norm", "layer_norm", "log_softmax", "lrn", "normalize", "softmax"]  # fmt: skip


def _check_float(mnemonic: str, type: TensorType) -> None:
    if not type.dtype.is_float:
        raise DtypeError(f"{mnemonic} takes floats", got=type, expected="f32, f64, …")


def _check_axis(mnemonic: str, axis: int, type: TensorType) -> None:
    if not 0 <= axis < type.rank:
        raise ShapeError(
            f"{mnemonic}: no such axis", got=f"axis {axis} of {type}",
            expected=f"0 <= axis < {type.rank}",
        )  # fmt: skip


def _positive_axis(axis: int, x: Value) -> int:
    return axis + x.rank if axis < 0 else axis


# ── softmax ──────────────────────────────────────────────────────────────────────────────


def shifted_exp(x: Value, axis: int) -> tuple[Value, Value, Value]:
    """x - max, its exponential, and the sum of that along the axis, which is kept.

    The steps that softmax, log-softmax and the softmax loss share, so that equal nodes
    become one.
    """
    shifted = sub(x, reduce_max(x, (axis,), keepdims=True))
    powers = exp(shifted)
    return shifted, powers, reduce_sum(powers, (axis,), keepdims=True)


@dataclass(frozen=True)
class Softmax(Composite):
    """y = exp(x) / sum exp(x) along an axis, computed from x - max x.

    Shapes:  x [*S] -> y [*S]
    Dtypes:  floats; accumulates in the same
    Grad:    dx = y ⊙ (dy - sum(dy ⊙ y))
    Raises:  ShapeError if there is no such axis
    Source:  agrees with torch.softmax
    """

    mnemonic: ClassVar[str] = "softmax"
    arity: ClassVar[int | None] = 1

    axis: int

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        _check_float(self.mnemonic, operands[0])
        _check_axis(self.mnemonic, self.axis, operands[0])
        return operands[0]

    def expand(self, operands: Sequence[Value]) -> Value:
        _, powers, total = shifted_exp(operands[0], self.axis)
        return div(powers, total)

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        along = reduce_sum(mul(cotangent, result), (self.axis,), keepdims=True)
        return (mul(result, sub(cotangent, along)),)


@dataclass(frozen=True)
class LogSoftmax(Composite):
    """y = x - log sum exp(x) along an axis, computed from x - max x.

    Shapes:  x [*S] -> y [*S]
    Dtypes:  floats; accumulates in the same
    Grad:    dx = dy - exp(y) ⊙ sum(dy)
    Raises:  ShapeError if there is no such axis
    Source:  agrees with torch.log_softmax
    """

    mnemonic: ClassVar[str] = "log_softmax"
    arity: ClassVar[int | None] = 1

    axis: int

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        _check_float(self.mnemonic, operands[0])
        _check_axis(self.mnemonic, self.axis, operands[0])
        return operands[0]

    def expand(self, operands: Sequence[Value]) -> Value:
        shifted, _, total = shifted_exp(operands[0], self.axis)
        return sub(shifted, log(total))

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        total = reduce_sum(cotangent, (self.axis,), keepdims=True)
        return (sub(cotangent, mul(exp(result), total)),)


# ── local response normalisation ─────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _LRN(Composite):
    """Base: y = x · s^-beta with s = k + alpha/count · (sum of x² over a window)."""

    arity: ClassVar[int | None] = 1

    size: int
    alpha: float
    beta: float
    k: float

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError("impossible size of a neighbourhood", got=self.size, expected=">= 1")

    @abstractmethod
    def axes(self, rank: int) -> tuple[int, ...]:
        """The axes that the window spans."""

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        (type,) = operands
        _check_float(self.mnemonic, type)
        if type.rank < 2 or not self.axes(type.rank):
            raise ShapeError(f"{self.mnemonic}: too few axes", got=type, expected="[N, C, *S]")
        return type

    def expand(self, operands: Sequence[Value]) -> Value:
        (x,) = operands
        return mul(x, power(self._scale(x), -self.beta))

    def _scale(self, x: Value) -> Value:
        factor = self.alpha / self.size ** len(self.axes(x.rank))
        return add(mul(self._sum(square(x)), factor), self.k)

    def _sum(self, x: Value, *, adjoint: bool = False) -> Value:
        """The sum over the window around each element; the adjoint mirrors the window."""
        before, after = self.size // 2, (self.size - 1) // 2
        pair = (after, before) if adjoint else (before, after)
        inside = [axis in self.axes(x.rank) for axis in range(x.rank)]
        window = tuple(self.size if i else 1 for i in inside)
        padding = tuple(pair if i else (0, 0) for i in inside)
        return x.apply(WindowSum(window, (1,) * x.rank, padding), x)

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        (x,) = operands
        scale = self._scale(x)
        spread = self._sum(div(mul(cotangent, result), scale), adjoint=True)
        factor = 2.0 * self.beta * self.alpha / self.size ** len(self.axes(x.rank))
        direct = mul(cotangent, power(scale, -self.beta))
        return (sub(direct, mul(mul(x, spread), factor)),)


@dataclass(frozen=True)
class LRNAcross(_LRN):
    """y = x · s^-beta, s = k + alpha/size · (sum of x² over ``size`` neighbouring channels).

    An even window reaches one channel further down than up, as torch's does.

    Shapes:  x [N, C, *S] -> y [N, C, *S]
    Dtypes:  floats
    Grad:    dx = dy ⊙ s^-beta - 2·alpha·beta/size · x ⊙ sum(dy ⊙ y / s) over the same window
    Raises:  ShapeError below two axes
    Source:  Krizhevsky et al., 2012, section 3.3, with Caffe's alpha/size; agrees with
             torch.nn.functional.local_response_norm
    """

    mnemonic: ClassVar[str] = "lrn_across"

    def axes(self, rank: int) -> tuple[int, ...]:
        return (1,)


@dataclass(frozen=True)
class LRNWithin(_LRN):
    """y = x · s^-beta, s = k + alpha/size^d · (sum of x² over a window of the same channel).

    The window is ``size`` wide on each of the d spatial axes, zeros beyond the border count.

    Shapes:  x [N, C, *S] -> y [N, C, *S]
    Dtypes:  floats
    Grad:    dx = dy ⊙ s^-beta - 2·alpha·beta/size^d · x ⊙ sum(dy ⊙ y / s) over the same window
    Raises:  ShapeError without spatial axes
    Source:  Caffe's LRN layer, WITHIN_CHANNEL (k = 1 there)
    """

    mnemonic: ClassVar[str] = "lrn_within"

    def axes(self, rank: int) -> tuple[int, ...]:
        return tuple(range(2, rank))


# ── batch and layer normalisation ────────────────────────────────────────────────────────


def _moments(x: Value, axes: tuple[int, ...]) -> tuple[Value, Value]:
    """x - mean and the biased variance over the axes, which are kept."""
    centred = sub(x, reduce_mean(x, axes, keepdims=True))
    return centred, reduce_mean(square(centred), axes, keepdims=True)


@dataclass(frozen=True)
class Normalize(Composite):
    """y = (x - mean) / sqrt(variance + eps), mean and biased variance over the axes.

    Shapes:  x [*S] -> y [*S]
    Dtypes:  floats; accumulates in the same
    Grad:    dx = (dy - mean(dy) - y ⊙ mean(dy ⊙ y)) / sqrt(variance + eps)
    Raises:  ShapeError if an axis is missing
    Source:  Ioffe and Szegedy, 2015, algorithm 1
    """

    mnemonic: ClassVar[str] = "normalize"
    arity: ClassVar[int | None] = 1

    axes: tuple[int, ...]
    eps: float

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        _check_float(self.mnemonic, operands[0])
        for axis in self.axes:
            _check_axis(self.mnemonic, axis, operands[0])
        if not self.axes or list(self.axes) != sorted(set(self.axes)):
            raise ShapeError("normalize: axes ascend, at least one", got=self.axes)
        return operands[0]

    def expand(self, operands: Sequence[Value]) -> Value:
        centred, variance = _moments(operands[0], self.axes)
        return mul(centred, _inverse_deviation(variance, self.eps))

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        _, variance = _moments(operands[0], self.axes)
        mean = reduce_mean(cotangent, self.axes, keepdims=True)
        along = reduce_mean(mul(cotangent, result), self.axes, keepdims=True)
        rest = sub(sub(cotangent, mean), mul(result, along))
        return (mul(rest, _inverse_deviation(variance, self.eps)),)


def _inverse_deviation(variance: Value, eps: float) -> Value:
    return reciprocal(sqrt(add(variance, eps)))


@dataclass(frozen=True)
class BatchNorm(ModeDependent):
    """y = (x - mean) / sqrt(variance + eps) · gamma + beta for every channel.

    In training mean and biased variance are those of the batch, over all axes but 1, and the
    running ones move towards them by ``momentum``: new = (1 - momentum) · old + momentum ·
    batch, where the running variance takes the unbiased one. In inference mean and variance
    are the running ones.

    Shapes:  x [N, C, *S], gamma, beta, running_mean, running_var [C] -> y [N, C, *S]
    Dtypes:  floats, all the same
    Grad:    through the batch's mean and variance in training (``normalize``)
    Raises:  ShapeError if x has no channels or the others are not of shape [C]; DtypeError
    Source:  Ioffe and Szegedy, 2015; agrees with torch.nn.BatchNorm2d
    """

    mnemonic: ClassVar[str] = "batch_norm"
    arity: ClassVar[int | None] = 5

    momentum: float
    eps: float

    def _check(self, operands: Sequence[Value]) -> None:
        x, *others = (o.type for o in operands)
        _check_float(self.mnemonic, x)
        if x.rank < 2:
            raise ShapeError("batch_norm: x has no channels", got=x, expected="[N, C, *S]")
        expected = TensorType(x.dtype, (x.shape[1],))
        names = ("gamma", "beta", "running_mean", "running_var")
        for name, type in zip(names, others, strict=True):
            if type.shape != expected.shape:
                raise ShapeError(f"batch_norm: {name} fits no channel", got=type, expected=expected)
            if type != expected:
                raise DtypeError(f"batch_norm: {name}", got=type, expected=expected)

    def specialise(
        self, operands: Sequence[Value], training: bool
    ) -> tuple[Value, Mapping[int, Value]]:
        self._check(operands)
        x, gamma, beta, running_mean, running_var = operands

        def spread(v: Value) -> Value:
            return reshape(v, (x.shape[1], *(1,) * (x.rank - 2)))

        if not training:
            factor = mul(gamma, _inverse_deviation(running_var, self.eps))
            offset = sub(beta, mul(running_mean, factor))
            return add(mul(x, spread(factor)), spread(offset)), {}
        axes = (0, *range(2, x.rank))
        normal = normalize(x, axes, self.eps)
        y = add(mul(normal, spread(gamma)), spread(beta))
        _, variance = _moments(x, axes)
        count = product(x.shape[a] for a in axes)
        unbiased = mul(reshape(variance, (x.shape[1],)), _bessel(x, count))
        mean = reduce_mean(x, axes, keepdims=False)
        return y, {3: self._moved(running_mean, mean), 4: self._moved(running_var, unbiased)}

    def _moved(self, old: Value, new: Value) -> Value:
        return add(mul(old, 1.0 - self.momentum), mul(new, self.momentum))


def _bessel(x: Value, count: Size) -> Value:
    """n/(n-1), which makes a biased variance unbiased; 1 for a single element."""
    rest = maximum(dim_size(x, count - 1, x.dtype), 1.0)
    return div(dim_size(x, count, x.dtype), rest)


# ── functions ────────────────────────────────────────────────────────────────────────────


def softmax(x: Value, axis: int = -1) -> Value:
    """exp(x) / sum exp(x) along an axis."""
    return x.apply(Softmax(_positive_axis(axis, x)), x)


def log_softmax(x: Value, axis: int = -1) -> Value:
    """x - log sum exp(x) along an axis."""
    return x.apply(LogSoftmax(_positive_axis(axis, x)), x)


def lrn(
    x: Value, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0,
    *, within: bool = False,
) -> Value:  # fmt: skip
    """Local response normalisation across channels, or within each."""
    kind = LRNWithin if within else LRNAcross
    return x.apply(kind(size, float(alpha), float(beta), float(k)), x)


def normalize(x: Value, axes: Sequence[int], eps: float = 1e-5) -> Value:
    """x with mean 0 and variance 1 over the axes."""
    wanted = tuple(sorted(_positive_axis(a, x) for a in axes))
    return x.apply(Normalize(wanted, float(eps)), x)


def batch_norm(
    x: Value, gamma: Value, beta: Value, running_mean: Value, running_var: Value,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Value:  # fmt: skip
    """Normalisation of each channel over the batch."""
    brick = BatchNorm(float(momentum), float(eps))
    return x.apply(brick, x, gamma, beta, running_mean, running_var)


def layer_norm(
    x: Value, weight: Value | None, bias: Value | None, axes: Sequence[int] = (-1,),
    eps: float = 1e-5,
) -> Value:  # fmt: skip
    """Normalisation of each example over its last axes, then weight and bias of their shape.

    Source: Ba, Kiros and Hinton, 2016; agrees with torch.nn.LayerNorm
    """
    y = normalize(x, axes, eps)
    if weight is not None:
        y = mul(y, weight)
    return y if bias is None else add(y, bias)
