"""Commands that make artifacts and other files, and use them: compile, run, export, verify."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from ..errors import DataError, UnsupportedError, UsageError
from .console import out, print_json, reported, write_file
from .options import (
    Cpu,
    Json,
    Loss,
    ModelArg,
    Numerics,
    OptimizerOption,
    Ranges,
    Shapes,
    Steps,
    Target,
    VendorLibraries,
    model_of,
    program_of,
    with_cpu,
    write_stages,
)
from .tuning import libraries_report, print_libraries, print_tuning, tuning_bar, tuning_report

if TYPE_CHECKING:
    from ..runtime.executable import Executable

__all__ = ["compile_command", "export", "run", "verify"]


def compile_command(
    model: ModelArg,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the artifact.")],
    target: Target = "numpy",
    cpu: Cpu = "",
    shape: Shapes = None,
    range_: Ranges = None,
    optimizer: OptimizerOption = "",
    function: Annotated[
        list[str] | None, typer.Option(help="Only these of infer, evaluate, train_step.")
    ] = None,
    memory_limit: Annotated[
        str | None, typer.Option(help="Fail if an arena can exceed this: bytes, or 64M, 2G.")
    ] = None,
    dump_ir: Annotated[
        Path | None, typer.Option(help="Also write every stage as text to this folder.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the first parameters, and dropout.")] = 0,
    emit: Annotated[
        str, typer.Option(help="artifact, or source: model.c, model.h, weights.bin (target c).")
    ] = "artifact",
    tune: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Time other ways to carry out the kernels; 0 takes what earlier runs have found.",
        ),
    ] = None,
    loss: Loss = None,
    steps_per_launch: Steps = 1,
    numerics: Numerics = "strict",
    vendor_libraries: VendorLibraries = "off",
    as_json: Json = False,
) -> None:
    """Compile MODEL to a folder that runs without brickc."""
    with reported(as_json):
        from ..runtime.artifact import check_place

        if emit not in ("artifact", "source"):
            raise UsageError("unknown --emit", got=emit, expected="artifact or source")
        target = with_cpu(target, cpu)
        if emit == "artifact":
            check_place(output)
        if emit == "source" and target.partition(":")[0] == "c":
            # the text alone: no compiler runs, for this machine or another
            target += ",source" if ":" in target else ":source"
        started = time.perf_counter()
        with tuning_bar(tune, as_json) as progress:
            program = program_of(
                model, target, shape, range_, optimizer, function, memory_limit, seed, loss,
                tune, progress, steps_per_launch, numerics, vendor_libraries,
            )  # fmt: skip
        compiled = time.perf_counter() - started
        if emit == "source":
            written = [str(p) for p in program.emit_source(output)]
            if as_json:
                print_json({"written": written})
            else:
                out.print("\n".join(written), markup=False)
            return
        program.save(output)
        if dump_ir is not None:
            write_stages(program, dump_ir)
        report = {
            "artifact": str(output),
            "target": program.compiled.target,
            "target_note": program.target_note or None,
            "seconds": round(compiled, 3),
            "functions": {
                n: {k: v for k, v in e.items() if k not in ("table", "edges", "function")}
                for n, e in program.explain().items()
            },
        }
        if program.tuning is not None:
            report["tuning"] = tuning_report(program.tuning)
        if vendor_libraries == "on":
            report["vendor_libraries"] = libraries_report(program)
        if as_json:
            print_json(report)
            return
        if program.tuning is not None:
            print_tuning(program.tuning)
        if vendor_libraries == "on":
            print_libraries(program)
        out.print(f"{output}: compiled for {program.compiled.target} in {compiled:.2f} s",
                   markup=False)  # fmt: skip
        out.print(program.describe(), markup=False)
        out.print(f"text form of every pass: {output}/ir; kernels: {output}/kernels, "
                   f"{output}/model.py", markup=False)  # fmt: skip


def run(
    artifact: Annotated[Path, typer.Argument(help="Folder that `compile` wrote.")],
    function: Annotated[str, typer.Option(help="infer, evaluate or train_step.")] = "infer",
    input_: Annotated[
        list[str] | None, typer.Option("--input", help="NAME=@FILE.npy, or NAME=JSON.")
    ] = None,
    output: Annotated[
        list[str] | None, typer.Option("--output", help="NAME=@FILE.npy; others are printed.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="After train_step: write the new weights here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a function of a compiled artifact."""
    with reported(as_json):
        from ..runtime.artifact import load

        program = load(artifact)
        if program.cannot_run:
            here = ", ".join(_running())
            raise UnsupportedError(f"{artifact} cannot run here", got=program.cannot_run,
                                   hint=f"targets that run here: {here}")  # fmt: skip
        inputs = dict(_array(program, function, text) for text in input_ or [])
        targets = dict(_target_file(text) for text in output or [])
        results = program.call(function, inputs)
        unknown = sorted(set(targets) - set(results))
        if unknown:
            raise UsageError("no such output", got=", ".join(unknown), expected=", ".join(results))
        for name, path in targets.items():
            _write_npy(path, results[name])
        if save is not None:
            program.save_copy(save)
        shown = {n: a.tolist() for n, a in results.items() if n not in targets}
        if as_json:
            print_json({"outputs": shown, "written": {n: str(p) for n, p in targets.items()}})
            return
        for name, value in results.items():
            if name in targets:
                out.print(f"{name}: {targets[name]}", markup=False)
            else:
                out.print(f"{name} = {np.array2string(value, threshold=40)}", markup=False)


def _running() -> list[str]:
    """The targets that can run on this machine."""
    from ..driver import BACKENDS

    return [name for name, backend in BACKENDS.items() if backend("").availability().runs]


def export(
    model: ModelArg,
    output: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="The file to write.")],
    function: Annotated[str, typer.Option(help="infer, evaluate or train_step.")] = "infer",
    weights: Annotated[
        Path | None, typer.Option(help="Take parameters from this trained artifact.")
    ] = None,
    optimizer: OptimizerOption = "sgd:lr=0.01",
    loss: Loss = None,
    shape: Shapes = None,
    range_: Ranges = None,
    seed: Annotated[int, typer.Option(help="Draws the first parameters, and dropout.")] = 0,
    as_json: Json = False,
) -> None:
    """Write MODEL, or its whole training step, as an ONNX model."""
    with reported(as_json):
        from ..compiler.optimizers import parse_optimizer
        from ..frontends.onnx import to_onnx
        from ..runtime import artifact

        trained = artifact.load(weights).state_dict() if weights is not None else None
        made = to_onnx(
            model_of(model, shape, range_, loss), function, optimizer=parse_optimizer(optimizer),
            weights=trained, seed=seed,
        )  # fmt: skip
        try:
            output.write_bytes(made.SerializeToString())
        except OSError as error:
            raise UsageError("cannot write the file", got=f"{output}: {error.strerror}") from None
        report = {"file": str(output), "nodes": len(made.graph.node),
                  "opset": made.opset_import[0].version}  # fmt: skip
        if as_json:
            print_json(report)
            return
        out.print(f"{output}: {report['nodes']} nodes, opset {report['opset']}", markup=False)


def verify(
    artifact: Annotated[Path, typer.Argument(help="Folder that `compile` wrote.")],
    as_json: Json = False,
) -> None:
    """Check an artifact's hashes and run its golden vectors."""
    with reported(as_json):
        from ..runtime.artifact import verify as verify_artifact

        errors = verify_artifact(artifact)
        if as_json:
            print_json({"passed": True, "errors": errors})
            return
        for name, error in errors.items():
            out.print(f"{name}: relative error {error:.1e}", markup=False)
        out.print("all files and golden vectors agree", markup=False)


def _array(program: Executable, function: str, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError("not an input", got=text, expected="NAME=@FILE.npy or NAME=JSON")
    dtype = program.input_dtype(function, name)
    if value.startswith("@"):
        try:
            array = np.load(value[1:], allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{value[1:]} cannot be read", got=error) from None
        return name, array
    try:
        return name, np.asarray(json.loads(value), dtype)
    except (ValueError, TypeError) as error:
        raise DataError(f"input {name!r} is no array", got=error) from None


def _target_file(text: str) -> tuple[str, Path]:
    name, equals, value = text.partition("=")
    if not equals or not value.startswith("@"):
        raise UsageError("not an output", got=text, expected="NAME=@FILE.npy")
    return name, Path(value[1:])


def _write_npy(path: Path, array: Any) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_file(path, buffer.getvalue())
