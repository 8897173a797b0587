"""Zoo networks, compiled, against torch modules in float64: loss and every gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance import TARGETS

import brickc as bc

torch = pytest.importorskip("torch")
nn = torch.nn

RATE = 0.5


def networks() -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Name -> the same network in torch, parameters in our order, and its input's shape."""
    return {
        "lenet5": (
            nn.Sequential(
                nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2),
                nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
                nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten(),
                nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
            ),
            (1, 32, 32),
        ),
        "lenet": (
            nn.Sequential(
                nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2),
                nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
            ),
            (1, 28, 28),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["lenet5", "lenet"])
def test_loss_and_gradients(name: str, target: str, rng: np.random.Generator) -> None:
    theirs, shape = networks()[name]
    theirs = theirs.double()
    program = bc.compile(bc.zoo.model(name, dtype="f64"), target, optimizer=bc.SGD(RATE))
    ours = list(program.parameters())
    parameters = list(theirs.parameters())
    before = {n: p.detach().numpy().copy() for n, p in zip(ours, parameters, strict=True)}
    x, t = rng.standard_normal((3, *shape)), np.array([3, 0, 9], np.int32)
    loss = nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(t).long())
    loss.backward()
    program.load_state_dict(before, strict=False)
    program.learning_rate = RATE
    inputs = dict(zip(program.compiled.functions["train_step"].program.inputs, (x, t), strict=True))
    np.testing.assert_allclose(program.train_step(**inputs)["loss"], loss.item(), rtol=1e-9)
    after = program.parameters()
    for key, parameter in zip(ours, parameters, strict=True):
        want = parameter.grad.numpy()
        scale = float(np.abs(want).max())
        got = (before[key] - after[key]) / RATE
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9 * scale, err_msg=key)
