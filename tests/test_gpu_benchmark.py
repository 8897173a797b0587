"""benchmarks/gpu.py: its whole path without a GPU, and what it says where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu.py"


def run(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    if path is not None:
        environment["PATH"] = path
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_without_a_gpu_it_says_so_in_one_line() -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU")
    done = run()
    assert done.returncode == 1
    assert not done.stdout
    assert len(done.stderr.strip().splitlines()) == 1
    assert "numpy and c" in done.stderr


def test_whole_path_on_the_cpu(tmp_path: Path) -> None:
    """brickc's interpreted step agrees with float64 and with torch's first loss."""
    results = tmp_path / "gpu.json"
    done = run(
        "--device", "cpu", "--checks", "mlp:2", "--precisions", "bf16", "--cases", "mlp:2",
        "--seconds", "0", "--peers", "brickc-f32,brickc-f32-launches-x2,torch-eager,jax",
        "--json", str(results), "--budget", "1500", "--sanitized", "",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(results.read_text())
    assert [c["passed"] for c in found["checks"]] == [True]
    ours, two, torch = (r for r in found["results"] if r["peer"] != "jax")
    assert two["steps"] == 2
    assert two["launches"] > 20
    assert two["loss"] == pytest.approx(ours["loss"], rel=1e-6)
    assert ours["launches"] == 1  # the MLP is one kernel
    assert ours["median_s"] > 0
    assert torch["median_s"] > 0
    assert ours["loss"] == pytest.approx(torch["loss"], rel=1e-4)
    (jax,) = (r for r in found["results"] if r["peer"] == "jax")
    assert "median_s" in jax or "jax" in jax["error"]
    assert "not measured" in done.stdout


#: compute-sanitizer, as far as the script uses it
STAND_IN = """#!/bin/sh
while [ "$1" != --log-file ]; do echo "$1" >> "{seen}"; shift; done
log=$2; shift 2
"$@" || exit
echo "========= ERROR SUMMARY: {errors} errors" > "$log"
test {errors} = 0 || exit 86
"""


@pytest.mark.parametrize("errors", [0, 3])
def test_a_check_under_the_sanitizer(errors: int, tmp_path: Path) -> None:
    tool, seen, results = (tmp_path / n for n in ("compute-sanitizer", "seen", "gpu.json"))
    tool.write_text(STAND_IN.format(seen=seen, errors=errors))
    tool.chmod(0o755)
    done = run("--device", "cpu", "--check-only", "--checks", "", "--sanitized", "mlp:2",
               "--budget", "1500", "--json", str(results),
               path=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")  # fmt: skip
    assert seen.read_text().split() == ["--tool", "memcheck", "--error-exitcode", "86"]
    (checked,) = json.loads(results.read_text())["checks"]
    assert checked["precision"] == "f32, memcheck"
    if errors:
        assert done.returncode != 0
        assert checked["error"] == "ERROR SUMMARY: 3 errors"
    else:
        assert done.returncode == 0, done.stderr
        assert checked["passed"]


def test_no_sanitizer_is_said(tmp_path: Path) -> None:
    results = tmp_path / "gpu.json"
    done = run("--device", "cpu", "--check-only", "--checks", "", "--sanitized", "mlp:2,lenet5:2",
               "--json", str(results), path=str(tmp_path))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| not done: no compute-sanitizer on this machine |") == 2
