"""The system's C compiler: finding it, calling it, and saying what went wrong."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ...errors import BuildError, UsageError
from .cpu import Cpu

__all__ = ["compiler", "compiler_version", "prelude", "shared_library"]

#: contraction to fused multiply-adds is meant; errno of the mathematics is never read. The
#: last two are for GCC 12, which takes functions that store for pure ones and drops their calls.
_FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno")
_GCC_FLAGS = ("-fno-ipa-pure-const", "-fno-ipa-modref", "-Wno-psabi")

_SECONDS = 600


def compiler() -> tuple[str, ...] | None:
    """The command of a C compiler: $CC, cc, gcc, clang, or zig's from the ziglang package."""
    given = os.environ.get("CC", "").strip()
    if given:
        words = tuple(shlex.split(given))
        if shutil.which(words[0]) is None:
            raise UsageError("the C compiler that CC names is not there", where="CC", got=given)
        return words
    for name in ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found is not None:
            return (found,)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc")
    return None


def shared_library(source: str, cpu: Cpu, *, extra: tuple[str, ...] = ()) -> bytes:
    """The shared library of a C source. Raises BuildError with what the compiler says."""
    command = compiler()
    if command is None:
        raise BuildError(
            "no C compiler found", expected="cc, gcc or clang, or $CC",
            hint="install one, or: pip install 'brickc[c]'; target numpy needs none",
        )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="brickc-cc-") as folder:
        text, library = Path(folder) / "model.c", Path(folder) / "libmodel.so"
        text.write_text(source, encoding="utf-8")
        gcc = _GCC_FLAGS if _is_gcc(command) else ()
        words = [*command, *_FLAGS, *gcc, *cpu.flags, *extra, "-shared", "-fPIC", "-o",
                 str(library), str(text), "-lm", "-lpthread"]  # fmt: skip
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=_SECONDS, check=False, cwd=folder
            )
        except subprocess.TimeoutExpired:
            raise BuildError("the C compiler does not end", got=f"{_SECONDS} s") from None
        except OSError as error:
            raise BuildError("the C compiler does not run", got=str(error)) from None
        if done.returncode != 0 or not library.is_file():
            said = "\n".join(done.stderr.strip().splitlines()[:8])
            raise BuildError(
                "the C compiler failed", where=command[0], got=said or f"exit {done.returncode}",
                hint="flags: " + " ".join(words[len(command) : -6]),
            )  # fmt: skip
        return library.read_bytes()


def prelude(cpu: Cpu) -> str:
    """What every generated program starts with."""
    text = (Path(__file__).parent / "prelude.h").read_text(encoding="utf-8")
    return f"#define L {cpu.lanes}\n{text}"


def compiler_version() -> str:
    """The first line of what the compiler says of itself; empty if there is none."""
    command = compiler()
    lines = _version(command).splitlines() if command else []
    return lines[0] if lines else ""


def _version(command: tuple[str, ...]) -> str:
    done = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout


def _is_gcc(command: tuple[str, ...]) -> bool:
    return "Free Software Foundation" in _version(command)
