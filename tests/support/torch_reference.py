"""A brickc graph run by torch and its autograd: an implementation that shares nothing with ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from brickc.ir.brick import Leaf
from brickc.ir.graph import Graph, Node

Array = np.ndarray[Any, Any]

_SIMPLE = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "relu": torch.relu,
    "tanh": torch.tanh, "logistic": torch.sigmoid, "equal": torch.eq, "where": torch.where,
    "greater_equal": torch.ge,
}  # fmt: skip


def loss_and_gradients(
    graph: Graph, values: Mapping[str, Array], dims: Mapping[str, int]
) -> tuple[float, dict[str, Array]]:
    """The output ``loss`` and its gradient in every parameter, by torch."""
    found: dict[int, Any] = {}
    parameters: dict[str, Any] = {}
    for node in graph.nodes():
        if isinstance(node.brick, Leaf):
            tensor = torch.tensor(values[node.brick.name])
            if node.id in graph.parameters.values():
                tensor.requires_grad_(True)
                parameters[node.brick.name] = tensor
            found[node.id] = tensor
        else:
            found[node.id] = _apply(node, [found[o] for o in node.operands], dims)
    loss = found[graph.outputs["loss"]]
    loss.backward()
    return loss.item(), {n: p.grad.numpy() for n, p in parameters.items()}


def _apply(node: Node, x: list[Any], dims: Mapping[str, int]) -> Any:
    brick: Any = node.brick
    name = brick.mnemonic
    shape = node.type.concrete(dims)
    if name in _SIMPLE:
        return _SIMPLE[name](*x)
    match name:
        case "convolution":
            pad = [p for pair in reversed(brick.padding) for p in pair]
            return F.conv2d(F.pad(x[0], pad), x[1], None, brick.stride, 0, brick.dilation,
                            brick.groups)  # fmt: skip
        case "window_max" | "window_sum":
            fill = float("-inf") if name == "window_max" else 0.0
            pad = [p for pair in reversed(brick.padding[2:]) for p in pair]
            padded = F.pad(x[0], pad, value=fill)
            window, stride = brick.window[2:], brick.stride[2:]
            if name == "window_max":
                return F.max_pool2d(padded, window, stride)
            return F.avg_pool2d(padded, window, stride) * float(np.prod(window))
        case "reshape" | "broadcast_to":
            return x[0].reshape(shape) if name == "reshape" else x[0].expand(shape)
        case "contract":
            return torch.einsum(brick.spec, *x)
        case "concat":
            return torch.cat(x, brick.axis)
        case "lrn_across":
            return F.local_response_norm(x[0], brick.size, brick.alpha, brick.beta, brick.k)
        case "softmax_loss":
            return F.cross_entropy(x[0], x[1].long())
        case "accuracy":
            return (x[0].argmax(1) == x[1]).to(x[0].dtype).mean()
        case "constant":
            return torch.tensor(brick.value, dtype=getattr(torch, str(brick.dtype.numpy)))
        case "literal" | "iota" | "random_uniform" | "dim_size":
            arrays = [a.detach().numpy() for a in x]
            return torch.tensor(np.array(brick.evaluate(arrays, dims)))
        case "cast":
            return x[0].to(getattr(torch, str(brick.dtype.numpy)))
        case "reduce_sum":
            return x[0].sum(brick.axes, keepdim=brick.keepdims)
        case "transpose":
            return x[0].permute(brick.permutation)
    raise AssertionError(f"the torch reference has no {name}")
