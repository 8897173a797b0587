"""Losses with torch's reductions: 0 none, 1 mean, 2 sum."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import ImportModelError, UnsupportedError
from ...ir.bricks import activation, arithmetic, normalization, reduce
from ...ir.bricks import shape as shapes
from ...ir.bricks.source import dim_size, iota
from ...ir.dims import Dim, DimExpr, product
from ...ir.types import TensorType
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import Out, Result, columns, promote, to

__all__ = ["LOSSES"]

of = trace.of
Extent = int | Dim | DimExpr
MEAN, SUM = 1, 2


def _reduced(loss: Value, reduction: int) -> Tensor:
    if reduction == 0:
        return of(loss)
    total = reduce.reduce_sum(loss, None, False)
    if reduction == SUM:
        return of(total)
    if reduction != MEAN:
        raise ImportModelError("an unknown reduction", got=reduction, expected="0, 1 or 2")
    return of(arithmetic.div(total, dim_size(loss, loss.type.size, loss.dtype)))


def mse(out: Out, x: Tensor, target: Tensor, reduction: int = MEAN) -> Tensor:
    a, b = promote(x, target)
    return _reduced(arithmetic.square(arithmetic.sub(a, b)), reduction)


def l1(out: Out, x: Tensor, target: Tensor, reduction: int = MEAN) -> Tensor:
    a, b = promote(x, target)
    return _reduced(arithmetic.abs(arithmetic.sub(a, b)), reduction)


def smooth_l1(
    out: Out, x: Tensor, target: Tensor, reduction: int = MEAN, beta: float = 1.0
) -> Tensor:
    if beta == 0:
        return l1(out, x, target, reduction)
    a, b = promote(x, target)
    gap = arithmetic.abs(arithmetic.sub(a, b))
    near = arithmetic.mul(arithmetic.square(gap), 0.5 / beta)
    far = arithmetic.sub(gap, 0.5 * beta)
    return _reduced(arithmetic.where(arithmetic.less(gap, beta), near, far), reduction)


def huber(out: Out, x: Tensor, target: Tensor, reduction: int = MEAN, delta: float = 1.0) -> Tensor:
    a, b = promote(x, target)
    gap = arithmetic.abs(arithmetic.sub(a, b))
    near = arithmetic.mul(arithmetic.square(gap), 0.5)
    far = arithmetic.mul(arithmetic.sub(gap, 0.5 * delta), delta)
    return _reduced(arithmetic.where(arithmetic.less_equal(gap, delta), near, far), reduction)


def bce(
    out: Out, x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: int = MEAN
) -> Tensor:
    # torch keeps both logarithms above -100
    hit = arithmetic.mul(target, arithmetic.maximum(arithmetic.log(x), -100.0))
    rest = arithmetic.sub(1.0, x)
    miss = arithmetic.maximum(arithmetic.log(rest), -100.0)
    loss = arithmetic.neg(arithmetic.add(hit, arithmetic.mul(arithmetic.sub(1.0, target), miss)))
    return _reduced(loss if weight is None else arithmetic.mul(loss, weight), reduction)


def bce_with_logits(
    out: Out, x: Tensor, target: Tensor, weight: Tensor | None = None,
    pos_weight: Tensor | None = None, reduction: int = MEAN,
) -> Tensor:  # fmt: skip
    low = activation.softplus(arithmetic.neg(x))
    if pos_weight is not None:
        grown = arithmetic.mul(arithmetic.sub(pos_weight, 1.0), target)
        low = arithmetic.mul(arithmetic.add(grown, 1.0), low)
    loss = arithmetic.add(arithmetic.mul(arithmetic.sub(1.0, target), x), low)
    return _reduced(loss if weight is None else arithmetic.mul(loss, weight), reduction)


def kl_div(
    out: Out, x: Tensor, target: Tensor, reduction: int = MEAN, *, log_target: bool = False
) -> Tensor:
    from .pointwise import xlogy

    if log_target:
        loss = arithmetic.mul(arithmetic.exp(target), arithmetic.sub(target, x))
    else:
        loss = arithmetic.sub(xlogy(out, target, target), arithmetic.mul(target, x))
    return _reduced(loss, reduction)


# ── classes ──────────────────────────────────────────────────────────────────────────────


def _picked(x: Tensor, labels: Tensor, axis: int) -> tuple[Value, Value]:
    """x at each label along the class axis (0 where it is none), and the labels' hits."""
    ones = (1,) * (x.rank - axis - 1)
    classes = iota(x, TensorType(labels.dtype, (*(1,) * axis, x.shape[axis], *ones)), axis)
    column = shapes.reshape(labels, (*labels.shape[:axis], 1, *labels.shape[axis:]))
    hits = arithmetic.equal(classes, column)
    chosen = arithmetic.where(hits, x, 0.0)
    return reduce.reduce_sum(chosen, (axis,), False), hits


def _nll(
    x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """The loss and the total weight. Labels that are ignored weigh nothing."""
    if x.rank == 0 or not target.dtype.is_integer:
        raise ImportModelError("labels that do not fit", got=f"{x.type}, {target.type}")
    axis = 0 if x.rank == 1 else 1
    expected = (*x.shape[:axis], *x.shape[axis + 1 :])
    if target.shape != expected:
        raise ImportModelError("labels that do not fit", got=target.type, expected=list(expected))
    chosen, hits = _picked(x, target, axis)
    kept = to(of(arithmetic.not_equal(target, ignore_index)), x.dtype)
    weights: Value = kept
    if weight is not None:
        wide = columns(weight, x.rank, axis)
        own = reduce.reduce_sum(arithmetic.where(hits, wide, 0.0), (axis,), False)
        weights = arithmetic.mul(kept, own)
    loss = arithmetic.neg(arithmetic.mul(weights, chosen))
    total = reduce.reduce_sum(weights, None, False)
    if reduction == 0:
        return of(loss), of(total)
    added = reduce.reduce_sum(loss, None, False)
    return of(added if reduction == SUM else arithmetic.div(added, total)), of(total)


def nll(
    out: Out, x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: int = MEAN,
    ignore_index: Extent = -100,
) -> Tensor:  # fmt: skip
    return _nll(x, target, weight, reduction, _whole(ignore_index))[0]


def nll_forward(
    out: Out, x: Tensor, target: Tensor, weight: Tensor | None, reduction: int,
    ignore_index: Extent,
) -> Result:  # fmt: skip
    return _nll(x, target, weight, reduction, _whole(ignore_index))


def _whole(value: Extent) -> int:
    if not isinstance(value, int):
        raise UnsupportedError("a label that is a named dim", got=value)
    return value


def cross_entropy(
    out: Out, x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: int = MEAN,
    ignore_index: Extent = -100, label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    axis = 0 if x.rank == 1 else 1
    scores = of(normalization.log_softmax(x, axis))
    ignored = _whole(ignore_index)
    share = label_smoothing
    if target.dtype.is_float:
        return _soft(scores, target, weight, reduction, axis, share)
    hard, total = _nll(scores, target, weight, reduction, ignored)
    if share == 0:
        return hard
    kept = to(of(arithmetic.not_equal(target, ignored)), x.dtype)
    weighted: Value = scores
    if weight is not None:
        weighted = arithmetic.mul(scores, columns(weight, x.rank, axis))
    even = arithmetic.neg(arithmetic.mul(reduce.reduce_sum(weighted, (axis,), False), kept))
    if reduction != 0:
        even = reduce.reduce_sum(even, None, False)
    if reduction == MEAN:
        even = arithmetic.div(even, total)
    part = arithmetic.mul(even, share / float(_whole(x.shape[axis])))
    return of(arithmetic.add(arithmetic.mul(hard, 1.0 - share), part))


def _soft(
    scores: Tensor, target: Tensor, weight: Tensor | None, reduction: int, axis: int, share: float
) -> Tensor:
    """Cross entropy with a distribution for each example."""
    classes = float(_whole(scores.shape[axis]))
    wanted: Value = target
    if share:
        wanted = arithmetic.add(arithmetic.mul(target, 1.0 - share), share / classes)
    terms = arithmetic.mul(scores, wanted)
    if weight is not None:
        terms = arithmetic.mul(terms, columns(weight, scores.rank, axis))
    loss = arithmetic.neg(reduce.reduce_sum(terms, (axis,), False))
    if reduction != MEAN:
        return _reduced(loss, reduction)
    count = product(n for a, n in enumerate(scores.shape) if a != axis)
    total = reduce.reduce_sum(loss, None, False)
    return of(arithmetic.div(total, dim_size(loss, count, loss.dtype)))


LOSSES: dict[str, Callable[..., Result]] = {
    "mse_loss.default": mse, "l1_loss.default": l1, "smooth_l1_loss.default": smooth_l1,
    "huber_loss.default": huber, "binary_cross_entropy.default": bce,
    "binary_cross_entropy_with_logits.default": bce_with_logits, "kl_div.default": kl_div,
    "nll_loss.default": nll, "nll_loss_nd.default": nll, "nll_loss2d.default": nll,
    "nll_loss_forward.default": nll_forward, "nll_loss2d_forward.default": nll_forward,
    "cross_entropy_loss.default": cross_entropy,
}  # fmt: skip
