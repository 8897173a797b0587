"""Compiles kernels with Triton: ``python worker.py FOLDER``, a process of its own.

A script, not part of the package's imports: it needs Triton, and an environment in which the
interpreter is off. Reads one order a line, as JSON, and answers each with a line.
"""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any


def compile_kernel(folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    """One kernel, ``ORDER.py`` in the folder; its image is written beside it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    spec = importlib.util.spec_from_file_location(order["file"], folder / f"{order['file']}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    target = GPUTarget(order["api"], order["number"], order["warp"])
    suffix = "cubin" if order["api"] == "cuda" else "hsaco"
    source = ASTSource(
        fn=getattr(module, order["symbol"]),
        signature=dict(zip(order["parameters"], order["signature"], strict=True)),
        attrs={(i,): [["tt.divisibility", 16]] for i in order["aligned"]},
    )
    path = folder / f"{order['file']}.{suffix}"
    tried: list[tuple[bool, int, int, dict[str, Any], Any]] = []
    # registers that do not suffice: more threads share them, or fewer loads are under way
    for warps, stages in choices(order["warps"], order["stages"]):
        options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
        compiled = triton.compile(source, target=target, options=options)
        path.write_bytes(compiled.asm[suffix])
        if order["api"] == "cuda":
            found = resources_of_cubin(path, Path(triton.__file__).parent)
        else:
            found = resources_of_gcn(compiled.asm["amdgcn"])
        fits = compiled.metadata.shared <= order["shared"]
        result = {
            "suffix": suffix, "symbol": compiled.metadata.name, "warps": warps,
            "stages": stages, "shared": compiled.metadata.shared,
            # Triton 3.6 says nothing of it for AMD's architectures
            "scratch": getattr(compiled.metadata, "global_scratch_size", 0) or 0,
            "threads": warps * order["warp"], **found,
        }  # fmt: skip
        tried.append((not fits, found["spilled"], len(tried), result, compiled.asm))
        if fits and not found["spilled"]:
            break
    *_, result, texts = min(tried)
    path.write_bytes(texts[suffix])
    if order["api"] != "cuda":
        (folder / f"{order['file']}.s").write_text(texts["amdgcn"], encoding="utf-8")
    return result


def choices(warps: int, stages: int) -> list[tuple[int, int]]:
    """Options in the order in which they are tried."""
    wanted = [(warps, stages), (2 * warps, stages), (2 * warps, 2), (2 * warps, 1), (warps, 1)]
    return list(dict.fromkeys((w, min(s, stages)) for w, s in wanted if w <= 16))


def resources_of_cubin(path: Path, triton: Path) -> dict[str, Any]:
    """Registers of a thread and bytes that it spills."""
    tools = triton / "backends" / "nvidia" / "bin"
    usage = run([tools / "cuobjdump", "-res-usage", path])
    numbers = {n: int(v) for n, v in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    if "REG" not in numbers:
        raise RuntimeError(f"cuobjdump says nothing of the kernel: {usage[:200]!r}")
    spilled = numbers.get("LOCAL", 0)
    if not spilled and numbers.get("STACK"):
        # a frame that nothing is stored to comes from a call's convention
        stored = re.search(r"\bSTL\b", run([tools / "nvdisasm", "-c", path]))
        spilled = numbers["STACK"] if stored else 0
    return {"registers": numbers["REG"], "spilled": spilled}


def resources_of_gcn(text: str) -> dict[str, Any]:
    """The same of the text of a kernel for AMD's architectures."""

    def number(name: str) -> int:
        match = re.search(rf"\.{name}:\s*(\d+)", text)
        return int(match[1]) if match else 0

    spilled = 4 * (number("vgpr_spill_count") + number("sgpr_spill_count"))
    return {"registers": number("vgpr_count"), "spilled": spilled}


def run(command: list[Any]) -> str:
    """What a tool prints."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return done.stdout


def keep_nothing() -> None:
    """Triton names what it keeps by a digest of all its libraries, half a second of reading.

    The folder it keeps things in is this process's own, and thrown away.
    """
    from triton.runtime import cache

    cache.triton_key = lambda: "here"


if __name__ == "__main__":
    where = Path(sys.argv[1])
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever Triton prints is no answer
    keep_nothing()
    for line in sys.stdin:
        try:
            answer = compile_kernel(where, json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
