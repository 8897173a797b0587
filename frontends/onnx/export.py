"""brickc graphs as ONNX models: inference, or a whole training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...compiler.optimize.expand import expand
from ...compiler.optimize.simplify import simplify
from ...compiler.optimizers import SGD, Optimizer
from ...compiler.pipelines import inference_pipeline, training_pipeline
from ...errors import UnsupportedError, UsageError
from ...ir.brick import Array, Leaf
from ...ir.graph import Graph, Node
from ...ir.types import TensorType
from ..model import Model
from .export_bricks import write_brick
from .functions import ELEMENTS
from .package import onnx_package
from .writer import Writer

if TYPE_CHECKING:
    import onnx

__all__ = ["OPSET", "to_onnx", "write_graph"]

#: what is written: ScatterND adds, reductions take axes as an operand, Shape takes a part
OPSET = 18
_IR_VERSION = 9
#: outputs that hold a leaf's value after the step are called ``next/conv1.weight``
_PREFIX = "next/"


def to_onnx(
    model: Model,
    function: str = "infer",
    *,
    optimizer: Optimizer | None = None,
    weights: Mapping[str, npt.ArrayLike] | None = None,
    seed: int = 0,
) -> onnx.ModelProto:
    """A function of the model (``infer``, ``evaluate`` or ``train_step``) as an ONNX model.

    Parameters and states become initializers of their names, with ``weights`` (a program's
    ``state_dict()``), the model's own, or what their ``init`` draws from ``seed``. Of a
    training step they are inputs as well, and outputs ``next/NAME`` are their new values, so
    that whoever runs it can feed those back.

    Raises UnsupportedError that lists every brick that ONNX has no operators for.
    """
    match function:
        case "infer":
            graph = inference_pipeline().run(model.inference())
        case "evaluate":
            graph = inference_pipeline().run(model.evaluation())
        case "train_step":
            pipeline = training_pipeline(model.loss or "loss", optimizer or SGD(0.01))
            graph = pipeline.run(model.training())
        case _:
            raise UsageError(
                "unknown function", got=function, expected="infer, evaluate or train_step"
            )
    given = {**(model.weights or {}), **(weights or {})}
    return write_graph(graph, given, seed=seed)


def write_graph(
    graph: Graph, weights: Mapping[str, npt.ArrayLike] | None = None, *, seed: int = 0
) -> onnx.ModelProto:
    """Any graph as an ONNX model; it is expanded into plain bricks first."""
    onnx = onnx_package()
    graph = simplify(expand(graph, only_without_vjp=False))
    writer = Writer(graph)
    inputs = _leaves(graph, graph.inputs)
    stored = {**_leaves(graph, graph.parameters), **_leaves(graph, graph.states)}
    for name in (*inputs, *stored, *graph.outputs, *(_PREFIX + s for s in stored)):
        writer.unique(name)
    for id in (*graph.inputs.values(), *graph.parameters.values(), *graph.states.values()):
        writer.names[id] = _leaf(graph.node(id)).name
    writer.find_dims({**inputs, **stored})
    problems = []
    for node in graph.nodes():
        if isinstance(node.brick, Leaf):
            continue
        writer.place = str(node.origin)
        try:
            writer.names[node.id] = write_brick(writer, node)
        except UnsupportedError as error:
            problems.append(f"{node.brick.mnemonic} ({error.at(str(node.origin))})")
            writer.names[node.id] = "unsupported"
    if problems:
        raise UnsupportedError(
            f"{len(problems)} bricks have no form in ONNX", where=graph.name,
            got="\n  " + "\n  ".join(problems[:100]),
        )  # fmt: skip
    results = _outputs(graph, writer)
    arrays = _arrays(graph, stored, dict(weights or {}), seed)
    changing = {name for name in stored if graph.updates}
    helper = onnx.helper
    proto = helper.make_graph(
        writer.nodes,
        graph.name,
        [_value(n, t) for n, t in inputs.items()]
        + [_value(n, t) for n, t in stored.items() if n in changing],
        [_value(n, t) for n, t in results.items()],
        [onnx.numpy_helper.from_array(a, n) for n, a in {**arrays, **writer.constants}.items()],
    )
    return helper.make_model(  # type: ignore[no-any-return]
        proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION,
        producer_name="brickc",
    )  # fmt: skip


def _leaf(node: Node) -> Leaf:
    assert isinstance(node.brick, Leaf)
    return node.brick


def _leaves(graph: Graph, ids: Mapping[str, int]) -> dict[str, TensorType]:
    return {name: graph.node(id).type for name, id in ids.items()}


def _outputs(graph: Graph, writer: Writer) -> dict[str, TensorType]:
    """Every output under its own name, and the new values of what is updated."""
    wanted: Sequence[tuple[str, int]] = [
        *graph.outputs.items(),
        *((_PREFIX + _leaf(graph.node(leaf)).name, id) for leaf, id in graph.updates.items()),
    ]
    writer.place = ""
    found: dict[str, TensorType] = {}
    for name, id in wanted:
        writer.add("Identity", writer.names[id], name=name)
        found[name] = graph.node(id).type
    return found


def _arrays(
    graph: Graph,
    stored: Mapping[str, TensorType],
    weights: Mapping[str, npt.ArrayLike],
    seed: int,
) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for name, type in stored.items():
        shape = type.concrete({})
        if name in weights:
            array = np.asarray(weights[name], type.dtype.numpy)
            if array.shape != shape:
                raise UsageError(f"the weights of {name!r} do not fit", got=array.shape,
                                 expected=type)  # fmt: skip
        else:
            brick = graph.node({**graph.parameters, **graph.states}[name]).brick
            array = brick.init.sample(name, shape, type.dtype, seed)  # type: ignore[attr-defined]
        found[name] = array
    return found


def _value(name: str, type: TensorType) -> onnx.ValueInfoProto:
    shape = [s if isinstance(s, int) else str(s) for s in type.shape]
    helper = onnx_package().helper
    value: onnx.ValueInfoProto = helper.make_tensor_value_info(name, ELEMENTS[type.dtype], shape)
    return value
