"""One brick's values, gradients and gradients of gradients beside torch's, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from brickc.compiler.differentiate import differentiate
from brickc.ir.brick import Input
from brickc.ir.bricks.arithmetic import add, mul
from brickc.ir.bricks.reduce import reduce_sum
from brickc.ir.bricks.source import literal
from brickc.ir.builder import Builder, GraphValue
from brickc.ir.dtypes import DType
from brickc.ir.graph import Graph
from brickc.ir.interpret import interpret
from brickc.ir.types import TensorType
from brickc.ir.value import Value

__all__ = ["agree_with_torch"]

Array = np.ndarray[Any, Any]


def agree_with_torch(
    ours: Callable[..., Value],
    theirs: Callable[..., Any],
    arrays: Sequence[Array],
    rng: np.random.Generator,
    *,
    second: bool = True,
    tolerance: float = 1e-9,
) -> None:
    """Compare ours(values) and theirs(tensors), and projections of both derivatives.

    The first scalar is sum(y · r); the second one is the sum of its gradients, projected on
    random directions again, with respect to every floating-point array.
    """
    torch = pytest.importorskip("torch")
    graph, values = _graph(ours, arrays)
    result = interpret(graph, _named(arrays))["y"]
    floats = [k for k, a in enumerate(arrays) if a.dtype.kind == "f"]
    tensors = [torch.tensor(a, requires_grad=k in floats) for k, a in enumerate(arrays)]
    expected = theirs(*tensors)
    np.testing.assert_allclose(result, expected.detach().numpy(), rtol=tolerance, atol=tolerance)

    direction = rng.standard_normal(result.shape)
    first = (expected * torch.tensor(direction)).sum()
    wrt = [tensors[k] for k in floats]
    grads = torch.autograd.grad(first, wrt, create_graph=True)
    _project(graph, {"y": values["y"]}, {"y": direction}, "E")
    graph, gradients = differentiate(graph, "E", [values[f"x{k}"] for k in floats])
    graph.outputs = {f"g{k}": gradients[values[f"x{k}"]] for k in floats}
    got = interpret(graph, _named(arrays))
    for k, grad in zip(floats, grads, strict=True):
        np.testing.assert_allclose(
            got[f"g{k}"], grad.detach().numpy(), rtol=tolerance, atol=tolerance
        )
    if second:
        directions = {f"g{k}": rng.standard_normal(arrays[k].shape) for k in floats}
        parts = zip(floats, grads, strict=True)
        total = sum((g * torch.tensor(directions[f"g{k}"])).sum() for k, g in parts)
        grads = torch.autograd.grad(total, wrt, allow_unused=True)
        _project(graph, graph.outputs, directions, "E")
        graph, gradients = differentiate(graph, "E", [values[f"x{k}"] for k in floats])
        graph.outputs = {
            f"h{k}": gradients[i] for k in floats if (i := values[f"x{k}"]) in gradients
        }
        got = interpret(graph, _named(arrays))
        for k, grad in zip(floats, grads, strict=True):
            want = np.zeros_like(arrays[k]) if grad is None else grad.numpy()
            have = got[f"h{k}"] if f"h{k}" in graph.outputs else np.zeros_like(want)
            np.testing.assert_allclose(have, want, rtol=tolerance, atol=tolerance)


def _graph(ours: Callable[..., Value], arrays: Sequence[Array]) -> tuple[Graph, dict[str, int]]:
    graph = Graph("check")
    builder = Builder(graph)
    inputs = [
        builder.add(Input(f"x{k}", TensorType(DType.of(a.dtype), a.shape)))
        for k, a in enumerate(arrays)
    ]
    y = ours(*inputs)
    assert isinstance(y, GraphValue)
    graph.outputs["y"] = y.id
    return graph, {"y": y.id, **{f"x{k}": v.id for k, v in enumerate(inputs)}}


def _project(
    graph: Graph, values: Mapping[str, int], directions: Mapping[str, Array], name: str
) -> None:
    """Add the output ``name``: the sum of the values times their directions."""
    builder = Builder(graph)
    total: Value | None = None
    for key, id in values.items():
        value = builder.value(id)
        part = reduce_sum(mul(value, literal(value, directions[key])))
        total = part if total is None else add(total, part)
    assert isinstance(total, GraphValue)
    graph.outputs = {name: total.id}


def _named(arrays: Sequence[Array]) -> dict[str, Array]:
    return {f"x{k}": a for k, a in enumerate(arrays)}
