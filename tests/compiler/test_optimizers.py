"""Every optimizer against torch.optim over several steps in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from graph_tools import Net, initial, step

from brickc.compiler.differentiate import differentiate, with_gradients
from brickc.compiler.optimize.join_optimizer import join_gradients, join_optimizer
from brickc.compiler.optimize.simplify import simplify
from brickc.compiler.optimizers import (
    OPTIMIZERS,
    SGD,
    AdaDelta,
    AdaGrad,
    Adam,
    AdamW,
    Optimizer,
    RMSProp,
    parse_optimizer,
)
from brickc.errors import UsageError
from brickc.ir.bricks.arithmetic import add, mul, square, sub
from brickc.ir.bricks.contract import linear
from brickc.ir.bricks.convert import cast
from brickc.ir.bricks.reduce import reduce_mean
from brickc.ir.dtypes import DType
from brickc.ir.graph import Graph

STEPS = 6

Torch = Callable[[Any], torch.optim.Optimizer]

CASES: list[tuple[Optimizer, Torch]] = [
    (SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    (SGD(0.1, 0.9), lambda p: torch.optim.SGD(p, 0.1, 0.9)),
    (
        SGD(0.1, 0.9, nesterov=True, weight_decay=0.03),
        lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True, weight_decay=0.03),
    ),
    (
        SGD(0.1, 0.8, dampening=0.4, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, 0.1, 0.8, dampening=0.4, weight_decay=0.01),
    ),
    (Adam(0.01), lambda p: torch.optim.Adam(p, 0.01)),
    (
        Adam(0.01, (0.8, 0.95), 1e-6, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.95), 1e-6, weight_decay=0.1),
    ),
    (Adam(0.01, (0.0, 0.95)), lambda p: torch.optim.Adam(p, 0.01, (0.0, 0.95))),
    (
        AdamW(0.01, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    ),
    (AdaGrad(0.05), lambda p: torch.optim.Adagrad(p, 0.05)),
    (
        AdaGrad(0.05, lr_decay=0.1, initial=0.2, weight_decay=0.01),
        lambda p: torch.optim.Adagrad(p, 0.05, 0.1, 0.01, 0.2),
    ),
    (AdaDelta(0.5), lambda p: torch.optim.Adadelta(p, 0.5)),
    (
        AdaDelta(1.0, 0.95, 1e-4, weight_decay=0.1),
        lambda p: torch.optim.Adadelta(p, 1.0, 0.95, 1e-4, 0.1),
    ),
    (RMSProp(0.01), lambda p: torch.optim.RMSprop(p, 0.01)),
    (
        RMSProp(0.01, 0.9, 1e-6, 0.5, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(p, 0.01, 0.9, 1e-6, 0.1, 0.5),
    ),
    (
        RMSProp(0.01, 0.9, momentum=0.5, centered=True),
        lambda p: torch.optim.RMSprop(p, 0.01, 0.9, momentum=0.5, centered=True),
    ),
]


def regression(size: int = 8, **scales: float) -> Net:
    """Linear least squares; ``scales`` are those of the weight."""
    net = Net()
    x, t = net.input("x", (size, 3)), net.input("t", (size, 2))
    w, b = net.parameter("fc.weight", (2, 3), **scales), net.parameter("fc.bias", (2,))
    net.output("loss", reduce_mean(square(sub(add(linear(x, w), b), t)), (0, 1), False))
    return net


def joined(net: Net, optimizer: Optimizer, **options: Any) -> Graph:
    return join_gradients(with_gradients(net.graph), optimizer, **options)


def batches(rng: np.random.Generator) -> list[dict[str, Any]]:
    return [{"x": rng.normal(size=(8, 3)), "t": rng.normal(size=(8, 2))} for _ in range(STEPS)]


def train(graph: Graph, start: Mapping[str, Any], data: list[dict[str, Any]]) -> dict[str, Any]:
    memory = {**initial(graph), **start}
    for batch in data:
        memory.update(step(graph, {**memory, **batch}))
    return memory


def train_torch(
    make: Torch, start: Mapping[str, Any], data: list[dict[str, Any]], clip: float | None = None
) -> dict[str, Any]:
    w = torch.tensor(start["fc.weight"], requires_grad=True)
    b = torch.tensor(start["fc.bias"], requires_grad=True)
    optimizer = make([w, b])
    for batch in data:
        optimizer.zero_grad()
        y = torch.tensor(batch["x"]) @ w.T + b
        ((y - torch.tensor(batch["t"])) ** 2).mean().backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_([w, b], clip)
        optimizer.step()
    return {"fc.weight": w.detach().numpy(), "fc.bias": b.detach().numpy()}


def parameters(rng: np.random.Generator) -> dict[str, Any]:
    return {"fc.weight": rng.normal(size=(2, 3)), "fc.bias": rng.normal(size=2)}


def close(found: Mapping[str, Any], expected: Mapping[str, Any], rtol: float = 1e-10) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), CASES, ids=[str(c[0]) for c in CASES])
@pytest.mark.parametrize("simplified", [False, True])
def test_agrees_with_torch(
    ours: Optimizer, theirs: Torch, simplified: bool, rng: np.random.Generator
) -> None:
    start, data = parameters(rng), batches(rng)
    graph = joined(regression(), ours)
    if simplified:
        graph = simplify(graph)
    close(train(graph, start, data), train_torch(theirs, start, data))


def by_hand(
    ours: Optimizer,
    update: Callable[[Any, Any, dict[str, Any], int], Any],
    rng: np.random.Generator,
) -> None:
    """Six steps on the regression against a formula in NumPy: update(w, g, memory, step)."""
    start, data = parameters(rng), batches(rng)
    w = {name: value.copy() for name, value in start.items()}
    memory: dict[str, dict[str, Any]] = {name: {} for name in w}
    for number, batch in enumerate(data, 1):
        gap = batch["x"] @ w["fc.weight"].T + w["fc.bias"] - batch["t"]
        gradient = {"fc.weight": gap.T @ batch["x"] / 8, "fc.bias": gap.mean(0)}
        for name in w:
            w[name] = update(w[name], gradient[name], memory[name], number)
    close(train(joined(regression(), ours), start, data), w)


def test_caffes_adam(rng: np.random.Generator) -> None:
    # caffe/solvers/adam_solver.cpp: eps stands beside the root of v, which is not corrected
    def update(w: Any, g: Any, memory: dict[str, Any], t: int) -> Any:
        memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
        memory["v"] = 0.99 * memory.get("v", 0) + 0.01 * g**2
        rate = 0.02 * np.sqrt(1 - 0.99**t) / (1 - 0.9**t)
        return w - rate * memory["m"] / (np.sqrt(memory["v"]) + 1e-3)

    by_hand(Adam(0.02, (0.9, 0.99), 1e-3, "caffe"), update, rng)


def test_l1_regularisation(rng: np.random.Generator) -> None:
    by_hand(
        SGD(0.1, weight_decay=0.05, regularization="l1"),
        lambda w, g, memory, t: w - 0.1 * (g + 0.05 * np.sign(w)),
        rng,
    )


@pytest.mark.parametrize("bound", [0.05, 1e6])
def test_caffes_clipping(bound: float, rng: np.random.Generator) -> None:
    # solver.cpp: gradients are scaled by bound/norm where the norm is larger, else left alone
    start, data = parameters(rng), batches(rng)[:1]
    plain = train(joined(regression(), SGD(1.0)), start, data)
    clipped = SGD(1.0, clip_norm=bound, clip_style="caffe")
    found = train(joined(regression(), clipped), start, data)
    steps = {n: start[n] - plain[n] for n in start}
    norm = np.sqrt(sum((s**2).sum() for s in steps.values()))
    scale = min(1.0, bound / norm)
    close(found, {n: start[n] - scale * steps[n] for n in start})


@pytest.mark.parametrize(
    "ours",
    [
        SGD(0.1, 0.9, style="caffe", weight_decay=0.01),
        SGD(0.1, 0.9, style="caffe", clip_norm=0.1, clip_style="caffe"),
        Adam(0.1, style="caffe"),
        AdaDelta(1.0),
    ],
    ids=str,
)
def test_a_step_of_three_calls(ours: Optimizer, rng: np.random.Generator) -> None:
    """The mean of three batches' gradients in one step, as if they were one batch; a clipped
    norm is that of their sum."""
    start, data = parameters(rng), batches(rng)
    many = train(joined(regression(), replace(ours, accumulate=3)), start, data)
    whole = [
        {k: np.concatenate([b[k] for b in data[i : i + 3]]) for k in ("x", "t")} for i in (0, 3)
    ]
    bound = ours.clip_norm
    one = ours if bound is None else replace(ours, clip_norm=bound / 3)
    close(many, train(joined(regression(24), one), start, whole))
    assert many["optimizer.calls"] == 0


def test_every_optimizer_is_tested() -> None:
    assert {type(c[0]) for c in CASES} == set(OPTIMIZERS.values())


@pytest.mark.parametrize("nesterov", [False, True])
def test_caffe_style(nesterov: bool, rng: np.random.Generator) -> None:
    """caffe/solvers: history = momentum·history + rate·diff; the rate changes midway."""
    start, data = parameters(rng), batches(rng)
    optimizer = SGD(0.1, 0.9, nesterov, style="caffe", weight_decay=0.02)
    graph = joined(regression(), optimizer)
    memory = {**initial(graph), **start}
    w, b = start["fc.weight"].copy(), start["fc.bias"].copy()
    history = [np.zeros_like(w), np.zeros_like(b)]
    for k, batch in enumerate(data):
        rate = 0.1 if k < 3 else 0.01
        memory["optimizer.lr"] = np.float64(rate)
        memory.update(step(graph, {**memory, **batch}))
        residue = 2 * (batch["x"] @ w.T + b - batch["t"]) / 16
        for n, (p, g) in enumerate(((w, residue.T @ batch["x"]), (b, residue.sum(0)))):
            old = history[n]
            history[n] = 0.9 * old + rate * (g + 0.02 * p)
            p -= 1.9 * history[n] - 0.9 * old if nesterov else history[n]
    close(memory, {"fc.weight": w, "fc.bias": b})


def test_gradients_are_clipped_by_their_common_norm(rng: np.random.Generator) -> None:
    start, data = parameters(rng), batches(rng)
    graph = simplify(joined(regression(), SGD(0.1, 0.9, clip_norm=0.3)))
    expected = train_torch(lambda p: torch.optim.SGD(p, 0.1, 0.9), start, data, clip=0.3)
    close(train(graph, start, data), expected)
    unclipped = train(joined(regression(), SGD(0.1, 0.9)), start, data)
    assert not np.allclose(unclipped["fc.bias"], expected["fc.bias"])


def test_multipliers_of_a_parameter(rng: np.random.Generator) -> None:
    start, data = parameters(rng), batches(rng)
    net = regression(lr_scale=2.0, decay_scale=0.0)
    graph = simplify(joined(net, SGD(0.05, 0.9, weight_decay=0.1)))

    def theirs(p: Any) -> torch.optim.Optimizer:
        groups = [{"params": [p[0]], "lr": 0.1, "weight_decay": 0.0}, {"params": [p[1]]}]
        return torch.optim.SGD(groups, 0.05, 0.9, weight_decay=0.1)

    close(train(graph, start, data), train_torch(theirs, start, data))


def test_a_frozen_parameter_has_no_update_and_no_state() -> None:
    net = regression(lr_scale=0.0)
    gradients, found = differentiate(net.graph)
    for graph in (
        joined(net, SGD(0.1, 0.9)),
        join_optimizer(gradients, found, SGD(0.1, 0.9), runtime_lr=True),
    ):
        assert graph.parameters["fc.weight"] not in graph.updates
        assert list(graph.states) == ["optimizer.lr", "fc.bias/momentum"]


def test_names_and_types_of_states() -> None:
    graph = joined(regression(), Adam(0.01))
    types = {name: str(graph.node(id).type) for name, id in graph.states.items()}
    assert types == {
        "optimizer.lr": "f64[]",
        "optimizer.step": "i64[]",
        "fc.weight/exp_avg": "f64[2,3]",
        "fc.weight/exp_avg_sq": "f64[2,3]",
        "fc.bias/exp_avg": "f64[2]",
        "fc.bias/exp_avg_sq": "f64[2]",
    }
    assert list(graph.outputs) == ["loss"]
    assert graph.states["optimizer.lr"] not in graph.updates
    assert initial(graph)["optimizer.lr"] == 0.01


def test_a_fixed_learning_rate(rng: np.random.Generator) -> None:
    start, data = parameters(rng), batches(rng)
    graph = simplify(joined(regression(), SGD(0.1), runtime_lr=False))
    assert not graph.states
    expected = train_torch(lambda p: torch.optim.SGD(p, 0.1), start, data)
    close(train(graph, start, data), expected)


def test_half_precision_is_updated_in_f32() -> None:
    net = Net(DType.F16)
    w = net.parameter("w", (4,))
    net.output("loss", reduce_mean(cast(square(w), DType.F32), (0,), False))
    graph = joined(net, SGD(0.1, 0.9))
    assert str(graph.node(graph.states["w/momentum"]).type) == "f32[4]"
    new = step(graph, {"w": np.ones(4, np.float16), **initial(graph)})
    assert new["w"].dtype == np.float16
    np.testing.assert_allclose(new["w"], np.float16(0.95))


def test_two_dtypes_share_one_learning_rate(rng: np.random.Generator) -> None:
    net = Net()
    w = net.parameter("w", (3,))
    v = net.parameter("v", (3,), dtype=DType.F32)
    net.output("loss", reduce_mean(mul(square(w), cast(v, DType.F64)), (0,), False))
    graph = joined(net, Adam(0.1, clip_norm=0.5))
    assert str(graph.node(graph.states["optimizer.lr"]).type) == "f64[]"
    new = step(graph, {"w": rng.normal(size=3), "v": np.ones(3, np.float32), **initial(graph)})
    np.testing.assert_allclose(new["v"], 0.9, rtol=1e-3)


def test_bias_correction_keeps_its_digits_in_f32() -> None:
    net = Net(DType.F32)
    w = net.parameter("w", (1,))
    net.output("loss", reduce_mean(mul(w, 1e-3), (0,), False))
    graph = simplify(joined(net, Adam(0.1, eps=0.0)))
    new = step(graph, {"w": np.zeros(1, np.float32), **initial(graph)})
    # the first step of Adam has the size of the learning rate, whatever the gradient is
    np.testing.assert_allclose(new["w"], -0.1, rtol=1e-5)


def test_an_update_of_its_own_is_refused() -> None:
    net = regression()
    w = net.graph.parameters["fc.weight"]
    net.graph.updates[w] = w
    with pytest.raises(UsageError, match=r"fc\.weight has an update of its own"):
        joined(net, SGD(0.1))


def test_a_taken_name_is_refused() -> None:
    net = regression()
    net.state("optimizer.lr", ())
    with pytest.raises(UsageError, match="name that is taken"):
        joined(net, SGD(0.1))


# ── numbers and text ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "optimizer"),
    [
        ("sgd:lr=0.1", SGD(0.1)),
        (" SGD : lr = 0.1 , momentum=0.9, nesterov=true ", SGD(0.1, 0.9, True)),
        ("sgd:lr=1e-2,momentum=0.9,style=caffe,weight_decay=5e-4",
         SGD(0.01, 0.9, style="caffe", weight_decay=5e-4)),
        ("adam:lr=0.001,betas=0.8/0.99,clip_norm=1", Adam(0.001, (0.8, 0.99), clip_norm=1.0)),
        ("adamw:lr=0.001,weight_decay=0.01", AdamW(0.001, weight_decay=0.01)),
        ("adagrad:lr=0.1,initial=0.1", AdaGrad(0.1, initial=0.1)),
        ("rmsprop:lr=0.1,centered=1", RMSProp(0.1, centered=True)),
    ],
)  # fmt: skip
def test_parse(text: str, optimizer: Optimizer) -> None:
    assert parse_optimizer(text) == optimizer


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "unknown optimizer"),
        ("lion:lr=0.1", "unknown optimizer.*'lion'.*adagrad"),
        ("sgd", "needs lr.*sgd:lr=0.01"),
        ("sgd:momentum=0.9", "needs lr"),
        ("sgd:lr=0.1,betas=0.9/0.9", "no such option.*betas"),
        ("sgd:lr", "no such option"),
        ("sgd:lr=fast", "sgd: lr is not understood.*'fast'.*a number"),
        ("sgd:lr=inf", "not understood"),
        ("sgd:lr=nan", "not understood"),
        ("sgd:lr=0.1,lr=0.2", "twice"),
        ("sgd:lr=-1", "lr makes no sense; got -1.0; expected >= 0"),
        ("sgd:lr=0.1,momentum=1", "momentum makes no sense"),
        ("sgd:lr=0.1,nesterov=true", "nesterov needs a momentum"),
        ("sgd:lr=0.1,nesterov=maybe", "true or false"),
        ("sgd:lr=0.1,style=tf", "torch or caffe"),
        ("adam:lr=0.1,betas=0.9", "two numbers"),
        ("adam:lr=0.1,betas=0.9/1.5", "betas makes no sense"),
        ("adam:lr=0.1,clip_norm=0", "clip_norm makes no sense"),
        ("__import__:lr=1", "unknown optimizer"),
    ],
)
def test_parse_refuses(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        parse_optimizer(text)


def test_not_a_number_is_no_learning_rate() -> None:
    with pytest.raises(UsageError, match="lr makes no sense"):
        SGD(float("nan"))
