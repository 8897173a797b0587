"""Compiles kernels with Triton: ``python worker.py FOLDER PART``, a process of its own.

A script, not part of the package's imports: it needs Triton, and an environment in which the
interpreter is off.
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def compile_all(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    """Compile the jobs of an order; images are written to the folder."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    spec = importlib.util.spec_from_file_location("kernels", folder / "kernels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    target = GPUTarget(order["api"], order["number"], order["warp"])
    results = {}
    for job in order["jobs"]:
        source = ASTSource(
            fn=getattr(module, job["name"]),
            signature=dict(zip(job["parameters"], job["signature"], strict=True)),
            attrs={(i,): [["tt.divisibility", 16]] for i in job["aligned"]},
        )
        options = {"num_warps": job["warps"], "num_stages": job["stages"], "enable_fp_fusion": True}
        compiled = triton.compile(source, target=target, options=options)
        suffix = "cubin" if order["api"] == "cuda" else "hsaco"
        file = f"{job['name']}.{suffix}"
        (folder / file).write_bytes(compiled.asm[suffix])
        results[job["name"]] = {
            "file": file, "suffix": suffix, "symbol": compiled.metadata.name,
            "shared": compiled.metadata.shared, "threads": job["warps"] * order["warp"],
        }  # fmt: skip
    return results


if __name__ == "__main__":
    where, number = Path(sys.argv[1]), sys.argv[2]
    wanted = json.loads((where / f"jobs{number}.json").read_text())
    (where / f"results{number}.json").write_text(json.dumps(compile_all(where, wanted)))
