"""Kernels without optimization, under the address, undefined-behaviour and thread sanitizers.

Every kernel runs while all memory but its own buffers is poisoned: one element too far, in the
arena too, ends the process. Whole training steps run on two threads: one read of what another
thread writes, with nothing between them that orders the two, ends the process with a report.
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


def preload(name: str) -> str:
    """A sanitizer's runtime, which must be there before anything else."""
    command = compiler()
    if command is None:
        pytest.skip("no C compiler")
    found = subprocess.run(
        [*command, f"-print-file-name={name}"], capture_output=True, text=True, check=False
    ).stdout.strip()
    if not Path(found).is_file():
        pytest.skip(f"the C compiler has no {name} to preload")
    return found


def sanitized(
    what: str, option: str = "sanitize", runtime: str = "libasan.so"
) -> subprocess.CompletedProcess[str]:
    """Compile some kernels with the sanitizers and run them, in a process of its own."""
    environment = {
        **os.environ,
        "LD_PRELOAD": preload(runtime),
        "TSAN_OPTIONS": "exitcode=66",
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(Path(brickc.__file__).parents[1]),
    }
    return subprocess.run(
        [sys.executable, str(PROGRAM), f"c:native,{option}", what], env=environment,
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


@pytest.mark.slow
@pytest.mark.parametrize("network", ["mlp", "lenet5"])
def test_threads_do_not_race(network: str) -> None:
    done = sanitized(network, "sanitize=thread", "libtsan.so")
    assert "WARNING: ThreadSanitizer" not in done.stderr, done.stderr[:3000]
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"{network}: all kernels are right\n"


@pytest.mark.slow
def test_threads_that_do_not_wait_are_caught() -> None:
    done = sanitized("race", "sanitize=thread", "libtsan.so")
    assert done.returncode == 66, done.stderr[-3000:]
    assert "WARNING: ThreadSanitizer: data race" in done.stderr
