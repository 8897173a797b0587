"""The C kernels of every brick and of some networks, many in one library, tested when built.

Run as a program it compiles them for the target that it is given. The sanitizers' tests do that
in a process of its own, since their runtime has to be there before anything else is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import brickc as bc
from brickc.backends import c as c_backend
from brickc.compiler.optimize.expand import expand
from brickc.compiler.optimize.simplify import simplify
from brickc.compiler.optimize.specialise import specialise
from brickc.compiler.pipelines import target_pipeline
from brickc.driver import backend, compile_functions, compile_model
from brickc.ir.brick import Input, ModeDependent, State
from brickc.ir.bricks.loss import SoftmaxLoss
from brickc.ir.bricks.normalization import BatchNorm
from brickc.ir.bricks.samples import Sample, samples
from brickc.ir.bricks.source import Constant, Iota, Literal
from brickc.ir.builder import Builder
from brickc.ir.dtypes import DType
from brickc.ir.graph import Graph
from brickc.ir.initializers import constant
from brickc.ir.types import TensorType
from brickc.program import example_inputs

__all__ = ["brick_graphs", "compile_bricks", "compile_network", "small_network",
           "step_on_two_threads"]  # fmt: skip


def brick_graphs(dtype: DType) -> Iterator[tuple[str, Graph]]:
    """Every sample of the catalogue alone, in each mode, its leaves under names of its own."""
    rng = np.random.default_rng(5)
    for number, sample in enumerate(samples()):
        if isinstance(sample.brick, Constant | Literal | Iota):
            continue  # their results are data of the program: no kernel
        arrays = [np.asarray(a) for a in sample.draw(rng)]
        types = [
            TensorType(dtype if a.dtype.kind == "f" else DType.of(a.dtype), a.shape)
            for a in arrays
        ]  # fmt: skip
        for training in (False, True) if isinstance(sample.brick, ModeDependent) else (False,):
            name = f"sample{number}" + "_training" * training
            yield name, specialise(_graph(name, sample, types), training)


def _graph(name: str, sample: Sample, types: list[TensorType]) -> Graph:
    graph = Graph(name)
    builder = Builder(graph)
    operands = []
    for k, type in enumerate(types):
        label = f"{name}_x{k}"
        limit = 5 if isinstance(sample.brick, SoftmaxLoss) and k == 1 else 0
        if isinstance(sample.brick, BatchNorm) and k in (3, 4):
            operands.append(builder.add(State(label, type, constant(0))))
        else:
            operands.append(builder.add(Input(label, type, limit)))
    graph.outputs["y"] = builder.add(sample.brick, *operands).id
    return graph


def compile_bricks(target: str, dtype: DType) -> Mapping[str, str | bytes]:
    """One program with a function for each sample."""
    graphs = {}
    passes = target_pipeline(backend(target).capabilities)
    for name, graph in brick_graphs(dtype):
        graphs[name] = passes.run(simplify(expand(graph, only_without_vjp=False)))
    return compile_functions("bricks", graphs, target)[1]


def small_network(batch: bc.Dim | int) -> bc.Model:
    """A training step with convolutions of several kinds, both pools, dropout and norms."""
    x = bc.input("x", (batch, 3, 13, 11))
    t = bc.input("t", (batch,), "i32", limit=7)
    y = bc.Sequential(
        bc.Conv2d(7, 3, padding=1), bc.BatchNorm(), bc.ReLU(), bc.MaxPool(3, 2),
        bc.LRN(3), bc.Conv2d(6, 5, stride=2, padding=2, groups=1), bc.Tanh(),
        bc.Dropout(0.3), bc.MeanPool(2, 1), bc.Flatten(), bc.Linear(9), bc.GELU(),
        bc.Linear(7),
    )(x)  # fmt: skip
    return bc.Model({"y": y}, bc.softmax_loss(y, t), name="small")


def compile_network(target: str, model: bc.Model) -> Mapping[str, Any]:
    rule = bc.SGD(0.1, momentum=0.9)
    return compile_model(model, target, optimizer=rule, functions=["train_step"]).sources


def compile_wrong(target: str) -> None:
    """A kernel that reads a whole vector where only a part of one is there."""
    right = "load_part_f32(x_ + whole, rest, 0.0f)"
    real = c_backend.shared_library

    def build(units: Sequence[str], *args: Any, **kwargs: Any) -> bytes:
        assert sum(right in unit for unit in units) == 1
        wrong = [unit.replace(right, "load_f32(x_ + whole)") for unit in units]
        return real(wrong, *args, **kwargs)

    c_backend.shared_library = build
    x = bc.input("x", (bc.Dim("N", 1, 64), 5))
    compile_model(bc.Model({"y": bc.Tanh()(x) * 2}), target, functions=["infer"])


def step_on_two_threads(target: str, name: str, *, waits: bool = True) -> None:
    """Training steps at whole vectors and a tail; phases overlap unless threads wait for them."""
    right = "atomic_load_explicit(&done->value, memory_order_acquire) < total"
    real = c_backend.shared_library

    def build(units: Sequence[str], *args: Any, **kwargs: Any) -> bytes:
        assert all(right in unit for unit in units)
        return real([unit.replace(right, f"{right} * 0") for unit in units], *args, **kwargs)

    if not waits:
        c_backend.shared_library = build
    program = bc.compile(bc.zoo.model(name), target, functions=["train_step"], threads=2,
                         optimizer=bc.SGD(0.1, momentum=0.9))  # fmt: skip
    function = program.compiled.functions["train_step"]
    for rows in (32, 9, 32):
        program.train_step(**example_inputs(function, {"N": rows}))


def main(target: str, what: str) -> None:
    match what:
        case "f32" | "f64":
            compile_bricks(target, DType(what))
        case "network":
            compile_network(target, small_network(bc.Dim("N", 1, 64)))
        case "small batch":
            compile_network(target, small_network(3))
        case "mlp" | "lenet5":
            step_on_two_threads(target, what)
        case "race":
            step_on_two_threads(target, "mlp", waits=False)
        case "wrong":
            compile_wrong(target)
        case _:
            raise ValueError(what)
    sys.stdout.write(f"{what}: all kernels are right\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
