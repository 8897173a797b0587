"""What training makes small, and what people look at meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...errors import DataError, DtypeError, ShapeError
from ..brick import Array, Composite
from ..dims import product
from ..dtypes import DType
from ..types import TensorType
from ..value import Value
from .arithmetic import div, equal, log, mul, square, sub, where
from .convert import cast
from .normalization import shifted_exp, softmax
from .reduce import arg_max, reduce_mean, reduce_sum
from .shape import reshape
from .source import dim_size, iota

__all__ = ["Accuracy", "SoftmaxLoss", "SquareLoss", "accuracy", "softmax_loss", "square_loss"]


def _check_labels(mnemonic: str, logits: TensorType, labels: TensorType) -> None:
    """Raise unless logits are [N, C, *S] floats and labels [N, *S] integers."""
    if not logits.dtype.is_float:
        raise DtypeError(f"{mnemonic} takes logits that are floats", got=logits)
    if not labels.dtype.is_integer:
        raise DtypeError(f"{mnemonic} takes labels that are integers", got=labels, expected="i32")
    if logits.rank < 2:
        raise ShapeError(f"{mnemonic}: logits have no classes", got=logits, expected="[N, C, *S]")
    expected = TensorType(labels.dtype, (logits.shape[0], *logits.shape[2:]))
    if labels != expected:
        raise ShapeError(
            f"{mnemonic}: labels do not fit logits {logits}", got=labels, expected=expected,
            hint="labels are class numbers, one for each example; not one-hot",
        )  # fmt: skip


def _is_label(logits: Value, labels: Value) -> Value:
    """True where the class (axis 1) is the label."""
    ones = (1,) * (logits.rank - 2)
    classes = iota(logits, TensorType(labels.dtype, (1, logits.shape[1], *ones)), 1)
    column = reshape(labels, (labels.shape[0], 1, *labels.shape[1:]))
    return equal(classes, column)


@dataclass(frozen=True)
class SoftmaxLoss(Composite):
    """E = mean of -log softmax(logits)[label], over examples and places.

    A label outside 0 <= label < C is refused by ``evaluate``; compiled programs check inputs
    that have a ``limit``.

    Shapes:  logits [N, C, *S], labels [N, *S] -> E []
    Dtypes:  logits floating, labels i32 or i64; accumulates in the logits' dtype
    Grad:    dlogits = (softmax(logits) - onehot(labels)) · dE / (N · S)
    Raises:  ShapeError if labels do not fit; DtypeError; DataError for a wrong label
    Source:  Caffe's SoftmaxWithLoss; agrees with torch.nn.functional.cross_entropy
    """

    mnemonic: ClassVar[str] = "softmax_loss"
    arity: ClassVar[int | None] = 2

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        logits, labels = operands
        _check_labels(self.mnemonic, logits, labels)
        return TensorType(logits.dtype, ())

    def expand(self, operands: Sequence[Value]) -> Value:
        logits, labels = operands
        shifted, _, total = shifted_exp(logits, 1)
        chosen = where(_is_label(logits, labels), shifted, 0.0)
        losses = sub(log(total), reduce_sum(chosen, (1,), keepdims=True))
        return reduce_mean(losses, tuple(range(losses.rank)), keepdims=False)

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        logits, labels = operands
        if labels.size and not (labels.min() >= 0 and labels.max() < logits.shape[1]):
            raise DataError(
                "softmax_loss: a label is out of range",
                got=f"{labels.min()}..{labels.max()}", expected=f"0..{logits.shape[1] - 1}",
            )  # fmt: skip
        return super().evaluate(operands, dims)

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        logits, labels = operands
        chances = softmax(logits, 1)
        gaps = where(_is_label(logits, labels), sub(chances, 1.0), chances)
        count = dim_size(logits, product(labels.shape), logits.dtype)
        return mul(gaps, div(cotangent, count)), None


@dataclass(frozen=True)
class SquareLoss(Composite):
    """E = 1/2 · sum (y - t)² / N, where N is the size of axis 0 (1 for scalars).

    Shapes:  y [N, *S], t [N, *S] -> E []
    Dtypes:  floats, both the same
    Grad:    dy = (y - t) · dE / N; dt = -dy
    Raises:  ShapeError if the shapes differ; DtypeError
    Source:  Caffe's EuclideanLoss; E = 1/2 (y - t)² of one example
    """

    mnemonic: ClassVar[str] = "square_loss"
    arity: ClassVar[int | None] = 2

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        y, t = operands
        if not y.dtype.is_float or y.dtype is not t.dtype:
            raise DtypeError("square_loss takes floats of one dtype", got=f"{y} and {t}")
        if y.shape != t.shape:
            raise ShapeError("square_loss: shapes differ", got=t, expected=y)
        return TensorType(y.dtype, ())

    def expand(self, operands: Sequence[Value]) -> Value:
        y, t = operands
        squares = square(sub(y, t))
        if y.rank == 0:
            return mul(squares, 0.5)
        total = reduce_sum(squares, tuple(range(y.rank)), keepdims=False)
        return div(mul(total, 0.5), dim_size(y, y.shape[0], y.dtype))


@dataclass(frozen=True)
class Accuracy(Composite):
    """The share of labels that are the class of the largest logit (the first at ties).

    Shapes:  logits [N, C, *S], labels [N, *S] -> y []
    Dtypes:  logits floating, labels i32 or i64; y f32
    Grad:    none
    Raises:  ShapeError if labels do not fit; DtypeError
    Source:  Caffe's Accuracy, top_k = 1
    """

    mnemonic: ClassVar[str] = "accuracy"
    arity: ClassVar[int | None] = 2

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        logits, labels = operands
        _check_labels(self.mnemonic, logits, labels)
        return TensorType(DType.F32, ())

    def expand(self, operands: Sequence[Value]) -> Value:
        logits, labels = operands
        guesses = cast(arg_max(logits, 1, keepdims=False), labels.dtype)
        right = cast(equal(guesses, labels), DType.F32)
        return reduce_mean(right, tuple(range(right.rank)), keepdims=False)

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return None, None


def softmax_loss(logits: Value, labels: Value) -> Value:
    """Mean cross entropy of the softmax of logits [N, C, *S] with class numbers [N, *S]."""
    return logits.apply(SoftmaxLoss(), logits, labels)


def square_loss(y: Value, t: Value) -> Value:
    """Half the sum of squares of y - t, divided by the number of examples."""
    return y.apply(SquareLoss(), y, t)


def accuracy(logits: Value, labels: Value) -> Value:
    """The share of examples whose largest logit is the label's."""
    return logits.apply(Accuracy(), logits, labels)
