"""Every example runs and prints what it is there to show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))

#: what the output must contain
SHOWN = {
    "artifact_without_brickc": ["import brickc: brickc is not to be had here",
                                "brickc loaded: False"],
    "custom_brick": ["np.tanh(map_2, out=map_2)", "grad of"],
    "gradient_of_gradient": ["central difference", "penalty 1.0"],
}  # fmt: skip


@pytest.mark.parametrize("path", EXAMPLES, ids=[p.stem for p in EXAMPLES])
def test_example(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    for text in SHOWN.get(path.stem, []):
        assert text in done.stdout
