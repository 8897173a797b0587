"""Decisions as text and as data: kernels, bytes, FLOPs, peak memory, fusion and its reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..ir.dims import evaluate, hint
from ..ir.graph import Graph
from ..ir.kernel.choices import Choice
from ..ir.kernel.kernel import Kernel, KernelProgram, Region
from .fuse import Fusion
from .layouts import Layouts
from .plan_memory import MemoryPlan

__all__ = ["explain", "fusion_text", "kernels_text", "schedule_text", "statistics"]


def statistics(
    graph: Graph, fusion: Fusion, program: KernelProgram, plan: MemoryPlan
) -> dict[str, Any]:
    """Counts that do not depend on the machine, at the typical sizes of dims."""
    dims = {n: d.typical for n, d in program.dims.items()}
    unfused = sum(len(g.members) for g in fusion.groups)
    return {
        "nodes": len(graph),
        "kernels_before_fusion": unfused,
        "kernels": len(program.kernels),
        "bytes_moved": program.bytes_moved,
        "flops": sum(k.flops for k in program.kernels),
        "peak_bytes": evaluate(plan.peak, dims),
        "peak_formula": str(plan.peak),
        "intermediate_bytes": evaluate(plan.total, dims),
        "dims": dims,
    }


def explain(
    name: str,
    graph: Graph,
    fusion: Fusion,
    program: KernelProgram,
    plan: MemoryPlan,
    launching: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One function: statistics, a row per kernel, the reason of every edge."""
    return {
        "function": name,
        **statistics(graph, fusion, program, plan),
        "launching": launching,
        "table": [
            {
                "kernel": k.name,
                "kind": k.kind,
                "bricks": len(k.nodes),
                "bytes": hint(k.bytes_moved),
                "flops": k.flops,
                "notes": list(k.notes),
            }
            for k in program.kernels
        ],
        "edges": [
            {"from": d.source, "to": d.target, "fused": d.fused, "reason": d.reason}
            for d in fusion.decisions
        ],
    }


def fusion_text(graph: Graph, fusion: Fusion) -> str:
    """Groups of nodes, and for every edge between them why it was or was not fused."""
    lines = []
    for group in fusion.groups:
        head = graph.node(group.anchor if group.anchor is not None else group.after[0])
        lines.append(f"kernel {head}: {head.brick.mnemonic}  {head.origin}".rstrip())
        for member in group.members:
            node = graph.node(member)
            role = group.role(member)
            operands = ", ".join(f"%{o}" for o in node.operands)
            lines.append(f"  {role:7} {node}: {node.type} = {node.brick.mnemonic}({operands})")
    lines.append("")
    for d in fusion.decisions:
        verdict = "fused" if d.fused else "not fused"
        lines.append(f"%{d.source} -> %{d.target}: {verdict}: {d.reason}")
    return "\n".join(lines) + "\n"


def schedule_text(
    program: KernelProgram,
    plan: MemoryPlan,
    layouts: Layouts,
    graph: Graph,
    launching: Mapping[str, Any] | None = None,
) -> str:
    """Order of kernels, layout of stored values, and where every buffer lies and when.

    ``launching`` is how a backend starts the kernels: its form, the reason, and stages.
    """
    lines = [f"peak {plan.peak} bytes; side by side {plan.total} bytes"]
    if plan.apart:
        own = ", ".join(f"{n} ({size})" for n, size in plan.apart.items())
        lines.append(f"bytes that each step of several has of its own: {own}")
    word = "kernel"
    if launching is not None:
        word = "stage"
        lines.append(f"{launching['form']}, {launching['stages']} stages: {launching['reason']}")
    lines += ["", "order:" if word == "kernel" else "order, and the stages of each kernel:"]
    for k, kernel in enumerate(program.kernels):
        first, last = plan.moments[k]
        stage = "" if word == "kernel" else f" {first}..{last}" if first != last else f" {first}"
        lines.append(f"  {k:3}{stage} {kernel.name} ({kernel.kind})")
    lines += ["", "layouts (outermost axis first):"]
    for node in graph.nodes():
        if layouts.owns(node.id) and node.type.rank > 1:
            order = layouts.placed[node.id].order(node.type)
            lines.append(f"  {node}: {node.type} {list(order)}")
    lines += ["", f"arena (offset, bytes, first and last {word}):"]
    for name, (first, last) in sorted(plan.lifetimes.items(), key=lambda t: (t[1], t[0])):
        size = program.buffers[name].nbytes if name in program.buffers else "scratch"
        lines.append(f"  {name}: {plan.offsets[name]}, {size}, {first}..{last}")
    return "\n".join(lines) + "\n"


def kernels_text(program: KernelProgram, choices: Sequence[Choice] = ()) -> str:
    """The kernel IR: every kernel with its accesses and scalar programs.

    ``choices`` are how the target carries them out, one a kernel.
    """
    texts = []
    for number, kernel in enumerate(program.kernels):
        texts.append(_kernel(number, kernel, str(choices[number]) if choices else ""))
    return "\n".join(texts) + "\n"


def _kernel(number: int, kernel: Kernel, choice: str) -> str:
    lines = [f"kernel {number} {kernel.name}: {kernel.anchor if kernel.anchor else 'map'}"]
    lines += [f"  # {note}" for note in kernel.notes]
    if choice:
        lines.append(f"  choice {choice}")
    lines += [f"  operand {access}" for access in kernel.operands]
    if kernel.before is not None:
        lines += _region("before", kernel.before)
    lines += _region("after", kernel.after, *(["anchor"] if kernel.anchor else []))
    if kernel.pool is not None:
        pool = kernel.pool
        window = f"{pool.op} in windows of {list(pool.window)} of result {pool.source}"
        winner = ["number of the first maximum"] if pool.numbered else []
        lines += _region("pool", pool.after, window, *winner)
    return "\n".join(lines) + "\n"


def _region(title: str, region: Region, *first: str) -> list[str]:
    lines = [f"  {title} {list(region.shape)}"]
    sources = [*first, *map(str, region.loads)]
    lines += [f"    v{k} <- {source}" for k, source in enumerate(sources)]
    lines += [f"    {line}" for line in str(region.program).splitlines()]
    lines += [f"    result {k} -> {access}" for k, access in region.stores]
    return lines
