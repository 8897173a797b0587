"""The command line. Every command has ``--json``; errors have stable exit codes.

Here the commands come together; heavy modules are imported when a command runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .artifacts import compile_command, export, run, verify
from .console import out
from .inspection import check, dump, explain, targets
from .training import train

__all__ = ["app", "main"]


def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Compile neural networks and their whole training step ahead of time."""
    if version:
        out.print(f"brickc {__version__}", markup=False)
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.Exit(2)


def _app() -> typer.Typer:
    """All commands, in the order of ``brickc --help``."""
    made = typer.Typer(
        name="brickc",
        help="Compile neural networks and their whole training step ahead of time.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    made.callback(invoke_without_command=True)(root)
    made.command("compile")(compile_command)
    for command in (run, train, export, dump, check, explain, targets, verify):
        made.command()(command)
    return made


app = _app()


def main() -> None:
    """Entry point of the ``brickc`` command."""
    app()
