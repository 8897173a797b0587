"""Counts that no machine changes: nodes, kernels, bytes. A change here is a decision, or a bug."""

from __future__ import annotations

import numpy as np
import pytest

import brickc as bc
from brickc.driver import Compiled, compile_model
from brickc.ir.dims import evaluate
from brickc.program import describe

NAMES = ("mlp", "lenet5", "lenet", "googlenet")


@pytest.fixture(scope="module")
def compiled() -> dict[str, Compiled]:
    optimizer = bc.SGD(0.01, momentum=0.9)
    return {n: compile_model(bc.zoo.model(n), optimizer=optimizer) for n in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_fusion_saves_kernels(compiled: dict[str, Compiled], name: str) -> None:
    for function in compiled[name].functions.values():
        before = sum(len(g.members) for g in function.fusion.groups)
        assert len(function.program.kernels) < before
        # every node is carried out exactly once
        members = [m for g in function.fusion.groups for m in g.members]
        assert len(members) == len(set(members))


@pytest.mark.parametrize("name", ["lenet5", "googlenet"])
def test_peak_is_well_below_the_sum(compiled: dict[str, Compiled], name: str) -> None:
    function = compiled[name].functions["train_step"]
    for rows in (1, 16, 64):
        dims = dict.fromkeys(function.program.dims, rows)
        peak, total = (evaluate(s, dims) for s in (function.plan.peak, function.plan.total))
        assert peak <= 0.6 * total, (rows, peak, total)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "lenet"])
def test_arena_is_what_the_plan_says(name: str) -> None:
    program = bc.compile(bc.zoo.model(name), optimizer=bc.SGD(0.01))
    stated = describe(program.compiled)["functions"]
    for function in ("infer", "train_step"):
        low = stated[function]["peak_bytes"]["least"]
        assert program.peak_bytes(function, N=1) == low
    inputs = program.compiled.functions["train_step"].program.inputs
    most = 0
    for rows in (1, 5, 3):
        shapes = {n: tuple(evaluate(s, {"N": rows}) for s in a.shape) for n, a in inputs.items()}
        program.train_step(**{
            n: np.zeros(shapes[n], a.dtype.numpy) for n, a in inputs.items()
        })  # fmt: skip
        most = max(most, program.peak_bytes("train_step", N=rows))
        assert program.arena_bytes == most


#: (network, function): kernels if every node had its own, kernels, bytes of the arena
COUNTS = {
    ("mlp", "infer"): (8, 3, "5184*N"),
    ("mlp", "train_step"): (51, 18, "11392*N+1605760"),
    ("lenet5", "infer"): (21, 10, "36736*N"),
    ("lenet5", "train_step"): (89, 38, "71488*N+201728"),
    ("lenet", "infer"): (13, 8, "80640*N"),
    ("lenet", "train_step"): (68, 32, "147840*N+1700160"),
    ("googlenet", "infer"): (249, 123, "7311360*N+262144"),
    ("googlenet", "train_step"): (852, 380, "46444992*N+21535872"),
}


@pytest.mark.parametrize(("name", "function"), COUNTS)
def test_counts(compiled: dict[str, Compiled], name: str, function: str) -> None:
    f = compiled[name].functions[function]
    unfused = sum(len(g.members) for g in f.fusion.groups)
    assert (unfused, len(f.program.kernels), str(f.plan.peak)) == COUNTS[name, function]


def test_nodes_after_each_pass(compiled: dict[str, Compiled]) -> None:
    stages = compiled["lenet5"].functions["train_step"].stages
    assert {stage: len(graph) for stage, graph in stages.items()} == {
        "graph": 38, "specialise": 38, "canonicalise": 38, "expand without vjp": 38,
        "differentiate": 77, "join optimizer": 108, "expand": 131, "simplify": 113,
        "legalise convolution": 149, "simplify again": 135, "own updates": 135,
    }  # fmt: skip


def test_two_compiles_give_the_same_source(compiled: dict[str, Compiled]) -> None:
    again = compile_model(bc.zoo.model("lenet5"), optimizer=bc.SGD(0.01, momentum=0.9))
    assert again.sources == compiled["lenet5"].sources
