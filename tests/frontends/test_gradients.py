"""Gradients as tensors: right, differentiable again, and refused where they have no meaning."""

from __future__ import annotations

import numpy as np
import pytest

import brickc as bc
from brickc.ir.interpret import interpret


def _values(model: bc.Model, **values: np.ndarray) -> dict[str, np.ndarray]:
    return interpret(model.evaluation(), values)


def test_a_gradient_is_a_tensor_like_any_other() -> None:
    x = bc.input("x", (3,), "f64")
    (first,) = bc.gradients(x * x * x, [x])
    assert first is not None
    (second,) = bc.gradients(first, [x])
    assert second is not None
    given = np.array([1.0, -2.0, 0.5])
    found = _values(bc.Model({"first": first, "second": second}), x=given)
    np.testing.assert_allclose(found["first"], 3 * given**2)
    np.testing.assert_allclose(found["second"], 6 * given)


def test_what_is_used_twice_adds_up_and_what_is_not_used_is_none() -> None:
    x, w = bc.input("x", (2,), "f64"), bc.input("w", (2,), "f64")
    y = bc.sin(x) + x * w
    dx, dw = bc.gradients(y, [x, w])
    assert dx is not None
    assert dw is not None
    assert bc.gradients(bc.sin(x), [w]) == [None]
    a, b = np.array([0.3, 0.7]), np.array([2.0, 3.0])
    found = _values(bc.Model({"dx": dx, "dw": dw}), x=a, w=b)
    np.testing.assert_allclose(found["dx"], np.cos(a) + b)
    np.testing.assert_allclose(found["dw"], a)


def test_tensors_inside_a_network_are_held_independent() -> None:
    x = bc.input("x", (2,), "f64")
    h = x * 2.0
    dh, dx = bc.gradients(h * h, [h, x])
    assert dh is not None
    assert dx is None  # nothing passes h
    np.testing.assert_allclose(_values(bc.Model(dh), x=np.ones(2))["output"], [4.0, 4.0])


@pytest.mark.parametrize("target", ["numpy", "c"])
def test_a_loss_with_a_gradient_in_it_is_trained(target: str) -> None:
    x, w = bc.input("x", (4, 3), "f64"), bc.parameter("w", (1, 3), bc.gaussian(1.0), "f64")
    y = bc.tanh(bc.linear(x, w))
    (slope,) = bc.gradients(y, [x])
    assert slope is not None
    program = bc.compile(bc.Model({"y": y}, (slope * slope).sum()), target, optimizer=bc.SGD(1.0))
    given = np.random.default_rng(0).standard_normal((4, 3))
    before = program.state_dict()["w"]
    program.train_step(x=given)
    gradient = before - program.state_dict()["w"]

    def loss(w: np.ndarray) -> float:
        return float(((1 - np.tanh(given @ w.T) ** 2) ** 2 * (w * w).sum()).sum())

    for k in range(3):
        step = np.zeros((1, 3))
        step[0, k] = 1e-6
        expected = (loss(before + step) - loss(before - step)) / 2e-6
        np.testing.assert_allclose(gradient[0, k], expected, rtol=1e-6)


def test_dropout_between_is_refused_unless_inference_is_meant() -> None:
    x = bc.input("x", (2,), "f64")
    y = bc.dropout(x * x, 0.5)
    with pytest.raises(bc.BrickcError, match="dropout"):
        bc.gradients(y, [x])
    (dx,) = bc.gradients(y, [x], inference=True)
    assert dx is not None
    np.testing.assert_allclose(_values(bc.Model(dx), x=np.array([1.0, 2.0]))["output"], [2.0, 4.0])
    # dropout that does not lie between is nobody's business
    assert bc.gradients(x * bc.dropout(bc.input("z", (2,), "f64"), 0.5), [x])[0] is not None


def test_integers_and_other_things_have_no_gradient() -> None:
    x, t = bc.input("x", (2,)), bc.input("t", (2,), "i32")
    with pytest.raises(bc.BrickcError, match="floating-point"):
        bc.gradients(x, [t])
    with pytest.raises(bc.BrickcError, match="of tensors"):
        bc.gradients(x, [np.zeros(2)])  # type: ignore[list-item]
