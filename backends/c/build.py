"""The system's C compiler: finding it, calling it, and saying what went wrong."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from ...errors import BuildError, UsageError
from .cpu import Cpu, is_foreign

__all__ = ["compiler", "compiler_flags", "compiler_version", "cross_compiler", "prelude",
           "shared_library"]  # fmt: skip

#: Loops are unrolled and turned into vectors by the strategies: -O3 takes longer to compile, and
#: its programs as long to run. Contraction to fused multiply-adds is meant; errno of the
#: mathematics is never read.
_FLAGS = ("-std=gnu11", "-O2", "-ffp-contract=fast", "-fno-math-errno")
#: The first two are for GCC 12, which takes functions that store for pure ones and drops their
#: calls. What is left of loops over single elements is short.
_GCC_FLAGS = ("-fno-ipa-pure-const", "-fno-ipa-modref", "-fno-tree-loop-vectorize", "-Wno-psabi")

#: zig takes a minus in a processor's name for a feature that is left out
_ZIG_FLAGS = {
    "-march=x86-64-v2": "-march=x86_64_v2",
    "-march=x86-64-v3": "-march=x86_64_v3",
    "-march=x86-64-v4": "-march=x86_64_v4",
    "-march=armv8-a": "-mcpu=generic",
}

_SECONDS = 600


def compiler() -> tuple[str, ...] | None:
    """The command of a C compiler: $CC, cc, gcc, clang, or zig's from the ziglang package.

    None if there is none. Raises UsageError if CC names one that is not there.
    """
    given = os.environ.get("CC", "").strip()
    if given:
        try:
            words = tuple(shlex.split(given))
        except ValueError as error:
            raise UsageError("CC is no command", where="CC", got=f"{given}: {error}") from None
        if shutil.which(words[0]) is None:
            raise UsageError(
                "the C compiler that CC names is not there", where="CC", got=given,
                expected="a program that can be run", hint="without CC, cc, gcc or clang is taken",
            )  # fmt: skip
        return words
    for name in ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found is not None:
            return (found,)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc")
    return None


def cross_compiler(cpu: Cpu) -> tuple[str, ...] | None:
    """A compiler's command for another kind of machine: $CC, GCC's cross compiler, or zig's."""
    if os.environ.get("CC", "").strip():
        return compiler()
    found = shutil.which(f"{cpu.machine}-linux-gnu-gcc")
    if found is not None:
        return (found,)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc", "-target", f"{cpu.machine}-linux-gnu")
    return None


def shared_library(units: Sequence[str], cpu: Cpu, *, extra: tuple[str, ...] = ()) -> bytes:
    """The shared library of C sources, which are compiled side by side.

    Raises BuildError with what the compiler says.
    """
    command = cross_compiler(cpu) if is_foreign(cpu) else compiler()
    if command is None and is_foreign(cpu):
        raise BuildError(
            f"no C compiler for {cpu.machine} found",
            expected=f"{cpu.machine}-linux-gnu-gcc, or $CC",
            hint="install one, or: pip install 'brickc[c]'; --emit source needs none",
        )
    if command is None:
        raise BuildError(
            "no C compiler found", expected="cc, gcc or clang, or $CC",
            hint="install one, or: pip install 'brickc[c]'; target numpy needs none",
        )  # fmt: skip
    flags = (*compiler_flags(command, cpu), *extra)
    try:
        with tempfile.TemporaryDirectory(prefix="brickc-cc-") as name:
            return _built(command, flags, units, Path(name))
    except OSError as error:
        raise BuildError(
            "the C compiler's files cannot be written", where=str(error.filename or ""),
            got=error.strerror, hint="TMPDIR names another folder",
        ) from None  # fmt: skip


def _built(
    command: tuple[str, ...], flags: tuple[str, ...], units: Sequence[str], folder: Path
) -> bytes:
    """The library of the units, which are written to a folder. Raises BuildError, OSError."""
    library = folder / "libmodel.so"
    texts = []
    for number, unit in enumerate(units):
        texts.append(folder / (f"model{number}.c" if len(units) > 1 else "model.c"))
        texts[-1].write_text(unit, encoding="utf-8")
    inputs = texts
    if len(texts) > 1:
        inputs = [path.with_suffix(".o") for path in texts]
        with ThreadPoolExecutor(_cores()) as pool:
            jobs = [
                pool.submit(_run, command, flags, ["-c", "-o", str(o), str(c)], folder)
                for c, o in zip(texts, inputs, strict=True)
            ]
            try:
                for job in jobs:
                    job.result()
            except BuildError:
                pool.shutdown(cancel_futures=True)
                raise
    out = ["-shared", "-o", str(library), *map(str, inputs), "-lm", "-lpthread"]
    _run(command, flags, out, folder)
    return library.read_bytes()


def compiler_flags(command: tuple[str, ...], cpu: Cpu) -> tuple[str, ...]:
    """What a compiler is told for an instruction set."""
    gcc = _GCC_FLAGS if _is_gcc(command) else ()
    own = cpu.flags
    if any(Path(word).stem in ("zig", "ziglang") for word in command):
        own = tuple(_ZIG_FLAGS.get(flag, flag) for flag in own)
    return (*_FLAGS, *gcc, *own, "-fPIC")


def _run(command: tuple[str, ...], flags: tuple[str, ...], more: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            [*command, *flags, *more], capture_output=True, text=True, errors="replace",
            timeout=_SECONDS, check=False, cwd=folder,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BuildError("the C compiler does not end", where=command[0],
                         got=f"{_SECONDS} s") from None  # fmt: skip
    except OSError as error:
        raise BuildError("the C compiler does not run", where=command[0],
                         got=error.strerror) from None  # fmt: skip
    output = Path(more[more.index("-o") + 1])
    if done.returncode != 0 or not output.is_file():
        said = "\n".join(done.stderr.strip().splitlines()[:8])
        raise BuildError(
            "the C compiler failed", where=command[0],
            got=_ended(done.returncode, output.name) + (f": {said}" if said else ""),
            expected="a library", hint="CC names another compiler; flags: " + " ".join(flags),
        )  # fmt: skip


def _ended(code: int, output: str) -> str:
    """How a compiler ended that made nothing."""
    if code == 0:
        return f"exit 0, but no {output}"
    if code > 0:
        return f"exit {code}"
    try:
        return f"a crash ({signal.Signals(-code).name})"
    except ValueError:
        return f"a crash (signal {-code})"


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def prelude(cpu: Cpu) -> str:
    """What every generated program starts with.

    Its text is one file over 500 lines, since ``model.c`` is one file, too.
    """
    text = (Path(__file__).parent / "prelude.h").read_text(encoding="utf-8")
    return f"#define L {cpu.lanes}\n{text}"


def compiler_version() -> str:
    """The first line of what the compiler says of itself; empty if there is none."""
    command = compiler()
    lines = _version(command).splitlines() if command else []
    return lines[0] if lines else ""


@lru_cache(maxsize=8)
def _version(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, errors="replace",
            timeout=60, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BuildError("the C compiler does not say its version", where=command[0],
                         got="nothing in 60 s") from None  # fmt: skip
    except OSError as error:
        raise BuildError("the C compiler does not run", where=command[0],
                         got=error.strerror) from None  # fmt: skip
    return done.stdout


def _is_gcc(command: tuple[str, ...]) -> bool:
    return "Free Software Foundation" in _version(command)
