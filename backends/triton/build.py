"""Kernels compiled ahead of time, in processes of their own: no GPU is needed.

Equal kernels are compiled once, and kept in the cache: the key is the kernel's text with all that
it calls, its parameters and options, the architecture, and the version of Triton.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import InternalError, UnsupportedError
from ..cache import read_entry, write_entry
from .alone import KERNEL, Module
from .disassembly import instructions_of_cubins, instructions_of_gcn, statistics
from .options import Architecture
from .printer import KernelText, PersistentText

__all__ = ["Binary", "build"]

#: folder of the cache, and version of what an entry holds
CACHE = "triton"
ENTRY = 1

_WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Binary:
    """One compiled kernel: a cubin or hsaco, how it is started, and what it takes.

    ``resources`` has "warps", "stages", "threads", "shared" and "scratch" (bytes of a block),
    "registers" of a thread, "spilled" (bytes of a thread), and where it could be disassembled
    "tensor" (tensor-core instructions by kind), "loads" (from global memory, by bits; "tile" where
    descriptors bring them) and "loop_loads" (those in loops).
    """

    image: bytes
    suffix: str
    symbol: str
    resources: Mapping[str, Any]


@dataclass(frozen=True)
class _Job:
    """All that a kernel's binary depends on, beside the tools."""

    text: str
    symbol: str
    parameters: tuple[str, ...]
    signature: tuple[str, ...]
    aligned: tuple[int, ...]
    warps: int
    stages: int

    def key(self, target: Architecture, tools: str) -> str:
        content = json.dumps([ENTRY, tools, asdict(target), asdict(self)])
        return hashlib.sha256(content.encode()).hexdigest()


def build(
    source: str, kernels: Sequence[KernelText | PersistentText], target: Architecture
) -> list[Binary]:
    """The binaries of all kernels of a ``kernels.py``, in order.

    Raises UnsupportedError where Triton is missing, cannot compile a kernel, or a kernel needs
    more shared memory than the architecture has.
    """
    tools = _tools()
    module = Module(source)
    keys = {}
    jobs: dict[str, _Job] = {}
    for k in kernels:
        job = _job(module, k)
        keys[k.name] = job.key(target, tools)
        jobs.setdefault(keys[k.name], job)
    found = {key: binary for key in jobs if (binary := _unpack(read_entry(CACHE, key)))}
    missing = {key: job for key, job in jobs.items() if key not in found}
    if missing:
        named = {key: name for name, key in reversed(keys.items())}
        made = _compile(missing, target, named)
        for key, binary in made.items():
            write_entry(CACHE, key, _pack(binary))
        found |= made
    for name, key in keys.items():
        if (shared := found[key].resources["shared"]) > target.shared:
            raise InternalError(f"{name} needs {shared} bytes of shared memory; "
                                f"{target.name} has {target.shared}")  # fmt: skip
    return [found[keys[k.name]] for k in kernels]


def _tools() -> str:
    """What compiles, as a part of keys. Raises UnsupportedError without Triton."""
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        raise UnsupportedError(
            "Triton cannot compile the kernels", got="no module triton",
            hint="pip install 'brickc[triton]'",
        ) from None  # fmt: skip
    ours = hashlib.sha256(_WORKER.read_bytes()).hexdigest()
    return f"{version} {ours} {os.environ.get('TRITON_PTXAS_PATH', '')}"


def _job(module: Module, k: KernelText | PersistentText) -> _Job:
    """The kernel under a name that says what it is and what is in it, not where it was."""
    text = module.alone(k.name)
    kind = k.name.rstrip("0123456789").rstrip("_")
    symbol = f"{kind}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return _Job(
        text.replace(f"def {KERNEL}(", f"def {symbol}("), symbol,
        tuple(k.parameters()), tuple(k.signature()),
        tuple(i for i, yes in enumerate(k.launch.aligned) if yes),
        k.launch.warps, k.launch.stages,
    )  # fmt: skip


def _compile(
    jobs: Mapping[str, _Job], target: Architecture, names: Mapping[str, str]
) -> dict[str, Binary]:
    """Binaries by key, from as many processes as there are cores, the longest texts first."""
    with tempfile.TemporaryDirectory(prefix="brickc-triton-") as folder:
        waiting: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        files = {}
        for number, (key, job) in enumerate(sorted(jobs.items(), key=lambda x: -len(x[1].text))):
            files[key] = f"kernel{number}"
            (Path(folder) / f"kernel{number}.py").write_text(job.text, encoding="utf-8")
            order = {"file": files[key], "api": target.api, "number": target.number,
                     "warp": target.warp, "shared": target.shared, **asdict(job)}  # fmt: skip
            del order["text"]
            waiting.put((key, order))
        count = max(1, min(len(os.sched_getaffinity(0)), len(jobs) // 4))
        with ThreadPoolExecutor(count) as pool:
            running = [pool.submit(_work, folder, waiting, names) for _ in range(count)]
            results = {key: r for part in running for key, r in part.result().items()}
        images = {k: (Path(folder) / f"{files[k]}.{r['suffix']}").read_bytes()
                  for k, r in results.items()}  # fmt: skip
        if target.api == "cuda":
            assert isinstance(target.number, int)
            codes = instructions_of_cubins(list(images.values()), target.number)
        else:
            codes = [instructions_of_gcn((Path(folder) / f"{files[k]}.s").read_text())
                     for k in images]  # fmt: skip
        if codes is not None:
            for key, code in zip(images, codes, strict=True):
                results[key] |= statistics(code, target.api)
        return {k: Binary(images[k], r.pop("suffix"), r.pop("symbol"), r)
                for k, r in results.items()}  # fmt: skip


def _work(
    folder: str,
    waiting: queue.SimpleQueue[tuple[str, dict[str, Any]]],
    names: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Results of the orders that one process carries out, while there are any."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    # lines and paths of the source would make the binaries differ from folder to folder
    environment["TRITON_DISABLE_LINE_INFO"] = "1"
    environment["TRITON_CACHE_DIR"] = folder  # what is kept is kept by ``cache``
    found = {}
    with tempfile.TemporaryFile() as errors, subprocess.Popen(
        [sys.executable, str(_WORKER), folder], env=environment, text=True, encoding="utf-8",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        while True:
            try:
                key, order = waiting.get_nowait()
            except queue.Empty:
                break
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            answer = json.loads(line) if line else {}
            if not line:
                errors.seek(0)
                answer = {"error": _last(errors.read().decode(errors="replace"))}
            if "error" in answer:
                raise UnsupportedError(
                    f"Triton cannot compile {names[key]}", got=answer["error"][:300]
                )
            found[key] = answer
        process.stdin.close()
    return found


def _pack(binary: Binary) -> bytes:
    head = {"suffix": binary.suffix, "symbol": binary.symbol, "resources": binary.resources}
    return json.dumps(head, sort_keys=True).encode() + b"\n" + binary.image


def _unpack(entry: bytes | None) -> Binary | None:
    if entry is None:
        return None
    head, _, image = entry.partition(b"\n")
    return Binary(image, **json.loads(head))


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"
