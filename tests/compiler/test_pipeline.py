"""Pipelines: order, observers, verification, and whose fault an error is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graph_tools import Net, count, initial, outputs, step

from brickc.compiler.optimizers import SGD
from brickc.compiler.pipeline import Pass, Pipeline
from brickc.compiler.pipelines import inference_pipeline, training_pipeline
from brickc.errors import InternalError, ShapeError, VerifyError
from brickc.ir.bricks.activation import relu, tanh
from brickc.ir.bricks.arithmetic import Add, add, exp, mul
from brickc.ir.bricks.contract import linear
from brickc.ir.bricks.convert import stop_gradient
from brickc.ir.bricks.loss import softmax_loss
from brickc.ir.bricks.normalization import batch_norm, softmax
from brickc.ir.bricks.reduce import reduce_sum
from brickc.ir.dtypes import DType
from brickc.ir.graph import Graph
from brickc.ir.origin import Origin


def small() -> Net:
    net = Net()
    w = net.parameter("w", (3,))
    net.output("loss", reduce_sum(exp(w), (0,), False))
    return net


def classifier() -> Net:
    net = Net()
    x, labels = net.input("x", (8, 5)), net.input("labels", (8,), DType.I32, limit=3)
    w1, w2 = net.parameter("w1", (4, 5)), net.parameter("w2", (3, 4))
    gamma, beta = net.parameter("gamma", (4,)), net.parameter("beta", (4,))
    mean, var = net.state("mean", (4,)), net.state("var", (4,))
    y = batch_norm(linear(x, w1), gamma, beta, mean, var, 0.1, 1e-5)
    y = linear(relu(y), w2)
    net.output("loss", softmax_loss(y, labels))
    net.output("output", softmax(stop_gradient(y), 1))
    return net


def arrays(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "x": rng.normal(size=(8, 5)), "labels": rng.integers(0, 3, 8).astype(np.int32),
        "w1": rng.normal(size=(4, 5)), "w2": rng.normal(size=(3, 4)), "gamma": np.ones(4),
        "beta": np.zeros(4), "mean": np.zeros(4), "var": np.ones(4),
    }  # fmt: skip


def test_passes_run_in_order_and_observers_see_each_stage() -> None:
    seen: list[tuple[str, int]] = []
    seconds: dict[str, float] = {}

    def grow(graph: Graph) -> Graph:
        new = Graph(graph.name)
        for node in graph.nodes():
            new.add(node.brick, node.operands, node.origin, id=node.id)
        new.outputs = dict(graph.outputs)
        last = new.outputs["loss"]
        new.outputs["loss"] = new.add(Add(), [last, last], Origin()).id
        return new

    pipeline = Pipeline("p", (Pass("one", grow, "…"),)).then(Pass("two", grow, "…"))
    graph = small().graph
    result = pipeline.run(graph, [lambda name, g: seen.append((name, len(g)))], seconds=seconds)
    assert seen == [("one", len(graph) + 1), ("two", len(graph) + 2)]
    assert len(result) == len(graph) + 2
    assert list(seconds) == ["one", "two"]
    assert all(s >= 0 for s in seconds.values())


def broken(graph: Graph) -> Graph:
    new = Graph(graph.name)
    for node in graph.nodes():
        new.add(node.brick, node.operands, node.origin, id=node.id)
    new.outputs["loss"] = 10_000
    return new


def test_the_verifier_names_the_pass() -> None:
    pipeline = Pipeline("p", (Pass("good", lambda g: g, "…"), Pass("bad", broken, "…")))
    with pytest.raises(VerifyError, match="after pass bad"):
        pipeline.run(small().graph)


def test_a_broken_input_is_not_blamed_on_a_pass() -> None:
    with pytest.raises(VerifyError, match="after the input of p"):
        Pipeline("p", (Pass("good", lambda g: g, "…"),)).run(broken(small().graph))


def test_an_exception_of_ours_names_the_pass() -> None:
    def bug(graph: Graph) -> Graph:
        raise KeyError("lost")

    def known(graph: Graph) -> Graph:
        raise InternalError("cannot be", got=3)

    with pytest.raises(InternalError, match=r"pass oops failed.*KeyError: 'lost'"):
        Pipeline("p", (Pass("oops", bug, "…"),)).run(small().graph)
    with pytest.raises(InternalError, match="pass oops: cannot be; got 3"):
        Pipeline("p", (Pass("oops", known, "…"),)).run(small().graph)


def test_a_mistake_of_the_user_stays_as_it_is() -> None:
    def wrong(graph: Graph) -> Graph:
        raise ShapeError("does not fit", where="net.py:3")

    with pytest.raises(ShapeError, match=r"^net\.py:3: does not fit$"):
        Pipeline("p", (Pass("any", wrong, "…"),)).run(small().graph)


def test_every_pass_says_why_it_stands_there() -> None:
    for pipeline in (inference_pipeline(), training_pipeline("loss", SGD(0.1))):
        assert all(len(p.why) > 20 for p in pipeline.passes)
        assert len(pipeline.describe().splitlines()) == len(pipeline.passes)


def test_inference_computes_what_the_graph_says(rng: np.random.Generator) -> None:
    net = classifier()
    values = arrays(rng)
    result = inference_pipeline().run(net.graph)
    assert not result.updates
    assert "stop_gradient" not in count(result)
    expected = outputs(net.graph, values)
    for name, value in outputs(result, values).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-10)


def test_a_training_step_lowers_the_loss(rng: np.random.Generator) -> None:
    net = classifier()
    graph = training_pipeline("loss", SGD(0.2, 0.9)).run(net.graph)
    memory = {**arrays(rng), **initial(graph), "var": np.ones(4)}
    losses = []
    for _ in range(5):
        losses.append(float(outputs(graph, memory)["loss"]))
        memory.update(step(graph, memory))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
    assert not np.allclose(memory["mean"], 0)  # running statistics are part of the step


def test_a_step_is_the_same_program_each_time() -> None:
    first = training_pipeline("loss", SGD(0.2, 0.9)).run(classifier().graph)
    second = training_pipeline("loss", SGD(0.2, 0.9)).run(classifier().graph)
    assert first.nodes() == second.nodes()
    assert first.updates == second.updates


def test_updates_of_the_graph_itself_survive() -> None:
    net = small()
    counter = net.state("counter", ())
    after = add(counter, 1.0)
    net.graph.updates[counter.id] = after.id  # type: ignore[attr-defined]
    graph = training_pipeline("loss", SGD(0.1)).run(net.graph)
    assert graph.states["counter"] in graph.updates


def test_forward_and_backward_share_nodes() -> None:
    """softmax_loss needs max, exp and sum in both directions; the step computes them once."""
    net = Net()
    x, labels = net.input("x", (8, 5)), net.input("labels", (8,), DType.I32, limit=3)
    w = net.parameter("w", (3, 5))
    net.output("loss", softmax_loss(mul(linear(x, w), 1.0), labels))
    graph = training_pipeline("loss", SGD(0.1)).run(net.graph)
    found = count(graph)
    assert found["exp"] == 1
    assert found["reduce_max"] == 1
    assert found["contract"] == 2


def test_origins_survive_the_whole_pipeline() -> None:
    net = Net()
    net.at(12, "fc")
    w = net.parameter("w", (3,))
    net.output("loss", reduce_sum(tanh(mul(w, 3.0)), (0,), False))
    graph = training_pipeline("loss", SGD(0.1, 0.9)).run(net.graph)
    for node in graph.nodes():
        assert node.origin.layer == "fc" or "optimizer" in str(node.origin), node
