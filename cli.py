"""The command line. Every command has ``--json``; errors have stable exit codes.

Over 500 lines: all commands with their options, and nothing that another module could use.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import __version__
from .errors import ArtifactError, BrickcError, DataError, UsageError

if TYPE_CHECKING:
    from .frontends.model import Model
    from .program import Program
    from .runtime.executable import Executable

app = typer.Typer(
    name="brickc",
    help="Compile neural networks and their whole training step ahead of time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

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
#: what trains where nothing else is said
_OPTIMIZER = "sgd:lr=0.01"
OptimizerOption = Annotated[
    str, typer.Option("--optimizer", help="e.g. sgd:lr=0.1,momentum=0.9 or adam:lr=0.001.")
]
Loss = Annotated[
    str | None,
    typer.Option("--loss", help="Add a loss: softmax, square or logistic, or softmax:OUTPUT."),
]


@app.command("compile")
def compile_command(
    model: ModelArg,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the artifact.")],
    target: Target = "numpy",
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
    loss: Loss = None,
    as_json: Json = False,
) -> None:
    """Compile MODEL to a folder that runs without brickc."""
    with _errors(as_json):
        started = time.perf_counter()
        program = _compile(
            model, target, shape, range_, optimizer, function, memory_limit, seed, loss
        )
        compiled = time.perf_counter() - started
        if emit == "source":
            written = [str(p) for p in program.emit_source(output)]
            if as_json:
                _print_json({"written": written})
            else:
                _out.print("\n".join(written), markup=False)
            return
        if emit != "artifact":
            raise UsageError("unknown --emit", got=emit, expected="artifact or source")
        program.save(output)
        if dump_ir is not None:
            _dump_ir(program, dump_ir)
        report = {
            "artifact": str(output),
            "seconds": round(compiled, 3),
            "functions": {
                n: {k: v for k, v in e.items() if k not in ("table", "edges", "function")}
                for n, e in program.explain().items()
            },
        }
        if as_json:
            _print_json(report)
            return
        _out.print(f"{output}: compiled for {program.compiled.target} in {compiled:.2f} s",
                   markup=False)  # fmt: skip
        _out.print(program.describe(), markup=False)
        _out.print(f"text form of every pass: {output}/ir; kernels: {output}/kernels, "
                   f"{output}/model.py", markup=False)  # fmt: skip


@app.command()
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
    with _errors(as_json):
        from .runtime.artifact import load

        program = load(artifact)
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
            _print_json({"outputs": shown, "written": {n: str(p) for n, p in targets.items()}})
            return
        for name, value in results.items():
            if name in targets:
                _out.print(f"{name}: {targets[name]}", markup=False)
            else:
                _out.print(f"{name} = {np.array2string(value, threshold=40)}", markup=False)


@app.command()
def train(
    context: typer.Context,
    model: ModelArg,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, mnist:FOLDER or npz:FILE; digits unless a solver's network has its own."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 5,
    batch: Annotated[int, typer.Option(min=1)] = 64,
    optimizer: OptimizerOption = "sgd:lr=0.05,momentum=0.9",
    target: Target = "numpy",
    seed: Annotated[int, typer.Option(help="Parameters, dropout, order of examples.")] = 0,
    save: Annotated[Path | None, typer.Option(help="Write the trained artifact here.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Write the state here, and go on from it if it is there.")
    ] = None,
    dump_ir: Annotated[Path | None, typer.Option(help="Write every stage as text.")] = None,
    loss: Loss = None,
    shape: Shapes = None,
    range_: Ranges = None,
    max_iter: Annotated[
        int | None, typer.Option(min=1, help="With a solver: stop after so many iterations.")
    ] = None,
    net: Annotated[
        Path | None, typer.Option(help="With a solver: train this network instead of its own.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="With a solver: where the files lie that it names.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="With a solver: start from a .caffemodel file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile MODEL's training step and train it; MODEL may be a solver of Caffe."""
    with _errors(as_json):
        from .solving import runs_solver

        only = _given(context, ("epochs", "batch", "optimizer"))
        solver_only = _given(context, ("max_iter", "net", "root", "weights"))
        if runs_solver(model):
            if only:
                raise UsageError(f"{', '.join(only)}: a solver says this itself",
                                 hint="--max-iter bounds the iterations")  # fmt: skip
            _solve(model, data, shape, max_iter, net, root, weights,
                   seed if _given(context, ("seed",)) else None, target, checkpoint, save,
                   dump_ir, as_json)  # fmt: skip
            return
        if solver_only:
            raise UsageError(f"{', '.join(solver_only)}: only a solver has this", got=model)
        from .runtime.data import load as load_data
        from .runtime.trainer import Trainer
        from .training import ModelData

        started = time.perf_counter()
        program = _compile(model, target, shape, range_, optimizer, None, None, seed, loss)
        compile_seconds = time.perf_counter() - started
        dataset = load_data(data or "digits")
        source = ModelData.of(program.compiled.model, dataset, batch, seed)
        if not as_json:
            step = program.compiled.functions["train_step"]
            _out.print(
                f"{model}: {len(step.program.kernels)} kernels, compiled in "
                f"{compile_seconds:.2f} s; {source.describe()}", markup=False,
            )  # fmt: skip
        with _progress(as_json) as progress:
            task = progress.add_task("training", total=epochs * source.steps, loss=float("nan"))

            def advance(epoch: int, step: int, steps: int, loss: float) -> None:
                progress.update(task, completed=epoch * steps + step, loss=loss,
                                description=f"epoch {epoch + 1}/{epochs}")  # fmt: skip

            trainer = Trainer(program, source, advance, checkpoint)
            history = trainer.run(epochs)
        if save is not None:
            program.save(save)
        if dump_ir is not None:
            _dump_ir(program, dump_ir)
        if as_json:
            _print_json({
                "history": [
                    {"epoch": e.number + 1, "loss": e.loss, **e.held_out} for e in history
                ],
                "artifact": str(save) if save else None,
            })  # fmt: skip
            return
        _history(history)
        if save is not None:
            _out.print(f"artifact: {save} (run it: python {save}/model.py)", markup=False)
            _out.print(f"IR of every pass: {dump_ir or save / 'ir'}; kernels: {save}/model.py "
                       f"and {save}/kernels", markup=False)  # fmt: skip


def _solve(
    spec: str,
    data: str | None,
    shapes: Sequence[str] | None,
    max_iter: int | None,
    net: Path | None,
    root: Path | None,
    weights: Path | None,
    seed: int | None,
    target: str,
    checkpoint: Path | None,
    save: Path | None,
    dump_ir: Path | None,
    as_json: bool,
) -> None:
    """Run a solver of Caffe."""
    from .frontends.load import input_sizes
    from .solving import prepare

    started = time.perf_counter()
    training = prepare(
        Path(spec), data=data, net=net, root=root, weights=weights, seed=seed, target=target,
        max_iter=max_iter, folder=checkpoint, shapes=input_sizes(shapes or ()),
    )  # fmt: skip
    run, program = training.iterations, training.program
    if not as_json:
        step = program.compiled.functions["train_step"]
        _out.print(
            f"{spec}: {program.compiled.model.name}, "
            f"{program.compiled.model.parameter_count():,} parameters, "
            f"{len(step.program.kernels)} kernels, compiled in "
            f"{time.perf_counter() - started:.2f} s; {training.data}", markup=False,
        )  # fmt: skip
    with _progress(as_json) as progress:
        task = progress.add_task("iterations", total=run.plan.max_iter, loss=float("nan"))

        def advance(done: int, total: int, loss: float) -> None:
            progress.update(task, completed=done, loss=loss)
            every = run.plan.display
            if not as_json and every and done % every == 0:
                rate = run.rate(done - 1)
                _out.print(f"iteration {done}: loss {loss:.4f}, rate {rate:.3g}",
                                       markup=False)  # fmt: skip

        def tested(result: Any) -> None:
            if not as_json:
                means = ", ".join(f"{n} {v:.4f}" for n, v in result.means.items())
                _out.print(f"iteration {result.iteration}, test: {means}", markup=False)

        run.progress, run.tested = advance, tested
        run.run()
    if save is not None:
        program.save(save)
    if dump_ir is not None:
        _dump_ir(program, dump_ir)
    if as_json:
        _print_json({
            "iterations": run.plan.max_iter,
            "losses": run.losses,
            "tests": [{"iteration": t.iteration, **t.means} for t in run.tests],
            "artifact": str(save) if save else None,
        })  # fmt: skip
    elif save is not None:
        _out.print(f"artifact: {save} (run it: python {save}/model.py)", markup=False)


def _given(context: typer.Context, names: Sequence[str]) -> list[str]:
    """The options among these that stand on the command line."""
    return [
        "--" + n.replace("_", "-")
        for n in names
        if getattr(context.get_parameter_source(n), "name", "") == "COMMANDLINE"
    ]


@app.command()
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
    with _errors(as_json):
        from .compiler.optimizers import parse_optimizer
        from .frontends.onnx import to_onnx
        from .runtime import artifact

        trained = artifact.load(weights).state_dict() if weights is not None else None
        made = to_onnx(
            _model(model, shape, range_, loss), function, optimizer=parse_optimizer(optimizer),
            weights=trained, seed=seed,
        )  # fmt: skip
        try:
            output.write_bytes(made.SerializeToString())
        except OSError as error:
            raise UsageError("cannot write the file", got=f"{output}: {error.strerror}") from None
        report = {"file": str(output), "nodes": len(made.graph.node),
                  "opset": made.opset_import[0].version}  # fmt: skip
        if as_json:
            _print_json(report)
            return
        _out.print(f"{output}: {report['nodes']} nodes, opset {report['opset']}", markup=False)


@app.command()
def dump(
    model: ModelArg,
    stage: Annotated[
        str, typer.Option(help="graph, backward, optimized, fused, schedule or kernels.")
    ] = "graph",
    function: Annotated[str, typer.Option(help="infer, evaluate or train_step.")] = "",
    format_: Annotated[str, typer.Option("--format", help="text, json or dot.")] = "text",
    target: Target = "numpy",
    shape: Shapes = None,
    range_: Ranges = None,
    optimizer: OptimizerOption = "",
    as_json: Json = False,
) -> None:
    """Print one stage of MODEL's compilation."""
    with _errors(as_json):
        from .ir.export import to_dot, to_json
        from .program import STAGES, dump_text, stage_graph

        if stage not in STAGES:
            raise UsageError("unknown stage", got=stage, expected=", ".join(STAGES))
        if format_ not in ("text", "json", "dot"):
            raise UsageError("unknown format", got=format_, expected="text, json or dot")
        wanted = function or _default_function(model, stage, shape, range_)
        program = _compile(model, target, shape, range_, optimizer, [wanted], None, 0)
        chosen = program.compiled.functions[wanted]
        if format_ == "text" and not as_json:
            sys.stdout.write(dump_text(chosen, stage))
        elif stage in ("graph", "backward", "optimized"):
            graph = stage_graph(chosen, stage)
            sys.stdout.write(to_dot(graph) if format_ == "dot" else to_json(graph))
            sys.stdout.write("\n")
        elif format_ == "dot":
            raise UsageError(f"stage {stage} has no dot form", expected="text or json")
        else:
            _print_json(program.explain(wanted)[wanted] | {"text": dump_text(chosen, stage)})


@app.command()
def check(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model, or 'bricks' for the catalogue.")
    ],
    tolerance: Annotated[float, typer.Option(help="Largest relative error.")] = 1e-6,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Prove gradients against float64 central differences, brick by brick and whole."""
    with _errors(as_json):
        from .runtime.check import check_catalogue, check_model

        with _progress(as_json) as progress:
            task = progress.add_task("checking", total=None, loss=float("nan"))

            def advance(done: int, total: int, what: str) -> None:
                progress.update(task, completed=done, total=total, description=what[:40])

            if model == "bricks":
                rows = check_catalogue(tolerance, seed, advance)
            else:
                rows = check_model(_model(model, None, None), tolerance, seed, advance)
        failed = [r for r in rows if not r.passed]
        if as_json:
            _print_json({"passed": not failed, "rows": [r.as_dict() for r in rows]})
        else:
            table = Table("what", "operand", "error", "")
            for r in rows:
                table.add_row(r.what, r.operand, f"{r.error:.1e}", "ok" if r.passed else "WRONG")
            _out.print(table)
            _out.print(
                f"{len(rows) - len(failed)} of {len(rows)} gradients agree with central "
                f"differences in float64, each along one random direction", markup=False,
            )  # fmt: skip
        if failed:
            raise typer.Exit(9)


@app.command()
def explain(
    model: ModelArg,
    function: Annotated[str, typer.Option(help="infer, evaluate or train_step.")] = "",
    target: Target = "numpy",
    shape: Shapes = None,
    range_: Ranges = None,
    optimizer: OptimizerOption = "",
    edges: Annotated[bool, typer.Option(help="Also say for every edge why.")] = False,
    timed: Annotated[
        bool, typer.Option("--time", help="Run it: time and rates of every kernel (target c).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Kernels, bytes, FLOPs and peak memory of MODEL; what fused, and why the rest did not."""
    with _errors(as_json):
        wanted = function or _default_function(model, "kernels", shape, range_)
        program = _compile(model, target, shape, range_, optimizer, [wanted], None, 0)
        report = program.explain(wanted)[wanted]
        if timed:
            _times(program, wanted, as_json)
            return
        if as_json:
            _print_json({**report, "gpu_kernels": program.gpu_kernels})
            return
        table = Table("kernel", "kind", "bricks", "kB", "MFLOP")
        for row in report["table"]:
            table.add_row(row["kernel"], row["kind"], str(row["bricks"]),
                          f"{row['bytes'] / 1e3:,.1f}", f"{row['flops'] / 1e6:,.2f}")  # fmt: skip
        _out.print(table)
        if program.gpu_kernels:
            _out.print(_gpu_table(program.gpu_kernels))
        sizes = ", ".join(f"{n}={v}" for n, v in report["dims"].items())
        _out.print(
            f"{wanted} at {sizes or 'fixed sizes'}: {report['kernels_before_fusion']} kernels "
            f"before fusion, {report['kernels']} after; "
            f"{report['bytes_moved'] / 1e6:,.2f} MB moved, {report['flops'] / 1e6:,.1f} MFLOP; "
            f"peak {report['peak_bytes']:,} bytes ({report['peak_formula']}), "
            f"{100 * report['peak_bytes'] / max(1, report['intermediate_bytes']):.0f} % of the "
            f"intermediates side by side", markup=False,
        )  # fmt: skip
        reasons: dict[str, int] = {}
        for edge in report["edges"]:
            key = "fused" if edge["fused"] else f"not fused: {_general(edge['reason'])}"
            reasons[key] = reasons.get(key, 0) + 1
        for reason, count in sorted(reasons.items(), key=lambda t: -t[1]):
            _out.print(f"  {count:4} edges {reason}", markup=False)
        if edges:
            for edge in report["edges"]:
                verdict = "fused" if edge["fused"] else "not fused"
                _out.print(f"%{edge['from']} -> %{edge['to']}: {verdict}: {edge['reason']}",
                           markup=False)  # fmt: skip


def _gpu_table(kernels: dict[str, dict[str, Any]]) -> Table:
    """Registers, memory and instructions of kernels compiled for a GPU."""
    table = Table("GPU kernel", "warps", "registers", "spilled", "shared", "tensor", "loads")
    for name, r in kernels.items():
        loads = " ".join(f"{n}x{w}" for w, n in r.get("loads", {}).items() if n)
        table.add_row(name, str(r["warps"]), str(r["registers"]), str(r["spilled"]),
                      str(r["shared"]), str(r.get("tensor", "?")), loads)  # fmt: skip
    return table


@app.command()
def targets(as_json: Json = False) -> None:
    """What can be compiled for, and run, here."""
    with _errors(as_json):
        from .driver import BACKENDS

        rows: list[dict[str, object]] = []
        for name, backend in BACKENDS.items():
            here = backend("").availability()
            rows.append({"target": name, "compiles": here.compiles, "runs": here.runs,
                         "with": here.note})  # fmt: skip
        if as_json:
            _print_json({"targets": rows, "machine": platform.machine()})
            return
        table = Table("target", "compiles here", "runs here", "with")
        for row in rows:
            table.add_row(str(row["target"]), "yes" if row["compiles"] else "no",
                          "yes" if row["runs"] else "no", str(row["with"]))  # fmt: skip
        _out.print(table)


@app.command()
def verify(
    artifact: Annotated[Path, typer.Argument(help="Folder that `compile` wrote.")],
    as_json: Json = False,
) -> None:
    """Check an artifact's hashes and run its golden vectors."""
    with _errors(as_json):
        from .runtime.artifact import verify as verify_artifact

        errors = verify_artifact(artifact)
        if as_json:
            _print_json({"passed": True, "errors": errors})
            return
        for name, error in errors.items():
            _out.print(f"{name}: relative error {error:.1e}", markup=False)
        _out.print("all files and golden vectors agree", markup=False)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Compile neural networks and their whole training step ahead of time."""
    if version:
        _out.print(f"brickc {__version__}", markup=False)
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.Exit(2)


# -- shared ----------------------------------------------------------------------------------------


@contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """brickc's errors as one line and an exit code; anything else is a bug and shows itself."""
    try:
        yield
    except BrickcError as error:
        if as_json:
            _print_json(error.as_dict())
        else:
            _err.print(f"brickc: {type(error).__name__}: {error}", markup=False)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        _err.print("brickc: interrupted", markup=False)
        raise typer.Exit(130) from None


def _print_json(value: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=str))
    sys.stdout.write("\n")


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    """A bar on terminals, nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
    )
    hidden = quiet or not _err.is_terminal
    with Progress(*columns, console=_err, disable=hidden, transient=True) as progress:
        yield progress


def _model(
    spec: str,
    shapes: Sequence[str] | None,
    ranges: Sequence[str] | None,
    loss: str | None = None,
) -> Model:
    from .frontends.load import load_model
    from .frontends.losses import with_loss
    from .frontends.onnx import from_onnx
    from .frontends.reshape import parse_shape, with_shapes

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


def _compile(
    spec: str,
    target: str,
    shapes: Sequence[str] | None,
    ranges: Sequence[str] | None,
    optimizer: str,
    functions: Sequence[str] | None,
    memory_limit: str | None,
    seed: int,
    loss: str | None = None,
) -> Program:
    from .compiler.optimizers import parse_optimizer
    from .program import compile
    from .solving import runs_solver, solver_optimizer

    # without the option a solver brings its own optimizer
    own = not optimizer and runs_solver(spec)
    return compile(
        _model(spec, shapes, ranges, loss),
        target,
        optimizer=solver_optimizer(spec) if own else parse_optimizer(optimizer or _OPTIMIZER),
        functions=functions,
        memory_limit=_bytes(memory_limit),
        seed=seed,
    )


def _default_function(
    spec: str, stage: str, shapes: Sequence[str] | None, ranges: Sequence[str] | None
) -> str:
    """The training step where there is one, since it holds everything."""
    model = _model(spec, shapes, ranges)
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
    import io

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    _write_text(path, buffer.getvalue())


def _write_text(path: Path, data: bytes) -> None:
    """Beside the file first, then over it."""
    temporary = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written", got=error.strerror) from None


def _dump_ir(program: Program, folder: Path) -> None:
    from .ir.printer import print_graph
    from .program import STAGES, dump_text

    for name, function in program.compiled.functions.items():
        for number, (stage, graph) in enumerate(function.stages.items()):
            file = f"{name}.{number:02}.{stage.replace(' ', '_')}.txt"
            _write_text(folder / file, print_graph(graph).encode())
        for stage in STAGES[3:]:
            _write_text(folder / f"{name}.{stage}.txt", dump_text(function, stage).encode())


def _history(history: Sequence[Any]) -> None:
    names = list(history[-1].held_out) if history else []
    table = Table("epoch", "training loss", *(f"held-out {n}" for n in names))
    for e in history:
        table.add_row(str(e.number + 1), f"{e.loss:.4f}", *(f"{e.held_out[n]:.4f}" for n in names))
    _out.print(table)


def _times(program: Program, function: str, as_json: bool) -> None:
    """Times of the kernels beside the machine's limits."""
    times, limits = program.profile(function)
    rows = [
        {"kernel": t.name, "seconds": t.seconds, "flops": t.flops, "bytes": t.bytes,
         "of_limit": t.share(limits)}
        for t in sorted(times, key=lambda t: -t.seconds)
    ]  # fmt: skip
    if as_json:
        _print_json({"kernels": rows, "flops_per_second": limits.flops,
                     "bytes_per_second": limits.bytes})  # fmt: skip
        return
    table = Table("kernel", "µs", "GFLOP/s", "GB/s", "of the machine's limit")
    for t in sorted(times, key=lambda t: -t.seconds):
        rate = 1e9 * max(t.seconds, 1e-9)
        table.add_row(t.name, f"{t.seconds * 1e6:,.1f}", f"{t.flops / rate:,.1f}",
                      f"{t.bytes / rate:,.1f}", f"{100 * t.share(limits):.0f} %")  # fmt: skip
    _out.print(table)
    _out.print(f"{function}: {sum(t.seconds for t in times) * 1e6:,.0f} µs; limits: "
               f"{limits.flops / 1e9:,.0f} GFLOP/s in registers, "
               f"{limits.bytes / 1e9:,.1f} GB/s from memory (a kernel whose operands lie in a "
               f"cache may be above)", markup=False)  # fmt: skip


def _general(reason: str) -> str:
    """A reason without the numbers of nodes and bytes, to count alike ones."""
    return " ".join("…" if any(c.isdigit() for c in w) else w for w in reason.split())


def main() -> None:
    """Entry point of the ``brickc`` command."""
    app()
