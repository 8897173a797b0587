"""What solver files say: rates by iteration, optimizers, networks, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from brickc.compiler.optimizers import SGD, AdaDelta, AdaGrad, Adam, RMSProp
from brickc.errors import BrickcError, ImportModelError, UnsupportedError, UsageError
from brickc.frontends.caffe.solver import Solver, learning_rate, read_solver
from brickc.frontends.caffe.text import parse_text

NETS = Path(__file__).parent / "nets"


def solver(tmp_path: Path, text: str) -> Solver:
    path = tmp_path / "solver.prototxt"
    path.write_text(text if "net" in text else 'net_param { name: "n" }' + text)
    return read_solver(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # the formulas of caffe.proto; base_lr 0.1, at iterations 0, 5, 10, 25
        ('lr_policy: "fixed"', [0.1, 0.1, 0.1, 0.1]),
        ("", [0.1, 0.1, 0.1, 0.1]),
        ('lr_policy: "step" gamma: 0.5 stepsize: 10', [0.1, 0.1, 0.05, 0.025]),
        ('lr_policy: "exp" gamma: 0.9', [0.1 * 0.9**k for k in (0, 5, 10, 25)]),
        ('lr_policy: "inv" gamma: 0.1 power: 0.75', [0.1 * (1 + 0.1 * k) ** -0.75 for k in (0, 5, 10, 25)]),
        ('lr_policy: "multistep" gamma: 0.1 stepvalue: 5 stepvalue: 20', [0.1, 0.01, 0.01, 0.001]),
        ('lr_policy: "poly" power: 2 max_iter: 50', [0.1, 0.1 * 0.81, 0.1 * 0.64, 0.1 * 0.25]),
        ('lr_policy: "sigmoid" gamma: -0.5 stepsize: 10', [0.1 / (1 + math.exp(0.5 * (k - 10))) for k in (0, 5, 10, 25)]),
    ],
)  # fmt: skip
def test_learning_rates(text: str, expected: list[float]) -> None:
    rate = learning_rate(parse_text("base_lr: 0.1 " + text, "SolverParameter"))
    assert [rate(k) for k in (0, 5, 10, 25)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "optimizer"),
    [
        ("", SGD(0.1, style="caffe", clip_style="caffe")),
        ("momentum: 0.9 weight_decay: 0.01", SGD(0.1, 0.9, weight_decay=0.01, style="caffe", clip_style="caffe")),
        ('type: "Nesterov" momentum: 0.9', SGD(0.1, 0.9, True, style="caffe", clip_style="caffe")),
        ("solver_type: NESTEROV momentum: 0.9", SGD(0.1, 0.9, True, style="caffe", clip_style="caffe")),
        ('type: "AdaGrad"', AdaGrad(0.1, 1e-8, clip_style="caffe")),
        ('type: "RMSProp" rms_decay: 0.98 delta: 1e-3', RMSProp(0.1, 0.98, 1e-3, clip_style="caffe")),
        ('type: "AdaDelta" momentum: 0.95 delta: 1e-6', AdaDelta(0.1, 0.95, 1e-6, clip_style="caffe")),
        ('type: "Adam" momentum: 0.9', Adam(0.1, (0.9, 0.999), 1e-8, "caffe", clip_style="caffe")),
        (
            'regularization_type: "L1" clip_gradients: 5 iter_size: 4',
            SGD(0.1, style="caffe", regularization="l1", clip_norm=5, clip_style="caffe", accumulate=4),
        ),
        ("clip_gradients: -1", SGD(0.1, style="caffe", clip_style="caffe")),
    ],
)  # fmt: skip
def test_optimizers(text: str, optimizer: object, tmp_path: Path) -> None:
    assert solver(tmp_path, "base_lr: 0.1 " + text).optimizer == optimizer


def test_the_plan() -> None:
    found = read_solver(NETS / "lenet_solver.prototxt")
    plan = found.plan
    assert (plan.max_iter, plan.test_iter, plan.test_interval, plan.snapshot) == (12, (2,), 4, 4)
    assert plan.prefix == "lenet"
    assert found.seed == 3


def test_the_network_is_found_beside_the_solver() -> None:
    # "examples/digits/train_test.prototxt" is lenet_train_test.prototxt beside lenet_solver
    net = read_solver(NETS / "lenet_solver.prototxt").net((1, 12, 12), {})
    assert net.model.name == "Digits"
    assert str(net.model.inputs["data"]) == "f32[N,1,12,12]"


NET = """{ layer { name: "d" type: "Input" top: "x" input_param { shape { dim: 4 dim: 2 } } }
  layer { name: "f" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 } }
  layer { name: "l" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 include { stage: "s" } } }"""


def test_networks_within_and_states(tmp_path: Path) -> None:
    found = solver(tmp_path, f'net_param {NET} train_state {{ stage: "s" }}').net(None, {})
    assert found.model.loss == "loss"
    # where the stage is only given to the other phase there is nothing to train on
    other = f'train_net_param {NET} test_net_param {NET} test_state {{ stage: "s" }}'
    with pytest.raises(UsageError, match="has no loss"):
        solver(tmp_path, other.replace("loss_weight: 1", "")).net(None, {}).model.training()
    train = solver(tmp_path, f'train_net_param {NET} train_state {{ stage: "s" }}').net(None, {})
    assert train.layers["TRAIN"]
    assert not train.layers["TEST"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "LBFGS"', "unknown type of solver"),
        ('type: "SGD" solver_type: SGD', "both type and solver_type"),
        ('type: "AdaGrad" momentum: 0.9', "has no momentum"),
        ('lr_policy: "magic"', "unknown lr_policy"),
        ('lr_policy: "step"', "needs a stepsize"),
        ('lr_policy: "poly"', "needs max_iter"),
        ('regularization_type: "L3"', "unknown regularization_type"),
        ("max_iter: -1", "max_iter is negative"),
        ("iter_size: 0", "impossible iter_size"),
        ("momentum: 1", "momentum"),
        ("base_lr: -1", "lr makes no sense"),
        ("magic: 1", "no field 'magic'"),
        ("net: 'a' train_net: 'b'", "names one network"),
        ("net: 'none.prototxt'", "--net FILE"),
        ("net: '/etc/passwd'", "--net FILE"),
        ("weights: 'none'", "not there"),
    ],
)  # fmt: skip
def test_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BrickcError, match=message):
        solver(tmp_path, "lr_policy: 'fixed' " * ("lr_policy" not in text) + text).net(None, {})


def test_more_than_one_test_net(tmp_path: Path) -> None:
    # test nets that read other data are one model with several sources, as in Caffe's autoencoder
    data = "".join(
        f'layer {{ name: "d" type: "Data" top: "x" include {{ phase: {p} {s} }} '
        f'data_param {{ source: "mnist{n}" batch_size: 2 }} }}'
        for n, (p, s) in enumerate((("TRAIN", ""), ("TEST", 'stage: "a"'), ("TEST", 'stage: "b"')))
    )
    rest = 'layer { name: "f" type: "InnerProduct" bottom: "x" top: "y" loss_weight: 1 inner_product_param { num_output: 1 } }'
    states = 'test_iter: 1 test_iter: 2 test_state { stage: "a" } test_state { stage: "b" }'
    found = solver(tmp_path, f"net_param {{ {data} {rest} }} {states}").net(None, {})
    assert set(found.layers) == {"TRAIN", "TEST", "TEST#2"}
    assert found.layers["TEST#2"][0].sub("data_param").text("source") == "mnist2"
    other = rest.replace("bottom", 'include { stage: "b" } bottom')
    with pytest.raises(UnsupportedError, match="differ in more than the data"):
        solver(tmp_path, f"net_param {{ {data} {other} }} {states}").net(None, {})
    with pytest.raises(ImportModelError, match="a test_state for each"):
        solver(tmp_path, f"net_param {{ {data} {rest} }} {states} test_net_param {{ }}"
               " test_net_param { } test_net_param { }").net(None, {})  # fmt: skip


def test_a_rate_that_is_none() -> None:
    rate = learning_rate(parse_text('base_lr: 1 lr_policy: "exp" gamma: 1e30', "SolverParameter"))
    with pytest.raises(ImportModelError, match="no learning rate for iteration 20"):
        rate(20)
    rate = learning_rate(
        parse_text('base_lr: 1 lr_policy: "inv" gamma: -1 power: 0.5', "SolverParameter")
    )
    with pytest.raises(ImportModelError, match="iteration 3"):
        rate(3)
