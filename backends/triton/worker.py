"""Compiles kernels with Triton: ``python worker.py FOLDER PART``, a process of its own.

A script, not part of the package's imports: it needs Triton, and an environment in which the
interpreter is off.
"""

import importlib.util
import json
import re
import shutil
import subprocess
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
    suffix = "cubin" if order["api"] == "cuda" else "hsaco"
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    results = {}
    for job in order["jobs"]:
        source = ASTSource(
            fn=getattr(module, job["name"]),
            signature=dict(zip(job["parameters"], job["signature"], strict=True)),
            attrs={(i,): [["tt.divisibility", 16]] for i in job["aligned"]},
        )
        tried: list[tuple[bool, int, int, dict[str, Any], bytes]] = []
        path = folder / f"{job['name']}.{suffix}"
        # registers that do not suffice: more threads share them, or fewer loads are under way
        for warps, stages in choices(job["warps"], job["stages"]):
            options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
            compiled = triton.compile(source, target=target, options=options)
            path.write_bytes(compiled.asm[suffix])
            if order["api"] == "cuda":
                found = resources_of_cubin(path, tools)
            else:
                found = resources_of_gcn(compiled.asm["amdgcn"])
            fits = compiled.metadata.shared <= order["shared"]
            result = {
                "suffix": suffix, "symbol": compiled.metadata.name, "warps": warps,
                "stages": stages, "shared": compiled.metadata.shared,
                "threads": warps * order["warp"], **found,
            }  # fmt: skip
            tried.append((not fits, found["spilled"], len(tried), result, compiled.asm[suffix]))
            if fits and not found["spilled"]:
                break
        *_, result, image = min(tried)
        path.write_bytes(image)
        results[job["name"]] = result
    return results


def choices(warps: int, stages: int) -> list[tuple[int, int]]:
    """Options in the order in which they are tried."""
    wanted = [(warps, stages), (2 * warps, stages), (2 * warps, 2), (2 * warps, 1), (warps, 1)]
    return list(dict.fromkeys((w, min(s, stages)) for w, s in wanted if w <= 16))


def resources_of_cubin(path: Path, tools: Path) -> dict[str, Any]:
    """Registers and spills of a cubin; what its instructions are, where a disassembler is."""
    usage = run([tools / "cuobjdump", "-res-usage", path])
    numbers = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", usage))
    text = run([tools / "nvdisasm", path])
    stores = len(re.findall(r"\bSTL\b", text))
    # a frame that nothing is stored to comes from a call's convention
    spilled = int(numbers.get("LOCAL", 0)) or (int(numbers.get("STACK", 0)) if stores else 0)
    found: dict[str, Any] = {"registers": int(numbers.get("REG", 0)), "spilled": spilled}
    if text:
        loads = re.findall(r"\b(?:LDGSTS|LDG)(?:\.[A-Z0-9]+)*", text)
        widths = [next((n for n in ("128", "64") if f".{n}" in x), "32") for x in loads]
        found["loads"] = {w: widths.count(w) for w in ("128", "64", "32")}
        found["tensor"] = len(re.findall(r"\b(?:HGMMA|HMMA|DMMA)\b", text))
    return found


def resources_of_gcn(text: str) -> dict[str, Any]:
    """The same of the text of a kernel for AMD's architectures."""

    def number(name: str) -> int:
        match = re.search(rf"\.{name}:\s*(\d+)", text)
        return int(match.group(1)) if match else 0

    widths = re.findall(r"\b(?:buffer|global)_load_(dwordx4|dwordx2|dword)\b", text)
    names = {"dwordx4": "128", "dwordx2": "64", "dword": "32"}
    found = [names[w] for w in widths]
    return {
        "registers": number("vgpr_count"),
        "spilled": 4 * (number("vgpr_spill_count") + number("sgpr_spill_count")),
        "loads": {w: found.count(w) for w in ("128", "64", "32")},
        "tensor": len(re.findall(r"\bv_s?mfmac?_", text)),
    }


def run(command: list[Any]) -> str:
    """What a tool prints; nothing if it is not there."""
    if shutil.which(str(command[0])) is None:
        return ""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    return done.stdout


if __name__ == "__main__":
    where, number = Path(sys.argv[1]), sys.argv[2]
    wanted = json.loads((where / f"jobs{number}.json").read_text())
    (where / f"results{number}.json").write_text(json.dumps(compile_all(where, wanted)))
