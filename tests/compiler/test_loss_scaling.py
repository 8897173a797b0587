"""Loss scaling: nothing changes while gradients are finite; a step with one that is not is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance import TARGETS

import brickc as bc
from brickc.compiler.loss_scaling import GOOD_STEPS, SCALE
from brickc.driver import compile_model
from brickc.errors import UsageError
from brickc.program import Program

N = bc.Dim("N", 1, 8)


def model() -> Any:
    """A factor c of the outputs makes gradients as large as a test wants, the loss less so."""
    x, c, t = bc.input("x", (N, 4)), bc.input("c", (N, 1)), bc.input("t", (N, 2))
    y = bc.Sequential(bc.Linear(3), bc.BatchNorm(), bc.Tanh(), bc.Linear(2))(x)
    return bc.Model({"y": y}, bc.square_loss(y * c, t))


def batch(seed: int, factor: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x, t = rng.standard_normal((4, 4)), rng.standard_normal((4, 2))
    return {"x": x.astype("f4"), "c": np.full((4, 1), factor, "f4"), "t": t.astype("f4")}


#: gradients of f32 overflow where an unscaled one reaches 256
HIGH = bc.LossScale(initial=2.0**120, largest=2.0**120, interval=2)
OVER = 1e5


def program(optimizer: bc.Optimizer, target: str = "numpy") -> Program:
    return bc.compile(model(), target, optimizer=optimizer, functions=["train_step"], seed=2)


@pytest.mark.parametrize(
    "settings",
    [
        (bc.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        (bc.Adam, {"lr": 0.01, "clip_norm": 0.5}),
        (bc.SGD, {"lr": 0.1, "momentum": 0.9, "accumulate": 2}),
    ],
)
def test_finite_steps_are_those_without_a_scale(settings: tuple[Any, dict[str, Any]]) -> None:
    kind, values = settings
    plain, scaled = program(kind(**values)), program(kind(**values, loss_scale=bc.LossScale()))
    for k in range(4):
        losses = [float(p.train_step(**batch(k))["loss"]) for p in (plain, scaled)]
        assert losses[0] == losses[1]
    after = scaled.state_dict()
    for name, value in plain.state_dict().items():
        np.testing.assert_allclose(after[name], value, rtol=1e-6, atol=1e-8, err_msg=name)
    assert after[SCALE] == 2.0**15
    assert after[GOOD_STEPS] == 4 // values.get("accumulate", 1)


@pytest.mark.parametrize("target", TARGETS)
def test_a_step_that_overflows_is_left_out(target: str) -> None:
    p = program(bc.Adam(0.01, loss_scale=HIGH), target)
    p.train_step(**batch(0))
    before = p.state_dict()
    assert before[GOOD_STEPS] == 1
    loss = p.train_step(**batch(1, OVER))["loss"]
    assert np.isfinite(loss)
    after = p.state_dict()
    assert after[SCALE] == 2.0**119
    assert after[GOOD_STEPS] == 0
    for name, value in before.items():
        if name not in (SCALE, GOOD_STEPS):
            np.testing.assert_array_equal(after[name], value, name)
    p.train_step(**batch(2))
    moved = p.state_dict()
    still = [n for n, v in after.items() if np.array_equal(v, moved[n])]
    assert sorted(still) == ["optimizer.loss_scale", "optimizer.lr"]
    assert moved["optimizer.step"] == 2


def test_the_scale_grows_after_good_steps_and_keeps_its_bounds() -> None:
    scaling = bc.LossScale(initial=2.0**119, interval=2, growth=4.0, backoff=2.0**-119, least=2.0,
                           largest=2.0**120)  # fmt: skip
    p = program(bc.SGD(0.1, loss_scale=scaling))
    found = []
    for k, factor in enumerate((1.0, 1.0, 1.0, 1.0, OVER, OVER, 1.0, 1.0)):
        p.train_step(**batch(k, factor))
        found.append(float(np.log2(p.state_dict()[SCALE])))
    # four times 2^119 is over the largest; 2^120 times 2^-119 is the least, under which c overflows nothing
    assert found == [119.0, 120.0, 120.0, 120.0, 1.0, 1.0, 3.0, 3.0]


def test_one_call_that_overflows_spoils_its_step_of_several() -> None:
    p = program(bc.SGD(0.1, momentum=0.9, accumulate=2, loss_scale=HIGH))
    first = p.state_dict()
    for k, factor in enumerate((OVER, 1.0)):
        p.train_step(**batch(k, factor))
        state = p.state_dict()
        assert state[SCALE] == (2.0**120 if k == 0 else 2.0**119)
        for name in ("linear1.weight", "linear1.weight/momentum"):
            np.testing.assert_array_equal(state[name], first[name])
    assert all(not v.any() for n, v in state.items() if n.endswith("/accumulated"))
    for k in (2, 3):
        p.train_step(**batch(k))
    assert (p.state_dict()["linear1.weight"] != first["linear1.weight"]).all()
    assert p.state_dict()[GOOD_STEPS] == 1


def test_f16_scales_by_itself_and_others_when_asked() -> None:
    def states(target: str, **options: Any) -> Any:
        compiled = compile_model(
            model(), target, optimizer=bc.SGD(0.1, **options), functions=["train_step"]
        )
        return compiled.functions["train_step"].graph.states

    assert SCALE in states("triton:f16")
    assert SCALE not in states("triton:bf16")
    assert SCALE in states("triton:bf16", loss_scale=bc.LossScale())
    chosen = compile_model(
        model(), "triton:f16", optimizer=bc.SGD(0.1, loss_scale=bc.LossScale(4.0)),
        functions=["train_step"],
    )  # fmt: skip
    (leaf,) = (leaf for leaf in chosen.leaves if leaf.name == SCALE)
    assert leaf.init == ("constant", 4.0, 0.0)


def test_options_as_text() -> None:
    parsed = bc.parse_optimizer("sgd:lr=0.1,loss_scale=1024/50")
    assert parsed.loss_scale == bc.LossScale(1024.0, 50)
    assert bc.parse_optimizer("sgd:lr=0.1,loss_scale=8").loss_scale == bc.LossScale(8.0)
    with pytest.raises(UsageError, match="32768/2000"):
        bc.parse_optimizer("sgd:lr=0.1,loss_scale=high")


@pytest.mark.parametrize(
    ("name", "value"),
    [("initial", 0.5), ("initial", float("nan")), ("interval", 0), ("growth", 0.5),
     ("backoff", 0.0), ("backoff", 2.0), ("least", 0.0), ("largest", 2.0**128)],
)  # fmt: skip
def test_impossible_numbers(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        bc.LossScale(**{name: value})


def test_a_name_that_is_taken() -> None:
    x, t = bc.input("x", (N, 4)), bc.input("t", (N, 4))
    y = x * bc.parameter(SCALE, (4,))
    taken = bc.Model({"y": y}, bc.square_loss(y, t))
    with pytest.raises(UsageError, match="taken"):
        bc.compile(taken, optimizer=bc.SGD(0.1, loss_scale=bc.LossScale()))
