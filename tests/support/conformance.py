"""Running a graph in two ways, by a backend and by the interpreter, and comparing everything.

A new backend passes ``tests/conformance`` by adding its name to ``TARGETS``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brickc.compiler.optimize.expand import expand
from brickc.compiler.optimize.simplify import simplify
from brickc.compiler.optimize.specialise import specialise
from brickc.compiler.pipelines import target_pipeline
from brickc.driver import Function, backend, compile_functions
from brickc.ir.dtypes import DType
from brickc.ir.graph import Graph
from brickc.ir.interpret import Results, interpret
from brickc.runtime.executable import Executable

__all__ = ["TARGETS", "TOLERANCE", "Run", "agree", "build", "check"]

Arrays = Mapping[str, Any]

TARGETS = ("numpy", "c", "triton")

#: relative to the larger of the element and the largest element of its array
TOLERANCE = {DType.F64: 1e-12, DType.F32: 1e-5}


class Run:
    """A compiled graph that is called like the interpreter."""

    def __init__(self, function: Function, executable: Executable) -> None:
        self.function = function
        self.executable = executable

    def __call__(self, arrays: Arrays) -> Results:
        """Outputs, and what the parameters and states are afterwards."""
        leaves = self.executable.state_dict()
        self.executable.load_state_dict({n: arrays[n] for n in leaves})
        inputs = {n: arrays[n] for n in self.function.graph.inputs}
        outputs = self.executable.call("run", inputs)
        return Results(outputs, self.executable.state_dict())


def build(graph: Graph, *, target: str = "numpy", training: bool = False) -> Run:
    """The graph after the passes that every function goes through, updates kept, compiled."""
    graph = simplify(expand(specialise_keeping(graph, training), only_without_vjp=False))
    graph = target_pipeline(backend(target).capabilities).run(graph)
    functions, sources = compile_functions("conformance", {"run": graph}, target)
    return Run(functions["run"], Executable.from_sources(sources))


def specialise_keeping(graph: Graph, training: bool) -> Graph:
    """The graph in one mode; updates of the graph itself stay in inference too."""
    new = specialise(graph, training)
    if not training:
        new.updates = dict(graph.updates)
    return new


def check(
    graph: Graph,
    *feeds: Arrays,
    target: str = "numpy",
    training: bool = False,
    tolerance: float | None = None,
    exact: bool = False,
) -> Run:
    """Compile once, run with every feed, compare outputs and updates with the interpreter."""
    run = build(graph, target=target, training=training)
    reference = specialise_keeping(graph, training)
    for arrays in feeds:
        kept = {n: a for n, a in arrays.items() if n in leaves(reference)}
        want = interpret(reference, kept)
        agree(run(arrays), want, arrays, tolerance=tolerance, exact=exact)
    return run


def leaves(graph: Graph) -> dict[str, int]:
    return graph.inputs | graph.parameters | graph.states


def agree(
    got: Results,
    want: Results,
    before: Arrays,
    *,
    tolerance: float | None = None,
    exact: bool = False,
) -> None:
    """Same outputs and updates; parameters and states without an update are as before."""
    assert list(got.outputs) == list(want.outputs)
    for name, value in want.outputs.items():
        close(got.outputs[name], value, name, tolerance, exact)
    for name, value in got.updates.items():
        if name in want.updates:
            close(value, want.updates[name], f"update of {name}", tolerance, exact)
        else:
            np.testing.assert_array_equal(value, before[name], f"{name} has no update")


def close(got: Any, want: Any, name: str, tolerance: float | None, exact: bool) -> None:
    """Equal integers and flags; floats up to a part of the largest, or bit by bit."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, (name, got.shape, want.shape)
    assert got.dtype == want.dtype, (name, got.dtype, want.dtype)
    dtype = DType.of(want.dtype)
    if exact and dtype.is_float:
        bits = f"i{dtype.itemsize}"
        nan = np.isnan(want)  # one NaN is as good as another
        np.testing.assert_array_equal(np.isnan(got), nan, name)
        np.testing.assert_array_equal(
            np.where(nan, 0, got).view(bits), np.where(nan, 0, want).view(bits), name
        )
    elif not dtype.is_float:
        np.testing.assert_array_equal(got, want, name)
    else:
        part = TOLERANCE[dtype] if tolerance is None else tolerance
        finite = np.abs(want[np.isfinite(want)])
        scale = float(finite.max()) if finite.size else 0.0
        np.testing.assert_allclose(got, want, rtol=part, atol=part * scale, err_msg=name)


def draw(
    rng: np.random.Generator, shape: Sequence[int], dtype: DType = DType.F64
) -> np.ndarray[Any, Any]:
    return rng.standard_normal(tuple(shape)).astype(dtype.numpy)
