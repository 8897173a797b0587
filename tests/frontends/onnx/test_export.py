"""brickc graphs as ONNX models: valid by onnx.checker, and onnxruntime computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import brickc as bc
from brickc.compiler.optimize.specialise import specialise
from brickc.errors import UnsupportedError, UsageError
from brickc.frontends.onnx.export import to_onnx, write_graph
from brickc.ir.brick import Input
from brickc.ir.bricks.random import Dropout, RandomUniform
from brickc.ir.bricks.samples import Sample, samples
from brickc.ir.builder import Builder
from brickc.ir.dtypes import DType
from brickc.ir.graph import Graph
from brickc.ir.interpret import interpret
from brickc.ir.types import TensorType

#: bricks that ONNX has no operators for
MISSING = (RandomUniform,)
SAMPLES = [s for s in samples() if not isinstance(s.brick, MISSING)]


def run(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """What onnxruntime makes of a model that the checker has passed."""
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    known = {i.name for i in (*session.get_inputs(), *session.get_overridable_initializers())}
    found = session.run(names, {k: v for k, v in inputs.items() if k in known})
    return dict(zip(names, found, strict=True))


def label(sample: Sample) -> str:
    return sample.label or sample.brick.mnemonic


@pytest.mark.parametrize("sample", SAMPLES, ids=label)
def test_brick(sample: Sample, rng: np.random.Generator) -> None:
    arrays = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in sample.draw(rng)]
    if sample.derive is not None:
        arrays = [np.asarray(a) for a in sample.derive(arrays)]
    graph = Graph("sample")
    builder = Builder(graph)
    operands = [
        builder.add(Input(f"x{k}", TensorType.of(DType.of(a.dtype), a.shape)))
        for k, a in enumerate(arrays)
    ]
    graph.outputs["y"] = builder.add(sample.brick, *operands).id
    graph = specialise(graph, training=False)
    inputs = {f"x{k}": a for k, a in enumerate(arrays) if f"x{k}" in graph.inputs}
    want = interpret(graph, inputs)["y"]
    got = run(write_graph(graph), inputs)["y"]
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def network() -> bc.Model:
    """Convolutions, two kinds of pooling, normalisation: what most networks are made of."""
    n = bc.Dim("N", 1, 64)
    x, t = bc.input("x", (n, 2, 9, 8)), bc.input("t", (n,), "i32", limit=5)
    y = bc.Sequential(
        bc.Conv2d(6, 3, padding=1, bias=False), bc.BatchNorm(), bc.ReLU(), bc.MaxPool(2),
        bc.Conv2d(6, 3, stride=2, groups=2), bc.Tanh(), bc.Flatten(), bc.Linear(5),
    )(x)  # fmt: skip
    return bc.Model({"logits": y}, bc.softmax_loss(y, t), {"accuracy": bc.accuracy(y, t)})


def feed(rng: np.random.Generator, batch: int) -> dict[str, Any]:
    x = rng.standard_normal((batch, 2, 9, 8)).astype(np.float32)
    return {"x": x, "t": rng.integers(0, 5, batch).astype(np.int32)}


def test_inference(rng: np.random.Generator) -> None:
    model = network()
    program = bc.compile(model)
    exported = to_onnx(model, weights=program.state_dict())
    assert {i.name for i in exported.graph.input} == {"x"}
    for batch in (1, 7):
        inputs = feed(rng, batch)
        got = run(exported, inputs)
        np.testing.assert_allclose(
            got["logits"], program.infer(x=inputs["x"])["logits"], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("text", ["sgd:lr=0.1,momentum=0.9,weight_decay=0.01", "adam:lr=0.01"])
def test_training_step(text: str, rng: np.random.Generator) -> None:
    """Three steps by onnxruntime, new values fed back, against the compiled program's."""
    model, optimizer = network(), bc.parse_optimizer(text)
    program = bc.compile(model, optimizer=optimizer, functions=["train_step"])
    exported = to_onnx(model, "train_step", optimizer=optimizer, weights=program.state_dict())
    state: dict[str, Any] = {}
    for _ in range(3):
        inputs = feed(rng, 6)
        got = run(exported, {**inputs, **state})
        state = {k.removeprefix("next/"): v for k, v in got.items() if k.startswith("next/")}
        loss = program.train_step(**inputs)["loss"]
        np.testing.assert_allclose(got["loss"], loss, rtol=1e-4)
    after = program.state_dict()
    assert set(state) <= set(after)
    assert set(model.parameters) <= set(state)
    for name, value in state.items():
        np.testing.assert_allclose(value, after[name], rtol=2e-3, atol=2e-5, err_msg=name)


def test_round_trip(rng: np.random.Generator) -> None:
    """What is written can be read: the same outputs, the same number of parameters."""
    model = network()
    program = bc.compile(model)
    again = bc.from_onnx(to_onnx(model, weights=program.state_dict()))
    inputs = feed(rng, 3)
    got = bc.compile(again).infer(x=inputs["x"])["logits"]
    np.testing.assert_allclose(got, program.infer(x=inputs["x"])["logits"], rtol=1e-4, atol=1e-5)


def test_weights_come_from_the_seed() -> None:
    first, second = to_onnx(network(), seed=1), to_onnx(network(), seed=1)
    assert first.SerializeToString() == second.SerializeToString()
    assert first.SerializeToString() != to_onnx(network(), seed=2).SerializeToString()


def test_random_numbers_are_refused() -> None:
    x = bc.input("x", (4, 3))
    y = bc.Sequential(bc.Linear(3), bc.Dropout(0.5), bc.Dropout(0.2))(x)
    model = bc.Model(y, loss=bc.reduce_sum(y))
    with pytest.raises(UnsupportedError) as caught:
        to_onnx(model, "train_step")
    assert str(caught.value).count("random_uniform") == 2
    assert to_onnx(model).graph.node  # dropout is gone in inference


def test_unknown_function() -> None:
    with pytest.raises(UsageError, match="unknown function"):
        to_onnx(network(), "train")


def test_missing_is_missing() -> None:
    for brick in (s.brick for s in samples() if isinstance(s.brick, (*MISSING, Dropout))):
        assert isinstance(brick, RandomUniform | Dropout)
