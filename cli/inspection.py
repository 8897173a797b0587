"""Commands that look inside: dump, check, explain, targets."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import UsageError
from .console import out, print_json, progress_bar, reported
from .options import (
    Cpu,
    Json,
    ModelArg,
    Numerics,
    OptimizerOption,
    Ranges,
    Shapes,
    Target,
    VendorLibraries,
    default_function,
    model_of,
    program_of,
    with_cpu,
)

if TYPE_CHECKING:
    from ..program import Program

__all__ = ["check", "dump", "explain", "targets"]


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
    with reported(as_json):
        from ..ir.export import to_dot, to_json
        from ..program import STAGES, dump_text, stage_graph

        if stage not in STAGES:
            raise UsageError("unknown stage", got=stage, expected=", ".join(STAGES))
        if format_ not in ("text", "json", "dot"):
            raise UsageError("unknown format", got=format_, expected="text, json or dot")
        wanted = function or default_function(model, stage, shape, range_)
        program = program_of(model, target, shape, range_, optimizer, [wanted], None, 0)
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
            print_json(program.explain(wanted)[wanted] | {"text": dump_text(chosen, stage)})


def check(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model, or 'bricks' for the catalogue.")
    ],
    tolerance: Annotated[float, typer.Option(help="Largest relative error.")] = 1e-6,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Prove gradients against float64 central differences, brick by brick and whole."""
    with reported(as_json):
        from ..runtime.check import check_catalogue, check_model

        with progress_bar(as_json) as progress:
            task = progress.add_task("checking", total=None, loss=float("nan"))

            def advance(done: int, total: int, what: str) -> None:
                progress.update(task, completed=done, total=total, description=what[:40])

            if model == "bricks":
                rows = check_catalogue(tolerance, seed, advance)
            else:
                rows = check_model(model_of(model, None, None), tolerance, seed, advance)
        failed = [r for r in rows if not r.passed]
        if as_json:
            print_json({"passed": not failed, "rows": [r.as_dict() for r in rows]})
        else:
            table = Table("what", "operand", "error", "")
            for r in rows:
                table.add_row(r.what, r.operand, f"{r.error:.1e}", "ok" if r.passed else "WRONG")
            out.print(table)
            out.print(
                f"{len(rows) - len(failed)} of {len(rows)} gradients agree with central "
                f"differences in float64, each along one random direction", markup=False,
            )  # fmt: skip
        if failed:
            raise typer.Exit(9)


def explain(
    model: ModelArg,
    function: Annotated[str, typer.Option(help="infer, evaluate or train_step.")] = "",
    target: Target = "numpy",
    cpu: Cpu = "",
    shape: Shapes = None,
    range_: Ranges = None,
    optimizer: OptimizerOption = "",
    numerics: Numerics = "strict",
    edges: Annotated[bool, typer.Option(help="Also say for every edge why.")] = False,
    choices: Annotated[
        bool, typer.Option("--choices", help="How kernels are carried out, and at what cost else.")
    ] = False,
    timed: Annotated[
        bool, typer.Option("--time", help="Run it: time and rates of every kernel (target c).")
    ] = False,
    vendor_libraries: VendorLibraries = "off",
    as_json: Json = False,
) -> None:
    """Kernels, bytes, FLOPs and peak memory of MODEL; what fused, and why the rest did not."""
    with reported(as_json):
        wanted = function or default_function(model, "kernels", shape, range_)
        program = program_of(
            model, with_cpu(target, cpu), shape, range_, optimizer, [wanted], None, 0,
            numerics=numerics, vendor_libraries=vendor_libraries,
        )  # fmt: skip
        report = program.explain(wanted)[wanted]
        if timed:
            _times(program, wanted, as_json)
            return
        if choices:
            _choices(program, wanted, as_json)
            return
        if as_json:
            print_json({**report, "gpu_kernels": program.gpu_kernels})
            return
        named = any(row["strategy"] for row in report["table"])
        tested = bool(report["self_test"] and report["self_test"]["tested"])
        extra = (*(("strategy",) if named else ()), *(("error",) if tested else ()))
        table = Table("kernel", "kind", "bricks", "kB", "MFLOP", *extra)
        for row in report["table"]:
            table.add_row(row["kernel"], row["kind"], str(row["bricks"]),
                          f"{row['bytes'] / 1e3:,.1f}", f"{row['flops'] / 1e6:,.2f}",
                          *((row["strategy"],) if named else ()),
                          *((f"{row['error']:.0e}",) if tested else ()))  # fmt: skip
        out.print(table)
        if report["self_test"]:
            out.print(_self_test(report), markup=False)
        if program.gpu_kernels:
            # a row is wider than what a pipe is taken for
            wide = out if out.is_terminal else Console(highlight=False, width=130)
            wide.print(_gpu_table(program.gpu_kernels))
        if report["launching"]:
            how = report["launching"]
            out.print(f"{how['form']} ({how['launches']} launches, {how['stages']} stages): "
                      f"{how['reason']}", markup=False)  # fmt: skip
        sizes = ", ".join(f"{n}={v}" for n, v in report["dims"].items())
        out.print(
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
            out.print(f"  {count:4} edges {reason}", markup=False)
        if edges:
            for edge in report["edges"]:
                verdict = "fused" if edge["fused"] else "not fused"
                out.print(f"%{edge['from']} -> %{edge['to']}: {verdict}: {edge['reason']}",
                           markup=False)  # fmt: skip


def _self_test(report: dict[str, Any]) -> str:
    """What the self-test says, as a line."""
    test = report["self_test"]
    if not test["tested"]:
        return f"self-test: {test['reason']}"
    worst = max(report["table"], key=lambda row: row["error"])
    sizes = ", ".join(f"{n}={v}" for n, v in test["sizes"].items())
    allowed = ", ".join(f"{v:.0e} for {n}" for n, v in test["tolerances"].items())
    return (
        f"self-test: each kernel agreed with its definition when it was built, at "
        f"{sizes or 'its fixed sizes'}, in {sum(row['elements'] for row in report['table']):,} "
        f"elements; largest error {worst['error']:.0e} of the largest element "
        f"({worst['kernel']}), allowed {allowed}"
    )


def _gpu_table(kernels: dict[str, dict[str, Any]]) -> Table:
    """Registers, memory and instructions of kernels compiled for a GPU."""
    table = Table("GPU kernel", "warps", "registers", "spilled", "shared", "tensor cores", "loads",
                  "in loops")  # fmt: skip

    def listed(counts: dict[str, int] | None) -> str:
        if counts is None:
            return "?"
        return " ".join(f"{n}x{what}" for what, n in counts.items() if n) or "none"

    for name, r in kernels.items():
        table.add_row(name, str(r["warps"]), str(r["registers"]), str(r["spilled"]),
                      str(r["shared"]), listed(r.get("tensor")), listed(r.get("loads")),
                      listed(r.get("loop_loads")))  # fmt: skip
    return table


def targets(as_json: Json = False) -> None:
    """What can be compiled for, and run, here."""
    with reported(as_json):
        from ..driver import BACKENDS

        rows: list[dict[str, object]] = []
        for name, backend in BACKENDS.items():
            here = backend("").availability()
            rows.append({"target": name, "compiles": here.compiles, "runs": here.runs,
                         "with": here.note})  # fmt: skip
        if as_json:
            print_json({"targets": rows, "machine": platform.machine()})
            return
        table = Table("target", "compiles here", "runs here", "with")
        for row in rows:
            table.add_row(str(row["target"]), "yes" if row["compiles"] else "no",
                          "yes" if row["runs"] else "no", escape(str(row["with"])))  # fmt: skip
        out.print(table)


def _times(program: Program, function: str, as_json: bool) -> None:
    """Times of the kernels beside the machine's limits."""
    times, limits = program.profile(function)
    rows = [
        {"kernel": t.name, "seconds": t.seconds, "flops": t.flops, "bytes": t.bytes,
         "of_limit": t.share(limits)}
        for t in sorted(times, key=lambda t: -t.seconds)
    ]  # fmt: skip
    if as_json:
        print_json({"kernels": rows, "flops_per_second": limits.flops,
                     "bytes_per_second": limits.bytes})  # fmt: skip
        return
    table = Table("kernel", "µs", "GFLOP/s", "GB/s", "of the machine's limit")
    for t in sorted(times, key=lambda t: -t.seconds):
        rate = 1e9 * max(t.seconds, 1e-9)
        table.add_row(t.name, f"{t.seconds * 1e6:,.1f}", f"{t.flops / rate:,.1f}",
                      f"{t.bytes / rate:,.1f}", f"{100 * t.share(limits):.0f} %")  # fmt: skip
    out.print(table)
    out.print(f"{function}: {sum(t.seconds for t in times) * 1e6:,.0f} µs; limits: "
               f"{limits.flops / 1e9:,.0f} GFLOP/s in registers, "
               f"{limits.bytes / 1e9:,.1f} GB/s from memory (a kernel whose operands lie in a "
               f"cache may be above)", markup=False)  # fmt: skip


def _choices(program: Program, function: str, as_json: bool) -> None:
    """What was decided for each kernel beside the best of what was not."""
    rows = program.choices(function)
    if as_json:
        print_json({"choices": rows})
        return
    table = Table("kernel", "by", "choice", "estimated µs")
    for row in rows:
        table.add_row(row["kernel"], row["by"], row["choice"], f"{row['cost'] * 1e6:,.1f}")
        for other in row["rejected"]:
            table.add_row("", "rejected", other["choice"], f"{other['cost'] * 1e6:,.1f}",
                          style="dim")  # fmt: skip
    out.print(table)
    out.print("estimates are for a nominal machine, to compare with each other; "
              "`compile --tune SECONDS` measures", markup=False)  # fmt: skip


def _general(reason: str) -> str:
    """A reason without the numbers of nodes and bytes, to count alike ones."""
    return " ".join("…" if any(c.isdigit() for c in w) else w for w in reason.split())
