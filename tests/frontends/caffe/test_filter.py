"""Filter: what is behind it computes with the examples that it lets through, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from caffe_nets import gradients, inputs_text, model_of, run_model

import brickc as bc
from brickc.errors import BrickcError, UnsupportedError

RNG = np.random.default_rng(18)
SELECTED = np.array([0, 1, 1, 0, 1])
FC = (
    'layer { name: "f" type: "InnerProduct" bottom: "x2" top: "y" inner_product_param { num_output: 3 weight_filler { type: "gaussian" } } }'
    'layer { name: "r" type: "TanH" bottom: "y" top: "y" }'
)
HEAD = {
    "SoftmaxWithLoss": "labels", "HingeLoss": "labels", "MultinomialLogisticLoss": "labels",
    "EuclideanLoss": "targets", "SigmoidCrossEntropyLoss": "targets",
}  # fmt: skip


def net(size: int, type: str, rest: str, filtered: bool) -> str:
    """The same network with a Filter, or for examples that were picked by hand."""
    kind = HEAD[type]
    text = inputs_text(
        {"x": (size, 4), "t": (size,) if kind == "labels" else (size, 3), "s": (size, 1)}
    )
    if filtered:
        text += 'layer { name: "filter" type: "Filter" bottom: "x" bottom: "t" bottom: "s" top: "x2" top: "t2" }'
    else:
        text += (
            'layer { name: "a" type: "Split" bottom: "x" top: "x2" } layer { name: "b" type: "Split" bottom: "t" top: "t2" }'
            'layer { name: "c" type: "Silence" bottom: "s" }'
        )
    scores = "y"
    if type == "MultinomialLogisticLoss":
        rest += 'layer { name: "p" type: "Softmax" bottom: "y" top: "p" }'
        scores = "p"
    loss = f'layer {{ name: "l" type: "{type}" bottom: "{scores}" bottom: "t2" top: "l" {{}} }}'
    if kind == "labels":
        loss += (
            f'layer {{ name: "acc" type: "Accuracy" bottom: "{scores}" bottom: "t2" top: "acc" }}'
        )
    parameters, _, layers = rest.partition("|")
    return text + FC + layers + loss.replace("{}", parameters)


@pytest.mark.parametrize(
    ("type", "rest"),
    [
        ("SoftmaxWithLoss", ""),
        ("SoftmaxWithLoss", "loss_param { ignore_label: 1 }"),
        ("SoftmaxWithLoss", "loss_param { normalization: BATCH_SIZE }"),
        ("SoftmaxWithLoss", "loss_param { normalization: NONE }"),
        ("HingeLoss", "hinge_loss_param { norm: L2 }"),
        ("MultinomialLogisticLoss", ""),
        ("EuclideanLoss", ""),
        ("SigmoidCrossEntropyLoss", ""),
        ("SigmoidCrossEntropyLoss", "loss_param { normalization: FULL }"),
    ],
)
def test_the_same_as_examples_picked_by_hand(type: str, rest: str) -> None:
    x = RNG.standard_normal((5, 4)).astype(np.float32)
    t = RNG.integers(0, 3, 5) if HEAD[type] == "labels" else RNG.random((5, 3)).astype(np.float32)
    picked = SELECTED.astype(bool)
    whole = model_of(net(5, type, rest + "|", True))
    hand = model_of(net(3, type, rest + "|", False))
    inputs = {"x": x, "t": t, "s": SELECTED[:, None] * 2.0}
    some = {"x": x[picked], "t": t[picked], "s": np.ones((3, 1))}
    weights = {"f.weight": RNG.standard_normal((3, 4)), "f.bias": RNG.standard_normal(3)}
    found, expected = run_model(whole, inputs, weights), run_model(hand, some, weights)
    for key in expected.keys() & {"loss", "acc"}:
        assert found[key] == pytest.approx(float(expected[key]), rel=1e-5), key
    slopes, wanted = gradients(whole, inputs, weights), gradients(hand, some, weights)
    for name in wanted:
        np.testing.assert_allclose(slopes[name], wanted[name], rtol=1e-4, atol=1e-6)


def test_compiled() -> None:
    model = model_of(net(5, "SoftmaxWithLoss", "|", True))
    assert str(model.inputs["t"]) == "i32[N]"
    program = bc.compile(model)
    inputs = {"x": RNG.random((5, 4)).astype(np.float32), "t": np.array([0, 1, 2, 0, 1], np.int32),
              "s": np.ones((5, 1), np.float32)}  # fmt: skip
    whole = float(program.evaluate(**inputs)["loss"])
    inputs["s"][:] = 0
    assert program.evaluate(**inputs)["loss"] == 0
    assert program.train_step(**inputs)["loss"] == 0
    assert whole > 0


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("", "only losses and accuracies may be behind it"),
        ('layer { name: "b" type: "BatchNorm" bottom: "x2" top: "z" }', "behind a Filter"),
        ('layer { name: "b" type: "Reduction" bottom: "x2" top: "z" }', "behind a Filter"),
        (
            'layer { name: "b" type: "Concat" bottom: "x2" bottom: "x2" top: "z" concat_param { axis: 0 } }',
            "behind a Filter",
        ),
        ('layer { name: "b" type: "Eltwise" bottom: "x2" bottom: "x" top: "z" }', "others are not"),
    ],
)
def test_refused(rest: str, message: str) -> None:
    text = inputs_text({"x": (5, 4), "s": (5,)}) + (
        'layer { name: "filter" type: "Filter" bottom: "x" bottom: "s" top: "x2" }'
    )
    with pytest.raises(UnsupportedError, match=message):
        model_of(text + rest)


@pytest.mark.parametrize(
    ("x", "s", "tops"), [((5, 4), (5, 2), 1), ((5, 4), (4,), 1), ((5, 4), (5,), 2)]
)
def test_what_makes_no_sense(x: tuple[int, ...], s: tuple[int, ...], tops: int) -> None:
    made = " ".join(f'top: "y{k}"' for k in range(tops))
    with pytest.raises(BrickcError, match="Filter"):
        model_of(
            inputs_text({"x": x, "s": s})
            + f'layer {{ name: "f" type: "Filter" bottom: "x" bottom: "s" {made} }}'
        )
