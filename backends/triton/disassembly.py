"""What the instructions of a compiled kernel are: tensor cores, and widths of loads.

All kernels of a program are disassembled at once: starting NVIDIA's disassembler takes longer than
its work on hundreds of them.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Instruction", "instructions_of_cubins", "instructions_of_gcn", "statistics"]

#: (address, text)
Instruction = tuple[int, str]

_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;")
_NVIDIA_LOAD = re.compile(r"\b(?:LDGSTS|LDG|UTMALDG)\b(?:\.[A-Z0-9]+)*")
_NVIDIA_JUMP = re.compile(r"\bBRA\S*\s.*?0x([0-9a-f]+)")
_AMD_LOAD = re.compile(
    r"\b(?:buffer|global)_load_(?:lds_)?(dwordx4|dwordx2|dword|[us](?:short|byte))"
)
_AMD_WIDTHS = {"dwordx4": "128", "dwordx2": "64"}


def instructions_of_cubins(images: Sequence[bytes], number: int) -> list[list[Instruction]] | None:
    """The instructions of each image; None where Triton brought no disassembler.

    Addresses count from the first image's start.
    """
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        return None
    tool = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    if not tool.exists():
        return None
    codes = [_code(image) for image in images]
    # the instructions of sm_90 that Triton uses are those of its variant "a"
    name = f"SM{number}a" if number >= 90 else f"SM{number}"
    with tempfile.NamedTemporaryFile(prefix="brickc-", suffix=".bin") as file:
        file.write(b"".join(codes))
        file.flush()
        done = subprocess.run(
            [str(tool), "-ndf", "-b", name, file.name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        return None
    ends: list[int] = []
    for code in codes:
        ends.append((ends[-1] if ends else 0) + len(code))
    found: list[list[Instruction]] = [[] for _ in codes]
    place = 0
    for at, text in _LINE.findall(done.stdout):
        address = int(at, 16)
        while address >= ends[place]:
            place += 1
        found[place].append((address, text))
    return found


def instructions_of_gcn(text: str) -> list[Instruction]:
    """The instructions of AMD's assembler text; labels are replaced by addresses."""
    labels: dict[str, int] = {}
    lines: list[str] = []
    for line in text.splitlines():
        body = line.split(";", 1)[0].strip()
        if label := re.fullmatch(r"(\.L\w+):", body):
            labels[label[1]] = len(lines)
        elif body and not body.startswith("."):
            lines.append(body)
    named = re.compile(r"\.L\w+")
    return [
        (k, named.sub(lambda m: hex(labels.get(m[0], len(lines))), x)) for k, x in enumerate(lines)
    ]


def statistics(code: Sequence[Instruction], api: str) -> dict[str, Any]:
    """``tensor``: kind -> tensor-core instructions; ``loads`` from global memory by bits, and
    ``loop_loads``, those of them that lie inside a loop. "tile" counts those by descriptors.
    """
    jump, tensor = (
        (_NVIDIA_JUMP, r"\b(HGMMA|HMMA|DMMA|IMMA)\b")
        if api == "cuda"
        else (re.compile(r"\bs_c?branch\S*\s+0x([0-9a-f]+)"), r"\bv_(mfma)_")
    )
    loops = []
    kinds: dict[str, int] = {}
    loads: list[tuple[int, str]] = []
    for address, text in code:
        if found := jump.search(text):
            target = int(found[1], 16)
            if target < address:
                loops.append((target, address))
        elif width := _width(text, api):
            loads.append((address, width))
        elif kind := re.search(tensor, text):
            name = kind[1].upper()
            kinds[name] = kinds.get(name, 0) + 1
    inside = [w for at, w in loads if any(lo <= at <= hi for lo, hi in loops)]
    return {"tensor": kinds, "loads": _count(w for _, w in loads), "loop_loads": _count(inside)}


def _width(text: str, api: str) -> str:
    """Bits that a load from global memory brings to a thread; empty if it is none."""
    if api != "cuda":
        load = _AMD_LOAD.search(text)
        return _AMD_WIDTHS.get(load[1], "32") if load else ""
    load = _NVIDIA_LOAD.search(text)
    if load is None:
        return ""
    if load[0].startswith("UTMALDG"):
        return "tile"
    return next((n for n in ("128", "64") if f".{n}" in load[0]), "32")


def _count(widths: Iterable[str]) -> dict[str, int]:
    found = {"128": 0, "64": 0, "32": 0}
    for width in widths:
        found[width] = found.get(width, 0) + 1
    return found


def _code(image: bytes) -> bytes:
    """The section of an ELF file with the kernel's instructions."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(image[at : at + size], "little")

    table, count, names = number(40, 8), number(60, 2), number(62, 2)
    headers = [table + 64 * k for k in range(count)]
    strings = number(headers[names] + 24, 8)
    for header in headers:
        start = strings + number(header, 4)
        if image[start : start + 6] == b".text.":
            offset, size = number(header + 24, 8), number(header + 32, 8)
            return image[offset : offset + size]
    return b""
