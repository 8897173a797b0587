"""The command that trains: models on data sets, and solvers of Caffe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..errors import UsageError
from .console import out, print_json, progress_bar, reported
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
    program_of,
    with_cpu,
    write_stages,
)

__all__ = ["train"]


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
    cpu: Cpu = "",
    seed: Annotated[int, typer.Option(help="Parameters, dropout, order of examples.")] = 0,
    save: Annotated[Path | None, typer.Option(help="Write the trained artifact here.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Write the state here, and go on from it if it is there.")
    ] = None,
    dump_ir: Annotated[Path | None, typer.Option(help="Write every stage as text.")] = None,
    loss: Loss = None,
    steps_per_launch: Steps = 1,
    numerics: Numerics = "strict",
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
    with reported(as_json):
        from ..runtime.artifact import check_place
        from ..solving import runs_solver

        target = with_cpu(target, cpu)
        if save is not None:
            check_place(save)
        only = _given(context, ("epochs", "batch", "optimizer"))
        solver_only = _given(context, ("max_iter", "net", "root", "weights"))
        if runs_solver(model):
            if steps_per_launch > 1:
                raise UsageError("--steps-per-launch: a solver sets the rate of every iteration",
                                 hint="its steps run one by one")  # fmt: skip
            if only:
                raise UsageError(f"{', '.join(only)}: a solver says this itself",
                                 hint="--max-iter bounds the iterations")  # fmt: skip
            _solve(model, data, shape, max_iter, net, root, weights,
                   seed if _given(context, ("seed",)) else None, target, checkpoint, save,
                   dump_ir, as_json)  # fmt: skip
            return
        if solver_only:
            raise UsageError(f"{', '.join(solver_only)}: only a solver has this", got=model)
        from ..runtime.data import load as load_data
        from ..runtime.trainer import Trainer
        from ..training import ModelData

        started = time.perf_counter()
        program = program_of(model, target, shape, range_, optimizer, None, None, seed, loss,
                             steps=steps_per_launch, numerics=numerics)  # fmt: skip
        compile_seconds = time.perf_counter() - started
        dataset = load_data(data or "digits")
        source = ModelData.of(program.compiled.model, dataset, batch, seed)
        if not as_json:
            step = program.compiled.functions["train_step"]
            out.print(
                f"{model}: {len(step.program.kernels)} kernels, compiled in "
                f"{compile_seconds:.2f} s; {source.describe()}", markup=False,
            )  # fmt: skip
        with progress_bar(as_json) as progress:
            task = progress.add_task("training", total=epochs * source.steps, loss=float("nan"))

            def advance(epoch: int, step: int, steps: int, loss: float) -> None:
                progress.update(task, completed=epoch * steps + step, loss=loss,
                                description=f"epoch {epoch + 1}/{epochs}")  # fmt: skip

            trainer = Trainer(program, source, advance, checkpoint)
            history = trainer.run(epochs)
        if save is not None:
            program.save(save)
        if dump_ir is not None:
            write_stages(program, dump_ir)
        if as_json:
            print_json({
                "history": [
                    {"epoch": e.number + 1, "loss": e.loss, **e.held_out} for e in history
                ],
                "artifact": str(save) if save else None,
            })  # fmt: skip
            return
        _history(history)
        if save is not None:
            out.print(f"artifact: {save} (run it: python {save}/model.py)", markup=False)
            out.print(f"IR of every pass: {dump_ir or save / 'ir'}; kernels: {save}/model.py "
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
    from ..frontends.load import input_sizes
    from ..solving import prepare

    started = time.perf_counter()
    training = prepare(
        Path(spec), data=data, net=net, root=root, weights=weights, seed=seed, target=target,
        max_iter=max_iter, folder=checkpoint, shapes=input_sizes(shapes or ()),
    )  # fmt: skip
    run, program = training.iterations, training.program
    if not as_json:
        step = program.compiled.functions["train_step"]
        out.print(
            f"{spec}: {program.compiled.model.name}, "
            f"{program.compiled.model.parameter_count():,} parameters, "
            f"{len(step.program.kernels)} kernels, compiled in "
            f"{time.perf_counter() - started:.2f} s; {training.data}", markup=False,
        )  # fmt: skip
    with progress_bar(as_json) as progress:
        task = progress.add_task("iterations", total=run.plan.max_iter, loss=float("nan"))

        def advance(done: int, total: int, loss: float) -> None:
            progress.update(task, completed=done, loss=loss)
            every = run.plan.display
            if not as_json and every and done % every == 0:
                rate = run.rate(done - 1)
                out.print(f"iteration {done}: loss {loss:.4f}, rate {rate:.3g}",
                                       markup=False)  # fmt: skip

        def tested(result: Any) -> None:
            if not as_json:
                means = ", ".join(f"{n} {v:.4f}" for n, v in result.means.items())
                out.print(f"iteration {result.iteration}, test: {means}", markup=False)

        run.progress, run.tested = advance, tested
        run.run()
    if save is not None:
        program.save(save)
    if dump_ir is not None:
        write_stages(program, dump_ir)
    if as_json:
        print_json({
            "iterations": run.plan.max_iter,
            "losses": run.losses,
            "tests": [{"iteration": t.iteration, **t.means} for t in run.tests],
            "artifact": str(save) if save else None,
        })  # fmt: skip
    elif save is not None:
        out.print(f"artifact: {save} (run it: python {save}/model.py)", markup=False)


def _given(context: typer.Context, names: Sequence[str]) -> list[str]:
    """The options among these that stand on the command line."""
    return [
        "--" + n.replace("_", "-")
        for n in names
        if getattr(context.get_parameter_source(n), "name", "") == "COMMANDLINE"
    ]


def _history(history: Sequence[Any]) -> None:
    names = list(history[-1].held_out) if history else []
    table = Table("epoch", "training loss", *(f"held-out {n}" for n in names))
    for e in history:
        table.add_row(str(e.number + 1), f"{e.loss:.4f}", *(f"{e.held_out[n]:.4f}" for n in names))
    out.print(table)
