"""The optimizer's update as part of the graph: one step is then one program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import InternalError, UsageError
from ...ir.brick import Parameter, State
from ...ir.bricks.arithmetic import (
    abs,
    add,
    div,
    equal,
    greater_equal,
    less_equal,
    logical_and,
    maximum,
    minimum,
    mul,
    reciprocal,
    sqrt,
    square,
    where,
)
from ...ir.bricks.convert import cast
from ...ir.bricks.reduce import reduce_sum
from ...ir.bricks.source import Constant
from ...ir.builder import Builder, GraphValue, rewrite
from ...ir.dtypes import DType
from ...ir.graph import Graph
from ...ir.initializers import Initializer, constant
from ...ir.origin import Origin
from ...ir.types import TensorType
from ...ir.value import Value
from ..differentiate import gradient_outputs
from ..loss_scaling import GOOD_STEPS, SCALE, SCALED, LossScale
from ..optimizers import Optimizer

__all__ = ["CALLS", "LEARNING_RATE", "STEP", "join_gradients", "join_optimizer"]

#: the state that holds the learning rate; whoever runs the program may set it at any time
LEARNING_RATE = "optimizer.lr"
#: the state that counts finished steps
STEP = "optimizer.step"
#: the state that counts calls since the last step, where a step takes several
CALLS = "optimizer.calls"


def join_gradients(graph: Graph, optimizer: Optimizer, *, runtime_lr: bool = True) -> Graph:
    """``join_optimizer`` with the gradients that ``with_gradients`` left as outputs."""
    found = gradient_outputs(graph)
    gradients = {leaf: graph.outputs[name] for leaf, name in found.items()}
    result = join_optimizer(graph, gradients, optimizer, runtime_lr=runtime_lr)
    for name in (*found.values(), *([SCALED] if optimizer.loss_scale else [])):
        del result.outputs[name]
    return result


def join_optimizer(
    graph: Graph, gradients: Mapping[int, int], optimizer: Optimizer, *, runtime_lr: bool = True
) -> Graph:
    """The graph with an update for every parameter in ``gradients`` (parameter -> gradient id).

    Parameters with ``lr_scale`` 0 are frozen: no update, no state. States are called
    ``conv1.weight/momentum``. With ``runtime_lr`` the learning rate is the state
    ``optimizer.lr``, otherwise a constant. Half-precision parameters are updated in f32, and
    their states are f32. Where a step takes several calls, gradients add up in states called
    ``conv1.weight/accumulated``. Gradients of a scaled loss (``scale_loss``) are divided by the
    scale, and nothing but the scale moves unless all of them are finite.

    Raises UsageError if a parameter has an update of its own, or a name is taken.
    """
    new = rewrite(graph, lambda builder, node, operands: None, live_only=False)
    join = _Join(new, optimizer)
    trained = [join.trained(leaf, gradients[leaf]) for leaf in gradients]
    join.run([t for t in trained if t.leaf.lr_scale != 0], runtime_lr)
    return new


@dataclass(frozen=True)
class _Trained:
    id: int
    leaf: Parameter
    parameter: GraphValue
    gradient: Value
    origin: Origin

    @property
    def compute(self) -> DType:
        """The dtype of the update's arithmetic and states."""
        dtype = self.leaf.type.dtype
        return dtype if dtype is DType.F64 else DType.F32


class _Join:
    def __init__(self, graph: Graph, optimizer: Optimizer) -> None:
        self.graph = graph
        self.optimizer = optimizer
        self.builder = Builder(graph)
        self.general = Origin(note="optimizer")
        #: floating states that the forward pass moves
        self.moved = frozenset(
            name for name, id in graph.states.items()
            if id in graph.updates and graph.node(id).type.dtype.is_float
        )  # fmt: skip
        #: true in the last call of a step; None if every call is one
        self.last: Value | None = None
        #: true where parameters and states move; None if they always do
        self.moves: Value | None = None
        #: steps before and after this call, if they are counted
        self.steps: tuple[GraphValue, Value] | None = None

    def trained(self, id: int, gradient: int) -> _Trained:
        node = self.graph.node(id)
        if not isinstance(node.brick, Parameter):
            raise InternalError(f"{node} is no parameter", got=node.brick.mnemonic)
        if id in self.graph.updates:
            raise UsageError(
                f"parameter {node.brick.name} has an update of its own", where=str(node.origin),
                hint="make it a state, or set its lr_scale to 0",
            )  # fmt: skip
        value = self.builder.value(gradient)
        if value.type != node.type:
            raise InternalError(
                f"the gradient of {node.brick.name} has another type", where=str(node.origin),
                got=value.type, expected=node.type,
            )  # fmt: skip
        origin = node.origin.with_note(f"update of {node}")
        return _Trained(id, node.brick, self.builder.value(id), value, origin)

    def run(self, trained: Sequence[_Trained], runtime_lr: bool) -> None:
        if not trained:
            return
        widest = DType.F64 if any(t.compute is DType.F64 for t in trained) else DType.F32
        self.builder.origin = self.general
        self._count_calls()
        self.moves = self.last
        hyper = self._hyper(widest, runtime_lr)
        scaling = self.optimizer.loss_scale
        if scaling is not None:
            trained = self._unscaled(trained)
        accumulated = {t.id: self._accumulated(t) for t in trained}
        trained = [replace(t, gradient=accumulated[t.id]) for t in trained]
        if scaling is not None:
            self._move_scale(scaling, self._finite(trained))
        if self.steps is not None:
            before, after = self.steps
            self.builder.origin = self.general
            self._set(before, self._kept(before, after))
        clip = self._clip(trained, widest)
        self.builder.origin = self.general
        prepared: dict[DType, Mapping[str, Value]] = {}
        for t in trained:
            if t.compute not in prepared:
                own = {name: self._cast(value, t.compute) for name, value in hyper.items()}
                prepared[t.compute] = self.optimizer.prepare(own)
        for t in trained:
            self.builder.origin = t.origin
            self._update(t, prepared[t.compute], clip)

    def _count_calls(self) -> None:
        """Find out whether this call is the last one of a step."""
        if self.optimizer.accumulate == 1:
            return
        before = self._state(CALLS, TensorType(DType.I64), constant(0))
        after = add(before, 1)
        self.last = equal(after, self.optimizer.accumulate)
        self._set(before, where(self.last, 0, after))

    def _accumulated(self, t: _Trained) -> Value:
        """The sum of the gradients of this step's calls so far."""
        if self.last is None:
            return t.gradient
        self.builder.origin = t.origin.with_note("sum")
        like = t.leaf.type.with_dtype(t.compute)
        before = self._state(f"{t.leaf.name}/accumulated", like, constant(0.0))
        total = add(before, self._cast(t.gradient, t.compute))
        self._set(before, where(self.last, 0.0, total))
        return total

    def _hyper(self, dtype: DType, runtime_lr: bool) -> dict[str, Value]:
        if runtime_lr:
            rate = self._state(LEARNING_RATE, TensorType(dtype), constant(self.optimizer.lr))
        else:
            rate = self.builder.add(Constant(self.optimizer.lr, dtype))
        hyper: dict[str, Value] = {"lr": rate}
        if self.optimizer.counts_steps:
            before = self._state(STEP, TensorType(DType.I64), constant(0))
            after = add(before, 1)
            self.steps = before, after
            hyper["step"] = self._cast(after, dtype)
        return hyper

    def _clip(self, trained: Sequence[_Trained], dtype: DType) -> Value | None:
        """The factor that bounds the norm of all gradients."""
        bound = self.optimizer.clip_norm
        if bound is None:
            return None
        total: Value | None = None
        for t in trained:
            self.builder.origin = t.origin.with_note("norm")
            squares = square(self._cast(t.gradient, t.compute))
            part = self._cast(reduce_sum(squares, tuple(range(squares.rank)), False), dtype)
            total = part if total is None else add(total, part)
        assert total is not None
        self.builder.origin = self.general
        limit = self.builder.add(Constant(bound, dtype))
        if self.optimizer.clip_style == "caffe":
            return div(limit, maximum(sqrt(total), bound))
        return minimum(div(limit, add(sqrt(total), 1e-6)), 1.0)

    def _update(self, t: _Trained, hyper: Mapping[str, Value], clip: Value | None) -> None:
        gradient = self._cast(t.gradient, t.compute)
        if self.optimizer.loss_scale is not None and self.moves is not None:
            # the update then waits for all gradients, instead of being stored until they are known
            gradient = where(self.moves, gradient, 0.0)
        if clip is not None:
            gradient = mul(gradient, self._cast(clip, t.compute))
        if self.last is not None:
            gradient = div(gradient, self.optimizer.accumulate)
        like = t.leaf.type.with_dtype(t.compute)
        states = {
            name: self._state(f"{t.leaf.name}/{name}", like, init)
            for name, init in self.optimizer.states(t.leaf).items()
        }
        parameter, after = self.optimizer.update(
            self._cast(t.parameter, t.compute), gradient, states, hyper, t.leaf
        )
        if after.keys() != states.keys():
            raise InternalError(
                f"{type(self.optimizer).__name__} does not update the states it declares",
                got=", ".join(after), expected=", ".join(states),
            )  # fmt: skip
        self._set(t.parameter, self._kept(t.parameter, self._cast(parameter, t.leaf.type.dtype)))
        for name, state in states.items():
            self._set(state, self._kept(state, after[name]))

    def _unscaled(self, trained: Sequence[_Trained]) -> list[_Trained]:
        """The same with the gradients of the loss itself."""
        self.builder.origin = self.general
        inverse = reciprocal(self.builder.value(self.graph.states[SCALE]))
        found = []
        for t in trained:
            self.builder.origin = t.origin.with_note("unscaled")
            gradient = self._cast(t.gradient, t.compute)
            found.append(replace(t, gradient=mul(gradient, self._cast(inverse, t.compute))))
        return found

    def _finite(self, trained: Sequence[_Trained]) -> Value:
        """True if no gradient holds an infinity or a NaN: their sum would be none either."""
        found: Value | None = None
        for t in trained:
            self.builder.origin = t.origin.with_note("finite")
            total = reduce_sum(t.gradient) if t.gradient.rank else t.gradient
            fine = less_equal(abs(total), float(np.finfo(t.compute.numpy).max))
            found = fine if found is None else logical_and(found, fine)
        assert found is not None
        return found

    def _move_scale(self, scaling: LossScale, finite: Value) -> None:
        """Shrink, grow or keep the scale at the end of a step; states that the forward pass
        moves (running means) stay with the parameters, what counts goes on.
        """
        self.builder.origin = self.general
        scale = self.builder.value(self.graph.states[SCALE])
        good = self._state(GOOD_STEPS, TensorType(DType.I64), constant(0))
        after = add(good, 1)
        grows = greater_equal(after, scaling.interval)
        larger = minimum(mul(scale, scaling.growth), scaling.largest)
        smaller = maximum(mul(scale, scaling.backoff), scaling.least)
        self._set(scale, self._kept(scale, where(finite, where(grows, larger, scale), smaller)))
        count = where(finite, where(grows, 0, after), 0)
        self._set(good, self._kept(good, count))
        for leaf, value in list(self.graph.updates.items()):
            node = self.graph.node(leaf)
            if isinstance(node.brick, State) and node.brick.name in self.moved:
                self.builder.origin = self.graph.node(value).origin
                old = self.builder.value(leaf)
                self._set(old, where(finite, self.builder.value(value), old))
        self.moves = finite if self.last is None else logical_and(self.last, finite)

    def _kept(self, old: Value, new: Value) -> Value:
        """The new value where parameters move, else the old one."""
        return new if self.moves is None else where(self.moves, new, old)

    def _state(self, name: str, type: TensorType, first: Initializer) -> GraphValue:
        if name in self.graph.states or name in self.graph.parameters or name in self.graph.inputs:
            raise UsageError("the optimizer needs a name that is taken", got=name)
        return self.builder.add(State(name, type, first))

    def _set(self, leaf: GraphValue, value: Value) -> None:
        if not isinstance(value, GraphValue) or value.type != leaf.type:
            raise InternalError(
                f"an update of {leaf} has another type", where=str(self.builder.origin),
                got=value.type, expected=leaf.type,
            )  # fmt: skip
        self.graph.updates[leaf.id] = value.id

    def _cast(self, value: Value, dtype: DType) -> Value:
        return value if value.dtype is dtype else cast(value, dtype)
