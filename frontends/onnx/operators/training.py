"""The operators of ONNX's training domain: gradients and three optimizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ....compiler.optimize.expand import has_own_vjp
from ....ir.brick import Composite, ModeDependent
from ....ir.bricks import arithmetic as a
from ....ir.bricks.arithmetic import where
from ....ir.bricks.convert import cast
from ....ir.bricks.shape import broadcast_to, reshape
from ....ir.bricks.source import constant
from ....ir.value import Value
from ...trace import Tensor
from ..node import Node
from ..values import Item
from .kind import Table

__all__ = ["TABLE", "gradients"]


def gradients(y: Tensor, wrt: Sequence[Tensor]) -> list[Tensor | None]:
    """dy/dx for every x, y being one number or the sum of its elements; None if there is none."""
    ones = broadcast_to(constant(y, 1.0, y.dtype), y.shape)
    found = _pulled_back(y, ones, wrt)
    return [g if isinstance(g, Tensor) else None for g in found]


def _pulled_back(y: Tensor, cotangent: Value, wrt: Sequence[Value]) -> list[Value | None]:
    """The cotangents of ``wrt``, given that of y."""
    wanted = set(wrt)
    total: dict[Value, Value] = {y: cotangent}
    for tensor in reversed(_operands_first(y, wanted)):
        if tensor not in total or tensor in wanted:
            continue
        for operand, part in zip(tensor.operands, _parts(tensor, total[tensor]), strict=True):
            if part is not None and operand.dtype.is_float:
                old = total.get(operand)
                total[operand] = part if old is None else a.add(old, part)
    return [total.get(x) for x in wrt]


def _operands_first(y: Tensor, leaves: set[Value]) -> list[Tensor]:
    """Every tensor that y depends on, after its operands; nothing behind the leaves."""
    order: list[Tensor] = []
    seen: set[Tensor] = {y}
    stack = [(y, iter(() if y in leaves else y.operands))]
    while stack:
        tensor, rest = stack[-1]
        for operand in rest:
            if operand not in seen:
                seen.add(operand)
                stack.append((operand, iter(() if operand in leaves else operand.operands)))
                break
        else:
            stack.pop()
            order.append(tensor)
    return order


def _parts(tensor: Tensor, cotangent: Value) -> Sequence[Value | None]:
    """The operands' cotangents: by the brick's rule, or by those of what it stands for."""
    brick = tensor.brick
    if isinstance(brick, ModeDependent):
        whole, _ = brick.specialise(tensor.operands, training=False)
    elif isinstance(brick, Composite) and not has_own_vjp(brick):
        whole = brick.expand(tensor.operands)
    else:
        return brick.vjp(tensor.operands, tensor, cotangent)
    assert isinstance(whole, Tensor)
    return _pulled_back(whole, cotangent, tensor.operands)


def gradient(node: Node) -> list[object]:
    """Attributes ``xs`` and ``y`` name values of the graph; ``zs`` are held fixed."""
    names, target = node.get_strings("xs"), node.get_string("y", "")
    y = _named(node, target)
    xs = [_named(node, name) for name in names]
    zeros = []
    for x, found in zip(xs, gradients(y, xs), strict=True):
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
