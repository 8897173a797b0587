"""Save an artifact, then run it in a process that only has NumPy."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import brickc as bc

RUN = """
import sys; sys.path.insert(0, sys.argv[1])
import model, numpy as np
p = model.load()
print(model.describe())
print("logits", p.infer(x=np.zeros((2, 784), "f4"))["logits"].shape, "brickc" in sys.modules)
"""

with tempfile.TemporaryDirectory() as folder:
    artifact = Path(folder) / "mlp"
    bc.compile(bc.zoo.model("mlp")).save(artifact)
    subprocess.run([sys.executable, "-I", "-c", RUN, str(artifact)], check=True)
