"""Kernels without optimization, under the address and undefined-behaviour sanitizers.

Every kernel runs while all memory but its own buffers is poisoned: one element too far, in the
arena too, ends the process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import brickc
from brickc.backends.c.build import compiler

PROGRAM = Path(__file__).parents[2] / "support" / "c_kernels.py"


def preload() -> str:
    """The sanitizer's runtime, which must be there before anything else."""
    command = compiler()
    if command is None:
        pytest.skip("no C compiler")
    found = subprocess.run(
        [*command, "-print-file-name=libasan.so"], capture_output=True, text=True, check=False
    ).stdout.strip()
    if not Path(found).is_file():
        pytest.skip("the C compiler has no address sanitizer to preload")
    return found


def sanitized(what: str) -> subprocess.CompletedProcess[str]:
    """Compile some kernels with the sanitizers and test them, in a process of its own."""
    environment = {
        **os.environ,
        "LD_PRELOAD": preload(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(Path(brickc.__file__).parents[1]),
    }
    return subprocess.run(
        [sys.executable, str(PROGRAM), "c:native,sanitize", what], env=environment,
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", ["f32", "network", "small batch"])
def test_kernels_stay_inside_their_buffers(what: str) -> None:
    done = sanitized(what)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"{what}: all kernels are right\n"


@pytest.mark.slow
def test_a_kernel_that_reads_too_far_is_caught() -> None:
    done = sanitized("wrong")
    assert done.returncode != 0
    assert "ERROR: AddressSanitizer" in done.stderr
    assert "READ of size" in done.stderr
