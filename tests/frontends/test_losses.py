"""Losses for models that came without one."""

from __future__ import annotations

import numpy as np
import pytest

import brickc as bc
from brickc.errors import ShapeError, UsageError

N = bc.Dim("N", 1, 64)


def classifier(*, chances: bool = False, extra: bool = False) -> bc.Model:
    x = bc.input("x", (N, 6))
    y = bc.Sequential(bc.Linear(8), bc.Dropout(0.5), bc.Tanh(), bc.Linear(3))(x)
    if chances:
        y = bc.softmax(y, 1)
    outputs = {"y": y, "size": bc.reduce_sum(bc.square(y))} if extra else {"y": y}
    return bc.Model(outputs, name="net")


def test_softmax(rng: np.random.Generator) -> None:
    model = bc.with_loss(classifier())
    assert str(model.inputs["label"]) == "i32[N]"
    assert model.label_limit("label") == 3
    assert (model.loss, model.metrics, model.outputs) == ("loss", ("accuracy",), ("y",))
    program = bc.compile(model, optimizer=bc.SGD(0.1))
    x = rng.standard_normal((20, 6)).astype(np.float32)
    label = (x[:, 0] > 0).astype(np.int32)
    losses = [float(program.train_step(x=x, label=label)["loss"]) for _ in range(60)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_softmax_is_not_taken_twice(rng: np.random.Generator) -> None:
    """The loss of chances is that of the logits that they were made of."""
    plain, chances = bc.with_loss(classifier()), bc.with_loss(classifier(chances=True))
    state = bc.compile(plain).state_dict()
    inputs = {
        "x": rng.standard_normal((5, 6)).astype(np.float32),
        "label": rng.integers(0, 3, 5).astype(np.int32),
    }
    first = bc.interpret(plain.evaluation(), inputs, state)
    second = bc.interpret(chances.evaluation(), inputs, state)
    assert float(first["loss"]) == pytest.approx(float(second["loss"]), rel=1e-6)
    np.testing.assert_allclose(second["y"].sum(1), 1, rtol=1e-6)  # the output is as it was


def test_square_and_logistic(rng: np.random.Generator) -> None:
    x = bc.input("x", (N, 4))
    model = bc.Model({"y": x * 2.0, "z": x * 3.0})
    a = rng.standard_normal((5, 4)).astype(np.float32)
    t = (rng.random((5, 4)) > 0.5).astype(np.float32)
    square = bc.with_loss(model, "square", output="y")
    got = bc.interpret(square.evaluation(), {"x": a, "target": t})["loss"]
    assert float(got) == pytest.approx(float(((2 * a - t) ** 2).sum() / 10), rel=1e-5)
    logistic = bc.with_loss(model, "logistic", output="z", labels="wanted")
    got = bc.interpret(logistic.evaluation(), {"x": a, "wanted": t})["loss"]
    p = 1 / (1 + np.exp(-3.0 * a))
    want = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    assert float(got) == pytest.approx(float(want), rel=1e-4)


def test_tensors_can_be_built_on() -> None:
    model = classifier()
    y = bc.tensors(model)["y"]
    again = bc.Model({"twice": y * 2.0}, weights=model.weights)
    assert again.parameters == model.parameters


def test_updates_and_weights_stay() -> None:
    x, count = bc.input("x", (N, 3)), bc.state("count", ())
    model = bc.Model(x * 1.0, updates={count: count + 1.0}, weights={"count": np.float32(4)})
    trained = bc.with_loss(model)
    assert len(trained.graph().updates) == 1
    assert trained.weights is not None
    assert trained.weights["count"] == 4


def test_names_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="unknown loss"):
        bc.with_loss(classifier(), "hinge")
    with pytest.raises(UsageError, match="which output"):
        bc.with_loss(classifier(extra=True))
    with pytest.raises(UsageError, match="which output"):
        bc.with_loss(classifier(), output="z")
    with pytest.raises(UsageError, match="that name already"):
        bc.with_loss(classifier(), labels="x")
    with pytest.raises(ShapeError, match="no classes"):
        bc.with_loss(classifier(extra=True), output="size")
