"""Modules beside torch: outputs, loss, all gradients, one SGD step, weights back."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch_modules import MODULES

import brickc as bc

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def made(name: str, dtype: Any) -> tuple[Any, Any]:
    """The module and an input. Its dropouts draw nothing, so that torch's steps are comparable."""
    torch.manual_seed(5)
    kind, shape, tokens = MODULES[name]
    module = kind().to(dtype)
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    x = torch.randint(0, tokens, shape) if tokens else torch.randn(shape, dtype=dtype)
    return module, x


def labels_for(y: Any) -> Any:
    return torch.randint(0, y.shape[1], (y.shape[0], *y.shape[2:]))


def error(ours: Any, theirs: Any) -> float:
    """The largest difference relative to the largest element."""
    theirs = np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / max(float(np.abs(theirs).max()), 1e-30))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("name", MODULES)
def test_agrees_with_torch(name: str, dtype: Any) -> None:
    module, x = made(name, dtype)
    # in float32 with a batch of any size
    batch = torch.export.Dim("N", min=1, max=32)
    dynamic = ({0: batch},) if dtype is torch.float32 else None
    model = bc.from_torch(module, (x,), loss="softmax", name=name, dynamic_shapes=dynamic)
    theirs = copy.deepcopy(module)
    theirs.eval()
    with torch.no_grad():
        expected = theirs(x)
    t = labels_for(expected)
    program = bc.compile(model, optimizer=bc.SGD(1.0))
    (key,) = [n for n in model.inputs if n != "t"]
    inputs = {key: x.numpy()}
    tolerance = TOLERANCE[dtype]
    assert error(program.infer(**inputs)["output"], expected) < tolerance

    theirs.train()
    loss = torch.nn.functional.cross_entropy(theirs(x), t)
    loss.backward()
    before = program.state_dict()
    found = program.train_step(**inputs, t=t.numpy().astype(np.int32))["loss"]
    assert abs(float(found) - loss.item()) < tolerance * abs(loss.item())
    after = program.state_dict()
    gradients = {n: p.grad.numpy() for n, p in theirs.named_parameters()}
    assert set(gradients) == set(model.parameters)
    largest = max(float(np.abs(g).max()) for g in gradients.values())
    eps = float(torch.finfo(dtype).eps)
    for parameter, gradient in gradients.items():
        # with a learning rate of 1 the step is the gradient, less what rounding the sum loses
        off = np.abs((before[parameter] - after[parameter]) - gradient).max()
        off = max(0.0, float(off) - 4 * eps * float(np.abs(before[parameter]).max()))
        assert off < tolerance * max(float(np.abs(gradient).max()), 1e-3 * largest), parameter

    # one step by torch's own optimizer, running statistics included
    torch.optim.SGD(theirs.parameters(), lr=1.0).step()
    module.load_state_dict(program.state_dict("torch"))
    for key, value in theirs.state_dict().items():
        assert error(module.state_dict()[key].numpy(), value.numpy()) < 10 * tolerance, key
