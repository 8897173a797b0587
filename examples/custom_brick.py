"""A brick of one's own from a SymPy formula: its gradient and kernels are derived."""

from __future__ import annotations

import textwrap

import numpy as np
import sympy as sp

import brickc as bc

u = sp.Symbol("u", real=True)
mish = u * sp.tanh(sp.log(1 + sp.exp(u)))

x, t = bc.input("x", (8, 4)), bc.input("t", (8,), "i32", limit=3)
y = bc.Linear(3)(bc.elementwise(mish, bc.Linear(16)(x)))
program = bc.compile(bc.Model({"y": y}, bc.softmax_loss(y, t)), optimizer=bc.SGD(0.5))

rng = np.random.default_rng(0)
batch = {"x": rng.standard_normal((8, 4)).astype(np.float32), "t": rng.integers(0, 3, 8)}
losses = [float(program.train_step(**batch)["loss"]) for _ in range(50)]
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")

# the kernels of the training step in which the formula and its derivative were fused
step = program.source.partition("def bind_train_step")[2].partition("\n    def run")[2]
for kernel in step.partition("\n    return run")[0].split("\n\n"):
    if "np.tanh(" in kernel:
        print("\n" + textwrap.dedent(kernel))
