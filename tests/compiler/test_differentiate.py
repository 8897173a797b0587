"""Backward graphs against torch.autograd and against derivations on paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch
from graph_tools import Net, outputs, values

from brickc.compiler.differentiate import differentiate, gradient_outputs, with_gradients
from brickc.errors import ShapeError, UnsupportedError, UsageError
from brickc.ir.bricks.activation import relu, tanh
from brickc.ir.bricks.arithmetic import add, exp, floor, mul, square
from brickc.ir.bricks.contract import linear, matmul
from brickc.ir.bricks.convert import stop_gradient
from brickc.ir.bricks.convolution import ConvolutionInputGrad, ConvolutionWeightGrad, convolution
from brickc.ir.bricks.elementwise import Map
from brickc.ir.bricks.loss import softmax_loss, square_loss
from brickc.ir.bricks.normalization import log_softmax, lrn, softmax
from brickc.ir.bricks.reduce import reduce_mean, reduce_sum
from brickc.ir.bricks.shape import reshape
from brickc.ir.bricks.window import max_pool
from brickc.ir.builder import GraphValue
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.expression import Y, operand
from brickc.ir.formula import formula
from brickc.ir.graph import Graph


def total(x: Any) -> Any:
    return reduce_sum(x, tuple(range(x.rank)), False)


def gradients(graph: Graph, arrays: dict[str, Any]) -> dict[str, Any]:
    found = outputs(with_gradients(graph), arrays)
    return {k.removeprefix("grad/"): v for k, v in found.items() if k.startswith("grad/")}


def agree(found: dict[str, Any], tensors: dict[str, torch.Tensor], loss: torch.Tensor) -> None:
    wanted = {k: t for k, t in tensors.items() if t.requires_grad}
    expected = torch.autograd.grad(loss, list(wanted.values()))
    assert found.keys() == wanted.keys()
    for (name, _), theirs in zip(wanted.items(), expected, strict=True):
        np.testing.assert_allclose(found[name], theirs.numpy(), rtol=1e-10, atol=1e-12)


def tensors(arrays: dict[str, Any], *trained: str) -> dict[str, torch.Tensor]:
    return {k: torch.tensor(v, requires_grad=k in trained) for k, v in arrays.items()}


def test_two_layers_agree_with_torch(rng: np.random.Generator) -> None:
    net = Net()
    x, t = net.input("x", (4, 5)), net.input("t", (4, 2))
    w1, b1 = net.parameter("w1", (3, 5)), net.parameter("b1", (3,))
    w2 = net.parameter("w2", (2, 3))
    y = linear(tanh(add(linear(x, w1), b1)), w2)
    net.output("loss", square_loss(y, t))
    arrays = {
        "x": rng.normal(size=(4, 5)), "t": rng.normal(size=(4, 2)), "w1": rng.normal(size=(3, 5)),
        "b1": rng.normal(size=3), "w2": rng.normal(size=(2, 3)),
    }  # fmt: skip
    p = tensors(arrays, "w1", "b1", "w2")
    theirs = torch.tanh(p["x"] @ p["w1"].T + p["b1"]) @ p["w2"].T
    agree(gradients(net.graph, arrays), p, ((theirs - p["t"]) ** 2).sum() / 2 / 4)


def convolutional() -> Net:
    net = Net()
    x = net.input("x", (2, 3, 8, 8))
    labels = net.input("labels", (2,), DType.I32, limit=5)
    w1, b1 = net.parameter("w1", (4, 3, 3, 3)), net.parameter("b1", (4,))
    w2 = net.parameter("w2", (5, 64))
    net.at(10, "conv1")
    y = convolution(x, w1, (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    y = add(y, reshape(b1, (1, 4, 1, 1)))
    net.at(11, "relu1")
    y = relu(y)
    y = lrn(y, 3, 1e-2, 0.75, 1.0)
    y = max_pool(y, (2, 2), (2, 2))
    net.at(12, "ip")
    y = linear(reshape(y, (2, 64)), w2)
    net.at(13, "loss")
    net.output("loss", softmax_loss(y, labels))
    return net


def convolutional_arrays(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "x": rng.normal(size=(2, 3, 8, 8)), "labels": np.array([1, 4], np.int32),
        "w1": rng.normal(size=(4, 3, 3, 3)), "b1": rng.normal(size=4),
        "w2": rng.normal(size=(5, 64)),
    }  # fmt: skip


def test_a_convolutional_net_agrees_with_torch(rng: np.random.Generator) -> None:
    arrays = convolutional_arrays(rng)
    p = tensors(arrays, "w1", "b1", "w2")
    y = torch.nn.functional.conv2d(p["x"], p["w1"], p["b1"], padding=1)
    y = torch.nn.functional.local_response_norm(torch.relu(y), 3, 1e-2, 0.75, 1.0)
    y = torch.nn.functional.max_pool2d(y, 2).reshape(2, 64) @ p["w2"].T
    loss = torch.nn.functional.cross_entropy(y, p["labels"].long())
    agree(gradients(convolutional().graph, arrays), p, loss)


def test_what_no_parameter_needs_is_not_built() -> None:
    graph, found = differentiate(convolutional().graph)
    kinds = [type(n.brick) for n in graph.nodes()]
    # the gradient of the images would cost as much as that of the weights
    assert kinds.count(ConvolutionInputGrad) == 0
    assert kinds.count(ConvolutionWeightGrad) == 1
    assert len(found) == 3
    everything, found = differentiate(
        convolutional().graph, wrt=[convolutional().graph.inputs["x"]]
    )
    kinds = [type(n.brick) for n in everything.nodes()]
    assert kinds.count(ConvolutionInputGrad) == 1
    assert kinds.count(ConvolutionWeightGrad) == 0


def test_every_new_node_serves_a_gradient() -> None:
    net = convolutional()
    graph, found = differentiate(net.graph)
    needed = graph.live([*graph.outputs.values(), *found.values()])
    old = {n.id for n in net.graph.nodes()}
    assert all(n.id in needed for n in graph.nodes() if n.id >= net.graph.next_id)
    assert {i for i in needed if i in old} <= old


def test_cotangents_are_added_where_a_value_is_used_twice(rng: np.random.Generator) -> None:
    net = Net()
    w = net.parameter("w", (6,))
    a = mul(w, w)
    net.output("loss", total(add(mul(a, exp(w)), add(a, w))))
    arrays = {"w": rng.normal(size=6)}
    p = tensors(arrays, "w")
    w_ = p["w"]
    agree(gradients(net.graph, arrays), p, (w_**2 * torch.exp(w_) + w_**2 + w_).sum())


def test_stop_gradient_stops(rng: np.random.Generator) -> None:
    net = Net()
    w, v = net.parameter("w", (3,)), net.parameter("v", (3,))
    net.output("loss", total(mul(w, stop_gradient(mul(w, v)))))
    arrays = {"w": rng.normal(size=3), "v": rng.normal(size=3)}
    found = gradients(net.graph, arrays)
    assert list(found) == ["w"]  # v reaches the loss through the stop alone
    np.testing.assert_allclose(found["w"], arrays["w"] * arrays["v"])


def test_parameters_the_loss_does_not_depend_on_get_no_gradient() -> None:
    net = Net()
    w, other = net.parameter("w", (3,)), net.parameter("other", (3,))
    net.output("loss", total(square(w)))
    net.output("elsewhere", exp(other))
    _, found = differentiate(net.graph)
    assert list(found) == [w.id]


def test_steps_and_integers_pass_nothing_on() -> None:
    net = Net()
    w = net.parameter("w", (3,))
    net.output("loss", total(floor(w)))
    _, found = differentiate(net.graph)
    assert found == {}


@pytest.mark.parametrize("shape", [(1,), (2, 3)])
def test_the_loss_is_one_number(shape: tuple[int, ...]) -> None:
    net = Net()
    net.output("loss", tanh(net.parameter("w", shape)))
    with pytest.raises(ShapeError, match=r"test\.py:1.*must be one floating-point number.*f64\["):
        differentiate(net.graph)


def test_the_loss_exists() -> None:
    net = Net()
    net.output("error", total(net.parameter("w", (3,))))
    with pytest.raises(UsageError, match="error"):
        differentiate(net.graph)


def test_names_of_gradient_outputs() -> None:
    net = Net()
    w = net.parameter("fc.weight", (3,))
    frozen = net.parameter("fc.frozen", (3,), lr_scale=0.0)
    net.output("loss", total(mul(w, frozen)))
    graph = with_gradients(net.graph)
    assert list(graph.outputs) == ["loss", "grad/fc.weight", "grad/fc.frozen"]
    graph = with_gradients(net.graph, trained_only=True)
    assert gradient_outputs(graph) == {w.id: "grad/fc.weight"}


def test_backward_nodes_say_whose_gradient_they_are() -> None:
    net = Net()
    net.at(7, "fc")
    w = net.parameter("w", (3,))
    y = tanh(w)
    net.output("loss", total(y))
    graph, found = differentiate(net.graph)
    assert isinstance(y, GraphValue)
    assert str(graph.node(found[w.id]).origin) == f'test.py:7 "fc" grad of %{y.id}'
    assert all(graph.node(n.id) == n for n in net.graph.nodes())  # forward nodes are untouched


def test_the_result_is_the_same_each_time() -> None:
    first, a = differentiate(convolutional().graph)
    second, b = differentiate(convolutional().graph)
    assert first.nodes() == second.nodes()
    assert a == b


def test_dims_without_a_size(rng: np.random.Generator) -> None:
    net = Net()
    n = Dim("N", 1, 16)
    x, w, b = net.input("x", (n, 3)), net.parameter("w", (2, 3)), net.parameter("b", (2,))
    y = add(linear(x, w), b)
    net.output("loss", reduce_mean(square(softmax(y, 1)), (0, 1), False))
    arrays = {
        "x": rng.normal(size=(5, 3)), "w": rng.normal(size=(2, 3)), "b": rng.normal(size=2)
    }  # fmt: skip
    p = tensors(arrays, "w", "b")
    found = outputs(with_gradients(net.graph), arrays)
    loss = (torch.softmax(p["x"] @ p["w"].T + p["b"], 1) ** 2).mean()
    agree({k[5:]: v for k, v in found.items() if k != "loss"}, p, loss)


# ── gradients of gradients ───────────────────────────────────────────────────────────────


def squared_norm(graph: Graph, found: dict[int, int]) -> Graph:
    """The sum of squares of all gradients as a second loss."""
    from brickc.ir.builder import Builder

    builder = Builder(graph)
    norm: Any = None
    for number in found.values():
        part = total(square(builder.value(number)))
        norm = part if norm is None else add(norm, part)
    graph.outputs["norm"] = norm.id
    return graph


def test_gradient_of_gradient_of_a_small_net(rng: np.random.Generator) -> None:
    net = Net()
    x, w1, w2 = net.input("x", (4, 5)), net.parameter("w1", (5, 3)), net.parameter("w2", (3, 2))
    y = log_softmax(matmul(tanh(matmul(x, w1)), w2), 1)
    net.output("loss", reduce_mean(mul(y, y), (0, 1), False))
    first = squared_norm(*differentiate(net.graph))
    second, found = differentiate(first, "norm")
    arrays = {
        "x": rng.normal(size=(4, 5)), "w1": rng.normal(size=(5, 3)), "w2": rng.normal(size=(3, 2))
    }  # fmt: skip
    p = tensors(arrays, "w1", "w2")
    loss = (torch.log_softmax(torch.tanh(p["x"] @ p["w1"]) @ p["w2"], 1) ** 2).mean()
    grads = torch.autograd.grad(loss, [p["w1"], p["w2"]], create_graph=True)
    numbers = values(second, arrays)
    ours = {name: numbers[found[second.parameters[name]]] for name in second.parameters}
    agree(ours, p, sum((g**2).sum() for g in grads))  # type: ignore[arg-type]


def test_gradient_of_gradient_of_convolution_and_pooling(rng: np.random.Generator) -> None:
    net = convolutional()
    first = squared_norm(*differentiate(net.graph))
    second, found = differentiate(first, "norm")
    arrays = convolutional_arrays(rng)
    p = tensors(arrays, "w1", "b1", "w2")
    y = torch.nn.functional.conv2d(p["x"], p["w1"], p["b1"], padding=1)
    y = torch.nn.functional.local_response_norm(torch.relu(y), 3, 1e-2, 0.75, 1.0)
    y = torch.nn.functional.max_pool2d(y, 2).reshape(2, 64) @ p["w2"].T
    loss = torch.nn.functional.cross_entropy(y, p["labels"].long())
    grads = torch.autograd.grad(loss, [p["w1"], p["b1"], p["w2"]], create_graph=True)
    numbers = values(second, arrays)
    ours = {name: numbers[found[second.parameters[name]]] for name in second.parameters}
    agree(ours, p, sum((g**2).sum() for g in grads))  # type: ignore[arg-type]


# ── on paper ─────────────────────────────────────────────────────────────────────────────


def test_the_chain_rule_of_three_unknown_functions() -> None:
    """E = E(y3), y_k = f_k(w_k·y_{k-1}): each gradient is a product of one factor a layer."""
    net = Net()
    y: Any = net.input("x", ())
    functions = [sp.Function(f"f{k}", real=True) for k in (1, 2, 3)]
    big_e = sp.Function("E", real=True)
    parameters = []
    for k, f in enumerate(functions):
        parameters.append(net.parameter(f"w{k + 1}", ()))
        z = mul(parameters[-1], y)
        y = z.apply(Map(f(operand(0)), 1), z)
    net.output("loss", y.apply(Map(big_e(operand(0)), 1), y))
    graph, found = differentiate(net.graph)

    w1, w2, w3, x, u = (sp.Symbol(n, real=True) for n in ("w1", "w2", "w3", "x", "u"))
    f1, f2, f3 = functions

    def at(f: Any, point: sp.Expr) -> sp.Expr:
        """f'(point)"""
        return sp.Subs(f(u).diff(u), u, point)

    z1 = w1 * x
    z2 = w2 * f1(z1)
    z3 = w3 * f2(z2)
    expected = [
        at(big_e, f3(z3)) * at(f3, z3) * w3 * at(f2, z2) * w2 * at(f1, z1) * x,
        at(big_e, f3(z3)) * at(f3, z3) * w3 * at(f2, z2) * f1(z1),
        at(big_e, f3(z3)) * at(f3, z3) * f2(z2),
    ]
    for w, product in zip(parameters, expected, strict=True):
        assert sp.simplify(formula(graph, found[w.id]) - product) == 0


def test_the_derivative_of_tanh_is_stated_through_its_result() -> None:
    net = Net()
    w = net.parameter("w", ())
    y = tanh(w)
    net.output("loss", y)
    graph, found = differentiate(net.graph)
    gradient = graph.node(found[w.id])
    assert isinstance(y, GraphValue)
    assert y.id in gradient.operands
    assert Y not in gradient.brick.attributes()["expr"].free_symbols


def test_a_brick_without_derivative_is_named() -> None:
    from dataclasses import dataclass

    from brickc.ir.brick import Brick

    @dataclass(frozen=True)
    class Opaque(Brick):
        mnemonic = "opaque"
        arity = 1

        def infer_type(self, operands: Any) -> Any:
            return operands[0]

        def evaluate(self, operands: Any, dims: Any) -> Any:
            return operands[0]

    net = Net()
    w = net.parameter("w", ())
    net.at(9, "odd")
    net.output("loss", w.apply(Opaque(), w))
    with pytest.raises(UnsupportedError, match=r'test\.py:9 "odd": opaque has no derivative'):
        differentiate(net.graph)
