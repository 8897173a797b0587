"""Losses that are operators."""

from __future__ import annotations

from ....ir.bricks import arithmetic as a
from ....ir.bricks.arithmetic import where
from ....ir.bricks.convert import cast
from ....ir.bricks.indexing import gather
from ....ir.bricks.normalization import log_softmax
from ....ir.bricks.reduce import reduce_sum
from ....ir.bricks.shape import broadcast_to, reshape
from ....ir.bricks.source import dim_size, iota
from ....ir.dims import product
from ....ir.dtypes import DType
from ....ir.types import TensorType
from ....ir.value import Value
from ..node import Node
from .kind import Table

__all__ = ["TABLE"]


def _likelihood(node: Node, logs: Value) -> Value:
    """-w[t] · log p[t], by the node's operands 1 (targets) and 2 (weights of the classes)."""
    targets = cast(node.tensor(1), DType.I64)
    if logs.rank < 2 or targets.shape != (logs.shape[0], *logs.shape[2:]):
        raise node.wrong("targets do not fit", targets.type, logs.type)
    ones = (1,) * (logs.rank - 2)
    classes = iota(logs, TensorType(DType.I64, (1, logs.shape[1], *ones)), 1)
    column = reshape(targets, (targets.shape[0], 1, *targets.shape[1:]))
    chosen = a.equal(classes, column)
    losses = a.neg(reduce_sum(where(chosen, logs, 0.0), (1,)))
    weights = None
    if node.given("ignore_index"):
        ignored = a.equal(targets, node.get_int("ignore_index"))
        safe = where(ignored, 0, targets)
    else:
        ignored, safe = None, targets
    if node.has(2):
        weights = gather(node.tensor(2), safe, 0)
    elif ignored is not None:
        weights = broadcast_to(node.number(1, logs.dtype), targets.shape)
    if weights is not None and ignored is not None:
        weights = where(ignored, 0.0, weights)
    if weights is not None:
        # a loss that is left out is 0 even where its logarithm is not finite
        losses = where(a.equal(weights, 0.0), 0.0, a.mul(losses, weights))
    reduction = node.get_string("reduction", "mean")
    axes = tuple(range(losses.rank))
    if reduction == "none":
        return losses
    total = reduce_sum(losses, axes)
    if reduction == "sum":
        return total
    if reduction != "mean":
        raise node.wrong("unknown reduction", reduction)
    if weights is not None:
        return a.div(total, reduce_sum(weights, axes))
    return a.div(total, dim_size(total, product(losses.shape), losses.dtype))


def negative_log_likelihood(node: Node) -> Value:
    return _likelihood(node, node.tensor(0))


def softmax_cross_entropy(node: Node) -> list[Value]:
    scores = node.tensor(0)
    if scores.rank < 2:
        raise node.wrong("scores have no classes", scores.type)
    logs = log_softmax(scores, 1)
    losses = _likelihood(node, logs)
    return [losses, logs] if len(node.proto.output) > 1 else [losses]


TABLE: Table = {
    "NegativeLogLikelihoodLoss": negative_log_likelihood,
    "SoftmaxCrossEntropyLoss": softmax_cross_entropy,
}
