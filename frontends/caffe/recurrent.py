"""LSTM and RNN layers, unrolled over their timesteps.

Unless the hidden state is exposed it starts at zero in every batch; Caffe goes on where the last
batch ended, which is the same where ``cont`` is 0 in the first step.

Source: caffe/layers/lstm_layer.cpp, lstm_unit_layer.cpp, rnn_layer.cpp; Donahue et al., 2014
"""

from __future__ import annotations

from ...ir.bricks import contract, shape
from ...ir.dims import Size, product
from .. import functional as fn
from .. import trace
from ..trace import Tensor
from .call import Call, fixed

__all__ = ["lstm", "lstm_unit", "rnn"]

#: timesteps; each is a part of the program of its own
_MOST_STEPS = 512


class _Sequence:
    """What both layers have: x [T, N, …], cont [T, N], maybe a static input, hidden states."""

    def __init__(self, call: Call, states: int) -> None:
        given = call.sub("recurrent_param")
        self.call, self.given = call, given
        self.exposed = states if given.flag("expose_hidden") else 0
        call.expect(2 + self.exposed, 3 + self.exposed)
        x, cont = call.x(0), call.x(1)
        self.width = given.integer("num_output")
        if x.rank < 3 or cont.rank != 2 or x.shape[:2] != cont.shape or self.width < 1:
            raise call.fail("x is [T, N, …], cont [T, N]", got=f"{x.type}, {cont.type}")
        self.steps = fixed(call, x.shape[0], "the number of timesteps")
        if not 1 <= self.steps <= _MOST_STEPS:
            raise call.fail("too many timesteps", got=self.steps, expected=_MOST_STEPS)
        self.batch: Size = x.shape[1]
        inputs = fixed(call, product(x.shape[2:]), "the input")
        self.x = x.reshape(self.steps, self.batch, inputs)
        self.cont = fn.stop_gradient(cont)
        self.static = call.x(2) if len(call.bottoms) > 2 + self.exposed else None

    def weight(self, role: str, out: int, inputs: int) -> Tensor:
        return self.call.parameter(role, (out, inputs), self.given.sub("weight_filler"))

    def bias(self, role: str, out: int) -> Tensor:
        return self.call.parameter(role, (out,), self.given.sub("bias_filler"))

    def static_part(self, out: int) -> Tensor | None:
        if self.static is None:
            return None
        count = fixed(self.call, product(self.static.shape[1:]), "the static input")
        flat = self.static.reshape(self.batch, count)
        return trace.call(contract.linear, flat, self.weight("weight_static", out, count))

    def first(self, k: int) -> Tensor:
        """A hidden state before the first step."""
        shape_ = (self.batch, self.width)
        if self.exposed:
            given = self.call.x(len(self.call.bottoms) - self.exposed + k)
            if product(given.shape) != product(shape_):
                raise self.call.fail("a hidden state has another size", got=given.type)
            return given.reshape(*shape_)
        zero = trace.literal(0.0, "f32")
        return fn.broadcast_to(zero, shape_)

    def at(self, x: Tensor, step: int) -> Tensor:
        start, stop = [0] * x.rank, list(x.shape)
        start[0], stop[0] = step, step + 1
        return trace.call(shape.slice_, x, start, stop).reshape(*x.shape[1:])

    def cont_at(self, step: int) -> Tensor:
        return self.at(self.cont, step).reshape(self.batch, 1)

    def stacked(self, parts: list[Tensor]) -> Tensor:
        rows = [p.reshape(1, self.batch, self.width) for p in parts]
        return rows[0] if len(rows) == 1 else fn.concat(rows, 0)


def lstm(call: Call) -> list[Tensor]:
    run = _Sequence(call, 2)
    four = 4 * run.width
    weight = run.weight("weight", four, fixed(call, run.x.shape[2], "the input"))
    gates = trace.call(contract.linear, run.x, weight) + run.bias("bias", four)
    static = run.static_part(four)
    hidden_weight = run.weight("weight_h", four, run.width)
    # Caffe's hidden blobs come in the order h, c
    h, c = run.first(0), run.first(1)
    outputs = []
    for step in range(run.steps):
        cont = run.cont_at(step)
        gate = trace.call(contract.linear, h * cont, hidden_weight) + run.at(gates, step)
        gate = gate if static is None else gate + static
        c, h = _unit(c, gate, cont, run.width)
        outputs.append(h)
    tops = [run.stacked(outputs)]
    if run.exposed:
        tops += [h.reshape(1, run.batch, run.width), c.reshape(1, run.batch, run.width)]
    return tops


def _unit(c: Tensor, gate: Tensor, cont: Tensor, width: int) -> tuple[Tensor, Tensor]:
    def part(k: int) -> Tensor:
        start, stop = [0] * gate.rank, list(gate.shape)
        start[-1], stop[-1] = k * width, (k + 1) * width
        return trace.call(shape.slice_, gate, start, stop)

    after = cont * fn.logistic(part(1)) * c + fn.logistic(part(0)) * fn.tanh(part(3))
    return after, fn.logistic(part(2)) * fn.tanh(after)


def lstm_unit(call: Call) -> list[Tensor]:
    """One step: cell [1, N, H], gates [1, N, 4H], cont [1, N] -> cell and hidden state."""
    call.expect(3)
    c, gate, cont = call.x(0), call.x(1), fn.stop_gradient(call.x(2))
    if c.rank != 3 or gate.rank != 3 or gate.shape[:2] != c.shape[:2]:
        raise call.fail("the bottoms do not fit", got=f"{c.type}, {gate.type}, {cont.type}")
    width = fixed(call, c.shape[2], "the hidden state")
    if gate.shape[2] != 4 * width:
        raise call.fail("there are four gates for each cell", got=gate.type, expected=4 * width)
    after, h = _unit(c, gate, cont.reshape(*c.shape[:2], 1), width)
    return [after, h]


def rnn(call: Call) -> list[Tensor]:
    """h = tanh(W_hh·(cont·h) + W_xh·x + b), o = tanh(W_ho·h + b_o)."""
    run = _Sequence(call, 1)
    weight = run.weight("weight", run.width, fixed(call, run.x.shape[2], "the input"))
    into = trace.call(contract.linear, run.x, weight) + run.bias("bias", run.width)
    static = run.static_part(run.width)
    hidden_weight = run.weight("weight_h", run.width, run.width)
    out_weight = run.weight("weight_o", run.width, run.width)
    out_bias = run.bias("bias_o", run.width)
    h = run.first(0)
    outputs = []
    for step in range(run.steps):
        inner = trace.call(contract.linear, h * run.cont_at(step), hidden_weight)
        inner = inner + run.at(into, step)
        h = fn.tanh(inner if static is None else inner + static)
        outputs.append(fn.tanh(trace.call(contract.linear, h, out_weight) + out_bias))
    tops = [run.stacked(outputs)]
    if run.exposed:
        tops.append(h.reshape(1, run.batch, run.width))
    return tops
