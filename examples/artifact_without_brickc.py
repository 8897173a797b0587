"""Save an artifact, then train it in a process that can import nothing but NumPy.

The process runs with ``-I`` (no paths from outside), and a finder ahead of all others refuses
every package that is neither NumPy nor Python's own: ``import brickc`` fails there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import brickc as bc

RUN = """
import sys

class OnlyNumPy:
    def find_spec(self, name, path=None, target=None):
        package = name.partition(".")[0]
        if package not in {"numpy", "model"} and package not in sys.stdlib_module_names:
            raise ImportError(f"{name} is not to be had here", name=name)

sys.meta_path.insert(0, OnlyNumPy())
try:
    import brickc
except ImportError as error:
    print("import brickc:", error)
else:
    raise SystemExit("brickc was imported")

sys.path.insert(0, sys.argv[1])
import model, numpy as np

program = model.load()
print(model.describe())
rng = np.random.default_rng(0)
x, t = rng.standard_normal((8, 784)).astype("f4"), rng.integers(0, 10, 8).astype("i4")
losses = [float(program.train_step(x=x, t=t)["loss"]) for _ in range(20)]
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
print("labels learnt:", int((program.infer(x=x)["logits"].argmax(1) == t).sum()), "of 8")
print("brickc loaded:", "brickc" in sys.modules)
"""

with tempfile.TemporaryDirectory() as folder:
    artifact = Path(folder) / "mlp"
    bc.compile(bc.zoo.model("mlp"), optimizer=bc.SGD(0.05)).save(artifact)
    done = subprocess.run([sys.executable, "-I", "-c", RUN, str(artifact)], check=False)
    sys.exit(done.returncode)
