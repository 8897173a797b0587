"""LeNet-5 as C source, built with the system's compiler and trained without Python.

python examples/lenet5_in_c/build.py [FOLDER]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import brickc as bc
from brickc.frontends import zoo
from brickc.runtime.data import digits

HERE = Path(__file__).parent


def main(folder: Path, epochs: int = 12, extra: tuple[str, ...] = ()) -> str:
    """Emit, build and run in ``folder``; what the C program prints."""
    model = zoo.model("lenet5")
    program = bc.compile(model, "c:portable", optimizer=bc.SGD(0.05, momentum=0.9))
    for path in program.emit_source(folder):
        print(path)
    data = digits().fit_to([1, 32, 32])
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(data.train))
    with (folder / "digits.bin").open("wb") as file:
        for split, numbers in ((data.train, order), (data.held_out, range(297))):
            for k in numbers:
                file.write(np.asarray(split.x[k], np.float32).tobytes())
                file.write(np.int32(split.t[k]).tobytes())
    shutil.copy(HERE / "main.c", folder)
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise SystemExit("no C compiler")
    flags = ["-O3", "-ffp-contract=fast", "-fno-math-errno", *extra]
    subprocess.run(
        [compiler, *flags, "model.c", "main.c", "-o", "lenet5", "-lm", "-lpthread"],
        cwd=folder, check=True,
    )  # fmt: skip
    done = subprocess.run(
        ["./lenet5", str(epochs)], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(main(Path(sys.argv[1])), end="")
    else:
        with tempfile.TemporaryDirectory() as name:
            print(main(Path(name)), end="")
