"""Networks as people write them: imported, differentiated, compiled, trained a little."""

from __future__ import annotations

import numpy as np
import pytest
from caffe_nets import gradients, imported, run_model
from caffe_wild import WILD

import brickc as bc
from brickc.frontends.model import Model
from brickc.runtime.check import check_model

TRAINED = [name for name in WILD if name != "old_benchmark"]


def batch(model: Model, size: int, seed: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {}
    for name, type in model.inputs.items():
        shape = tuple(n if isinstance(n, int) else size for n in type.shape)
        if type.dtype.is_float:
            found[name] = rng.random(shape).astype(np.float32)
        else:
            limit = model.label_limit(name) or 2
            found[name] = rng.integers(0, limit, shape).astype(np.int32)
    return found


@pytest.mark.parametrize("name", TRAINED)
def test_compiled_and_trained(name: str) -> None:
    model = imported(WILD[name]).model
    program = bc.compile(model, optimizer=bc.SGD(0.01, 0.9, style="caffe"))
    inputs = batch(model, 6)
    state = program.state_dict()
    # what the compiled program computes is what the reference interpreter does
    reference = run_model(
        model, inputs, {n: a for n, a in state.items() if n in {**model.parameters, **model.states}}
    )
    for key, value in program.evaluate(**inputs).items():
        np.testing.assert_allclose(value, reference[key], rtol=2e-4, atol=1e-5, err_msg=key)
    before = float(program.evaluate(**inputs)["loss"])
    for _ in range(20):
        program.train_step(**inputs)
    if not any("factor" in n for n in state):  # running statistics need more steps than these
        assert float(program.evaluate(**inputs)["loss"]) < before


@pytest.mark.parametrize("name", TRAINED)
def test_every_parameter_has_a_gradient(name: str) -> None:
    model = imported(WILD[name]).model
    inputs = batch(model, 3)
    found = gradients(model, inputs)
    assert set(found) == set(model.parameters)
    assert all(np.isfinite(g).all() for g in found.values())


@pytest.mark.parametrize("name", ["residual", "squeeze", "inception", "autoencoder"])
def test_gradients_are_right(name: str) -> None:
    rows = check_model(imported(WILD[name]).model, 1e-5)
    assert [row for row in rows if not row.passed] == []


def test_what_the_models_have() -> None:
    nets = {name: imported(text).model for name, text in WILD.items()}
    assert nets["residual"].metrics == ("loss/top-1",)
    assert nets["inception"].metrics == (
        "loss1/loss",
        "loss1/loss/top-1",
        "loss3/loss3",
        "loss3/loss3/top-1",
    )
    # both halves of the pair share their parameters
    assert list(nets["siamese"].parameters) == [
        "conv1.weight",
        "conv1.bias",
        "feat.weight",
        "feat.bias",
    ]
    assert list(nets["autoencoder"].inputs) == ["data"]
    assert nets["autoencoder"].metrics == ("l2_error",)
    assert str(nets["fully_convolutional"].inputs["label"]) == "i32[N,1,16,16]"
    assert nets["fully_convolutional"].label_limit("label") == 0
    assert nets["old_benchmark"].loss is None
    assert nets["old_benchmark"].outputs == ("fc7",)


def test_an_ignored_label_is_ignored() -> None:
    model = imported(WILD["fully_convolutional"]).model
    program = bc.compile(model)
    inputs = batch(model, 1)
    whole = program.evaluate(**inputs)["loss"]
    inputs["label"][0, 0, :8] = 255
    assert np.isfinite(program.evaluate(**inputs)["loss"])
    inputs["label"][:] = 255
    assert program.evaluate(**inputs)["loss"] == 0
    assert whole > 0


def test_stages_choose_data() -> None:
    net = imported(WILD["autoencoder"], stages=["test-on-test"])
    sources = [
        layer.sub("data_param").text("source")
        for layer in net.layers["TEST"]
        if layer.text("type") == "Data"
    ]
    assert sources == ["mnist_test-on-test"]
