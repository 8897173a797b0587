"""What may follow ``c:`` in a target's name."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UnsupportedError
from .cpu import CPUS, Cpu, chosen

__all__ = ["RACES", "SANITIZE", "Options", "parse"]

#: how sanitized libraries are built: every address is checked, nothing is optimized away
SANITIZE = ("-O0", "-g1", "-DUNOPTIMIZED", "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")  # fmt: skip

#: the same for races: UNOPTIMIZED leaves out instructions that sanitizers do not see
RACES = ("-O1", "-g1", "-DUNOPTIMIZED", "-fsanitize=thread")

#: word after the comma -> flags of the compiler
_SANITIZERS = {"sanitize": SANITIZE, "sanitize=thread": RACES}
_FLAGS = (*_SANITIZERS, "untested", "source")


@dataclass(frozen=True)
class Options:
    """An instruction set, and how the library is built."""

    cpu: Cpu
    #: "sanitize": with the address and undefined-behaviour sanitizers; a process must preload
    #: libasan. "sanitize=thread": with the thread sanitizer, and libtsan
    sanitize: str = ""
    #: kernels are compared with their definitions once the library is built
    tested: bool = True
    #: there is a library; without one a program can be looked at and emitted as source
    built: bool = True

    @property
    def flags(self) -> tuple[str, ...]:
        return _SANITIZERS[self.sanitize] if self.sanitize else ()


def parse(text: str) -> Options:
    """``""``, ``"x86-64-v3"``, ``"portable,sanitize"`` … Raises UnsupportedError."""
    words = [w for w in text.split(",") if w]
    flags = [w for w in words if w in _FLAGS]
    names = [w for w in words if w not in _FLAGS]
    sanitizers = [w for w in flags if w in _SANITIZERS]
    if len(names) > 1 or len(sanitizers) > 1:
        raise UnsupportedError(
            "unknown options of target c", got=f"c:{text}",
            expected=f"one of native, {', '.join(CPUS)}; with {' or '.join(_FLAGS)} after a comma",
        )  # fmt: skip
    return Options(
        chosen(names[0] if names else ""), "".join(sanitizers), "untested" not in flags,
        "source" not in flags,
    )  # fmt: skip
