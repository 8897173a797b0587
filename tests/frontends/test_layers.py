"""Layers: parameters at the first call, values as torch has them, messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch

from brickc.errors import BrickcError, DtypeError, ShapeError, UnsupportedError, UsageError
from brickc.frontends import functional as F  # noqa: N812 - as in torch
from brickc.frontends import layers as L  # noqa: N812
from brickc.frontends.containers import Concat, Parallel, Residual, Sequential
from brickc.frontends.layer import Layer, Param
from brickc.frontends.model import Model
from brickc.frontends.trace import Tensor, input
from brickc.ir.dims import Dim
from brickc.ir.initializers import constant, gaussian
from brickc.ir.interpret import interpret

N = Dim("N", 1, 16)
Array = np.ndarray[Any, Any]


def start(model: Model, seed: int = 0) -> dict[str, Array]:
    """First values of the model's parameters and states."""
    graph = model.graph()
    leaves = [graph.node(id).brick for id in (*graph.parameters.values(), *graph.states.values())]
    return {b.name: b.init.sample(b.name, b.type.shape, b.type.dtype, seed) for b in leaves}  # type: ignore[attr-defined]


def compare(
    layer: Layer, theirs: torch.nn.Module, x: Array, names: dict[str, str] | None = None
) -> None:
    """The layer's inference equals the torch module's, given the same parameters."""
    model = Model(layer(input("x", (N, *x.shape[1:]), "f64")))
    rng = np.random.default_rng(1)
    first = start(model)
    values = {k: rng.uniform(0.1, 1, a.shape) for k, a in first.items() if "random" not in k}
    theirs = theirs.double().eval()
    own = dict(theirs.named_parameters()) | dict(theirs.named_buffers())
    for name, value in values.items():
        key = name.partition(".")[2]
        with torch.no_grad():
            own[(names or {}).get(key, key)].copy_(torch.from_numpy(value))
    graph = model.inference()
    values = {k: v for k, v in values.items() if k in graph.parameters or k in graph.states}
    got = interpret(graph, {"x": x, **values})["output"]
    expected = theirs(torch.from_numpy(x)).detach().numpy()
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


nn = torch.nn
IMAGE = (2, 4, 9, 8)
CASES = {
    "linear": (L.Linear(3), nn.Linear(8, 3), (5, 8)),
    "linear without bias": (L.Linear(3, bias=False), nn.Linear(8, 3, bias=False), (5, 8)),
    "linear on the last axis": (L.Linear(3), nn.Linear(8, 3), (5, 2, 8)),
    "conv1d": (L.Conv1d(3, 4, 2, 1), nn.Conv1d(4, 3, 4, 2, 1), (2, 4, 9)),
    "conv2d": (L.Conv2d(3, (3, 2)), nn.Conv2d(4, 3, (3, 2)), IMAGE),
    "conv2d, everything": (
        L.Conv2d(6, 3, stride=(2, 1), padding=(1, 2), dilation=2, groups=2, bias=False),
        nn.Conv2d(4, 6, 3, (2, 1), (1, 2), 2, 2, bias=False),
        IMAGE,
    ),
    "conv3d": (L.Conv3d(3, 2), nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 3)),
    "convtranspose2d": (
        L.ConvTranspose2d(6, 3, stride=2, padding=1, groups=2, output_padding=1),
        nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2),
        IMAGE,
    ),
    "max pool": (L.MaxPool(2), nn.MaxPool2d(2), IMAGE),
    "max pool, ceil": (L.MaxPool(3, 2, 1, True), nn.MaxPool2d(3, 2, 1, ceil_mode=True), IMAGE),
    "mean pool": (L.MeanPool((3, 2)), nn.AvgPool2d((3, 2)), IMAGE),
    "mean pool, padded": (L.MeanPool(3, 2, 1), nn.AvgPool2d(3, 2, 1), IMAGE),
    "mean pool, uncounted": (
        L.MeanPool(3, 2, 1, True, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1, True, False),
        IMAGE,
    ),
    "global mean pool": (
        L.GlobalMeanPool(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), IMAGE,
    ),
    "tanh": (L.Tanh(), nn.Tanh(), IMAGE),
    "logistic": (L.Logistic(), nn.Sigmoid(), IMAGE),
    "relu": (L.ReLU(), nn.ReLU(), IMAGE),
    "leaky relu": (L.LeakyReLU(0.2), nn.LeakyReLU(0.2), IMAGE),
    "prelu": (L.PReLU(), nn.PReLU(4), IMAGE),
    "elu": (L.ELU(0.7), nn.ELU(0.7), IMAGE),
    "gelu": (L.GELU(), nn.GELU(), IMAGE),
    "gelu, approximate": (L.GELU(approximate=True), nn.GELU("tanh"), IMAGE),
    "silu": (L.SiLU(), nn.SiLU(), IMAGE),
    "softplus": (L.Softplus(), nn.Softplus(threshold=1000), IMAGE),
    "softmax": (L.Softmax(1), nn.Softmax(1), IMAGE),
    "log softmax": (L.LogSoftmax(), nn.LogSoftmax(-1), IMAGE),
    "lrn": (L.LRN(3, 0.5, 0.75, 2), nn.LocalResponseNorm(3, 0.5, 0.75, 2), IMAGE),
    "batch norm": (L.BatchNorm(), nn.BatchNorm2d(4), IMAGE),
    "layer norm": (L.LayerNorm(2), nn.LayerNorm((9, 8)), IMAGE),
    "flatten": (L.Flatten(), nn.Flatten(), IMAGE),
    "dropout in inference": (L.Dropout(0.5), nn.Dropout(), IMAGE),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_values_are_torchs(case: str, rng: np.random.Generator) -> None:
    layer, theirs, shape = CASES[case]
    names = {"slope": "weight"} if case == "prelu" else None
    compare(layer, theirs, rng.standard_normal(shape), names)


def test_embedding_rows(rng: np.random.Generator) -> None:
    model = Model(L.Embedding(7, 3)(input("i", (N, 2), "i32")))
    table = rng.random((7, 3), np.float32)
    indices = np.array([[0, 6], [3, 3]], np.int32)
    got = interpret(model.graph(), {"i": indices, "embedding1.weight": table})["output"]
    np.testing.assert_array_equal(got, table[indices])


def test_bias_and_reshape() -> None:
    x = input("x", (N, 6))
    model = Model(L.Bias(constant(2.0))(L.Reshape((2, -1))(x)))
    assert model.parameters["bias1.bias"].shape == (2,)
    feeds = {"x": np.ones((1, 6), np.float32), **start(model)}
    got = interpret(model.graph(), feeds)["output"]
    np.testing.assert_array_equal(got, np.full((1, 2, 3), 3))


# ── parameters ───────────────────────────────────────────────────────────────────────────


def test_parameters_are_made_at_the_first_call_and_shared() -> None:
    x, z = input("x", (N, 8)), input("z", (N, 8))
    layer = L.Linear(8, name="fc")
    y = layer(layer(x) + layer(z))
    model = Model(y)
    assert list(model.parameters) == ["fc.weight", "fc.bias"]
    assert model.parameter_count() == 72


def test_sharing_needs_one_size() -> None:
    layer = L.Conv2d(6, 3)
    layer(input("x", (N, 3, 8, 8)))
    with pytest.raises(ShapeError) as caught:
        layer(input("y", (N, 4, 8, 8)))
    text = str(caught.value)
    assert text.startswith("test_layers.py:")
    assert "the calls of Conv2d(6, 3) share its weight" in text
    assert "got f32[6,4,3,3]; expected f32[6,3,3,3]" in text


def test_first_values() -> None:
    x = input("x", (N, 3, 8, 8))
    model = Model(
        Sequential(
            L.Conv2d(50, 4),
            L.Flatten(),
            L.Linear(200, init=gaussian(0.01), bias_init=Param(constant(0.1), 2.0, 0.0)),
            L.PReLU(),
            L.Bias(),
        )(x)
    )
    values = start(model)
    bound = np.sqrt(3 / 48)
    assert np.abs(values["conv1.weight"]).max() <= bound
    np.testing.assert_allclose(values["conv1.weight"].var(), 1 / 48, rtol=0.1)
    assert not values["conv1.bias"].any()
    np.testing.assert_allclose(values["linear1.weight"].std(), 0.01, rtol=0.05)
    assert (values["linear1.bias"] == np.float32(0.1)).all()
    assert (values["relu1.slope"] == 0.25).all()
    brick = model.graph().node(model.graph().parameters["linear1.bias"]).brick
    assert (brick.lr_scale, brick.decay_scale) == (2.0, 0.0)  # type: ignore[attr-defined]
    again = start(model)
    assert all((again[name] == values[name]).all() for name in values)
    other = start(model, seed=1)
    assert (other["conv1.weight"] != values["conv1.weight"]).any()


def test_parameters_take_the_inputs_dtype() -> None:
    model = Model(L.BatchNorm()(L.Linear(3)(input("x", (N, 2), "f64"))))
    types = {**model.parameters, **model.states}
    assert {str(t.dtype) for t in types.values()} == {"f64"}


# ── containers ───────────────────────────────────────────────────────────────────────────


def test_sequential_takes_functions_too() -> None:
    x = input("x", (N, 4))
    net = Sequential(L.Linear(3), F.tanh, lambda v: v * 2.0)
    assert net(x).shape == (N, 3)
    assert len(net) == 3
    assert isinstance(net[0], L.Linear)
    with pytest.raises(UsageError, match="must return a tensor"):
        Sequential(lambda v: 3)(x)  # type: ignore[arg-type, return-value]
    with pytest.raises(UsageError, match="holds layers and functions"):
        Sequential(3)(x)  # type: ignore[arg-type]


def test_a_part_of_a_sequential_is_named_by_its_own_line() -> None:
    net = Sequential(
        L.Conv2d(6, 5),
        L.MaxPool(2),
        L.Conv2d(16, 5, groups=4),
    )
    with pytest.raises(ShapeError) as caught:
        net(input("x", (N, 1, 32, 32)))
    first = test_a_part_of_a_sequential_is_named_by_its_own_line.__code__.co_firstlineno
    assert str(caught.value).startswith(
        f'test_layers.py:{first + 4} "Conv2d(16, 5, groups=4)": the channels do not divide'
    )


def test_parallel_and_residual() -> None:
    x = input("x", (N, 4, 8, 8))
    wide = Parallel(L.Conv2d(3, 1), Sequential(L.Conv2d(5, 3, padding=1), L.ReLU()))(x)
    assert wide.shape == (N, 8, 8, 8)
    same = Parallel(L.Conv2d(4, 1), L.Conv2d(4, 3, padding=1), combine="sum")(x)
    assert same.shape == x.shape
    assert Residual(L.Conv2d(4, 3, padding=1), L.ReLU())(x).shape == x.shape
    assert Residual(L.Conv2d(6, 1), shortcut=L.Conv2d(6, 1))(x).shape == (N, 6, 8, 8)
    assert Concat()([x, x, x]).shape == (N, 12, 8, 8)
    with pytest.raises(ShapeError, match=r"test_layers.py:\d+.*different types"):
        Residual(L.Conv2d(1, 1))(x)
    with pytest.raises(UsageError, match="unknown way to combine"):
        Parallel(F.tanh, combine="mean")
    with pytest.raises(UsageError, match="no layers"):
        Parallel()


def test_residual_adds(rng: np.random.Generator) -> None:
    a = rng.random((2, 3), np.float32)
    model = Model(Residual(lambda v: v * v)(input("x", (N, 3))))
    np.testing.assert_allclose(interpret(model.graph(), {"x": a})["output"], a + a * a, rtol=1e-6)


# ── layers of one's own ──────────────────────────────────────────────────────────────────


class Scale(Layer):
    kind = "scale"

    def forward(self, x: Tensor) -> Tensor:
        return x * self.parameter("weight", (x.shape[-1],), constant(3.0), x)


class TwoTowers(Layer):
    kind = "towers"

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name)
        self.left = L.Linear(2)
        self.right = L.Linear(2, name="right")

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.left(x) + self.right(y)


class Forgetful(Layer):
    def __init__(self) -> None:
        pass


def test_layers_of_ones_own() -> None:
    x = input("x", (N, 4))
    model = Model(TwoTowers()(Scale()(x), x))
    assert sorted(model.parameters) == [
        "scale1.weight", "towers1.linear1.bias", "towers1.linear1.weight",
        "towers1.right.bias", "towers1.right.weight",
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"Forgetful.__init__ must call super"):
        Forgetful()(x)
    with pytest.raises(UsageError, match="must return a tensor"):
        L.Lambda(lambda v: None)(x)  # type: ignore[arg-type, return-value]


def test_a_layer_without_forward_is_told_what_it_lacks() -> None:
    class Unfinished(Layer):
        """A user's layer, half written."""

    x = input("x", (2, 3))
    with pytest.raises(UsageError, match="Unfinished has no forward") as caught:
        Unfinished()(x)
    assert "test_layers.py" in str(caught.value)
    assert "forward(self, x)" in str(caught.value)


def test_elementwise_expressions(rng: np.random.Generator) -> None:
    a = rng.standard_normal((2, 3))
    b = rng.standard_normal((2, 3))
    x, y = input("x", (N, 3), "f64"), input("y", (N, 3), "f64")
    s = sp.Symbol("s")
    for layer, expected in [
        (L.Elementwise(lambda v: v * sp.tanh(v)), a * np.tanh(a)),
        (L.Elementwise(s**2 + 1), a * a + 1),
        (L.Elementwise(lambda v: sp.Max(v, 0)), np.maximum(a, 0)),
        (L.Elementwise(sp.Integer(2)), np.full_like(a, 2)),
    ]:
        got = interpret(Model(layer(x)).graph(), {"x": a})["output"]
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    both = Model(L.Elementwise(lambda u, v: u * sp.exp(v))(x, y)).graph()
    np.testing.assert_allclose(interpret(both, {"x": a, "y": b})["output"], a * np.exp(b))


def test_elementwise_refuses() -> None:
    x = input("x", (N, 3))
    u, v = sp.symbols("u v")
    with pytest.raises(UsageError, match="one symbol"):
        L.Elementwise(u + v)(x)
    with pytest.raises(UsageError, match="number of operands"):
        L.Elementwise(lambda u, v: u)(x)
    with pytest.raises(UnsupportedError, match="no such function on elements; got gamma"):
        L.Elementwise(sp.gamma)(x)


# ── messages ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("layer", "shape", "text"),
    [
        (L.Conv2d(6, 5), (N, 9, 9), r"4 axes is needed; got f32\[N,9,9\]; expected \[N, C, H, W\]"),
        (L.Conv2d(6, 5), (N, N, 32, 32), "axis 1 holds the channels and must have a fixed size"),
        (L.Conv2d(6, 5, groups=2), (N, 3, 9, 9), "do not divide into the groups; got 3 -> 6"),
        (L.Conv2d(6, (5, 5, 5)), (N, 3, 9, 9), r"impossible kernel; got \(5, 5, 5\)"),
        (L.Conv2d(6, 5, stride=0), (N, 3, 9, 9), "impossible stride; got 0"),
        (L.Conv2d(6, 5, padding=-1), (N, 3, 9, 9), "impossible padding"),
        (L.Conv2d(6, 5), (N, 3, 4, 4), "."),
        (L.Linear(6), (3, N), "axis 1 holds the features"),
        (L.Linear(6), (), "one axis or more"),
        (L.MaxPool(2), (N, 3), "spatial axes"),
        (L.MaxPool(9), (N, 3, 4, 4), "."),
        (L.GlobalMeanPool(), (N, 3), "spatial axes"),
        (L.Bias(), (3,), "with channels"),
        (L.Softmax(2), (N, 3), r"no such axes; got \[2\]"),
        (L.LayerNorm(3), (N, 3), "no last 3 axes"),
        (L.Dropout(1.0), (N, 3), "impossible rate"),
        (L.Reshape((5, -1)), (N, 3), "reshape: no size"),
    ],
    ids=str,
)  # fmt: skip
def test_messages(layer: Layer, shape: Any, text: str) -> None:
    x = input("x", shape)
    with pytest.raises(BrickcError, match=r"test_layers.py:\d+.*" + text):
        layer(x)


def test_wrong_kinds_of_input() -> None:
    with pytest.raises(DtypeError, match=r'"Linear\(3\)": an input of floating-point'):
        L.Linear(3)(input("x", (N, 3), "i32"))
    with pytest.raises(UsageError, match=r"Linear\(3\) is called on tensors; got ndarray"):
        L.Linear(3)(np.zeros((2, 3)))
    with pytest.raises(UsageError, match="not a name"):
        L.Linear(3, name='a"b')


def test_repr_is_the_call() -> None:
    assert repr(L.Conv2d(6, 5)) == "Conv2d(6, 5)"
    assert repr(L.Conv2d(6, 5, 1, (1, 2))) == "Conv2d(6, 5, padding=(1, 2))"
    assert repr(L.Linear(6, init=gaussian(1.0), name="ip")) == "Linear(6, name='ip')"
    assert repr(L.Tanh()) == "Tanh()"
