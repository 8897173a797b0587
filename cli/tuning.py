"""What the command line shows of the tuner: a bar while it works, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..backends.triton.strategies.vendor import RULE
from .console import err, out

if TYPE_CHECKING:
    from ..program import Program
    from ..tuning import Outcome

__all__ = ["libraries_report", "print_libraries", "print_tuning", "tuning_bar", "tuning_report"]


@contextmanager
def tuning_bar(seconds: float | None, quiet: bool) -> Iterator[Callable[[float, str], None] | None]:
    """A bar over the seconds on terminals, nothing elsewhere; gives what the tuner reports to."""
    if not seconds:
        yield None
        return
    columns = (TextColumn("tuning"), BarColumn(), TimeElapsedColumn(),
               TextColumn("{task.description}"))  # fmt: skip
    hidden = quiet or not err.is_terminal
    with Progress(*columns, console=err, disable=hidden, transient=True) as bar:
        task = bar.add_task("", total=seconds)

        def report(spent: float, what: str) -> None:
            bar.update(task, completed=min(spent, seconds), description=what[:60])

        yield report


def tuning_report(outcome: Outcome) -> dict[str, Any]:
    """The outcome as plain data; times that were not measured are null."""
    return {
        "environment": dict(outcome.environment),
        "seconds": round(outcome.spent, 3),
        "timed": outcome.timed,
        "kernels": [
            {
                "kernel": row.kernel,
                "functions": list(row.functions),
                "count": row.count,
                "default": row.default,
                "choice": row.choice,
                "default_seconds": _known(row.default_seconds),
                "seconds": _known(row.seconds),
                "tried": row.tried,
                "remembered": row.remembered,
                "wrong": list(row.wrong),
            }
            for row in outcome.rows
        ],
    }


def print_tuning(outcome: Outcome) -> None:
    """A table of the kernels that are carried out otherwise now, and a line of sums."""
    changed = [r for r in outcome.rows if r.choice != r.default]
    if changed:
        table = Table("tuned kernel", "cost model", "µs", "tuner", "µs")
        for row in sorted(changed, key=lambda r: r.seconds - r.default_seconds):
            table.add_row(row.kernel, row.default, f"{row.default_seconds * 1e6:,.1f}",
                          row.choice, f"{row.seconds * 1e6:,.1f}")  # fmt: skip
        out.print(table)
    measured = [r for r in outcome.rows if not math.isnan(r.seconds)]
    before = sum(r.default_seconds * r.count for r in measured)
    after = sum(r.seconds * r.count for r in measured)
    remembered = sum(r.remembered for r in outcome.rows)
    out.print(
        f"tuned in {outcome.spent:.1f} s: {outcome.timed} candidates timed, {remembered} kernels "
        f"from the cache; {len(measured)} of {len(outcome.rows)} kernels with a choice were "
        f"measured: {before * 1e6:,.0f} µs as the cost model has them, {after * 1e6:,.0f} µs as "
        f"chosen", markup=False,
    )  # fmt: skip


def libraries_report(program: Program) -> dict[str, Any]:
    """How many kernels torch carries out of those that it could, and who decided that."""
    decided = [
        dict(made.choice.values)["library"]
        for f in program.compiled.functions.values()
        for made in f.kernels
        if "library" in dict(made.choice.values)
    ]
    by = "the tuner's timings, else the rule" if program.compiled.choices else "the rule"
    return {"torch": decided.count("torch"), "of": len(decided), "by": by, "rule": RULE}


def print_libraries(program: Program) -> None:
    """The same as a line."""
    found = libraries_report(program)
    out.print(f"vendor libraries: {found['torch']} of {found['of']} products and convolutions; "
              f"by {found['by']}: {found['rule']}", markup=False)  # fmt: skip


def _known(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds
