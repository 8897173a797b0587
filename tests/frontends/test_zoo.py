"""The zoo: exact sizes, shapes, and LeNet-5's numbers against torch."""

from __future__ import annotations

import numpy as np
import pytest

from brickc.errors import UsageError
from brickc.frontends import zoo
from brickc.frontends.trace import BATCH
from brickc.ir.brick import ModeDependent
from brickc.ir.bricks.normalization import LRNAcross
from brickc.ir.interpret import interpret

COUNTS = {
    "mlp": 669_706,
    "lenet5": 61_706,
    "lenet": 431_080,
    "alexnet": 61_100_840,
    "alexnet2012": 60_965_224,
    "overfeat": 145_920_872,
    "vgg_a": 132_863_336,
    "googlenet": 6_998_552,
}


@pytest.mark.parametrize("name", zoo.ZOO)
def test_sizes(name: str) -> None:
    model = zoo.model(name)
    assert model.name == name
    assert model.parameter_count() == COUNTS[name]
    graph = model.inference()
    classes = 10 if name in ("mlp", "lenet5", "lenet") else 1000
    assert graph.node(graph.outputs["logits"]).type.shape == (BATCH, classes)
    assert list(graph.inputs) == ["x"]
    training = model.training()
    assert list(training.outputs) == ["loss", "accuracy"]
    assert not any(isinstance(n.brick, ModeDependent) for n in training.nodes())
    assert training.node(training.inputs["t"]).brick.limit == classes  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", zoo.ZOO)
def test_options(name: str) -> None:
    model = zoo.model(name, batch=4, dtype="f64", classes=7)
    graph = model.inference()
    assert str(graph.node(graph.outputs["logits"]).type) == "f64[4,7]"


def test_origins_lie_in_the_zoo() -> None:
    graph = zoo.lenet5().graph()
    node = graph.node(graph.parameters["c3.weight"])
    assert node.origin.file == "lenet5.py"
    assert node.origin.layer == "c3"
    assert len({n.origin.line for n in graph.nodes()}) > 10


def test_names_of_alexnet2012_are_caffes() -> None:
    names = [n.removesuffix(".weight") for n in zoo.alexnet2012().parameters if "weight" in n]
    assert names == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]


def test_googlenet_options() -> None:
    assert zoo.googlenet(aux=True).parameter_count() == 13_378_280
    # the auxiliary classifiers are for training: inference does not know them
    assert not any(n.startswith("loss1") for n in zoo.googlenet(aux=True).inference().parameters)
    plain = zoo.googlenet(lrn=False, dropout=False).training()
    assert not any(isinstance(n.brick, LRNAcross) for n in plain.nodes())
    assert not plain.states


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="zoo; got 'lenet6'; expected mlp, lenet5"):
        zoo.model("lenet6")


def test_lenet5_agrees_with_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    theirs = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten(),
        nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    ).double()  # fmt: skip
    names = {"0": "c1", "3": "c3", "6": "c5", "9": "f6", "11": "output"}
    feeds = {}
    for key, value in theirs.named_parameters():
        number, _, what = key.partition(".")
        feeds[f"{names[number]}.{what}"] = value.detach().numpy()
    x = rng.standard_normal((3, 1, 32, 32))
    t = np.array([3, 0, 9], np.int32)
    got = interpret(zoo.lenet5(dtype="f64").evaluation(), {"x": x, "t": t, **feeds})
    logits = theirs(torch.from_numpy(x))
    np.testing.assert_allclose(got["logits"], logits.detach().numpy(), rtol=1e-10, atol=1e-12)
    labels = torch.from_numpy(t).long()
    np.testing.assert_allclose(got["loss"], nn.functional.cross_entropy(logits, labels).item())
    hits = (logits.argmax(1) == labels).double().mean().item()
    np.testing.assert_allclose(got["accuracy"], hits, rtol=1e-6)
