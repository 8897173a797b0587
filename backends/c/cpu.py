"""Instruction sets that C can be compiled for, and what this machine has."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from ...errors import UnsupportedError

__all__ = ["CPUS", "Cpu", "abilities", "chosen", "is_foreign", "lacking"]


@dataclass(frozen=True)
class Cpu:
    """An instruction set: lanes of a vector of 32-bit numbers, vector registers, flags."""

    name: str
    lanes: int
    registers: int
    flags: tuple[str, ...]
    #: names in the processor's list of abilities that the code needs
    needs: tuple[str, ...]
    machine: str = "x86_64"


_V3 = ("avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")

#: option of the target -> instruction set; "portable" is whatever the compiler's default is
CPUS: dict[str, Cpu] = {
    "x86-64-v2": Cpu("x86-64-v2", 4, 16, ("-march=x86-64-v2",), ("sse4_2", "ssse3", "popcnt")),
    "x86-64-v3": Cpu("x86-64-v3", 8, 16, ("-march=x86-64-v3",), _V3),
    "x86-64-v4": Cpu("x86-64-v4", 16, 32, ("-march=x86-64-v4", "-mprefer-vector-width=512"), _V4),
    "aarch64": Cpu("aarch64", 4, 32, ("-march=armv8-a",), ("asimd",), "aarch64"),
    "portable": Cpu("portable", 4, 16, (), (), ""),
}


def chosen(option: str) -> Cpu:
    """The instruction set of an option; "" and "native" are the best that this machine has.

    Raises UnsupportedError with the options there are.
    """
    if option in ("", "native"):
        return _native()
    if option not in CPUS:
        raise UnsupportedError(
            "unknown processor", got=option, expected=", ".join(("native", *CPUS))
        )
    return CPUS[option]


def _native() -> Cpu:
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return CPUS["aarch64"]
    have = abilities()
    for name in ("x86-64-v4", "x86-64-v3", "x86-64-v2"):
        cpu = CPUS[name]
        if cpu.machine == machine and have.issuperset(cpu.needs):
            return cpu
    return CPUS["portable"]


def processor() -> str:
    """What this machine's processor is called, and which revision it is of."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor() or platform.machine()
    wanted = ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part")
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in wanted:
            found.setdefault(key.strip(), value.strip())
    return ", ".join(f"{k} {v}" for k, v in found.items()) or platform.machine()


def abilities() -> frozenset[str]:
    """The processor's abilities in the names of /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return frozenset()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def is_foreign(cpu: Cpu) -> bool:
    """True if another kind of machine is meant than this one."""
    machine = platform.machine().lower().replace("arm64", "aarch64").replace("amd64", "x86_64")
    return cpu.machine not in ("", machine)


def lacking(cpu: Cpu) -> str:
    """Why code for an instruction set cannot run on this machine; empty if it can."""
    if is_foreign(cpu):
        return f"{cpu.name} is no {platform.machine()}"
    missing = sorted(set(cpu.needs) - abilities())
    return f"this processor has no {', '.join(missing)}" if missing else ""
