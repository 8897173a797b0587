"""Solvers at work: the schedule reaches the step, tests and snapshots come when they are due,
and a run that was broken off goes on with the same losses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest

import brickc as bc
from brickc.errors import ArtifactError, NumericsError, UsageError
from brickc.frontends.caffe.binary import encode_datum, read_net
from brickc.frontends.caffe.solver import Plan
from brickc.runtime.iterations import Iterations
from brickc.solving import Training, prepare, runs_solver

NETS = Path(__file__).parent.parent / "frontends" / "caffe" / "nets"
SOLVER = NETS / "lenet_solver.prototxt"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Images of 28×28 in four classes that a line tells apart."""
    rng = np.random.default_rng(14)
    t = rng.integers(0, 4, 96).astype(np.int32)
    x = rng.random((96, 1, 28, 28)).astype(np.float32) * 0.2
    for k, label in enumerate(t):
        x[k, 0, 3 + 6 * label : 6 + 6 * label] += 1
    path = tmp_path_factory.mktemp("data") / "lines.npz"
    np.savez(path, x=x[:64], t=t[:64], x_test=x[64:], t_test=t[64:])
    return f"npz:{path}"


def run(data: str, folder: Path | None = None, **kwargs: object) -> Training:
    training = prepare(SOLVER, data=data, folder=folder, **kwargs)  # type: ignore[arg-type]
    training.iterations.run()
    return training


def test_a_solver_trains(data: str, tmp_path: Path) -> None:
    training = run(data, tmp_path / "run")
    done = training.iterations
    assert len(done.losses) == 12
    assert [t.iteration for t in done.tests] == [0, 4, 8, 12]
    assert set(done.tests[0].means) == {"loss", "accuracy"}
    assert done.losses[-1] < 0.5 * done.losses[0]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "lenet_iter_12.caffemodel", "lenet_iter_4.caffemodel", "lenet_iter_8.caffemodel", "state",
    ]  # fmt: skip
    assert [x.name for x in read_net(tmp_path / "run" / "lenet_iter_12.caffemodel")] == [
        "conv1", "ip1", "ip2",
    ]  # fmt: skip
    # the last rate: 0.01·(1 + 0.1·11)^-0.75
    assert training.program.learning_rate == pytest.approx(0.01 * 2.1**-0.75)


def test_going_on_gives_the_same_losses(data: str, tmp_path: Path) -> None:
    whole = run(data).iterations
    run(data, tmp_path, max_iter=4)
    rest = run(data, tmp_path).iterations
    assert rest.losses == whole.losses
    assert [(t.iteration, t.means) for t in rest.tests] == [
        (t.iteration, t.means) for t in whole.tests
    ]


def test_weights_to_start_from(data: str, tmp_path: Path) -> None:
    first = run(data, tmp_path, max_iter=4)
    again = prepare(SOLVER, data=data, weights=tmp_path / "lenet_iter_4.caffemodel")
    for name, array in again.program.parameters().items():
        np.testing.assert_array_equal(array, first.program.parameters()[name])


def test_the_networks_own_databases(tmp_path: Path) -> None:
    for name in ("lenet_solver.prototxt", "lenet_train_test.prototxt"):
        (tmp_path / name).write_text((NETS / name).read_text())
    rng = np.random.default_rng(15)
    for name, count in (("train_lmdb", 40), ("test_lmdb", 20)):
        with lmdb.open(str(tmp_path / name), map_size=2**22) as db, db.begin(write=True) as t:
            for k in range(count):
                pixels = rng.integers(0, 256, (1, 12, 12)).astype(np.uint8)
                t.put(f"{k:05}".encode(), encode_datum(pixels, int(rng.integers(10))))
    training = prepare(tmp_path / "lenet_solver.prototxt", max_iter=2)
    assert str(training.program.compiled.model.inputs["data"]) == "f32[N,1,12,12]"
    batch = training.iterations.train.batch(0)
    assert batch["data"].shape == (16, 1, 12, 12)
    assert batch["data"].max() <= 255 * 0.00390625
    training.iterations.run()
    assert len(training.iterations.losses) == 2
    # 20 test images, 10 in a batch, two batches
    assert [test.batches for test in training.iterations.test] == [2]


class Recorder:
    """A program that only writes down what it is told."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.batches: list[int] = []

    def train_step(self, **inputs: object) -> dict[str, np.ndarray]:
        self.batches.append(int(inputs["k"]))  # type: ignore[call-overload]
        return {"loss": np.asarray(float(len(self.batches)))}

    def evaluate(self, **inputs: object) -> dict[str, np.ndarray]:
        return {"loss": np.asarray(float(inputs["k"])), "y": np.zeros(3)}  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, np.ndarray]:
        return {"optimizer.lr": np.zeros((), np.float32)}

    def load_state_dict(self, values: Mapping[str, object], strict: bool = True) -> None:
        self.rates.append(float(values["optimizer.lr"]))  # type: ignore[arg-type]


class Numbers:
    batches = 7

    def batch(self, k: int) -> Mapping[str, np.ndarray]:
        return {"k": np.asarray(k)}


def recorded(plan: Plan, tests: int = 1) -> tuple[Recorder, Iterations, list[float]]:
    program, shown = Recorder(), []
    run = Iterations(
        program, Numbers(), [Numbers()] * tests, plan, lambda k: 1 / (1 + k),
        progress=lambda done, total, loss: shown.append(loss),
    )  # fmt: skip
    run.run()
    return program, run, shown


def test_iterations_of_several_batches() -> None:
    program, run, shown = recorded(Plan(max_iter=3, iter_size=2, average_loss=2))
    assert program.batches == [0, 1, 2, 3, 4, 5]
    assert program.rates == pytest.approx([1, 1 / 2, 1 / 3])
    assert run.losses == [1.5, 3.5, 5.5]
    assert shown == [1.5, 2.5, 4.5]


@pytest.mark.parametrize(
    ("plan", "iterations", "mean"),
    [
        (Plan(4, test_interval=2, test_iter=(3,)), [0, 2, 4], 1),
        (Plan(4, test_interval=2, test_iter=(3,), test_initialization=False), [2, 4], 1),
        (Plan(5, test_interval=2, test_iter=(99,)), [0, 2, 4, 5], 3),  # one pass at most
        (Plan(4), [4], 3),
    ],
)
def test_when_tests_are_due(plan: Plan, iterations: list[int], mean: float) -> None:
    _, run, _ = recorded(plan)
    assert [t.iteration for t in run.tests] == iterations
    assert run.tests[0].means == {"loss": mean}


def test_several_test_nets() -> None:
    _, run, _ = recorded(Plan(1, test_iter=(3, 5)), tests=2)
    assert run.tests[-1].means == {"loss": pytest.approx(1), "loss#2": pytest.approx(2)}


def test_broken_checkpoints(data: str, tmp_path: Path) -> None:
    run(data, tmp_path, max_iter=4)
    manifest = tmp_path / "state" / "manifest.json"
    state = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**state, "iteration": "x"}))
    with pytest.raises(ArtifactError, match="none of a solver"):
        run(data, tmp_path)
    weights = tmp_path / "state" / "state.safetensors"
    manifest.write_text(json.dumps(state))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="corrupt"):
        run(data, tmp_path)


def test_a_loss_that_is_not_finite(data: str) -> None:
    training = prepare(SOLVER, data=data)
    run = training.iterations
    run.rate = lambda k: 1e30
    with np.errstate(all="ignore"), pytest.raises(NumericsError, match="not finite"):
        run.run()


def test_refused(data: str, tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    net = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } } ' + (
        'layer { name: "f" type: "InnerProduct" bottom: "x" top: "y" loss_weight: 1 inner_product_param { num_output: 1 } }'
    )
    path.write_text(f"base_lr: 0.1 max_iter: 1 net_param {{ {net} }}")
    with pytest.raises(bc.BrickcError, match="Input has no examples"):
        prepare(path)
    two = net.replace('top: "x"', 'top: "x" top: "z"').replace('bottom: "x"', 'bottom: "z"')
    path.write_text(
        f'base_lr: 0.1 net_param {{ {two} layer {{ type: "Eltwise" bottom: "x" bottom: "x" top: "q" loss_weight: 1 }} }}'
    )
    with pytest.raises(UsageError, match="one input of floats"):
        prepare(path, data=data)


def test_networks_without_a_loss_or_anything_to_train(data: str, tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    net = (
        'layer { name: "d" type: "Data" top: "x" data_param { source: "mnist" batch_size: 4 } }'
        'layer { name: "f" type: "InnerProduct" bottom: "x" top: "y" PARAM inner_product_param { num_output: 1 } }'
    )
    path.write_text(f"base_lr: 0.1 max_iter: 2 net_param {{ {net.replace('PARAM', '')} }}")
    with pytest.raises(UsageError, match="no loss to train on"):
        prepare(path, data=data)
    frozen = net.replace("PARAM", "loss_weight: 1 param { lr_mult: 0 } param { lr_mult: 0 }")
    path.write_text(f"base_lr: 0.1 max_iter: 2 net_param {{ {frozen} }}")
    training = prepare(path, data=data)
    training.iterations.run()
    assert training.iterations.losses == [0.0, 0.0]


def test_what_is_a_solver() -> None:
    assert runs_solver(str(SOLVER))
    assert not runs_solver(str(NETS / "lenet_train_test.prototxt"))
    assert not runs_solver("zoo:lenet5")


def test_plans_may_be_cut_short(data: str) -> None:
    training = prepare(SOLVER, data=data, max_iter=1)
    assert training.iterations.plan == replace(Plan(12), max_iter=1, test_iter=(2,), test_interval=4, display=5, snapshot=4, prefix="lenet")  # fmt: skip
