"""``bc.from_torch``: modes, shapes, losses, places, names, errors."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

import brickc as bc
from brickc.errors import ImportModelError, ShapeError, UnsupportedError, UsageError
from brickc.ir.bricks.normalization import BatchNorm
from brickc.ir.bricks.random import Dropout


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4 * 4 * 4, 3)

    def forward(self, x: Any) -> Any:
        return self.fc(self.drop(self.features(x)).flatten(1))


X = torch.linspace(-2, 2, 2 * 36).reshape(2, 1, 6, 6)


def bricks(model: bc.Model) -> set[str]:
    return {n.brick.mnemonic for n in model.graph().nodes()}


# ── modes ────────────────────────────────────────────────────────────────────────────────


def test_training_mode_is_respected() -> None:
    module = Net()
    model = bc.from_torch(module, (X,))
    assert {"dropout", "batch_norm"} <= bricks(model)
    assert module.training
    # inference is what torch does after eval()
    got = bc.compile(model).infer(x=X.numpy())["output"]
    np.testing.assert_allclose(got, module.eval()(X).detach(), rtol=1e-4, atol=1e-6)


def test_a_module_in_inference_mode_stays_frozen() -> None:
    model = bc.from_torch(Net().eval(), (X,), loss="softmax")
    assert not {"dropout", "batch_norm"} & bricks(model)
    assert not model.graph().updates


def test_one_submodule_may_be_frozen() -> None:
    module = Net()
    module.features[1].eval()
    kinds = bricks(bc.from_torch(module, (X,)))
    assert "dropout" in kinds
    assert "batch_norm" not in kinds


@pytest.mark.parametrize("train", [True, False])
def test_train_sets_the_mode_for_the_export_alone(train: bool) -> None:
    module = Net().train(not train)
    module.drop.train(train)
    before = [m.training for m in module.modules()]
    kinds = bricks(bc.from_torch(module, (X,), train=train))
    assert ({"dropout", "batch_norm"} <= kinds) is train
    assert [m.training for m in module.modules()] == before


def test_dropout_draws_in_training_and_keeps_its_rate() -> None:
    class Dropped(nn.Module):
        def forward(self, x: Any) -> Any:
            return F.dropout(x, 0.25, self.training)

    model = bc.from_torch(Dropped(), (torch.ones(100, 100),), loss=lambda y: (y * y).mean())
    (brick,) = (n.brick for n in model.graph().nodes() if isinstance(n.brick, Dropout))
    assert brick.rate == 0.25
    program = bc.compile(model)
    x = np.ones((100, 100), np.float32)
    np.testing.assert_array_equal(program.infer(x=x)["output"], x)
    # 3/4 of the elements are 4/3: the mean square is 4/3
    first, second = (float(program.train_step(x=x)["loss"]) for _ in range(2))
    assert first == pytest.approx(4 / 3, abs=0.05)
    assert first != second


def test_running_statistics_follow_the_batches() -> None:
    module = Net()
    module.drop.p = 0.0
    program = bc.compile(bc.from_torch(module, (X,), loss="softmax"), optimizer=bc.SGD(0.0))
    t = np.array([0, 2], np.int32)
    for _ in range(3):
        program.train_step(x=X.numpy(), t=t)
        module(X)
    ours = program.state_dict("torch")
    for key, value in module.state_dict().items():
        torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-5)
    assert int(ours["features.1.num_batches_tracked"]) == 3


def test_batch_norm_keeps_momentum_and_eps() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3, eps=1e-3, momentum=0.25))
    model = bc.from_torch(module, (torch.randn(4, 3),))
    (brick,) = (n.brick for n in model.graph().nodes() if isinstance(n.brick, BatchNorm))
    assert (brick.momentum, brick.eps) == (0.25, 1e-3)


# ── shapes ───────────────────────────────────────────────────────────────────────────────


def test_dynamic_shapes_become_named_dims() -> None:
    batch = torch.export.Dim("batch", min=1, max=32)
    module = Net().eval()
    model = bc.from_torch(module, (X,), dynamic_shapes=({0: batch},))
    (dim,) = model.inputs["x"].dims.values()
    assert (dim.name, dim.lo, dim.hi) == ("batch", 1, 32)
    program = bc.compile(model)
    for n in (1, 5, 32):
        x = torch.randn(n, 1, 6, 6)
        got = program.infer(x=x.numpy())["output"]
        np.testing.assert_allclose(got, module(x).detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match="range"):
        program.infer(x=np.zeros((33, 1, 6, 6), np.float32))


def test_dims_by_argument_name_and_without_an_end() -> None:
    class Two(nn.Module):
        def forward(self, a: Any, b: Any) -> Any:
            return a @ b

    n, m = torch.export.Dim("N"), torch.export.Dim("M", min=2, max=8)
    model = bc.from_torch(
        Two(), (torch.randn(3, 4), torch.randn(4, 5)), dynamic_shapes={"a": {0: n}, "b": {1: m}}
    )
    dims = model.inputs["a"].dims | model.inputs["b"].dims
    assert {d.name: d.hi for d in dims.values()} == {"N": 1024, "M": 8}
    assert str(model.graph().node(model.graph().outputs["output"]).type) == "f32[N,M]"


def test_sizes_are_computed_from_dims() -> None:
    class Sized(nn.Module):
        def forward(self, x: Any) -> Any:
            n = x.shape[0]
            y = torch.cat([x, x], 0).reshape(2 * n, -1)
            return y + torch.arange(2 * n).unsqueeze(1), x.mean(0)

    dims = ({0: torch.export.Dim("N", min=2, max=9)},)
    program = bc.compile(bc.from_torch(Sized(), (torch.randn(4, 3),), dynamic_shapes=dims))
    for n in (2, 7):
        x = torch.randn(n, 3)
        got = program.infer(x=x.numpy())
        for ours, theirs in zip(got.values(), Sized()(x), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


# ── outputs and losses ───────────────────────────────────────────────────────────────────


def test_outputs_are_named() -> None:
    class Many(nn.Module):
        def __init__(self, kind: str) -> None:
            super().__init__()
            self.kind = kind

        def forward(self, x: Any) -> Any:
            return {"zeta": x + 1, "alpha": x * 2} if self.kind == "dict" else (x + 1, [x * 2])

    named = bc.compile(bc.from_torch(Many("dict"), (torch.ones(2),)))
    assert {k: v.tolist() for k, v in named.infer(x=np.ones(2, np.float32)).items()} == {
        "zeta": [2, 2], "alpha": [2, 2],
    }  # fmt: skip
    assert bc.from_torch(Many("list"), (torch.ones(2),)).outputs == ("output0", "output1")


class WithLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Any, labels: Any) -> Any:
        y = self.fc(x)
        return {"logits": y, "error": F.cross_entropy(y, labels)}


def test_forward_may_return_the_loss() -> None:
    torch.manual_seed(0)
    module = WithLoss()
    x, labels = torch.randn(5, 4), torch.tensor([0, 2, 1, 1, 0])
    model = bc.from_torch(module, (x, labels), loss="error")
    assert (model.outputs, model.loss) == (("logits",), "loss")
    program = bc.compile(model, optimizer=bc.SGD(0.5))
    optimizer = torch.optim.SGD(module.parameters(), 0.5)
    for _ in range(3):
        error = module(x, labels)["error"]
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        got = program.train_step(x=x.numpy(), labels=labels.numpy())["loss"]
        assert float(got) == pytest.approx(error.item(), rel=1e-5)


@pytest.mark.parametrize("loss", ["square", "function"])
def test_losses(loss: str) -> None:
    def absolute(y: bc.Tensor) -> bc.Tensor:
        return bc.abs(y - bc.input("goal", y.shape)).mean()

    module = nn.Linear(4, 3)
    x, goal = torch.randn(6, 4), torch.randn(6, 3)
    model = bc.from_torch(module, (x,), loss=absolute if loss == "function" else "square")
    (key,) = set(model.inputs) - {"input"}
    got = bc.compile(model).train_step(input=x.numpy(), **{key: goal.numpy()})["loss"]
    gap = module(x) - goal
    expected = gap.abs().mean() if loss == "function" else gap.square().sum() / 12
    assert float(got) == pytest.approx(expected.item(), rel=1e-5)


def test_unknown_losses_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown loss"):
        bc.from_torch(nn.Linear(2, 2), (torch.ones(1, 2),), loss="hinge")
    with pytest.raises(UsageError, match="must return a tensor"):
        bc.from_torch(nn.Linear(2, 2), (torch.ones(1, 2),), loss=lambda y: 1.0)  # type: ignore[arg-type,return-value]


# ── places and names ─────────────────────────────────────────────────────────────────────


def test_nodes_know_their_line_and_module() -> None:
    start = inspect.getsourcelines(Net.forward)[1]
    origins = {n.brick.mnemonic: n.origin for n in bc.from_torch(Net(), (X,)).graph().nodes()}
    file = "test_from_torch.py"
    conv = origins["convolution"]
    assert (conv.file, conv.line, conv.layer) == (file, start + 1, "features.0")
    assert str(origins["contract"]) == f'{file}:{start + 1} "fc"'


def test_parameters_keep_their_names_and_values() -> None:
    module = Net()
    model = bc.from_torch(module, (X,))
    assert set(model.parameters) == {n for n, _ in module.named_parameters()}
    program = bc.compile(model)
    for key, value in module.state_dict().items():
        torch.testing.assert_close(program.state_dict("torch")[key], value)


def test_tied_weights_are_one_parameter() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: Any) -> Any:
            return self.head(self.embed(tokens))

    model = bc.from_torch(Tied(), (torch.tensor([1, 2]),))
    assert set(model.parameters) == {"embed.weight"}
    assert model.label_limit("tokens") == 7
    Tied().load_state_dict(bc.compile(model).state_dict("torch"))


def test_what_no_function_needs_goes_back_too() -> None:
    class Spare(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.unused = nn.Parameter(torch.tensor([4.0]))
            self.register_buffer("count", torch.tensor(3))
            self.register_buffer("scratch", torch.ones(2), persistent=False)

        def forward(self, x: Any) -> Any:
            return super().forward(x) * self.scratch

    module = Spare()
    state = bc.compile(bc.from_torch(module, (torch.ones(1, 2),))).state_dict("torch")
    assert set(state) == set(module.state_dict())
    module.load_state_dict(state)
    assert module.unused.item() == 4.0
    assert int(module.count) == 3


def test_state_dict_of_a_model_from_elsewhere() -> None:
    program = bc.compile(bc.zoo.model("mlp"))
    state = program.state_dict("torch")
    assert set(state) == set(program.parameters())
    with pytest.raises(UsageError, match="unknown framework"):
        program.state_dict("jax")


# ── errors ───────────────────────────────────────────────────────────────────────────────


def test_unsupported_operators_are_listed_with_their_places() -> None:
    class Odd(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.linalg.qr(x)[0] + torch.special.i0(x)

    line = inspect.getsourcelines(Odd.forward)[1] + 1
    with pytest.raises(UnsupportedError) as caught:
        bc.from_torch(Odd(), (torch.eye(3),))
    assert f"test_from_torch.py:{line}: aten.linalg_qr.default" in str(caught.value)
    assert "aten.i0.default" in str(caught.value)


def test_what_torch_cannot_export() -> None:
    class Branches(nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    with pytest.raises(ImportModelError, match=r"torch\.export failed"):
        bc.from_torch(Branches(), (torch.ones(2),))


def test_what_is_no_module() -> None:
    with pytest.raises(UsageError, match=r"torch\.nn\.Module"):
        bc.from_torch(lambda x: x, (torch.ones(2),))  # type: ignore[arg-type]


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match=r"brickc\[torch\]"):
        bc.from_torch(nn.Linear(1, 1), (1,))


def test_half_the_types_are_missing() -> None:
    with pytest.raises(UnsupportedError, match="bfloat16"):
        bc.from_torch(nn.Linear(2, 2).bfloat16(), (torch.ones(1, 2, dtype=torch.bfloat16),))
