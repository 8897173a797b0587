"""An ONNX file from PyTorch, given a loss and an optimizer, trained on the bundled digits.

Needs the extras onnx and torch. Run: python examples/train_onnx.py
"""

import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

import brickc as bc
from brickc.runtime.trainer import Trainer
from brickc.training import ModelData

net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(128, 10),
)  # fmt: skip

with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the exporter's own
    path = Path(folder) / "net.onnx"
    torch.onnx.export(
        net, (torch.zeros(1, 1, 8, 8),), path, dynamo=False, input_names=["x"],
        output_names=["logits"], dynamic_axes={"x": {0: "N"}},
    )  # fmt: skip
    model = bc.with_loss(bc.from_onnx(path), "softmax", output="logits")

program = bc.compile(model, optimizer=bc.SGD(0.05, momentum=0.9))
source = ModelData.of(model, bc.data.load("digits"), 32, seed=0)
for epoch in Trainer(program, source).run(10):
    print(f"{epoch.number + 1:2}  loss {epoch.loss:.4f}  held out {epoch.held_out['accuracy']:.4f}")
