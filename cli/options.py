"""Options that several commands have, and what becomes of them: a model, a program."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from .console import err, write_file

if TYPE_CHECKING:
    from ..frontends.model import Model
    from ..program import Program

__all__ = ["OPTIMIZER", "Cpu", "Json", "Loss", "ModelArg", "Numerics", "OptimizerOption", "Ranges",
           "Shapes", "Steps", "Target", "VendorLibraries", "default_function", "model_of",
           "program_of", "with_cpu", "write_stages"]  # fmt: skip

ModelArg = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="zoo:NAME, file.py:NAME, net.prototxt[:net.caffemodel], or an IR text file",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", help="NAME=SIZE,SIZE,…: an input's shape, e.g. x=N,1,32,32."),
]
Ranges = Annotated[
    list[str] | None, typer.Option("--range", help="DIM=LO:HI: a dim's range, e.g. N=1:1024.")
]
Target = Annotated[str, typer.Option(help="What to compile for; see `brickc targets`.")]
Cpu = Annotated[
    str,
    typer.Option(
        help="Target c: native, x86-64-v2, x86-64-v3, x86-64-v4, aarch64 or portable.",
    ),
]
Numerics = Annotated[
    str,
    typer.Option(help="strict, or fast: results up to 1e-3 off where that is faster (target c)."),
]
#: what trains where nothing else is said
OPTIMIZER = "sgd:lr=0.01"
OptimizerOption = Annotated[
    str, typer.Option("--optimizer", help="e.g. sgd:lr=0.1,momentum=0.9 or adam:lr=0.001.")
]
Steps = Annotated[
    int,
    typer.Option(
        "--steps-per-launch",
        min=1,
        help="Training steps that train_steps carries out at a time; a GPU starts them at once.",
    ),
]
VendorLibraries = Annotated[
    str,
    typer.Option("--vendor-libraries", metavar="on|off",
                 help="Target triton: cuBLAS and cuDNN through torch, where they are faster."),
]  # fmt: skip
Loss = Annotated[
    str | None,
    typer.Option("--loss", help="Add a loss: softmax, square or logistic, or softmax:OUTPUT."),
]


def model_of(
    spec: str,
    shapes: Sequence[str] | None,
    ranges: Sequence[str] | None,
    loss: str | None = None,
) -> Model:
    from ..frontends.load import load_model
    from ..frontends.losses import with_loss
    from ..frontends.onnx import from_onnx
    from ..frontends.reshape import parse_shape, with_shapes

    if spec.endswith(".onnx") and shapes:
        # the form of the program may depend on them: they are wanted before it is read
        model = from_onnx(spec, shapes=dict(parse_shape(text) for text in shapes))
        shapes = None
    else:
        model = load_model(spec, shapes or ())
    if shapes or ranges:
        model = with_shapes(model, shapes or (), ranges or ())
    if loss is not None:
        kind, _, output = loss.partition(":")
        model = with_loss(model, kind, output=output)
    return model


def program_of(
    spec: str,
    target: str,
    shapes: Sequence[str] | None,
    ranges: Sequence[str] | None,
    optimizer: str,
    functions: Sequence[str] | None,
    memory_limit: str | None,
    seed: int,
    loss: str | None = None,
    tune: float | None = None,
    tune_progress: Callable[[float, str], None] | None = None,
    steps: int = 1,
    numerics: str = "strict",
    vendor_libraries: str = "off",
) -> Program:
    from ..compiler.optimizers import parse_optimizer
    from ..program import compile
    from ..solving import runs_solver, solver_optimizer

    if vendor_libraries not in ("on", "off"):
        raise UsageError("unknown --vendor-libraries", got=vendor_libraries, expected="on or off")
    # without the option a solver brings its own optimizer
    own = not optimizer and runs_solver(spec)
    model = model_of(spec, shapes, ranges, loss)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "target auto")  # said below, in one line
        program = compile(
            model,
            target,
            optimizer=solver_optimizer(spec) if own else parse_optimizer(optimizer or OPTIMIZER),
            functions=functions,
            memory_limit=_bytes(memory_limit),
            steps_per_launch=steps,
            seed=seed,
            tune=tune,
            tune_progress=tune_progress,
            numerics=numerics,
            vendor_libraries=vendor_libraries == "on",
        )
    if program.target_note:
        err.print(f"brickc: {program.target_note}", markup=False)
    return program


def with_cpu(target: str, cpu: str) -> str:
    """The target for a processor that an option of its own names. Raises UsageError."""
    if not cpu:
        return target
    name, _, option = target.partition(":")
    if name != "c":
        raise UsageError("--cpu is for target c", got=f"target {target}", hint="--target c")
    return ":".join((name, ",".join(filter(None, (cpu, option)))))


def default_function(
    spec: str, stage: str, shapes: Sequence[str] | None, ranges: Sequence[str] | None
) -> str:
    """The training step where there is one, since it holds everything."""
    model = model_of(spec, shapes, ranges)
    return "train_step" if model.loss is not None else "infer"


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in units else (text, "")
    try:
        value = int(float(number) * units.get(unit, 1))
    except ValueError:
        raise UsageError(
            "not a number of bytes", got=text, expected="e.g. 1000000, 64M, 2G"
        ) from None
    if value <= 0:
        raise UsageError("a memory limit must be positive", got=text)
    return value


def write_stages(program: Program, folder: Path) -> None:
    from ..ir.printer import print_graph
    from ..program import STAGES, dump_text

    for name, function in program.compiled.functions.items():
        for number, (stage, graph) in enumerate(function.stages.items()):
            file = f"{name}.{number:02}.{stage.replace(' ', '_')}.txt"
            write_file(folder / file, print_graph(graph).encode())
        for stage in STAGES[3:]:
            write_file(folder / f"{name}.{stage}.txt", dump_text(function, stage).encode())
