"""Kernels compiled ahead of time, in processes of their own: no GPU is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InternalError, UnsupportedError
from .options import Architecture
from .printer import KernelText, PersistentText

__all__ = ["Binary", "build"]


@dataclass(frozen=True)
class Binary:
    """One compiled kernel: a cubin or hsaco, how it is started, and what it takes.

    ``resources`` has "warps", "stages", "threads", "shared" (bytes), "registers" of a thread,
    "spilled" (bytes of a thread), and where it could be disassembled "tensor" (tensor-core
    instructions) and "loads" (from global memory, by bits).
    """

    image: bytes
    suffix: str
    symbol: str
    resources: Mapping[str, Any]


def build(
    source: str, kernels: Sequence[KernelText | PersistentText], target: Architecture
) -> list[Binary]:
    """The binaries of all kernels of a ``kernels.py``, in order.

    Raises UnsupportedError where Triton is missing, cannot compile a kernel, or a kernel needs
    more shared memory than the architecture has.
    """
    jobs = [
        {
            "name": k.name,
            "parameters": k.parameters(),
            "signature": k.signature(),
            "aligned": [i for i, yes in enumerate(k.launch.aligned) if yes],
            "warps": k.launch.warps,
            "stages": k.launch.stages,
        }
        for k in kernels
    ]
    with tempfile.TemporaryDirectory(prefix="brickc-triton-") as folder:
        (Path(folder) / "kernels.py").write_text(source, encoding="utf-8")
        count = max(1, min(len(os.sched_getaffinity(0)), len(jobs) // 4))
        running = []
        for part in range(count):
            order = {"api": target.api, "number": target.number, "warp": target.warp,
                     "shared": target.shared, "jobs": jobs[part::count]}  # fmt: skip
            (Path(folder) / f"jobs{part}.json").write_text(json.dumps(order))
            running.append(_start(folder, part))
        results = {}
        for part, process in enumerate(running):
            _, errors = process.communicate()
            if process.returncode:
                raise UnsupportedError(
                    "Triton cannot compile the kernels", got=_last(errors),
                    hint="pip install 'brickc[triton]'" if "No module" in errors else "",
                )  # fmt: skip
            results.update(json.loads((Path(folder) / f"results{part}.json").read_text()))
        found = []
        for k in kernels:
            r = results[k.name]
            if r["shared"] > target.shared:
                raise InternalError(f"{k.name} needs {r['shared']} bytes of shared memory; "
                                    f"{target.name} has {target.shared}")  # fmt: skip
            suffix, symbol = r.pop("suffix"), r.pop("symbol")
            image = (Path(folder) / f"{k.name}.{suffix}").read_bytes()
            found.append(Binary(image, suffix, symbol, r))
        return found


def _start(folder: str, part: int) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    # lines and paths of the source would make the binaries differ from folder to folder
    environment["TRITON_DISABLE_LINE_INFO"] = "1"
    worker = Path(__file__).with_name("worker.py")
    return subprocess.Popen(
        [sys.executable, str(worker), folder, str(part)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"
