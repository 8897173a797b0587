"""A loss that contains a gradient: the slope of the model in its input is trained, too.

The target is a noisy sine at 24 places; the penalty asks for the sine's slope there. The
compiled step differentiates the gradient once more, which central differences confirm.
"""

from __future__ import annotations

import numpy as np

import brickc as bc


def network(penalty: float) -> bc.Model:
    x, t = bc.input("x", (24, 1), "f64"), bc.input("t", (24, 1), "f64")
    slope = bc.input("slope", (24, 1), "f64")
    w1 = bc.parameter("w1", (16, 1), bc.gaussian(1.0), "f64")
    b1 = bc.parameter("b1", (16,), bc.gaussian(1.0), "f64")
    w2 = bc.parameter("w2", (1, 16), bc.gaussian(0.3), "f64")
    y = bc.linear(bc.tanh(bc.linear(x, w1) + b1), w2)
    (dy,) = bc.gradients(y, [x])  # the sum's gradient: each y depends on its own x alone
    assert dy is not None
    wrong = ((dy - slope) * (dy - slope)).mean()
    fit = ((y - t) * (y - t)).mean()
    return bc.Model({"y": y, "dy": dy}, fit + penalty * wrong, {"fit": fit, "wrong slope": wrong})


rng = np.random.default_rng(0)
x = np.linspace(-3.0, 3.0, 24)[:, None]
batch = {"x": x, "t": np.sin(x) + 0.2 * rng.standard_normal(x.shape), "slope": np.cos(x)}

# one step of plain descent moves a parameter by rate · gradient: that is the gradient
program = bc.compile(network(penalty=1.0), optimizer=bc.SGD(1.0))
before = program.state_dict()
program.train_step(**batch)
after = program.state_dict()
program.load_state_dict(before)
for name in ("w1", "b1", "w2"):
    gradient = before[name] - after[name]
    direction = rng.standard_normal(gradient.shape)
    losses = []
    for step in (1e-5, -1e-5):
        program.load_state_dict(before | {name: before[name] + step * direction})
        losses.append(float(program.evaluate(**batch)["loss"]))
    exact, measured = np.sum(gradient * direction), (losses[0] - losses[1]) / 2e-5
    print(f"{name}: gradient along a direction {exact:+.8f}, central difference {measured:+.8f}")
    assert abs(exact - measured) < 1e-6 * max(1.0, abs(exact))

for penalty in (0.0, 1.0):
    program = bc.compile(network(penalty), optimizer=bc.Adam(0.02))
    first = program.evaluate(**batch)
    for _ in range(400):
        program.train_step(**batch)
    last = program.evaluate(**batch)
    error = np.abs(program.infer(x=x)["y"] - np.sin(x)).max()
    slopes = f"wrong slope {first['wrong slope']:.3f} -> {last['wrong slope']:.4f}"
    print(f"penalty {penalty}: {slopes}, fit {last['fit']:.4f}, largest error {error:.3f}")
