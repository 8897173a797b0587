"""Recurrent layers, written out step by step: their length must be known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ....ir.bricks import activation as f
from ....ir.bricks import arithmetic as a
from ....ir.bricks.arithmetic import where
from ....ir.bricks.contract import contract
from ....ir.bricks.convert import cast
from ....ir.bricks.shape import broadcast_to, concat, reshape, slice_, transpose
from ....ir.dims import Size
from ....ir.dtypes import DType
from ....ir.value import Value
from ..node import Node
from .kind import Table
from .movement import cut, fixed

__all__ = ["TABLE"]

_LONGEST = 1024

Function = Callable[[Value], Value]


@dataclass(frozen=True)
class Layer:
    """One direction of a layer: x [T, N, I], weights by gate, first states [N, H]."""

    w: Value
    r: Value
    #: biases of the inputs' and of the states' products, or None
    wb: Value | None
    rb: Value | None
    functions: list[Function]
    hidden: int
    clip: float


def function(node: Node, name: str, alpha: float | None, beta: float | None) -> Function:
    """An activation by name. Those with parameters have ONNX's defaults."""

    def or_else(value: float | None, default: float) -> float:
        return default if value is None else value

    match name.lower():
        case "relu":
            return f.relu
        case "tanh":
            return f.tanh
        case "sigmoid":
            return f.logistic
        case "softsign":
            return lambda x: a.div(x, a.add(a.abs(x), 1.0))
        case "softplus":
            return f.softplus
        case "affine":
            return lambda x: a.add(a.mul(x, or_else(alpha, 1.0)), or_else(beta, 0.0))
        case "leakyrelu":
            return lambda x: f.leaky_relu(x, or_else(alpha, 0.01))
        case "elu":
            return lambda x: f.elu(x, or_else(alpha, 1.0))
        case "hardsigmoid":
            slope, offset = or_else(alpha, 0.2), or_else(beta, 0.5)
            return lambda x: a.clip(a.add(a.mul(x, slope), offset), 0.0, 1.0)
        case "scaledtanh":
            inner, outer = or_else(beta, 1.0), or_else(alpha, 1.0)
            return lambda x: a.mul(f.tanh(a.mul(x, inner)), outer)
    raise node.unsupported("an activation", name)


def _functions(node: Node, defaults: Sequence[str], directions: int) -> list[list[Function]]:
    names = node.get_strings("activations", list(defaults) * directions)
    if len(names) != len(defaults) * directions:
        raise node.wrong("wrong number of activations", len(names), len(defaults) * directions)
    alphas, betas = list(node.get_floats("activation_alpha")), node.get_floats("activation_beta")
    betas = list(betas)
    found = []
    for name in names:
        takes_alpha = name.lower() in ("affine", "leakyrelu", "elu", "hardsigmoid", "scaledtanh",
                                       "thresholdedrelu")  # fmt: skip
        takes_beta = name.lower() in ("affine", "hardsigmoid", "scaledtanh")
        alpha = alphas.pop(0) if takes_alpha and alphas else None
        beta = betas.pop(0) if takes_beta and betas else None
        found.append(function(node, name, alpha, beta))
    n = len(defaults)
    return [found[k * n : (k + 1) * n] for k in range(directions)]


def _gate(v: Value, k: int, hidden: int) -> Value:
    """Rows of gate ``k`` of a matrix or vector with a block of ``hidden`` rows a gate."""
    return cut(v, 0, k * hidden, (k + 1) * hidden)


def _product(x: Value, w: Value) -> Value:
    return contract("nk,ok->no", x, w)


def _row(v: Value, k: int) -> Value:
    """Element ``k`` of the first axis."""
    start, stop = [0] * v.rank, list(v.shape)
    start[0], stop[0] = k, k + 1
    return reshape(slice_(v, start, stop), v.shape[1:])


def _clipped(layer: Layer, x: Value) -> Value:
    return a.clip(x, -layer.clip, layer.clip) if layer.clip > 0 else x


def _sum(*parts: Value | None) -> Value:
    total: Value | None = None
    for part in parts:
        if part is not None:
            total = part if total is None else a.add(total, part)
    assert total is not None
    return total


def rnn_step(layer: Layer, x: Value, states: list[Value], peep: Value | None) -> list[Value]:
    h = states[0]
    total = _sum(_product(x, layer.w), _product(h, layer.r), layer.wb, layer.rb)
    return [layer.functions[0](_clipped(layer, total))]


def gru_step(linear_first: bool) -> Callable[..., list[Value]]:
    def step(layer: Layer, x: Value, states: list[Value], peep: Value | None) -> list[Value]:
        h, n = states[0], layer.hidden

        def part(v: Value | None, k: int) -> Value | None:
            return None if v is None else _gate(v, k, n)

        def gate(k: int) -> Value:
            return layer.functions[0](
                _clipped(
                    layer,
                    _sum(
                        _product(x, _gate(layer.w, k, n)), _product(h, _gate(layer.r, k, n)),
                        part(layer.wb, k), part(layer.rb, k),
                    ),
                )
            )  # fmt: skip

        z, r = gate(0), gate(1)
        own = _sum(_product(x, _gate(layer.w, 2, n)), part(layer.wb, 2))
        if linear_first:
            kept = a.mul(r, _sum(_product(h, _gate(layer.r, 2, n)), part(layer.rb, 2)))
        else:
            kept = _sum(_product(a.mul(r, h), _gate(layer.r, 2, n)), part(layer.rb, 2))
        new = layer.functions[1](_clipped(layer, a.add(own, kept)))
        return [a.add(a.mul(a.sub(1.0, z), new), a.mul(z, h))]

    return step


def lstm_step(layer: Layer, x: Value, states: list[Value], peep: Value | None) -> list[Value]:
    """Gates in ONNX's order: input, output, forget, cell."""
    h, c = states
    n = layer.hidden
    total = _sum(_product(x, layer.w), _product(h, layer.r), layer.wb, layer.rb)
    i, o, g, z = (cut(total, 1, k * n, (k + 1) * n) for k in range(4))
    gate, cell, out = layer.functions
    if peep is not None:
        i = a.add(i, a.mul(_gate(peep, 0, n), c))
        g = a.add(g, a.mul(_gate(peep, 2, n), c))
    new = a.add(
        a.mul(gate(_clipped(layer, g)), c),
        a.mul(gate(_clipped(layer, i)), cell(_clipped(layer, z))),
    )
    if peep is not None:
        o = a.add(o, a.mul(_gate(peep, 1, n), new))
    return [a.mul(gate(_clipped(layer, o)), out(new)), new]


def recurrent(
    node: Node, gates: int, defaults: Sequence[str], step: Callable[..., list[Value]], states: int
) -> list[Value]:
    """Operands: x, w, r, bias, lengths, first states, peepholes."""
    batch_first = node.get_flag("layout")
    x = node.tensor(0)
    if x.rank != 3:
        raise node.wrong("x is no sequence of batches", x.type)
    if batch_first:
        x = transpose(x, (1, 0, 2))
    length = fixed(node, x.shape[0], "a sequence")
    if not 0 < length <= _LONGEST:
        raise node.unsupported("so long a sequence", length)
    direction = node.get_string("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise node.wrong("unknown direction", direction)
    directions = 2 if direction == "bidirectional" else 1
    w, r = node.tensor(1), node.tensor(2)
    hidden = fixed(node, r.shape[-1], "the hidden size")
    if w.rank != 3 or r.shape != (directions, gates * hidden, hidden):
        raise node.wrong("the weights do not fit", f"{w.type} and {r.type}")
    if states == 2 and node.get_flag("input_forget"):
        raise node.unsupported("coupled gates", "input_forget")
    functions = _functions(node, defaults, directions)
    lengths = cast(node.tensor(4), DType.I64) if node.has(4) else None
    batch = x.shape[1]
    all_outputs, last = [], [[] for _ in range(states)]  # type: ignore[var-annotated]
    for d in range(directions):
        bias = _row(node.tensor(3), d) if node.has(3) else None
        half = gates * hidden
        layer = Layer(
            _row(w, d), _row(r, d),
            None if bias is None else cut(bias, 0, 0, half),
            None if bias is None else cut(bias, 0, half, 2 * half),
            functions[d], hidden, node.get_float("clip", 0.0),
        )  # fmt: skip
        first = [_first(node, 5 + s, d, batch, hidden, x.dtype, batch_first)
                 for s in range(states)]  # fmt: skip
        peep = _row(node.tensor(7), d) if states == 2 and node.has(7) else None
        backwards = direction == "reverse" or d == 1
        outputs, final = _unroll(layer, x, first, step, peep, lengths, backwards, length)
        all_outputs.append(outputs)
        for s in range(states):
            last[s].append(final[s])
    rows: list[Value] = []
    for t in range(length):
        many = [reshape(o[t], (1, 1, batch, hidden)) for o in all_outputs]
        rows.append(many[0] if directions == 1 else concat(many, 1))
    y = rows[0] if length == 1 else concat(rows, 0)
    ends = []
    for s in range(states):
        each = [reshape(v, (1, batch, hidden)) for v in last[s]]
        ends.append(each[0] if directions == 1 else concat(each, 0))
    if batch_first:
        y = transpose(y, (2, 0, 1, 3))
        ends = [transpose(e, (1, 0, 2)) for e in ends]
    return [y, *ends]


def _first(
    node: Node, position: int, d: int, batch: Size, hidden: int, dtype: DType, batch_first: bool
) -> Value:
    if not node.has(position):
        return broadcast_to(node.number(0.0, dtype), (batch, hidden))
    value = node.tensor(position)
    return _row(transpose(value, (1, 0, 2)) if batch_first else value, d)


def _unroll(
    layer: Layer,
    x: Value,
    states: list[Value],
    step: Callable[..., list[Value]],
    peep: Value | None,
    lengths: Value | None,
    backwards: bool,
    length: int,
) -> tuple[list[Value], list[Value]]:
    """Outputs by time and the last states; beyond an example's length outputs are 0."""
    outputs: list[Value | None] = [None] * length
    for t in reversed(range(length)) if backwards else range(length):
        new = step(layer, _row(x, t), states, peep)
        if lengths is None:
            outputs[t] = new[0]
        else:
            alive = reshape(a.greater(lengths, t), (x.shape[1], 1))
            outputs[t] = where(alive, new[0], 0.0)
            new = [where(alive, n, s) for n, s in zip(new, states, strict=True)]
        states = new
    return [o for o in outputs if o is not None], states


def rnn(node: Node) -> list[Value]:
    return recurrent(node, 1, ["Tanh"], rnn_step, 1)


def gru(node: Node) -> list[Value]:
    step = gru_step(node.get_flag("linear_before_reset"))
    return recurrent(node, 3, ["Sigmoid", "Tanh"], step, 1)


def lstm(node: Node) -> list[Value]:
    return recurrent(node, 4, ["Sigmoid", "Tanh", "Tanh"], lstm_step, 2)


TABLE: Table = {"RNN": rnn, "GRU": gru, "LSTM": lstm}
