"""Models: names, the three graphs, the summary, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from brickc.errors import ImportModelError, ShapeError, UsageError
from brickc.frontends import functional as F  # noqa: N812 - as in torch
from brickc.frontends import layers as L  # noqa: N812
from brickc.frontends.containers import Parallel, Sequential
from brickc.frontends.layer import Layer
from brickc.frontends.model import Model
from brickc.frontends.trace import Tensor, input, parameter, state
from brickc.ir.brick import ModeDependent
from brickc.ir.dims import Dim
from brickc.ir.graph import Graph
from brickc.ir.initializers import constant
from brickc.ir.interpret import interpret

N = Dim("N", 1, 16)
Array = np.ndarray[Any, Any]


def small(*middle: Layer) -> Model:
    x, t = input("x", (N, 1, 8, 8)), input("t", (N,), "i32", limit=3)
    y = Sequential(L.Conv2d(2, 3), L.Tanh(), *middle, L.MeanPool(2), L.Flatten(), L.Linear(3))(x)
    return Model({"logits": y}, F.softmax_loss(y, t), {"accuracy": F.accuracy(y, t)})


def layers(graph: Graph) -> list[str]:
    return list(dict.fromkeys(n.origin.layer for n in graph.nodes() if n.origin.layer))


# ── names ────────────────────────────────────────────────────────────────────────────────


def test_layers_are_numbered_by_kind() -> None:
    model = small(L.Conv2d(3, 1), L.Tanh())
    assert layers(model.graph()) == [
        "conv1", "tanh1", "conv2", "tanh2", "pool1", "flatten1", "linear1",
    ]  # fmt: skip
    assert list(model.parameters) == [
        "conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "linear1.weight",
        "linear1.bias",
    ]  # fmt: skip


def test_numbers_are_unique_over_a_whole_model() -> None:
    x = input("x", (N, 4))
    y = Sequential(L.Linear(4), L.Linear(4))(x)
    y = Sequential(L.Linear(4), Parallel(L.Linear(2), L.Linear(2)))(y)
    y = L.Linear(4)(y)
    names = [n for n in Model(y).parameters if n.endswith("weight")]
    assert names == [f"linear{k}.weight" for k in range(1, 7)]


def test_numbers_leave_given_names_alone() -> None:
    x = input("x", (N, 4))
    model = Model(Sequential(L.Linear(4), L.Linear(4, name="linear1"), L.Linear(4))(x))
    assert [n for n in model.parameters if "weight" in n] == [
        "linear2.weight", "linear1.weight", "linear3.weight",
    ]  # fmt: skip


def test_named_containers_are_a_prefix() -> None:
    x = input("x", (N, 4))
    block = Sequential(L.Linear(4), Sequential(L.Linear(4)), name="block")
    model = Model(Sequential(block, L.Linear(4), name="net")(x))
    assert [n for n in model.parameters if "weight" in n] == [
        "net.block.linear1.weight", "net.block.linear2.weight", "net.linear1.weight",
    ]  # fmt: skip


def test_the_same_program_gives_the_same_graph() -> None:
    def listing(graph: Graph) -> list[str]:
        return [f"{n} {n.brick} {n.operands} {n.type} {n.origin}" for n in graph.nodes()]

    assert listing(small(L.Dropout()).graph()) == listing(small(L.Dropout()).graph())


def test_two_parameters_of_one_name() -> None:
    x = input("x", (N, 4))
    y = L.Linear(4, name="fc")(x)
    first = test_two_parameters_of_one_name.__code__.co_firstlineno + 2
    with pytest.raises(UsageError) as caught:
        Model(L.Linear(4, name="fc")(y))
    assert str(caught.value).startswith(
        f"test_model.py:{first + 3} \"fc\": two parameters are called 'fc.weight'; "
        f'got another one at test_model.py:{first} "fc"'
    )
    with pytest.raises(UsageError, match="two inputs are called 'x'"):
        Model(x + input("x", (N, 4)))
    with pytest.raises(UsageError, match="two inputs, parameters or states are called 'x'"):
        Model(x + parameter("x", (4,)))


# ── graphs ───────────────────────────────────────────────────────────────────────────────


def test_what_each_graph_holds() -> None:
    model = small()
    assert list(model.graph().outputs) == ["logits", "loss", "accuracy"]
    assert list(model.inference().outputs) == ["logits"]
    assert list(model.inference().inputs) == ["x"]
    assert list(model.evaluation().outputs) == ["logits", "loss", "accuracy"]
    assert list(model.training().outputs) == ["loss", "accuracy"]
    assert list(model.training().inputs) == ["x", "t"]
    assert model.training().updates == {}
    assert model.inputs["t"].shape == (N,)
    ids = {n.id: n for n in model.graph().nodes()}
    for graph in (model.inference(), model.evaluation(), model.training()):
        for node in graph.nodes():
            assert ids[node.id] == node


def test_metrics_for_evaluation_only() -> None:
    x, t = input("x", (N, 4)), input("t", (N,), "i32", limit=3)
    y = L.Linear(3)(x)
    loss, metrics = F.softmax_loss(y, t), {"accuracy": F.accuracy(y, t), "size": y.mean()}
    model = Model(y, loss, metrics, evaluation_only=["accuracy"])
    for same in (model, model.rebuilt(model.graph())):
        assert list(same.training().outputs) == ["loss", "size"]
        assert list(same.evaluation().outputs) == ["output", "loss", "accuracy", "size"]
    with pytest.raises(UsageError, match="evaluation_only names metrics"):
        Model(y, loss, metrics, evaluation_only=["loss"])


def test_dropout_draws_in_training_only() -> None:
    model = small(L.Dropout(0.5), L.Tanh(), L.Dropout(0.25))
    streams = [n.brick.stream for n in model.graph().nodes() if hasattr(n.brick, "stream")]
    assert streams == [0, 1]
    assert list(model.graph().states) == ["random.seed", "random.counter"]
    for graph in (model.inference(), model.evaluation()):
        assert not graph.states
        assert not graph.updates
    graph = model.training()
    assert not any(isinstance(n.brick, ModeDependent) for n in graph.nodes())
    assert list(graph.states) == ["random.seed", "random.counter"]
    assert list(graph.updates) == [graph.states["random.counter"]]


def feeds_of(model: Model, graph: Graph, rng: np.random.Generator) -> dict[str, Array]:
    feeds: dict[str, Array] = {}
    for name, id in (graph.parameters | graph.states).items():
        brick = graph.node(id).brick
        feeds[name] = brick.init.sample(name, brick.type.shape, brick.type.dtype, 0)  # type: ignore[attr-defined]
    feeds["x"] = rng.standard_normal((4, 1, 8, 8)).astype(np.float32)
    if "t" in graph.inputs:
        feeds["t"] = np.array([0, 1, 2, 1], np.int32)
    return feeds


def test_the_counter_counts(rng: np.random.Generator) -> None:
    model = small(L.Dropout(0.5))
    feeds = feeds_of(model, model.training(), rng)
    feeds["random.counter"] = np.array(41, np.int64)
    assert interpret(model.training(), feeds).updates == {"random.counter": 42}
    first = interpret(model.training(), feeds)["loss"]
    assert interpret(model.training(), feeds)["loss"] == first
    feeds["random.counter"] = np.array(42, np.int64)
    assert interpret(model.training(), feeds)["loss"] != first


def test_running_statistics(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    x = input("x", (N, 3, 4, 4), "f64")
    y = L.BatchNorm(name="bn")(x)
    model = Model(y, (y * y * 0.5 + y).mean())
    assert sorted(model.states) == ["bn.running_mean", "bn.running_var"]
    a = rng.standard_normal((5, 3, 4, 4))
    theirs = torch.nn.BatchNorm2d(3).double()
    expected = theirs(torch.from_numpy(a))
    feeds = {"x": a}
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        feeds[f"bn.{name}"] = np.full(3, value, np.float64)
    got = interpret(model.training(), feeds)["loss"]
    np.testing.assert_allclose(got, (expected * expected * 0.5 + expected).mean().item())
    new = interpret(model.training(), feeds).updates
    np.testing.assert_allclose(new["bn.running_mean"], theirs.running_mean.numpy())
    np.testing.assert_allclose(new["bn.running_var"], theirs.running_var.numpy())
    assert model.inference().updates == {}


def test_a_shared_batch_norm_moves_twice(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    norm = L.BatchNorm(name="bn")
    x = input("x", (N, 3), "f64")
    y = norm(norm(x) * 2.0 + 1.0)
    model = Model(y, y.mean())
    theirs = torch.nn.BatchNorm1d(3).double()
    a = rng.standard_normal((5, 3))
    theirs(theirs(torch.from_numpy(a)) * 2 + 1)
    feeds = {"x": a}
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        feeds[f"bn.{name}"] = np.full(3, value, np.float64)
    new = interpret(model.training(), feeds).updates
    np.testing.assert_allclose(new["bn.running_mean"], theirs.running_mean.numpy())
    np.testing.assert_allclose(new["bn.running_var"], theirs.running_var.numpy())


def test_states_of_ones_own() -> None:
    x = input("x", (N, 2))
    steps = state("steps", (), constant(0.0))
    model = Model(x * 2.0, x.mean(), updates={steps: steps + 1})
    assert list(model.training().updates) == [model.training().states["steps"]]
    assert model.inference().updates == {}
    assert not model.inference().states
    with pytest.raises(UsageError, match="an update gives a state"):
        Model(x, updates={steps: x})


def test_a_deep_network_needs_no_deep_stack() -> None:
    y: Tensor = input("x", (N, 2))
    for _ in range(3000):
        y = y * 0.5
    assert len(Model(y).graph()) > 3000


# ── what is refused ──────────────────────────────────────────────────────────────────────


def test_refusals() -> None:
    x = input("x", (N, 2))
    with pytest.raises(ShapeError, match=r"test_model.py:\d+: loss must be one floating-point"):
        Model(x, x)
    with pytest.raises(ShapeError, match=r"sum must be one"):
        Model(x, x.mean(), {"sum": x.sum(1)})
    with pytest.raises(UsageError, match="two outputs are called 'loss'"):
        Model({"loss": x}, x.mean())
    with pytest.raises(UsageError, match="without outputs"):
        Model({})
    with pytest.raises(UsageError, match="y is not a tensor; got float"):
        Model({"y": 3.0})  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="has no loss"):
        Model(x).training()
    with pytest.raises(UsageError, match="has no outputs"):
        Model({}, x.mean()).inference()


def test_weights_must_fit() -> None:
    x = input("x", (N, 2))
    y = L.Linear(3, name="fc")(x)
    model = Model(y, weights={"fc.bias": np.ones(3)})
    assert model.weights is not None
    assert model.weights["fc.bias"].dtype == np.float32
    assert Model(y).weights is None
    with pytest.raises(ImportModelError, match=r"weights for 'fc.b', which the model has not"):
        Model(y, weights={"fc.b": np.ones(3)})
    with pytest.raises(ImportModelError, match=r"got float64\[2\]; expected f32\[3\]"):
        Model(y, weights={"fc.bias": np.ones(2)})
    with pytest.raises(ImportModelError, match="do not fit"):
        Model(y, weights={"fc.bias": np.ones(3, complex)})


# ── other ways in and out ────────────────────────────────────────────────────────────────


def test_from_graph() -> None:
    model = small(L.Dropout())
    again = Model.from_graph(model.graph())
    assert (again.outputs, again.loss, again.metrics) == (("logits",), "loss", ("accuracy",))
    assert again.parameter_count() == model.parameter_count()
    assert again.training().updates == model.training().updates
    bare = Model.from_graph(model.inference())
    assert (bare.outputs, bare.loss, bare.metrics) == (("logits",), None, ())


def test_summary() -> None:
    assert small().summary().splitlines() == [
        "layer     output        parameters",
        "──────────────────────────────────",
        "conv1     f32[N,2,6,6]          20",
        "tanh1     f32[N,2,6,6]           0",
        "pool1     f32[N,2,3,3]           0",
        "flatten1  f32[N,18]              0",
        "linear1   f32[N,3]              57",
        "──────────────────────────────────",
        "total                           77",
    ]
    assert repr(small()) == "<Model model: 77 parameters>"
