"""Normalisation: of channels, of examples, of neighbours."""

from __future__ import annotations

from ....ir.brick import State
from ....ir.bricks import arithmetic as a
from ....ir.bricks.arithmetic import where
from ....ir.bricks.convert import cast
from ....ir.bricks.normalization import batch_norm, lrn, normalize
from ....ir.bricks.reduce import reduce_mean, reduce_sum
from ....ir.bricks.shape import broadcast_to, reshape
from ....ir.bricks.window import window_sum
from ....ir.dtypes import DType
from ....ir.value import Value
from ...layers import Dropout
from ...trace import Tensor
from ..node import Node
from ..values import Stored
from .kind import Table
from .movement import fixed

__all__ = ["TABLE"]


def _spread(v: Value, x: Value) -> Value:
    return reshape(v, (x.shape[1], *(1,) * (x.rank - 2)))


def batch_normalization(node: Node) -> list[Value]:
    """With stored mean and variance a layer that training updates, else plain arithmetic."""
    x = node.tensor(0)
    if x.rank < 2:
        raise node.wrong("no channels", x.type)
    eps, momentum = node.get_float("epsilon", 1e-5), node.get_float("momentum", 0.9)
    training = node.opset >= 14 and node.get_flag("training_mode")
    means, variances = node.item(3), node.item(4)
    if not training and isinstance(means, Stored) and isinstance(variances, Stored):
        mean = node.importer.state(means)
        variance = node.importer.state(variances)
        same = mean is not None and variance is not None and mean.dtype is x.dtype
        if same and mean is not None and variance is not None:
            scale, bias = node.tensor(1), node.tensor(2)
            return [batch_norm(x, scale, bias, mean, variance, 1.0 - momentum, eps)]
    scale, bias = _spread(node.tensor(1), x), _spread(node.tensor(2), x)
    old_mean, old_variance = _value(node, 3), _value(node, 4)
    if not training:
        y = _normalized(x, _spread(old_mean, x), _spread(old_variance, x), eps)
        return [a.add(a.mul(cast(y, x.dtype), scale), bias)]
    axes = (0, *range(2, x.rank))
    mean_now = reduce_mean(x, axes, keepdims=True)
    variance_now = reduce_mean(a.square(a.sub(x, mean_now)), axes, keepdims=True)
    y = a.add(a.mul(_normalized(x, mean_now, variance_now, eps), scale), bias)
    moved = []
    for old, new in ((old_mean, mean_now), (old_variance, variance_now)):
        flat = cast(reshape(new, old.shape), old.dtype)
        moved.append(a.add(a.mul(old, momentum), a.mul(flat, 1.0 - momentum)))
    return [y, *moved]


def _value(node: Node, position: int) -> Value:
    item = node.item(position)
    if isinstance(item, Stored) and item.leaf is not None and isinstance(item.leaf.brick, State):
        return item.leaf
    return node.tensor(position)


def _normalized(x: Value, mean: Value, variance: Value, eps: float) -> Value:
    return a.div(a.sub(x, mean), a.sqrt(a.add(variance, eps)))


def instance_normalization(node: Node) -> Value:
    x = node.tensor(0)
    if x.rank < 3:
        raise node.wrong("no image", x.type)
    y = normalize(x, range(2, x.rank), node.get_float("epsilon", 1e-5))
    return a.add(a.mul(y, _spread(node.tensor(1), x)), _spread(node.tensor(2), x))


def layer_normalization(node: Node) -> list[Value]:
    x = node.tensor(0)
    axes = tuple(range(node.axis(node.get_int("axis", -1), x.rank), x.rank))
    eps = node.get_float("epsilon", 1e-5)
    wide = cast(x, DType.F32) if x.dtype is DType.F16 else x
    y = a.mul(cast(normalize(wide, axes, eps), x.dtype), node.tensor(1))
    if node.has(2):
        y = a.add(y, node.tensor(2))
    if len(node.proto.output) == 1:
        return [y]
    mean = reduce_mean(wide, axes, keepdims=True)
    variance = reduce_mean(a.square(a.sub(wide, mean)), axes, keepdims=True)
    return [y, mean, a.reciprocal(a.sqrt(a.add(variance, eps)))]


def rms_normalization(node: Node) -> Value:
    x = node.tensor(0)
    axes = tuple(range(node.axis(node.get_int("axis", -1), x.rank), x.rank))
    wide = cast(x, DType.F32) if x.dtype is DType.F16 else x
    squares = reduce_mean(a.square(wide), axes, keepdims=True)
    y = a.div(wide, a.sqrt(a.add(squares, node.get_float("epsilon", 1e-5))))
    return a.mul(cast(y, x.dtype), node.tensor(1))


def group_normalization(node: Node) -> Value:
    """Until opset 20 scale and bias belong to groups, then to channels."""
    x, groups = node.tensor(0), node.get_int("num_groups")
    channels = fixed(node, x.shape[1], "channels")
    if groups < 1 or channels % groups:
        raise node.wrong("the channels do not divide into groups", channels, groups)
    each = channels // groups
    split = reshape(x, (x.shape[0], groups, each, *x.shape[2:]))
    y = normalize(split, range(2, split.rank), node.get_float("epsilon", 1e-5))
    scale, bias = node.tensor(1), node.tensor(2)
    if scale.shape == (channels,) and node.opset >= 21:
        y = reshape(y, x.shape)
        return a.add(a.mul(y, _spread(scale, x)), _spread(bias, x))
    ones = (1,) * (split.rank - 2)
    y = a.add(a.mul(y, reshape(scale, (groups, *ones))), reshape(bias, (groups, *ones)))
    return reshape(y, x.shape)


def mean_variance_normalization(node: Node) -> Value:
    """(x - mean)/(deviation + 1e-9), as ONNX's function body has it."""
    x = node.tensor(0)
    axes = tuple(node.axis(k, x.rank) for k in node.get_ints("axes", (0, 2, 3)))
    mean = reduce_mean(x, axes, keepdims=True)
    variance = reduce_mean(a.square(a.sub(x, mean)), axes, keepdims=True)
    return a.div(a.sub(x, mean), a.add(a.sqrt(variance), 1e-9))


def lp_normalization(node: Node) -> Value:
    """Rows of zeros stay zeros."""
    x = node.tensor(0)
    axis = node.axis(node.get_int("axis", -1), x.rank)
    p = node.get_int("p", 2)
    if p not in (1, 2):
        raise node.unsupported("a norm", p)
    total = reduce_sum(a.abs(x) if p == 1 else a.square(x), (axis,), keepdims=True)
    # before the root, which has no derivative at 0
    safe = where(a.equal(total, 0.0), 1.0, total)
    return a.div(x, safe if p == 1 else a.sqrt(safe))


def local_response(node: Node) -> Value:
    """An even window reaches one channel further up than down."""
    x, size = node.tensor(0), node.get_int("size")
    if size < 1 or size > 10_000:
        raise node.wrong("impossible size", size)
    alpha, beta = node.get_float("alpha", 1e-4), node.get_float("beta", 0.75)
    bias = node.get_float("bias", 1.0)
    if size % 2:
        return lrn(x, size, alpha, beta, bias)
    window = (1, size, *(1,) * (x.rank - 2))
    low = (size - 1) // 2
    padding = ((0, 0), (low, size - 1 - low), *((0, 0),) * (x.rank - 2))
    near = window_sum(a.square(x), window, (1,) * x.rank, padding)
    return a.mul(x, a.power(a.add(a.mul(near, alpha / size), bias), -beta))


def dropout(node: Node) -> list[Value]:
    """Off in inference and on in training, whatever the file was exported for.

    A file that asks for random numbers in inference is refused.
    """
    x = node.tensor(0)
    if node.opset < 12:
        rate, training = node.get_float("ratio", 0.5), False
    else:
        rate = float(node.scalar(1)) if node.has(1) else 0.5
        training = bool(node.scalar(2)) if node.has(2) else False
    if training and rate:
        raise node.unsupported(
            "random numbers in inference", f"training_mode with ratio {rate}",
            hint="export for inference: brickc's training drops out anyway",
        )  # fmt: skip
    y = Dropout(rate).forward(x) if isinstance(x, Tensor) and 0 < rate < 1 else x
    kept = cast(broadcast_to(node.number(1, DType.I32), x.shape), DType.BOOL)
    return [y, kept] if len(node.proto.output) > 1 else [y]


TABLE: Table = {
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": instance_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
    "GroupNormalization": group_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "LpNormalization": lp_normalization,
    "LRN": local_response,
    "Dropout": dropout,
}
