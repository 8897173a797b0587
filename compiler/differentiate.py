"""The backward graph: symbolic reverse-mode differentiation, Graph -> Graph.

Each brick states its own rule (``Brick.vjp``); here is only the bookkeeping: which nodes
matter, in which order, and what is added up where a value is used more than once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import BrickcError, InternalError, ShapeError, UsageError
from ..ir.brick import Leaf, Parameter
from ..ir.bricks.arithmetic import Add
from ..ir.bricks.convert import StopGradient
from ..ir.bricks.source import Constant
from ..ir.builder import Builder, GraphValue
from ..ir.graph import Graph, Node
from ..ir.origin import Origin
from .optimize.expand import expand

__all__ = ["differentiate", "gradient_outputs", "with_gradients"]

#: outputs that hold gradients are called ``grad/conv1.weight``
_PREFIX = "grad/"


def differentiate(
    graph: Graph, loss: str = "loss", wrt: Sequence[int] | None = None
) -> tuple[Graph, dict[int, int]]:
    """The graph with gradient nodes added, and the gradient's id for each id in ``wrt``.

    ``wrt`` are ids of leaves (any other value works too, as long as it is no composite that
    has to be expanded); by default all parameters. What the loss does not depend on gets no
    gradient. Forward nodes keep their ids, so the result can be differentiated again.

    Raises ShapeError unless the loss is one floating-point number, and UnsupportedError if
    a brick on the way has no derivative.
    """
    if loss not in graph.outputs:
        raise UsageError(
            "no output of that name to differentiate", where=graph.name, got=loss,
            expected=", ".join(graph.outputs) or "an output",
        )  # fmt: skip
    root = graph.node(graph.outputs[loss])
    if root.type.rank != 0 or not root.type.dtype.is_float:
        raise ShapeError(
            f"the loss {loss!r} must be one floating-point number", where=str(root.origin),
            got=root.type, expected="a scalar such as f32[]",
            hint="take the mean over the examples",
        )  # fmt: skip
    graph = expand(graph, only_without_vjp=True)
    sources = list(graph.parameters.values()) if wrt is None else list(wrt)
    for number in sources:
        graph.node(number)  # VerifyError for an id that does not exist
    backward = _Backward(graph, graph.outputs[loss], sources)
    return backward.run()


def with_gradients(graph: Graph, loss: str = "loss", *, trained_only: bool = False) -> Graph:
    """The graph with the gradient of every parameter as an output ``grad/<name>``.

    ``trained_only`` leaves out parameters that no optimizer moves (``lr_scale`` 0).
    """
    wanted = [
        number
        for number in graph.parameters.values()
        if not trained_only or _parameter(graph.node(number)).lr_scale != 0
    ]
    result, gradients = differentiate(graph, loss, wanted)
    for leaf, gradient in gradients.items():
        name = _PREFIX + _parameter(result.node(leaf)).name
        if name in result.outputs:
            raise UsageError("an output has the name of a gradient", where=graph.name, got=name)
        result.outputs[name] = gradient
    return result


def gradient_outputs(graph: Graph) -> dict[int, str]:
    """Parameter id -> name of the output that ``with_gradients`` made for it."""
    return {
        number: _PREFIX + name
        for name, number in graph.parameters.items()
        if _PREFIX + name in graph.outputs
    }


def _parameter(node: Node) -> Parameter:
    assert isinstance(node.brick, Parameter)
    return node.brick


def _copy(graph: Graph, new: Graph, numbers: Iterable[int] | None = None) -> None:
    """Add the graph's nodes (those in ``numbers``) to ``new``, ids unchanged."""
    kept = None if numbers is None else set(numbers)
    for node in graph.nodes():
        if kept is None or node.id in kept:
            new.add(node.brick, node.operands, node.origin, id=node.id, type=node.type)
    new.reserve(graph.next_id)


class _Backward:
    """One reverse pass over a graph."""

    def __init__(self, graph: Graph, root: int, sources: Sequence[int]) -> None:
        self.graph = graph
        self.root = root
        self.sources = sources
        self.work = Graph(graph.name)
        _copy(graph, self.work)
        self.builder = Builder(self.work)
        #: value -> its cotangents so far, one for each use, in the order of their making
        self.cotangents: dict[int, list[GraphValue]] = {}

    def run(self) -> tuple[Graph, dict[int, int]]:
        active = self._active()
        gradients: dict[int, int] = {}
        wanted = set(self.sources)
        if self.root in active:
            self.builder.origin = self._origin(self.graph.node(self.root))
            one = Constant(1.0, self.graph.node(self.root).type.dtype)
            self.cotangents[self.root] = [self.builder.add(one)]
        for node in reversed(self.graph.nodes()):
            if node.id not in active or node.id not in self.cotangents:
                continue
            self.builder.origin = self._origin(node)
            total = self._total(self.cotangents.pop(node.id))
            if node.id in wanted:
                gradients[node.id] = total.id
            if not isinstance(node.brick, Leaf):
                self._propagate(node, total, active)
        ordered = {number: gradients[number] for number in self.sources if number in gradients}
        return self._finish(list(ordered.values())), ordered

    def _active(self) -> set[int]:
        """Values through which the sources reach the loss: only they get cotangents."""
        before = self.graph.live([self.root])
        wanted = set(self.sources)
        active: set[int] = set()
        for node in self.graph.nodes():
            if node.id not in before or not node.type.dtype.is_float:
                continue
            if isinstance(node.brick, StopGradient) and node.id not in wanted:
                continue
            if node.id in wanted or any(o in active for o in node.operands):
                active.add(node.id)
        return active

    def _origin(self, node: Node) -> Origin:
        return node.origin.with_note(f"grad of {node}")

    def _total(self, parts: Sequence[GraphValue]) -> GraphValue:
        total = parts[0]
        for part in parts[1:]:
            total = self.builder.add(Add(), total, part)
        return total

    def _propagate(self, node: Node, cotangent: GraphValue, active: set[int]) -> None:
        """Hand the node's cotangent on to its active operands."""
        if not any(o in active for o in node.operands):
            return
        operands = [self.builder.value(o) for o in node.operands]
        try:
            results = node.brick.vjp(operands, self.builder.value(node.id), cotangent)
        except BrickcError as error:
            raise error.at(str(node.origin)) from None
        if len(results) != len(operands):
            raise InternalError(
                f"the vjp of {node.brick.mnemonic} returns the wrong number of cotangents",
                where=str(node.origin), got=len(results), expected=len(operands),
            )  # fmt: skip
        for operand, result in zip(operands, results, strict=True):
            if result is None or operand.id not in active:
                continue
            if not isinstance(result, GraphValue) or result.type != operand.type:
                raise InternalError(
                    f"the vjp of {node.brick.mnemonic} returns a cotangent of another type",
                    where=str(node.origin), got=result.type, expected=operand.type,
                )  # fmt: skip
            self.cotangents.setdefault(operand.id, []).append(result)

    def _finish(self, gradients: Sequence[int]) -> Graph:
        """Forward nodes and those that the gradients need: rules may make more than that."""
        needed = self.work.live(gradients)
        kept = [n.id for n in self.work.nodes() if n.id in self.graph or n.id in needed]
        result = Graph(self.graph.name)
        _copy(self.work, result, kept)
        result.outputs = dict(self.graph.outputs)
        result.updates = dict(self.graph.updates)
        return result
