"""Every zoo network, at every stage of every function: text form, verifier, identical compiles."""

from __future__ import annotations

import pytest

import brickc as bc
from brickc.driver import compile_model
from brickc.ir.bricks import CATALOGUE
from brickc.ir.parser import parse
from brickc.ir.printer import print_graph


@pytest.mark.parametrize("name", sorted(bc.zoo.ZOO))
def test_text_round_trip_of_every_stage(name: str) -> None:
    compiled = compile_model(bc.zoo.model(name), optimizer=bc.SGD(0.1, momentum=0.9))
    assert set(compiled.functions) == {"infer", "evaluate", "train_step"}
    for function in compiled.functions.values():
        assert len(function.stages) >= 5
        for stage, graph in function.stages.items():
            text = print_graph(graph)
            again = parse(text, CATALOGUE)
            assert print_graph(again) == text, (function.name, stage)
            bc.verify(again)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "googlenet"])
def test_two_compiles_give_the_same_bytes(name: str) -> None:
    first = compile_model(bc.zoo.model(name), optimizer=bc.Adam(0.001))
    second = compile_model(bc.zoo.model(name), optimizer=bc.Adam(0.001))
    assert first.sources == second.sources


def test_a_batch_size_can_be_fixed() -> None:
    program = bc.compile(bc.zoo.model("lenet5", batch=1), functions=["infer"])
    plan = program.compiled.functions["infer"].plan
    assert isinstance(plan.peak, int)


def test_equal_layers_cost_no_more_scalar_programs() -> None:
    """Expressions are lowered once per structure, however many layers use them."""
    from brickc.compiler.lower.scalar import program_of

    program_of.cache_clear()
    compile_model(bc.zoo.model("googlenet"), functions=["infer"])
    assert program_of.cache_info().currsize < 20
