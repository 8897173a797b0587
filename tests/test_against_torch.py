"""Zoo networks: loss and every parameter's gradient of the compiled step against torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from torch_reference import loss_and_gradients

import brickc as bc
from brickc.ir.brick import Input, Parameter
from brickc.ir.graph import Graph

#: network, batch; the small ones at a batch that the kernels cut into uneven blocks
NETWORKS = [("mlp", 7), ("lenet5", 5), ("lenet", 3), ("alexnet", 2), ("alexnet2012", 1),
            ("googlenet", 1), ("overfeat", 1), ("vgg_a", 1)]  # fmt: skip

#: In float32 a window whose two largest elements differ by a rounding error may have another
#: winner in another order of summation, and then a whole gradient element goes elsewhere. The
#: orders are those of the processor's kernels, here and in torch, and GoogLeNet has so many windows
#: that most inputs hold such a pair: of several inputs one has to agree, or brickc's errors have
#: to be of the size of torch's own, both against torch in float64.
SEEDS = range(3, 7)
LIKE_TORCH = 4.0

Arrays = dict[str, np.ndarray[Any, Any]]

PARAMETERS = {
    "mlp": 669_706, "lenet5": 61_706, "lenet": 431_080, "alexnet": 61_100_840,
    "alexnet2012": 60_965_224, "googlenet": 6_998_552, "overfeat": 145_920_872,
    "vgg_a": 132_863_336,
}  # fmt: skip


@dataclass
class Step:
    """A compiled training step beside torch's."""

    graph: Graph
    batch: int
    values: Arrays
    #: relative error of the loss
    loss: float
    #: gradients by parameter, and by how much the way to tell them may be wrong
    found: Arrays
    expected: Arrays
    unknown: dict[str, float]

    def exact(self) -> Arrays:
        """torch's gradients in float64 at the same values."""
        wide = {n: a.astype("f8") if a.dtype == np.float32 else a for n, a in self.values.items()}
        return loss_and_gradients(self.graph, wide, {"N": self.batch})[1]

    def worst(self, found: Arrays, expected: Arrays) -> float:
        """The largest relative error of a gradient."""
        errors = [0.0]
        for name, wanted in expected.items():
            error = float(np.max(np.abs(found[name] - wanted))) - self.unknown[name]
            errors.append(error / float(np.max(np.abs(wanted))))
        return max(errors)


def step_of(name: str, batch: int, dtype: str, seed: int) -> Step:
    """One step with a learning rate of 1, which tells the gradients: a parameter's update is its
    gradient times its multiplier."""
    model = bc.zoo.model(name, dtype=dtype)
    assert model.parameter_count() == PARAMETERS[name]
    graph = model.training()
    rng = np.random.default_rng(seed)
    float_type = np.dtype(np.float64 if dtype == "f64" else np.float32)
    inputs = {}
    for node in graph.nodes():
        if isinstance(node.brick, Input):
            shape = node.type.concrete({"N": batch})
            drawn = (
                rng.standard_normal(shape).astype(float_type)
                if node.type.dtype.is_float
                else rng.integers(0, node.brick.limit, shape).astype(np.int32)
            )
            inputs[node.brick.name] = drawn
    program = bc.compile(model, optimizer=bc.SGD(1.0), functions=["train_step"])
    before = program.state_dict()
    values = {**before, **inputs}
    loss, expected = loss_and_gradients(graph, values, {"N": batch})
    loss_found = float(program.train_step(**inputs)["loss"])
    after = program.state_dict()
    found, unknown = {}, {}
    for parameter in expected:
        leaf = graph.node(graph.parameters[parameter]).brick
        assert isinstance(leaf, Parameter)
        # Caffe's networks move biases twice as far
        found[parameter] = (before[parameter] - after[parameter]) / leaf.lr_scale
        # an update of a parameter loses the digits that the parameter itself takes
        digit = np.finfo(float_type).eps * float(np.max(np.abs(before[parameter])))
        unknown[parameter] = 4 * digit / leaf.lr_scale
    return Step(graph, batch, values, abs(loss_found - loss) / abs(loss), found, expected, unknown)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch"), NETWORKS, ids=[n for n, _ in NETWORKS])
def test_float64(name: str, batch: int) -> None:
    step = step_of(name, batch, "f64", SEEDS[0])
    assert step.loss < 1e-9
    assert step.worst(step.found, step.expected) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch"), NETWORKS, ids=[n for n, _ in NETWORKS])
def test_float32(name: str, batch: int) -> None:
    ours, torchs = [], []
    for seed in SEEDS:
        step = step_of(name, batch, "f32", seed)
        assert step.loss < 1e-4
        if step.worst(step.found, step.expected) < 1e-4:
            return
        exact = step.exact()
        ours.append(step.worst(step.found, exact))
        torchs.append(step.worst(step.expected, exact))
    assert max(ours) < LIKE_TORCH * max(torchs), (ours, torchs)
    assert max(ours) < 0.1
