"""Gradient checks: float64 central differences on random projections.

For a function f of one operand and random directions u (in) and v (out), the number
⟨v, f(x + h·u) − f(x − h·u)⟩ / 2h must equal ⟨vjp(v), u⟩. One projection touches every element
of the Jacobian, at the price of two evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..compiler.differentiate import differentiate
from ..compiler.optimize.expand import expand
from ..compiler.optimize.specialise import specialise
from ..errors import BrickcError, NumericsError
from ..frontends.model import Model
from ..ir.brick import Brick, Input, Leaf, ModeDependent, Parameter, State
from ..ir.bricks.arithmetic import mul
from ..ir.bricks.elementwise import Elementwise
from ..ir.bricks.normalization import BatchNorm
from ..ir.bricks.reduce import ReduceMax, ReduceMin, reduce_sum
from ..ir.bricks.samples import Sample, samples
from ..ir.bricks.source import Literal
from ..ir.bricks.window import WindowMax
from ..ir.builder import Builder, GraphValue
from ..ir.dtypes import DType
from ..ir.graph import Graph
from ..ir.initializers import constant
from ..ir.interpret import interpret
from ..ir.substitute import retype
from ..ir.types import TensorType
from ..ir.value import Eager

__all__ = ["Row", "check_brick", "check_catalogue", "check_model"]

Array = npt.NDArray[Any]

#: relative step of the central difference: the cube root of the machine epsilon is best
STEP = 6e-6

#: what the whole loss's parameters are moved by, relative to their size, until one agrees
_WHOLE_STEPS = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)

#: ranks that stand for values are divided by this
RANK_STEP = 1024.0

_MAXIMA = (WindowMax, ReduceMax, ReduceMin)

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Row:
    """One gradient: of a brick in one operand, or of the whole loss."""

    what: str
    operand: str
    error: float
    passed: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _quiet(done: int, total: int, what: str) -> None:
    return None


def check_catalogue(
    tolerance: float = 1e-6, seed: int = 0, progress: Progress = _quiet
) -> list[Row]:
    """Every sample of every brick in the catalogue, first and second derivative."""
    rows: list[Row] = []
    every = samples()
    for k, sample in enumerate(every):
        progress(k, len(every), sample.brick.mnemonic)
        rows += _check_sample(sample, tolerance, np.random.default_rng([seed, k]))
    return rows


def _check_sample(sample: Sample, tolerance: float, rng: np.random.Generator) -> list[Row]:
    operands = sample.draw(rng)
    label = sample.label or sample.brick.mnemonic
    rows = check_brick(sample.brick, operands, tolerance, rng, label)
    if not rows:
        result = sample.brick.evaluate(operands, sample.dims)
        finite = bool(np.all(np.isfinite(result))) if result.dtype.kind == "f" else True
        rows.append(Row(label, "(no gradient)", 0.0, finite))
    return rows


def check_brick(
    brick: Brick,
    operands: Sequence[Array],
    tolerance: float,
    rng: np.random.Generator,
    label: str = "",
    dims: Mapping[str, int] | None = None,
) -> list[Row]:
    """A row for every operand that the brick has a gradient in. Operands must be float64."""
    dims = dims or {}
    evaluate: Callable[[Sequence[Array]], Array] = partial(brick.evaluate, dims=dims)
    if _has_rule(brick):
        result = Eager.of(evaluate(operands), dims)
        if not result.dtype.is_float:
            return []
        v = rng.standard_normal(result.array.shape)
        values = [Eager.of(a, dims) for a in operands]
        cotangents = [
            c.array if isinstance(c, Eager) else None
            for c in brick.vjp(values, result, Eager.of(v, dims))
        ]
    else:
        # no rule of its own: it is differentiated through what it stands for
        expansion = _Expansion(brick, operands)
        evaluate = expansion.value
        first = evaluate(operands)
        if first.dtype.kind != "f":
            return []
        v = rng.standard_normal(first.shape)
        cotangents = expansion.gradients(operands, v)
    rows = []
    for k, cotangent in enumerate(cotangents):
        if cotangent is None or operands[k].dtype.kind != "f":
            continue
        u = rng.standard_normal(operands[k].shape)
        scale = max(1.0, float(np.max(np.abs(operands[k]), initial=0.0)))
        # a maximum is linear between its kinks, so that its step may be as small as they ask
        h = STEP * scale if not isinstance(brick, _MAXIMA) else STEP / RANK_STEP * 100
        plus, minus = list(operands), list(operands)
        plus[k], minus[k] = operands[k] + h * u, operands[k] - h * u
        difference = evaluate(plus) - evaluate(minus)
        numeric = float(np.sum(v * difference)) / (2 * h)
        analytic = float(np.sum(cotangent * u))
        # a projection can be small by chance: the size that errors are measured by is the
        # norms' product, not the projection itself
        size = float(np.linalg.norm(cotangent) * np.linalg.norm(u)) / max(1, u.size) ** 0.5
        error = abs(numeric - analytic) / max(abs(numeric), abs(analytic), size, 1e-12)
        rows.append(Row(label or brick.mnemonic, f"operand {k}", error, error <= tolerance))
    return rows


def _has_rule(brick: Brick) -> bool:
    """True if the brick states a derivative itself."""
    return not isinstance(brick, ModeDependent) and type(brick).vjp is not Brick.vjp


class _Expansion:
    """A brick as a graph of one node, in training mode, with its operands as parameters."""

    def __init__(self, brick: Brick, operands: Sequence[Array]) -> None:
        graph = Graph("check")
        builder = Builder(graph)
        leaves = []
        for k, a in enumerate(operands):
            type = TensorType(DType.of(a.dtype), a.shape)
            kind = State if self._is_state(brick, k, len(operands)) else Parameter
            leaves.append(builder.add(kind(f"x{k}", type, constant(0.0))))
        result = builder.add(brick, *leaves)
        graph.outputs["y"] = result.id
        self.graph = expand(specialise(graph, training=True), only_without_vjp=False)
        self.graph.updates = {}

    @staticmethod
    def _is_state(brick: Brick, k: int, count: int) -> bool:
        """Running statistics are states: a gradient does not reach them."""
        return isinstance(brick, BatchNorm) and k >= count - 2

    def value(self, operands: Sequence[Array]) -> Array:
        named = {f"x{k}": a for k, a in enumerate(operands)}
        return interpret(self.graph, {}, named, named).outputs["y"]

    def gradients(self, operands: Sequence[Array], v: Array) -> list[Array | None]:
        """Cotangents of the operands for the cotangent v of the result."""
        graph = expand(self.graph, only_without_vjp=False)
        builder = Builder(graph)
        y = builder.value(graph.outputs["y"])
        weights = builder.add(Literal(v.tobytes(), TensorType(y.dtype, v.shape)))
        loss = reduce_sum(mul(y, weights))
        assert isinstance(loss, GraphValue)
        graph.outputs["loss"] = loss.id
        with_gradient, found = differentiate(graph, "loss")
        named = {f"x{k}": a for k, a in enumerate(operands)}
        values = interpret(with_gradient, {}, named, named, keep=list(found.values())).values
        by_name = {graph.node(leaf).brick: values[g] for leaf, g in found.items()}
        arrays = {b.name: a for b, a in by_name.items() if isinstance(b, Parameter)}
        return [arrays.get(f"x{k}") for k in range(len(operands))]


def check_model(
    model: Model, tolerance: float = 1e-6, seed: int = 0, progress: Progress = _quiet
) -> list[Row]:
    """Every kind of brick that the model uses, at the model's own shapes, and the whole loss.

    Everything runs in float64 in the reference interpreter, at the smallest sizes of dims
    (but at least 2, so that means over the batch are tested).
    """
    rng = np.random.default_rng(seed)
    if model.loss is None:
        raise NumericsError(f"{model.name} has no loss to check a gradient of")
    graph = retype(model.training(), {DType.F32: DType.F64})
    inputs, leaves = _draw(graph, rng)
    total = len(graph)
    every = [node.id for node in graph.nodes()]
    values = interpret(graph, inputs, leaves[0], leaves[1], keep=every).values
    sizes = {n: min(max(2, d.lo), d.hi) for n, d in graph.dims.items()}
    rows: list[Row] = []
    seen: set[object] = set()
    for k, node in enumerate(graph.nodes()):
        progress(k, total + 2, node.brick.mnemonic)
        types = tuple(o.type for o in graph.operands(node))
        if isinstance(node.brick, Leaf) or (node.brick, types) in seen:
            continue
        seen.add((node.brick, types))
        operands = [values[o] for o in node.operands]
        operands = [_away_from_kinks(a, node.brick) for a in operands]
        label = f"{node.brick.mnemonic} {node.origin}".strip()
        try:
            rows += check_brick(node.brick, operands, tolerance, rng, label, sizes)
        except BrickcError as error:
            raise error.at(str(node.origin)) from None
    progress(total, total + 2, "whole loss")
    rows.append(_whole(graph, model.loss, inputs, leaves, rng, tolerance))
    return rows


def _away_from_kinks(a: Array, brick: Brick) -> Array:
    """Values at which the brick has a derivative that a difference can be compared with.

    An elementwise kink lies at zero. A maximum has one where two elements are equal: their
    ranks, in place of the elements, are as different as can be.
    """
    if a.dtype.kind != "f":
        return a
    if isinstance(brick, _MAXIMA):
        ranks = np.empty(a.size)
        ranks[np.argsort(a, axis=None, kind="stable")] = np.arange(a.size)
        return ranks.reshape(a.shape) / RANK_STEP
    if isinstance(brick, Elementwise):
        gap = 100 * STEP * max(1.0, float(np.max(np.abs(a), initial=0.0)))
        return np.asarray(np.where(np.abs(a) < gap, np.where(a < 0, a - gap, a + gap), a))
    return a


Leaves = tuple[dict[str, Array], dict[str, Array]]


def _draw(graph: Graph, rng: np.random.Generator) -> tuple[dict[str, Array], Leaves]:
    """Random inputs, parameters as they are initialised, states likewise."""
    sizes = {n: min(max(2, d.lo), d.hi) for n, d in graph.dims.items()}
    inputs: dict[str, Array] = {}
    parameters: dict[str, Array] = {}
    states: dict[str, Array] = {}
    for node in graph.nodes():
        brick = node.brick
        shape = node.type.concrete(sizes)
        match brick:
            case Input():
                if node.type.dtype.is_float:
                    inputs[brick.name] = rng.standard_normal(shape).astype(node.type.dtype.numpy)
                else:
                    limit = brick.limit or 2
                    drawn = rng.integers(0, limit, shape)
                    inputs[brick.name] = drawn.astype(node.type.dtype.numpy)
            case Parameter():
                first = brick.init.sample(brick.name, shape, node.type.dtype, 0)
                noise = rng.standard_normal(shape) * 1e-2  # biases start at zero, on kinks
                parameters[brick.name] = (first + noise).astype(node.type.dtype.numpy)
            case State():
                states[brick.name] = brick.init.sample(brick.name, shape, node.type.dtype, 0)
    return inputs, (parameters, states)


def _whole(
    graph: Graph,
    loss: str,
    inputs: Mapping[str, Array],
    leaves: Leaves,
    rng: np.random.Generator,
    tolerance: float,
) -> Row:
    """The loss's derivative along one random direction through all parameters.

    A large network has millions of kinks, and a step crosses some: it shrinks until none of
    weight is left (VGG needs 1e-9, where rounding still leaves eight digits), and errors far
    below the tolerance of one brick are no aim. A wrong gradient agrees at no step.
    """
    with_gradient, gradients = differentiate(graph, loss)
    parameters, states = leaves
    wanted = list(gradients.values())
    found = interpret(with_gradient, inputs, parameters, states, keep=wanted).values
    directions = {n: rng.standard_normal(a.shape) * _spread(a) for n, a in parameters.items()}
    analytic = 0.0
    for leaf, gradient in gradients.items():
        brick = graph.node(leaf).brick
        assert isinstance(brick, Parameter)
        analytic += float(np.sum(found[gradient] * directions[brick.name]))
    best, at = float("inf"), 0.0
    for h in _WHOLE_STEPS:
        values = []
        for sign in (1, -1):
            moved = {n: a + sign * h * directions[n] for n, a in parameters.items()}
            values.append(float(interpret(graph, inputs, moved, states).outputs[loss]))
        numeric = (values[0] - values[1]) / (2 * h)
        error = abs(numeric - analytic) / max(abs(numeric), abs(analytic), 1e-12)
        best, at = min((best, at), (error, h))
        if best <= tolerance:
            break
    allowed = max(tolerance, 1e-5)
    return Row("whole loss", f"{len(gradients)} parameters, step {at:.0e}", best, best <= allowed)


def _spread(a: Array) -> float:
    """A direction as large as the parameter's own values, so that no layer dominates."""
    return float(np.sqrt(np.mean(a * a))) if a.size else 1.0
