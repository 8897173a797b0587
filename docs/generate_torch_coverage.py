"""Runs torch's operator database through the importer: `python docs/generate_torch_coverage.py`.

It writes docs/torch-coverage.md. An entry is an operator with its samples, inputs that torch's
own tests use. Every sample is traced to core ATen, converted, and computed by the graph
interpreter; outputs and gradients are compared with torch's. The first sample of each entry is
compiled for NumPy too. Needs torch and its test requirement `expecttest`.
"""

from __future__ import annotations

import logging
import random
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import brickc as bc
from brickc.compiler.differentiate import differentiate
from brickc.errors import BrickcError, InternalError, VerifyError
from brickc.frontends import functional, trace
from brickc.frontends.build import build_graph
from brickc.frontends.torch_export import live
from brickc.frontends.torch_export.convert import convert
from brickc.frontends.torch_export.exported import (
    Exported,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
)
from brickc.frontends.torch_export.table import CONVERTERS
from brickc.ir.graph import Graph
from brickc.ir.interpret import interpret

TARGET = Path(__file__).parent / "torch-coverage.md"
Array = np.ndarray[Any, Any]

#: samples of an entry that are tried, for each dtype
SAMPLES = {"float64": 5, "float32": 2, "int64": 3, "bool": 3}
#: relative to the largest element
TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "int64": 0.0, "bool": 0.0}
#: where torch itself is not as exact: (entry, dtype) -> the tolerance
INEXACT = {
    ("logcumsumexp", "float32"): 2e-3,  # torch's own gradient is as far from its float64 one
    ("nn.functional.hardsigmoid", "float64"): 1e-8,  # torch's derivative is 1/6 in float32
}
#: torch says that its gradients are wrong where an index comes twice, which it does here
REPEATED = {f"nn.functional.max_unpool{n}d" for n in (1, 2, 3)}
#: elements of a sample's inputs and outputs; larger ones take long and show nothing more
LARGEST = 20_000

PASS, UNSUPPORTED, WRONG = "pass", "unsupported", "wrong"


class Refused(Exception):  # noqa: N818 - no error: what an entry is counted as
    """The sample is not one that brickc takes."""


class Disagrees(Exception):  # noqa: N818
    """brickc's numbers are not torch's."""


@dataclass
class Entry:
    """What became of an operator of the database."""

    name: str
    passed: int = 0
    refused: int = 0
    gradients: bool = False
    compiled: bool = False
    reasons: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        if self.wrong:
            return WRONG
        return PASS if self.passed and not self.refused else UNSUPPORTED


# ── one sample ───────────────────────────────────────────────────────────────────────────


@dataclass
class Case:
    """A sample with its tensors as the arguments of a function."""

    function: Callable[..., Any]
    tensors: list[Any]


def case_of(op: Any, sample: Any) -> Case:
    import torch
    from torch.utils import _pytree

    leaves, spec = _pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
    places = [k for k, v in enumerate(leaves) if isinstance(v, torch.Tensor)]

    def function(*tensors: Any) -> list[Any]:
        full = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            full[place] = tensor
        first, args, kwargs = _pytree.tree_unflatten(full, spec)
        return _pytree.tree_leaves(op.op(first, *args, **kwargs))

    return Case(function, [leaves[k] for k in places])


def program_of(case: Case, table: Any) -> Exported:
    """The sample's function in core ATen."""
    import torch
    from torch.func import functionalize
    from torch.fx.experimental.proxy_tensor import make_fx

    # without writes in place, as torch.export has it
    function = functionalize(case.function, remove="mutations_and_views")
    traced = make_fx(function, decomposition_table=table, tracing_mode="fake")
    graph = traced(*[t.detach() for t in case.tensors])
    reader = live.GraphReader("case", {})
    inputs, calls, outputs, arrays = [], [], [], {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            kind = reader.type(node.meta["val"])
            inputs.append(InputSpec(InputKind.USER, node.name, type=kind))
        elif node.op == "get_attr":
            value = getattr(graph, node.target)
            if not isinstance(value, torch.Tensor):
                raise Refused("an attribute that is no tensor")
            arrays[node.target] = reader.array(value)
            inputs.append(InputSpec(InputKind.CONSTANT, node.name, node.target))
        elif node.op == "call_function":
            calls.append(reader.call(node))
        elif node.op == "output":
            outputs = [OutputSpec(OutputKind.USER, reader.argument(v)) for v in node.args[0]]
    return Exported("case", inputs, calls, outputs, arrays)


def graphs_of(
    program: Exported, directions: list[Array | None]
) -> tuple[Graph, Graph | None, list[str]]:
    """The forward graph, the one with gradients, and the inputs' names."""
    found = convert(program)
    names = [s.name for s in program.inputs if s.kind is InputKind.USER]
    # an input that nothing reads has to be in the graph all the same
    outputs = dict(found.outputs)
    total = None
    for (_, y), direction in zip(found.outputs.items(), directions, strict=True):
        if direction is not None and y.dtype.is_float:
            part = functional.reduce_sum(y * trace.literal(direction, y.dtype), None)
            total = part if total is None else total + part
    forward = build_graph("case", outputs, {})
    if total is None:
        return forward, None, names
    whole = build_graph("case", {**outputs, "E": total}, {})
    wanted = [whole.inputs[n] for n in names if n in whole.inputs
              and whole.node(whole.inputs[n]).type.dtype.is_float]  # fmt: skip
    result, gradients = differentiate(whole, "E", wanted)
    labels = {number: name for name, number in whole.inputs.items()}
    del result.outputs["E"]
    for leaf, gradient in gradients.items():
        result.outputs[f"grad/{labels[leaf]}"] = gradient
    return forward, result, names


def tried(case: Case, tolerance: float, table: Any, compiled: bool, graded: bool) -> bool:
    """Compare the sample with torch; True if gradients were compared. Raises Disagrees."""
    import torch

    tensors = [t.detach().clone().requires_grad_(t.requires_grad) for t in case.tensors]
    try:
        expected = [y for y in case.function(*tensors) if isinstance(y, torch.Tensor)]
    except Exception as error:
        raise Refused(f"torch itself: {type(error).__name__}") from error
    if sum(t.numel() for t in [*tensors, *expected]) > LARGEST:
        raise Refused("a large sample")
    try:
        program = program_of(case, table)
    except BrickcError as error:
        raise Refused(_reason(error)) from error
    except Refused:
        raise
    except Exception as error:
        if _ours(traceback.extract_tb(error.__traceback__)[-1].filename):
            raise Disagrees(f"{type(error).__name__}: {str(error)[:300]}") from error
        raise Refused(f"no static graph: {type(error).__name__}") from error
    rng = np.random.default_rng(7)
    tracked = [y.is_floating_point() and y.requires_grad and y.numel() > 0 for y in expected]
    directions = [
        rng.standard_normal(tuple(y.shape)) if t else None
        for y, t in zip(expected, tracked, strict=True)
    ]
    wanted = gradients_of(tensors, expected, directions) if graded else None
    try:
        forward, backward, names = graphs_of(
            program, directions if wanted else [None] * len(expected)
        )
        inputs = {n: t.detach().numpy() for n, t in zip(names, tensors, strict=True)}
        used = {n: a for n, a in inputs.items() if n in forward.inputs}
        graph = backward if backward is not None and wanted else forward
        got = interpret(graph, used).outputs
        agree(got, forward, expected, wanted, names, tolerance)
        if compiled:
            program_ = bc.compile(bc.Model.from_graph(graph), functions=["infer"])
            agree(program_.infer(**used), forward, expected, wanted, names, tolerance, "compiled: ")
    except Disagrees:
        raise
    except BrickcError as error:
        if isinstance(error, InternalError | VerifyError):
            raise Disagrees(f"{type(error).__name__}: {str(error)[:300]}") from error
        raise Refused(_reason(error)) from error
    except Exception as error:
        raise Disagrees(f"{type(error).__name__}: {str(error)[:300]}") from error
    return wanted is not None


def _ours(filename: str) -> bool:
    """True for brickc's own files; an environment with torch may lie in the checkout."""
    path, root = Path(filename), Path(bc.__file__).parent
    return path.is_relative_to(root) and "site-packages" not in path.relative_to(root).parts


def gradients_of(
    tensors: list[Any], expected: list[Any], directions: list[Array | None]
) -> list[Any] | None:
    """torch's gradients of the outputs' projection; None if it has none."""
    import torch

    total = None
    for y, direction in zip(expected, directions, strict=True):
        if direction is not None:
            part = (y * torch.tensor(direction, dtype=y.dtype)).sum()
            total = part if total is None else total + part
    leaves = [t for t in tensors if t.requires_grad]
    if total is None or not leaves:
        return None
    try:
        found = torch.autograd.grad(total, leaves, allow_unused=True)
    except (RuntimeError, NotImplementedError):
        return None
    rest = iter(found)
    return [next(rest) if t.requires_grad else None for t in tensors]


def agree(
    got: Any, forward: Graph, expected: list[Any], wanted: list[Any] | None, names: list[str],
    tolerance: float, label: str = "",
) -> None:  # fmt: skip
    for name, y in zip(forward.outputs, expected, strict=True):
        close(got[name], y.numpy(force=True), tolerance, f"{label}{name}")
    for name, gradient in zip(names, wanted or [], strict=False):
        if gradient is not None:
            theirs = gradient.numpy(force=True)
            ours = got.get(f"grad/{name}", np.zeros_like(theirs))
            close(ours, theirs, tolerance, f"{label}gradient of {name}")


def close(ours: Array, theirs: Array, tolerance: float, what: str) -> None:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        raise Disagrees(f"{what}: {ours.dtype}{ours.shape}, not {theirs.dtype}{theirs.shape}")
    if theirs.dtype.kind != "f":
        if not np.array_equal(ours, theirs):
            raise Disagrees(f"{what}: other integers")
        return
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        raise Disagrees(f"{what}: NaN or infinity elsewhere")
    if not np.isfinite(ours[finite]).all():
        raise Disagrees(f"{what}: not finite")
    scale = max(1.0, float(np.abs(theirs[finite]).max(initial=0.0)))
    error = float(np.abs(ours[finite] - theirs[finite]).max(initial=0.0)) / scale
    if error > tolerance:
        raise Disagrees(f"{what}: off by {error:.1e}")


def _reason(error: BrickcError) -> str:
    text = str(error.got or error.what) if "operators that" in error.what else error.what
    return text.split("\n")[0][:100]


# ── all of them ──────────────────────────────────────────────────────────────────────────


def operators() -> list[tuple[str, Any]]:
    """The database: names of entries and torch's descriptions, in the page's order."""
    from torch.testing._internal.common_methods_invocations import op_db

    ordered = sorted(op_db, key=lambda o: (o.name, o.variant_test_name))
    return [
        (op.name + (f" ({op.variant_test_name})" if op.variant_test_name else ""), op)
        for op in ordered
    ]


def entries(wanted: Callable[[int, str], bool]) -> list[Entry]:
    """Those operators of the database, tried, whose number and name are wanted."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # torch reports what it cannot trace, and we count that
    try:
        with warnings.catch_warnings(), _untracked():
            warnings.simplefilter("ignore")
            return list(_entries(wanted))
    finally:
        logging.disable(before)


def _entries(wanted: Callable[[int, str], bool]) -> Iterator[Entry]:
    import torch
    from torch._decomp import core_aten_decompositions

    torch.set_num_threads(1)
    table = {
        op: rule for op, rule in core_aten_decompositions().items() if str(op) not in CONVERTERS
    }
    for number, (name, op) in enumerate(operators()):
        if not wanted(number, name):
            continue
        entry = Entry(name)
        floats = [d for d in (torch.float64, torch.float32) if d in op.dtypes]
        others = [d for d in (torch.int64, torch.bool) if d in op.dtypes]
        for dtype in floats or others[:1]:
            key = str(dtype).removeprefix("torch.")
            _samples(entry, op, dtype, key, table)
            if not entry.passed and entry.refused:
                break
        yield entry


@contextmanager
def _untracked() -> Iterator[None]:
    """torch's samples without looking up the stack for one of its own tests at each of them.

    It finds none here, and that takes a fifth of the time of all.
    """
    from torch.testing._internal import common_utils
    from torch.testing._internal.opinfo import core

    places = [m for m in (common_utils, core) if hasattr(m, "extract_test_fn")]
    before = [m.extract_test_fn for m in places]
    for place in places:
        place.extract_test_fn = lambda: None
    try:
        yield
    finally:
        for place, function in zip(places, before, strict=True):
            place.extract_test_fn = function


def _samples(entry: Entry, op: Any, dtype: Any, key: str, table: Any) -> None:
    import torch

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - torch's samples draw from it
    random.seed(0)
    try:
        samples = list(
            islice(
                op.sample_inputs("cpu", dtype, requires_grad=dtype.is_floating_point), SAMPLES[key]
            )
        )
    except Exception as error:
        entry.reasons[f"no samples: {type(error).__name__}"] += 1
        entry.refused += 1
        return
    tolerance = INEXACT.get((entry.name, key), TOLERANCE[key])
    for number, sample in enumerate(samples):
        first = not entry.compiled
        try:
            torch.manual_seed(1)
            entry.gradients |= tried(
                case_of(op, sample), tolerance, table, first, entry.name not in REPEATED
            )
            entry.passed += 1
            entry.compiled = True
        except Refused as error:
            if str(error) == "a large sample" and (entry.passed or number + 1 < len(samples)):
                continue
            entry.refused += 1
            entry.reasons[str(error)] += 1
        except Disagrees as error:
            entry.wrong.append(f"{key}, sample {number}: {error}")


def coverage(only: str = "") -> str:
    """The page."""
    return page(entries(lambda number, name: only in name))


def page(found: list[Entry]) -> str:
    counts = Counter(e.verdict for e in found)
    passed = [e for e in found if e.verdict == PASS]
    with_gradients = sum(e.gradients for e in passed)
    lines = [HEAD.format(version=version()), "| | entries |", "|---|---|",
             f"| pass | {counts[PASS]} |", f"| of these with gradients | {with_gradients} |",
             f"| unsupported | {counts[UNSUPPORTED]} |", f"| **wrong** | {counts[WRONG]} |",
             f"| all | {len(found)} |", ""]  # fmt: skip
    if counts[WRONG]:
        lines += ["## Wrong", ""]
        lines += [f"- `{e.name}`: {'; '.join(e.wrong)}" for e in found if e.wrong] + [""]
    lines += ["## Pass", "", "With gradients:", ""]
    lines += [_list(e.name for e in passed if e.gradients), "", "Without (torch has none):", ""]
    lines += [_list(e.name for e in passed if not e.gradients), "", "## Unsupported", ""]
    lines += ["| entry | samples that pass | why the others do not |", "|---|---|---|"]
    for e in found:
        if e.verdict == UNSUPPORTED:
            lines.append(row(e))
    return "\n".join(lines) + "\n"


def row(entry: Entry) -> str:
    """The line of an entry that does not pass."""
    why = "; ".join(sorted(r.replace("|", "/") for r in entry.reasons)[:2])[:160]
    return f"| `{entry.name}` | {entry.passed} of {entry.passed + entry.refused} | {why} |"


def stated(text: str) -> dict[str, str]:
    """What a page says of each entry: "with gradients", "without", or its row."""
    found: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("## "):
            section = line
        elif line.startswith(("With gradients", "Without")):
            section = line.split(" (")[0].rstrip(":").lower()
        elif section in ("with gradients", "without") and line.startswith("`"):
            found.update(dict.fromkeys(line[1:-1].split("`, `"), section))
        elif section == "## Unsupported" and line.startswith("| `"):
            found[line[3:].split("`", 1)[0]] = line
    return found


def version() -> str:
    """torch's version without its build: entries come and go with it."""
    import torch

    return ".".join(torch.__version__.split("+")[0].split(".")[:2])


def _list(names: Iterator[str]) -> str:
    return ", ".join(f"`{n}`" for n in names) or "none"


HEAD = """# Coverage of torch's operators

Generated by `python docs/generate_torch_coverage.py` with torch {version}; a test fails when it is
stale.

Each entry of torch's operator database (`op_db`) is tried on the samples of torch's own tests:
five in float64, two in float32, of entries without floats three of integers or truth values.
*Pass*: every sample agrees, outputs and gradients, to 1e-9 of the largest element in float64
and 1e-4 in float32, in the interpreter, and the first one compiled for NumPy as well.
Two entries have a wider tolerance, as torch's own results are no better: `logcumsumexp` (float32)
and `nn.functional.hardsigmoid` (its derivative is rounded to float32). `max_unpool*d` is compared
without gradients: torch documents that they are wrong where an index comes twice.
*Unsupported*: an error names what is missing for at least one sample. *Wrong*: the numbers
differ.
"""


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write(coverage(sys.argv[1]))
    else:
        TARGET.write_text(coverage(), encoding="utf-8")
