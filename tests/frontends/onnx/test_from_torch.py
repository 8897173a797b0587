"""ONNX files that torch wrote: the same outputs, and training from there on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import brickc as bc
from brickc.runtime.trainer import Trainer
from brickc.training import ModelData


class Net(nn.Module):
    """LeNet for the digits of 8 by 8, with what inference leaves out: dropout, batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.drop = nn.Dropout(0.2)
        self.fc1 = nn.Linear(128, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(torch.relu(self.norm(self.conv1(x))), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = self.drop(torch.relu(self.fc1(x.view(x.shape[0], -1))))
        return self.fc2(x)


def exported(net: nn.Module, x: torch.Tensor, path: Path, *, dynamo: bool) -> Path:
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["logits"]}
    if dynamo:
        dims = {"x": {0: torch.export.Dim("batch", min=1, max=512)}}
        torch.onnx.export(net, (x,), path, dynamo=True, verbose=False, dynamic_shapes=dims, **names)
    else:
        axes = {"x": {0: "batch"}}
        torch.onnx.export(net, (x,), path, dynamo=False, dynamic_axes=axes, **names)
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
@pytest.mark.parametrize("dynamo", [False, True])
def test_trains_on_digits(dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net().eval()
    x = torch.randn(3, 1, 8, 8)
    path = exported(net, x, tmp_path / "net.onnx", dynamo=dynamo)
    model = bc.with_loss(bc.from_onnx(path), "softmax", output="logits")
    assert str(model.inputs["x"]) == "f32[batch,1,8,8]"
    assert {"conv2.weight", "fc1.weight", "fc2.bias"} <= set(model.parameters)
    program = bc.compile(model, optimizer=bc.SGD(0.05, momentum=0.9))
    with torch.no_grad():
        want = net(x).numpy()
    np.testing.assert_allclose(program.infer(x=x.numpy())["logits"], want, rtol=1e-4, atol=1e-5)
    source = ModelData.of(model, bc.data.load("digits"), 32, seed=0)
    history = Trainer(program, source).run(12)
    assert history[-1].held_out["accuracy"] >= 0.97


class Block(nn.Module):
    """A transformer's block: attention with a causal mask, layer norms, a GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, c))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(12, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.lstm(x)
        y, _ = self.gru(y)
        return y[:, -1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("net", "shape"), [(Block, (2, 7, 16)), (Recurrent, (3, 4, 5))], ids=["block", "recurrent"]
)
def test_outputs_and_gradients(
    net: type[nn.Module], shape: tuple[int, ...], tmp_path: Path
) -> None:
    """One training step moves every parameter as torch's gradient says."""
    torch.manual_seed(1)
    module = net().eval()
    with torch.no_grad():  # the exporter makes one initializer of equal ones
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    x = torch.randn(shape)
    path = exported(module, x, tmp_path / "net.onnx", dynamo=False)
    model = bc.with_loss(bc.from_onnx(path, shapes={"x": ("N", *shape[1:])}), "square")
    program = bc.compile(model, optimizer=bc.SGD(1.0))
    y = module(x)
    np.testing.assert_allclose(
        program.infer(x=x.numpy())["logits"], y.detach().numpy(), rtol=1e-4, atol=1e-5
    )
    target = torch.randn(y.shape)
    (((y - target) ** 2).sum() / (2 * shape[0])).backward()
    before = program.state_dict()
    program.train_step(x=x.numpy(), target=target.numpy())
    after = program.state_dict()
    moved = {n: before[n] - after[n] for n in model.parameters}
    # the exporter turns some matrices round and renames them: compare what is in them
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        gradient = parameter.grad.numpy()
        if name in moved and moved[name].shape == gradient.shape:
            np.testing.assert_allclose(moved[name], gradient, rtol=1e-3, atol=1e-5, err_msg=name)
    size = sum(float(p.grad.square().sum()) for p in module.parameters() if p.grad is not None)
    assert sum(float((m**2).sum()) for m in moved.values()) == pytest.approx(size, rel=1e-3)
