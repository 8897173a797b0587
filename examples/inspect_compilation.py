"""What the compiler decided: passes, kernels, memory, and why an edge was not fused."""

from __future__ import annotations

import brickc as bc

program = bc.compile(bc.zoo.model("lenet5"), optimizer=bc.SGD(0.1), functions=["train_step"])
function = program.compiled.functions["train_step"]
for stage, graph in function.stages.items():
    print(f"{stage:22} {len(graph):4} nodes")
report = program.explain()["train_step"]
print(f"{report['kernels_before_fusion']} kernels before fusion, {report['kernels']} after")
print(f"arena: {report['peak_formula']} bytes")
for edge in [e for e in report["edges"] if not e["fused"]][:5]:
    print(f"%{edge['from']} -> %{edge['to']}: {edge['reason']}")
