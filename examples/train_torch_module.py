"""A PyTorch module, trained by brickc, evaluated by torch: weights go there and back."""

from __future__ import annotations

import sys

import brickc as bc
from brickc.runtime.trainer import Trainer
from brickc.training import ModelData

try:
    import torch
    from torch import nn
except ImportError:
    print("this example needs PyTorch: pip install 'brickc[torch]'")
    sys.exit()

torch.manual_seed(0)
module = nn.Sequential(
    nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Dropout(0.2), nn.Linear(32 * 4 * 4, 10),
)  # fmt: skip

digits = bc.data.load("digits").fit_to((1, 32, 32))
batch = torch.export.Dim("N", min=1, max=512)
example = torch.zeros(2, 1, 32, 32)
model = bc.from_torch(
    module, (example,), dynamic_shapes=({0: batch},), loss="softmax", name="digits"
)
print(model.summary())

program = bc.compile(model, optimizer=bc.SGD(0.05, momentum=0.9))
for epoch in Trainer(program, ModelData.of(model, digits, size=64, seed=0)).run(3):
    held = epoch.held_out
    print(f"epoch {epoch.number + 1}: loss {epoch.loss:.3f}, accuracy {held['accuracy']:.3f}")

module.load_state_dict(program.state_dict("torch"))
module.eval()
with torch.no_grad():
    right = module(torch.from_numpy(digits.held_out.x)).argmax(1).numpy() == digits.held_out.t
print(f"by torch, with these weights: accuracy {right.mean():.3f}")
