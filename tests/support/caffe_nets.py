"""Small networks of Caffe for tests: text in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brickc.compiler.differentiate import differentiate
from brickc.frontends.caffe.files import finder, net_layers
from brickc.frontends.caffe.net import Imported, Settings, build
from brickc.frontends.caffe.text import parse_text
from brickc.frontends.model import Model
from brickc.ir.interpret import interpret
from brickc.runtime.check import Row, check_model

Array = npt.NDArray[Any]


def imported(
    text: str,
    *,
    folder: Path | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    stages: Sequence[str] = (),
) -> Imported:
    """The network of a text."""
    net = parse_text(text, "NetParameter", "net.prototxt")
    settings = Settings(finder(folder) if folder else None, shapes or {})
    return build("net.prototxt", net.text("name"), net_layers(net, stages), settings)


def model_of(text: str, **kwargs: Any) -> Model:
    return imported(text, **kwargs).model


def inputs_text(inputs: Mapping[str, Sequence[int]]) -> str:
    """A layer for each input."""
    return "".join(
        f'layer {{ name: "in_{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {n}" for n in shape)
        + " } } }\n"
        for name, shape in inputs.items()
    )


def run_layer(
    layer: str,
    inputs: Mapping[str, npt.ArrayLike],
    values: Mapping[str, npt.ArrayLike] | None = None,
    *,
    training: bool = False,
) -> dict[str, Array]:
    """The tops of layers that read ``inputs``; ``values`` are parameters and states by name."""
    arrays = {n: np.asarray(a) for n, a in inputs.items()}
    model = model_of(inputs_text({n: a.shape for n, a in arrays.items()}) + layer)
    return run_model(model, arrays, values, training=training)


def run_model(
    model: Model,
    inputs: Mapping[str, npt.ArrayLike],
    values: Mapping[str, npt.ArrayLike] | None = None,
    *,
    training: bool = False,
) -> dict[str, Array]:
    """What the reference interpreter makes of a model: outputs, loss and metrics."""
    graph = model.training() if training else model.evaluation()
    return dict(interpret(graph, *_leaves(model, graph, inputs, values)).outputs)


def gradients(
    model: Model,
    inputs: Mapping[str, npt.ArrayLike],
    values: Mapping[str, npt.ArrayLike] | None = None,
) -> dict[str, Array]:
    """The loss's gradients by parameter name, in training."""
    graph = model.training()
    found, numbers = differentiate(graph, "loss")
    leaves = _leaves(model, graph, inputs, values)
    result = interpret(found, *leaves, keep=list(numbers.values())).values
    names = {id: name for name, id in graph.parameters.items()}
    return {names[leaf]: result[g] for leaf, g in numbers.items()}


def check_gradients(text: str, tolerance: float = 1e-6) -> list[Row]:
    """The rows of brickc's gradient check that failed, of a network with a loss."""
    rows = check_model(model_of(text), tolerance)
    assert any("whole" in row.what for row in rows)
    return [row for row in rows if not row.passed]


def _leaves(
    model: Model,
    graph: Any,
    inputs: Mapping[str, npt.ArrayLike],
    values: Mapping[str, npt.ArrayLike] | None,
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    given = {**(model.weights or {}), **(values or {})}
    fed = {}
    for name in graph.inputs:
        dtype = model.inputs[name].dtype.numpy
        fed[name] = np.asarray(inputs[name]).astype(dtype)
    found: list[dict[str, Array]] = []
    for leaves in (graph.parameters, graph.states):
        arrays = {}
        for name, id in leaves.items():
            brick = graph.node(id).brick
            if name in given:
                arrays[name] = np.asarray(given[name], brick.type.dtype.numpy)
            else:
                arrays[name] = brick.init.sample(name, brick.type.shape, brick.type.dtype, 0)
            assert arrays[name].shape == brick.type.shape, name
        found.append(arrays)
    return fed, found[0], found[1]
