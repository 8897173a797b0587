"""LeNet-5 on scikit-learn's digits, by the Python API alone."""

from __future__ import annotations

import brickc as bc
from brickc.runtime.trainer import Trainer
from brickc.training import ModelData

model = bc.zoo.model("lenet5")
program = bc.compile(model, optimizer=bc.SGD(0.05, momentum=0.9))
data = ModelData.of(model, bc.data.load("digits"), size=64, seed=0)
for epoch in Trainer(program, data).run(3):
    held = epoch.held_out
    print(f"epoch {epoch.number + 1}: loss {epoch.loss:.3f}, accuracy {held['accuracy']:.3f}")
