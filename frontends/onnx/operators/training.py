"""The operators of ONNX's training domain: gradients and three optimizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ....ir.bricks import arithmetic as a
from ....ir.bricks.arithmetic import where
from ....ir.bricks.convert import cast
from ....ir.bricks.shape import broadcast_to, reshape
from ....ir.value import Value
from ...gradients import gradients
from ...trace import Tensor
from ..node import Node
from ..values import Item
from .kind import Table

__all__ = ["TABLE"]


def gradient(node: Node) -> list[object]:
    """Attributes ``xs`` and ``y`` name values of the graph; ``zs`` are held fixed."""
    names, target = node.get_strings("xs"), node.get_string("y", "")
    y = _named(node, target)
    xs = [_named(node, name) for name in names]
    zeros = []
    for x, found in zip(xs, gradients(y, xs, inference=True), strict=True):
        nothing = broadcast_to(node.number(0.0, x.dtype), x.shape)
        zeros.append(found if found is not None else nothing)
    return list(zeros)


def _named(node: Node, name: str) -> Tensor:
    try:
        item: Item = node.scope.find(name)
    except KeyError:
        raise node.wrong("names a value that is not there", name[:80]) from None
    value = node.value(item)
    if not isinstance(value, Tensor) or not value.dtype.is_float:
        raise node.unsupported("the gradient of a constant or of whole numbers", name[:80])
    return value


# ── optimizers ───────────────────────────────────────────────────────────────────────────

Update = Callable[[Node, Value, Value, Sequence[Value]], list[Value]]


def optimizer(states: int, update: Update) -> Callable[[Node], list[object]]:
    """Operands: rate, step, all X, all gradients, then all of each state. Results in the
    order X, states."""

    def convert(node: Node) -> list[object]:
        each = 2 + states
        count = (node.count - 2) // each
        if count < 1 or node.count != 2 + each * count:
            raise node.wrong("wrong number of inputs", node.count, f"2 + {each}·n")
        rate, step = reshape(node.tensor(0), ()), reshape(node.tensor(1), ())
        rows = []
        for k in range(count):
            operands = [node.tensor(2 + j * count + k) for j in range(each)]
            rows.append(update(node, rate, step, operands))
        return [row[j] for j in range(1 + states) for row in rows]

    return convert


def _regularized(node: Node, x: Value, g: Value) -> Value:
    factor = node.get_float("norm_coefficient", 0.0)
    return a.add(a.mul(x, factor), g) if factor else g


def adam(node: Node, rate: Value, step: Value, operands: Sequence[Value]) -> list[Value]:
    x, g, v, h = operands
    alpha, beta = node.get_float("alpha", 0.9), node.get_float("beta", 0.999)
    g = _regularized(node, x, g)
    v = a.add(a.mul(v, alpha), a.mul(g, 1.0 - alpha))
    h = a.add(a.mul(h, beta), a.mul(a.square(g), 1.0 - beta))
    t = cast(step, x.dtype)
    rate = cast(rate, x.dtype)
    first = a.sub(1.0, a.pow(node.number(alpha, x.dtype), t))
    second = a.sub(1.0, a.pow(node.number(beta, x.dtype), t))
    started = a.greater(t, 0.0)
    safe = where(started, first, 1.0)
    corrected = where(started, a.div(a.mul(rate, a.sqrt(second)), safe), rate)
    root = a.add(a.sqrt(h), node.get_float("epsilon", 0.0))
    new = a.sub(x, a.mul(corrected, a.div(v, root)))
    after = node.get_float("norm_coefficient_post", 0.0)
    return [a.mul(new, 1.0 - after) if after else new, v, h]


def adagrad(node: Node, rate: Value, step: Value, operands: Sequence[Value]) -> list[Value]:
    x, g, h = operands
    decay = node.get_float("decay_factor", 0.0)
    slowed = a.div(cast(rate, x.dtype), a.add(a.mul(cast(step, x.dtype), decay), 1.0))
    g = _regularized(node, x, g)
    h = a.add(h, a.square(g))
    root = a.add(a.sqrt(h), node.get_float("epsilon", 0.0))
    return [a.sub(x, a.mul(slowed, a.div(g, root))), h]


def momentum(node: Node, rate: Value, step: Value, operands: Sequence[Value]) -> list[Value]:
    x, g, v = operands
    alpha, beta = node.get_float("alpha"), node.get_float("beta")
    mode = node.get_string("mode", "standard")
    if mode not in ("standard", "nesterov"):
        raise node.wrong("unknown mode", mode)
    g = _regularized(node, x, g)
    factor = where(a.greater(step, 0), node.number(beta, x.dtype), 1.0)
    v = a.add(a.mul(v, alpha), a.mul(g, factor))
    move = v if mode == "standard" else a.add(g, a.mul(v, alpha))
    return [a.sub(x, a.mul(cast(rate, x.dtype), move)), v]


TABLE: Table = {
    "Gradient": gradient,
    "Adam": optimizer(2, adam),
    "Adagrad": optimizer(1, adagrad),
    "Momentum": optimizer(1, momentum),
}
