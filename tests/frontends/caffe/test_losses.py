"""Losses against the formulas of Caffe's layers and the loops of its tests, number by number."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from caffe_nets import check_gradients, gradients, imported, inputs_text, model_of, run_layer

from brickc.errors import BrickcError, ImportModelError
from brickc.frontends.caffe.binary import write_blob

RNG = np.random.default_rng(8)


def loss_of(type: str, inputs: dict[str, object], parameters: str = "") -> float:
    """The loss of a layer on its inputs, in their order."""
    bottoms = " ".join(f'bottom: "{n}"' for n in inputs)
    layer = f'layer {{ name: "l" type: "{type}" {bottoms} top: "l" {parameters} }}'
    return float(run_layer(layer, inputs)["loss"])  # type: ignore[arg-type]


def gradient_of(
    type: str, x: np.ndarray, others: dict[str, np.ndarray], parameters: str = ""
) -> np.ndarray:
    """The loss's derivative in its first bottom."""
    dims = " ".join(f"dim: {n}" for n in x.shape)
    bottoms = "".join(f' bottom: "{n}"' for n in others)
    text = (
        inputs_text({n: a.shape for n, a in others.items()})
        + f'layer {{ name: "x" type: "Parameter" top: "x" parameter_param {{ shape {{ {dims} }} }} }}'
        f'layer {{ name: "l" type: "{type}" bottom: "x"{bottoms} top: "l" {parameters} }}'
    )
    return gradients(model_of(text), others, {"x.weight": x})["x.weight"]


# ── softmax ──────────────────────────────────────────────────────────────────────────────

SCORES = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
#: -log softmax: log(e^1 + e^2 + e^3) - score, and log 3
TERMS = [[2.4076059, 1.4076059, 0.4076059], [1.0986123, 1.0986123, 1.0986123]]


@pytest.mark.parametrize(
    ("parameters", "labels", "expected"),
    [
        ("", [0, 2], (2.4076059 + 1.0986123) / 2),
        ("loss_param { normalization: FULL }", [0, 2], (2.4076059 + 1.0986123) / 2),
        ("loss_param { normalization: BATCH_SIZE }", [0, 2], (2.4076059 + 1.0986123) / 2),
        ("loss_param { normalization: NONE }", [0, 2], 2.4076059 + 1.0986123),
        ("loss_param { normalize: false }", [0, 2], (2.4076059 + 1.0986123) / 2),
        # an ignored label counts neither above nor, with VALID, below
        ("loss_param { ignore_label: 2 }", [0, 2], 2.4076059),
        ("loss_param { ignore_label: -1 }", [2, -1], 0.4076059),
        ("loss_param { ignore_label: 255 normalization: FULL }", [2, 255], 0.4076059 / 2),
        ("loss_param { ignore_label: 0 }", [0, 0], 0.0),
        ("loss_weight: 3", [0, 2], 3 * (2.4076059 + 1.0986123) / 2),
    ],
)
def test_softmax_loss(parameters: str, labels: list[int], expected: float) -> None:
    found = loss_of("SoftmaxWithLoss", {"x": SCORES, "t": np.array(labels)}, parameters)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("mode", "divisor"), [("FULL", 2 * 6), ("VALID", 11), ("BATCH_SIZE", 2), ("NONE", 1)]
)
def test_softmax_loss_over_places(mode: str, divisor: int) -> None:
    # Caffe's TestForwardIgnoreLabel and normalisation modes, by a loop
    x = RNG.standard_normal((2, 4, 2, 3)).astype(np.float32)
    t = RNG.integers(0, 4, (2, 1, 2, 3))
    t[0, 0, 0, 0] = 9
    total = 0.0
    for n in range(2):
        for h in range(2):
            for w in range(3):
                if t[n, 0, h, w] != 9:
                    scores = x[n, :, h, w].astype(np.float64)
                    total += math.log(np.exp(scores).sum()) - scores[t[n, 0, h, w]]
    found = loss_of(
        "SoftmaxWithLoss",
        {"x": x, "t": t},
        f"loss_param {{ ignore_label: 9 normalization: {mode} }}",
    )
    assert found == pytest.approx(total / divisor, rel=1e-5)


def test_softmax_of_another_axis_and_its_chances() -> None:
    x = RNG.standard_normal((2, 3, 4)).astype(np.float32)
    t = RNG.integers(0, 4, (2, 3))
    layer = (
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "l" top: "p" '
        "softmax_param { axis: 2 } }"
    )
    found = run_layer(layer, {"x": x, "t": t})
    chances = np.exp(x) / np.exp(x).sum(2, keepdims=True)
    np.testing.assert_allclose(found["p"], chances, rtol=1e-5)
    picked = np.take_along_axis(chances, t[:, :, None], 2)
    assert found["loss"] == pytest.approx(-np.log(picked).mean(), rel=1e-5)


def test_softmax_gradient() -> None:
    # softmax_loss_layer.cpp: (prob - onehot)/count, 0 where the label is ignored
    found = gradient_of(
        "SoftmaxWithLoss", SCORES, {"t": np.array([2, 0])}, "loss_param { ignore_label: 0 }"
    )
    chances = np.exp(SCORES[0]) / np.exp(SCORES[0]).sum()
    np.testing.assert_allclose(found, [chances - [0, 0, 1], [0, 0, 0]], atol=1e-6)


def test_the_classes_bound_the_labels() -> None:
    text = inputs_text({"x": (2, 3), "t": (2,)}) + (
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "l" }'
    )
    assert model_of(text).label_limit("t") == 3
    assert (
        model_of(
            text.replace('top: "l" }', 'top: "l" loss_param { ignore_label: 7 } }')
        ).label_limit("t")
        == 0
    )


# ── distances ────────────────────────────────────────────────────────────────────────────


def test_euclidean() -> None:
    # 1/(2·2)·(1 + 4 + 9 + 16)
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros((2, 2, 1))
    assert loss_of("EuclideanLoss", {"a": a, "b": b}) == pytest.approx(30 / 4)
    np.testing.assert_allclose(gradient_of("EuclideanLoss", a, {"b": b}), a / 2)


PAIRS = (
    np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 3.0]]),
    np.array([[3.0, 4.0], [1.0, 1.5], [0.0, 0.0]]),
)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        # d = 5, 0.5, 3; alike, apart, apart: 25 + max(1-0.5, 0)² + 0, over 2·3
        ("", (25 + 0.25) / 6),
        # the legacy version: 25 + max(1 - 0.25, 0) + 0
        ("contrastive_loss_param { legacy_version: true }", (25 + 0.75) / 6),
        ("contrastive_loss_param { margin: 4 }", (25 + 3.5**2 + 1) / 6),
    ],
)
def test_contrastive(parameters: str, expected: float) -> None:
    a, b = PAIRS
    assert loss_of(
        "ContrastiveLoss", {"a": a, "b": b, "y": np.array([1, 0, 0])}, parameters
    ) == pytest.approx(expected)


def test_contrastive_gradient() -> None:
    # contrastive_loss_layer.cpp: alike (a-b)/N; apart -(margin-d)/(d + 1e-4)·(a-b)/N
    a, b = PAIRS
    found = gradient_of("ContrastiveLoss", a, {"b": b, "y": np.array([1, 0, 0])})
    np.testing.assert_allclose(
        found, [[-1, -4 / 3], [0, -(0.5 / 0.5001) * -0.5 / 3], [0, 0]], rtol=1e-5, atol=1e-7
    )
    # equal points that should be apart have no direction to go
    found = gradient_of("ContrastiveLoss", a, {"b": a, "y": np.zeros(3, int)})
    assert found.tolist() == np.zeros((3, 2)).tolist()


# ── margins and chances ──────────────────────────────────────────────────────────────────

MARGINS = np.array([[2.0, -0.5, 0.25], [-3.0, 0.5, -2.0]])


def test_hinge() -> None:
    # with labels 0 and 1: max(0, 1-2) + max(0, 1-0.5) + max(0, 1.25) = 1.75;
    # max(0, 1-3) + max(0, 1-0.5) + max(0, 1-2) = 0.5
    inputs: dict[str, object] = {"x": MARGINS, "t": np.array([0, 1])}
    assert loss_of("HingeLoss", inputs) == pytest.approx((1.75 + 0.5) / 2)
    squares = (0.5**2 + 1.25**2 + 0.5**2) / 2
    assert loss_of("HingeLoss", inputs, "hinge_loss_param { norm: L2 }") == pytest.approx(squares)


def test_hinge_gradient() -> None:
    # hinge_loss_layer.cpp: the sign of the margin over N, turned around at the label
    labels = {"t": np.array([0, 1])}
    np.testing.assert_allclose(
        gradient_of("HingeLoss", MARGINS, labels), [[0, 0.5, 0.5], [0, -0.5, 0]]
    )
    np.testing.assert_allclose(
        gradient_of("HingeLoss", MARGINS, labels, "hinge_loss_param { norm: L2 }"),
        [[0, 0.5, 1.25], [0, -0.5, 0]],
    )


def test_multinomial() -> None:
    x = np.array([[0.5, 0.25, 0.25], [0.1, 0.0, 0.9]])
    assert loss_of("MultinomialLogisticLoss", {"x": x, "t": np.array([1, 2])}) == pytest.approx(
        (math.log(4) - math.log(0.9)) / 2, rel=1e-5
    )
    # a chance of 0 counts as 1e-20, in the value and in the slope -1/(N·p)
    assert loss_of("MultinomialLogisticLoss", {"x": x, "t": np.array([1, 1])}) == pytest.approx(
        (math.log(4) + 20 * math.log(10)) / 2, rel=1e-5
    )
    found = gradient_of("MultinomialLogisticLoss", x, {"t": np.array([1, 1])})
    np.testing.assert_allclose(found, [[0, -2, 0], [0, -0.5e20, 0]], rtol=1e-5)


def test_infogain() -> None:
    # the loop of Caffe's TestInfogainLoss: scores [4, 2, 5, 2], classes on axis 2
    x = RNG.uniform(-0.5, 2, (4, 2, 5, 2)).astype(np.float32)
    t = RNG.integers(0, 5, (4, 2, 1, 2))
    table = RNG.uniform(0.1, 2, (1, 1, 5, 5)).astype(np.float32)
    layer = (
        'layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "t" bottom: "h" top: "l" top: "p" '
        "infogain_loss_param { axis: 2 } loss_weight: 1 loss_weight: 0 }"
    )
    found = run_layer(layer, {"x": x, "t": t, "h": table})
    chances = np.exp(x.astype(np.float64))
    chances /= chances.sum(2, keepdims=True)
    np.testing.assert_allclose(found["p"], chances, rtol=1e-5)
    total = 0.0
    for n in range(4):
        for c in range(2):
            for w in range(2):
                for k in range(5):
                    total -= table[0, 0, t[n, c, 0, w], k] * math.log(chances[n, c, k, w])
    assert found["loss"] == pytest.approx(total / 16, rel=1e-5)


def test_infogain_from_a_file(tmp_path: Path) -> None:
    write_blob(tmp_path / "h.binaryproto", np.eye(3, dtype=np.float32).reshape(1, 1, 3, 3))
    text = inputs_text({"x": (2, 3), "t": (2,)}) + (
        'layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "t" top: "l" '
        'infogain_loss_param { source: "h.binaryproto" } }'
    )
    from caffe_nets import run_model

    model = imported(text, folder=tmp_path).model
    found = run_model(model, {"x": SCORES, "t": [0, 2]})["loss"]
    # the identity makes it the softmax loss
    assert found == pytest.approx((TERMS[0][0] + TERMS[1][2]) / 2, rel=1e-5)
    with pytest.raises(ImportModelError, match="not there"):
        imported(
            text.replace("h.bin", "../h.bin").replace("h.binaryproto", "other"), folder=tmp_path
        )


@pytest.mark.parametrize(
    ("parameters", "divisor"),
    [
        ("", 2),
        ("loss_param { normalization: VALID }", 6),
        ("loss_param { normalize: true }", 6),
        ("loss_param { normalization: FULL }", 6),
        ("loss_param { normalization: NONE }", 1),
    ],
)
def test_sigmoid_cross_entropy(parameters: str, divisor: int) -> None:
    x = np.array([[0.0, 2.0, -3.0], [100.0, -100.0, 1.0]])
    t = np.array([[1.0, 1.0, 0.0], [1.0, 0.25, 0.5]])
    # log 2, log(1+e^-2), log(1+e^-3), 0, 25, log(1+e) - 0.5
    terms = [0.6931472, 0.1269280, 0.0485874, 0.0, 25.0, 0.8132617]
    found = loss_of("SigmoidCrossEntropyLoss", {"x": x, "t": t}, parameters)
    assert found == pytest.approx(sum(terms) / divisor, rel=1e-5)


def test_sigmoid_cross_entropy_with_ignored_targets() -> None:
    x, t = np.array([[0.0, 2.0], [5.0, -3.0]]), np.array([[1.0, -1.0], [-1.0, 0.0]])
    found = loss_of(
        "SigmoidCrossEntropyLoss", {"x": x, "t": t},
        "loss_param { ignore_label: -1 normalization: VALID }",
    )  # fmt: skip
    assert found == pytest.approx((0.6931472 + 0.0485874) / 2, rel=1e-5)


# ── accuracy ─────────────────────────────────────────────────────────────────────────────


def accuracy(
    x: object, t: object, parameters: str = "", tops: str = 'top: "a"'
) -> dict[str, np.ndarray]:
    layer = f'layer {{ name: "a" type: "Accuracy" bottom: "x" bottom: "t" {tops} {parameters} }}'
    return run_layer(layer, {"x": x, "t": t})  # type: ignore[dict-item]


def test_accuracy() -> None:
    x = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    assert accuracy(x, [1, 1, 0])["a"] == pytest.approx(1 / 3)
    assert accuracy(x, [1, 1, 0], "accuracy_param { top_k: 2 }")["a"] == pytest.approx(2 / 3)
    assert accuracy(x, [1, 1, 0], "accuracy_param { top_k: 3 }")["a"] == 1
    assert accuracy(x, [1, 1, 0], "accuracy_param { ignore_label: 0 }")["a"] == pytest.approx(1 / 2)
    assert accuracy(x, [0, 0, 0], "accuracy_param { ignore_label: 0 }")["a"] == 0
    # a class that ties with the label's counts as better
    assert accuracy(np.ones((1, 3)), [0])["a"] == 0


def test_accuracy_per_class_and_over_places() -> None:
    x = RNG.standard_normal((2, 10, 4, 5)).astype(np.float32)
    t = RNG.integers(0, 9, (2, 4, 5))  # nothing of class 9
    found = accuracy(x, t, tops='top: "a" top: "each"')
    right = x.argmax(1) == t
    assert found["a"] == pytest.approx(right.mean())
    for k in range(10):
        expected = right[t == k].mean() if (t == k).any() else 0
        assert found["each"][k] == pytest.approx(expected)


def test_a_blob_of_accuracy_has_no_gradient() -> None:
    text = inputs_text({"t": (2,)}) + (
        'layer { name: "x" type: "Parameter" top: "x" parameter_param { shape { dim: 2 dim: 3 } } }'
        'layer { name: "a" type: "Accuracy" bottom: "x" bottom: "t" top: "a" loss_weight: 1 }'
    )
    assert gradients(model_of(text), {"t": [0, 1]}) == {}


@pytest.mark.parametrize(
    ("type", "bottoms", "parameters"),
    [
        ("SoftmaxWithLoss", "t", ""),
        ("SoftmaxWithLoss", "t", "loss_param { ignore_label: 1 }"),
        ("EuclideanLoss", "f", ""),
        ("HingeLoss", "t", "hinge_loss_param { norm: L2 }"),
        ("SigmoidCrossEntropyLoss", "f", ""),
        ("InfogainLoss", "t h", ""),
    ],
)
def test_gradients(type: str, bottoms: str, parameters: str) -> None:
    text = (
        inputs_text({"t": (3,), "f": (3, 4), "h": (4, 4)})
        + 'layer { name: "x" type: "Parameter" top: "x" parameter_param { shape { dim: 3 dim: 4 } } }'
        f'layer {{ name: "l" type: "{type}" bottom: "x" '
        + " ".join(f'bottom: "{b}"' for b in bottoms.split())
        + f' top: "l" {parameters} }}'
        + 'layer { name: "s" type: "Silence" bottom: "t" bottom: "f" bottom: "h" }'
    )
    assert check_gradients(text, 1e-5) == []


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ('type: "SoftmaxWithLoss" bottom: "x" bottom: "x"', "number of labels"),
        ('type: "SoftmaxWithLoss" bottom: "x"', "number of bottoms"),
        ('type: "EuclideanLoss" bottom: "x" bottom: "t"', "do not fit"),
        ('type: "Accuracy" bottom: "x" bottom: "t" accuracy_param { top_k: 4 }', "top_k"),
        ('type: "InfogainLoss" bottom: "x" bottom: "t"', "H is missing"),
        ('type: "ContrastiveLoss" bottom: "x" bottom: "x" bottom: "x"', "one label"),
    ],
)
def test_losses_that_make_no_sense(layer: str, message: str) -> None:
    text = inputs_text({"x": (2, 3), "t": (2,)})
    with pytest.raises(BrickcError, match=message):
        model_of(text + f'layer {{ name: "l" {layer} top: "l" }}')
