"""The public backend suite of the onnx package on brickc: cases, verdicts, the coverage table.

Every case runs twice: on the graph interpreter and as a compiled NumPy program. A verdict is
one of

    pass         both give the case's outputs, by the suite's own comparison and tolerances
    unsupported  the import says so, in an UnsupportedError
    wrong        anything else: other numbers, another error

The cases of kind "real" are left out: their weights are not in the package.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner as Suite

import brickc as bc
from brickc.errors import BrickcError, UnsupportedError
from brickc.frontends.model import Model
from brickc.frontends.onnx.backend import Prepared, Runner, interpreted
from brickc.frontends.onnx.table import find

#: cases whose expected zeros are the rounding errors of a float32 FFT, 2e-7 among numbers of
#: size 10; what is exact lies further from them than the suite allows
ROUNDED = {"test_dft_inverse": 1e-6, "test_dft_inverse_opset19": 1e-6}

#: cases in halves whose expected values were computed in halves; ours are computed in f32 and
#: rounded. The bound is two units in the last place of numbers up to 0.5
HALVES = {"test_attention_4d_causal_fp16": 5e-4, "test_attention_4d_causal_fp16_expanded": 5e-4}

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")
Arrays = Sequence[Any]


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    model: onnx.ModelProto
    data: Sequence[tuple[Arrays, Arrays]]
    rtol: float
    atol: float

    @property
    def operators(self) -> set[str]:
        """What the case is about: its nodes, and for models of one kind of node that kind."""
        return {
            f"{n.domain}.{n.op_type}" if n.domain not in ("", "ai.onnx") else n.op_type
            for n in self.model.graph.node
        }


@dataclass(frozen=True)
class Verdict:
    case: Case
    result: str
    reason: str = ""
    #: inputs that were fixed when the program was made
    fixed: bool = False
    #: nothing was left to compute when the model had been imported
    folded: bool = False


def cases() -> Iterator[Case]:
    """All cases of the four kinds, in the order of their names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own NumPy reference divides by zero
        found = [(kind, case) for kind in KINDS for case in load_model_tests(kind=kind)]
    for kind, case in sorted(found, key=lambda t: (KINDS.index(t[0]), t[1].name)):
        if case.model is not None:
            data = [(_arrays(i), _arrays(o)) for i, o in case.data_sets]
            yield Case(case.name, kind, case.model, data, case.rtol, case.atol)
        else:
            folder = Path(case.model_dir)
            model = onnx.load(folder / "model.onnx")
            data = [_stored(model, d) for d in sorted(folder.glob("test_data_set*"))]
            yield Case(case.name, kind, model, data, case.rtol, case.atol)


def _arrays(values: Sequence[Any]) -> list[Any]:
    tensor = onnx.TensorProto
    return [onnx.numpy_helper.to_array(v) if isinstance(v, tensor) else v for v in values]


def _stored(model: onnx.ModelProto, folder: Path) -> tuple[Arrays, Arrays]:
    def load(stem: str, declared: Sequence[onnx.ValueInfoProto]) -> list[Any]:
        many: list[Any] = []
        for k in range(len(list(folder.glob(f"{stem}_*.pb")))):
            Suite._load_proto(None, str(folder / f"{stem}_{k}.pb"), many, declared[k].type)
        return many

    return load("input", model.graph.input), load("output", model.graph.output)


def compiled(model: Model, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The outputs of the compiled NumPy program."""
    program = bc.compile(model, functions=["infer"])
    wanted = program.compiled.functions["infer"].program.inputs
    return program.infer(**{name: inputs[name] for name in wanted})


RUNNERS: dict[str, Runner] = {"interpreter": interpreted, "NumPy program": compiled}


def judge(case: Case, runners: Mapping[str, Runner] = RUNNERS) -> Verdict:
    """Run one case on every runner."""
    fixed = folded = False
    for name, runner in runners.items():
        prepared = Prepared(case.model, runner)
        try:
            for inputs, outputs in case.data:
                got = prepared.run(inputs)
                atol = {**ROUNDED, **HALVES}.get(case.name, case.atol)
                Suite.assert_similar_outputs(outputs, got, rtol=case.rtol, atol=atol)
        except UnsupportedError as error:
            return Verdict(case, "unsupported", str(error))
        except (BrickcError, AssertionError) as error:
            return Verdict(case, "wrong", f"{name}: {type(error).__name__}: {error}")
        except Exception as error:
            return Verdict(case, "wrong", f"{name} failed: {type(error).__name__}: {error}")
        fixed = bool(prepared.fixed)
        graph = prepared.model.graph() if prepared.model else None
        folded = bool(case.data and case.data[0][0] and graph and not graph.inputs)
    return Verdict(case, "pass", fixed=fixed, folded=folded)


def judge_all(each: Callable[[Verdict], None] = lambda v: None) -> list[Verdict]:
    """All verdicts. The suite makes numbers overflow on purpose: NumPy's warnings are off."""
    verdicts = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for case in cases():
            verdict = judge(case)
            each(verdict)
            verdicts.append(verdict)
    return verdicts


# ── the table ────────────────────────────────────────────────────────────────────────────────

HEAD = """# ONNX coverage

Written by `python docs/generate_onnx_coverage.py` from the public backend suite of the onnx
package ({version}); a test fails when it is stale. Every case runs on the graph interpreter *and*
as a compiled NumPy program, and passes if both give the expected outputs by the suite's own
comparison. *Unsupported* means that importing or compiling the model raises an
`UnsupportedError`, which names the node or the element type. *Wrong* is anything else. The {real} cases of kind *real* are left
out: the package does not contain their weights. {rounded} are compared with
an absolute tolerance of 1e-6 instead of 1e-7: zeros among their expected values are rounding
errors of 2e-7. {halves} are compared with one of 5e-4: their expected
values were computed in halves, ours in f32.

Where the form of a program depends on an input (the new shape of a `Reshape`), that input is
fixed at the case's value when the program is made; *with fixed inputs* counts such passes, and
*folded* those where nothing was left to compute when the model had been imported.

"""


def table(verdicts: Sequence[Verdict], real: int = 9) -> str:
    """The coverage page."""
    rounded, halves = (" and ".join(f"`{n}`" for n in names) for names in (ROUNDED, HALVES))
    text = HEAD.format(version=onnx.__version__, real=real, rounded=rounded, halves=halves)
    text += "| kind | cases | pass | unsupported | wrong | with fixed inputs | folded |\n"
    text += "|---|---:|---:|---:|---:|---:|---:|\n"
    for kind in (*KINDS, "all"):
        of = [v for v in verdicts if kind in (v.case.kind, "all")]
        count = Counter(v.result for v in of)
        fixed, folded = sum(v.fixed for v in of), sum(v.folded for v in of)
        text += (
            f"| {kind} | {len(of):,} | {count['pass']:,} | {count['unsupported']} | "
            f"{count['wrong']} | {fixed} | {folded} |\n"
        )
    training = [v for v in verdicts if any("training." in o for o in v.case.operators)]
    good = sum(v.result == "pass" for v in training)
    text += (
        f"\nTraining domain (Gradient, Adam, Adagrad, Momentum): {good} of {len(training)} pass.\n"
    )
    text += "\n## By operator\n\nA case counts for every operator that its model contains.\n"
    text += (
        "*Converter*: brickc's own; *function*: written out by the operator's function body.\n\n"
    )
    text += "| operator | by | pass | unsupported | wrong |\n|---|---|---:|---:|---:|\n"
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for v in verdicts:
        for operator in v.case.operators:
            rows[operator][v.result] += 1
    for operator, count in sorted(rows.items(), key=lambda t: t[0].lower()):
        text += (
            f"| {operator} | {_means(operator)} | {count['pass'] or ''} | "
            f"{count['unsupported'] or ''} | {count['wrong'] or ''} |\n"
        )
    return text


def _means(operator: str) -> str:
    domain, _, name = operator.rpartition(".")
    if find(domain, name, 10_000) is not None:
        return "converter"
    try:
        schema = onnx.defs.get_schema(name, onnx.defs.onnx_opset_version(), domain)
    except onnx.defs.SchemaError:
        return ""
    return "function" if schema.has_function or schema.has_context_dependent_function else ""
