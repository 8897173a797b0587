"""The first rungs of the ladder that every brick climbs: value, type, derivative, second
derivative, each against something that does not share code with it.

``check_brick(Tanh(), [x], torch.tanh)`` is all that most tests need; the parts can be called
alone. Derivatives are taken through a tape of their own, not by the compiler's pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from brickc.ir.brick import Brick, Composite
from brickc.ir.bricks.arithmetic import add
from brickc.ir.dtypes import DType
from brickc.ir.types import TensorType
from brickc.ir.value import Abstract, Eager, Value

__all__ = ["Taped", "backward", "check_brick", "check_differences", "check_f32", "check_second",
           "check_torch", "check_types", "derivatives"]  # fmt: skip

Array = npt.NDArray[Any]
Dims = Mapping[str, int]
TorchFunction = Callable[..., torch.Tensor]


class Taped(Value):
    """An array that remembers how it was computed."""

    def __init__(self, eager: Eager, brick: Brick | None = None, operands: Sequence[Value] = ()):
        self.eager = eager
        self.brick = brick
        self.operands = operands

    @staticmethod
    def of(array: Array, dims: Dims | None = None) -> Taped:
        return Taped(Eager.of(array, dims or {}))

    @property
    def array(self) -> Array:
        return self.eager.array

    @property
    def type(self) -> TensorType:
        return self.eager.type

    def apply(self, brick: Brick, *operands: Value) -> Taped:
        if isinstance(brick, Composite) and type(brick).vjp is Brick.vjp:
            expanded = brick.expand(operands)
            assert isinstance(expanded, Taped)
            return expanded
        arrays = [_taped(o).eager for o in operands]
        return Taped(self.eager.apply(brick, *arrays), brick, operands)


def _taped(value: Value) -> Taped:
    assert isinstance(value, Taped)
    return value


def backward(root: Taped, cotangent: Taped, sources: Sequence[Taped]) -> list[Taped | None]:
    """The sources' cotangents, given the root's; None for a source without influence."""
    order: list[Taped] = []
    seen: set[int] = set()

    def visit(value: Taped) -> None:
        if id(value) not in seen:
            seen.add(id(value))
            for o in value.operands:
                visit(_taped(o))
            order.append(value)

    visit(root)
    found: dict[int, Value] = {id(root): cotangent}
    for value in reversed(order):
        if value.brick is None or id(value) not in found:
            continue
        parts = value.brick.vjp(value.operands, value, found[id(value)])
        assert len(parts) == len(value.operands)
        for operand, part in zip(value.operands, parts, strict=True):
            if part is None:
                continue
            assert part.type == operand.type, f"{value.brick}: {part.type} for {operand.type}"
            old = found.get(id(operand))
            found[id(operand)] = part if old is None else add(old, part)
    return [_taped(found[id(s)]) if id(s) in found else None for s in sources]


def derivatives(
    brick: Brick, arrays: Sequence[Array], cotangent: Array, dims: Dims | None = None
) -> list[Array]:
    """The brick's cotangents as arrays; zeros where there is none."""
    operands = [Taped.of(a, dims) for a in arrays]
    result = operands[0].apply(brick, *operands)
    found = backward(result, Taped.of(cotangent, dims), operands)
    return [np.zeros_like(a) if f is None else f.array for a, f in zip(arrays, found, strict=True)]


def check_brick(
    brick: Brick,
    arrays: Sequence[Array],
    torch_fn: TorchFunction | None = None,
    *,
    dims: Dims | None = None,
    kinks: bool = False,
    second: bool = True,
    rtol: float = 1e-9,
) -> None:
    """All rungs. ``arrays`` are the operands, floats in float64; ``torch_fn`` takes them as
    tensors and returns the brick's value.

    ``kinks`` says that some operand lies on one, where differences mean nothing;
    ``second=False`` leaves out second derivatives.
    """
    check_types(brick, arrays, dims)
    check_f32(brick, arrays, dims)
    if torch_fn is not None:
        check_torch(brick, arrays, torch_fn, dims, rtol)
    if _result(brick, arrays, dims).dtype.kind != "f" or not _floats(arrays):
        return
    if not kinks:
        check_differences(brick, arrays, dims)
    if second:
        check_second(brick, arrays, torch_fn, dims, rtol, differences=not kinks)


def check_types(brick: Brick, arrays: Sequence[Array], dims: Dims | None = None) -> None:
    """``evaluate`` returns what ``infer_type`` says, and leaves its operands alone."""
    before = [a.copy() for a in arrays]
    value = brick.evaluate(arrays, dims or {})
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=f"{brick} changed its operand")
    types = [TensorType(DType.of(a.dtype), a.shape) for a in arrays]
    stated = brick.infer_type(types)
    assert isinstance(value, np.ndarray)
    assert stated == TensorType(DType.of(value.dtype), value.shape)
    assert Abstract(stated).apply(brick, *map(Abstract, types)).type == stated


def check_f32(brick: Brick, arrays: Sequence[Array], dims: Dims | None = None) -> None:
    """In float32 everything stays float32, and is nearly what it is in float64."""
    narrow = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in arrays]
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in narrow]
    check_types(brick, narrow, dims)
    value, expected = _result(brick, narrow, dims), _result(brick, wide, dims)
    if value.dtype.kind != "f" or not _floats(arrays):
        assert value.dtype == expected.dtype or expected.dtype.kind == "f"
        return
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-6)
    cotangent = _random(value.shape, 1).astype(np.float32)
    narrow_gradients = derivatives(brick, narrow, cotangent, dims)
    wide_gradients = derivatives(brick, wide, cotangent.astype(np.float64), dims)
    for ours, theirs in zip(narrow_gradients, wide_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def check_torch(
    brick: Brick,
    arrays: Sequence[Array],
    torch_fn: TorchFunction,
    dims: Dims | None = None,
    rtol: float = 1e-9,
) -> None:
    """Value and cotangents in float64 against torch."""
    value = _result(brick, arrays, dims)
    tensors = _tensors(arrays)
    expected = torch_fn(*tensors)
    assert value.shape == tuple(expected.shape)
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=rtol, atol=1e-12)
    if not expected.requires_grad:
        return
    cotangent = _random(value.shape, 1)
    wanted = [t for t in tensors if t.requires_grad]
    theirs = iter(
        torch.autograd.grad(expected, wanted, torch.from_numpy(cotangent), allow_unused=True)
    )
    for ours, tensor in zip(derivatives(brick, arrays, cotangent, dims), tensors, strict=True):
        if tensor.requires_grad:
            np.testing.assert_allclose(ours, _array(next(theirs), tensor), rtol=rtol, atol=1e-12)


def check_differences(
    brick: Brick, arrays: Sequence[Array], dims: Dims | None = None, step: float = 1e-6
) -> None:
    """Cotangents against central differences in float64, projected on random directions."""
    cotangent = _random(_result(brick, arrays, dims).shape, 1)
    found = derivatives(brick, arrays, cotangent, dims)

    def projected(moved: Sequence[Array]) -> float:
        return float((_result(brick, moved, dims) * cotangent).sum())

    _differ(projected, arrays, found, step)


def check_second(
    brick: Brick,
    arrays: Sequence[Array],
    torch_fn: TorchFunction | None = None,
    dims: Dims | None = None,
    rtol: float = 1e-9,
    *,
    differences: bool = True,
) -> None:
    """The derivative of s = sum of wk·dxk by the operands and by dy."""
    shape = _result(brick, arrays, dims).shape
    dy = _random(shape, 1)
    weights = [_random(a.shape, 2 + k) for k, a in enumerate(arrays)]

    operands = [Taped.of(a, dims) for a in arrays]
    cotangent = Taped.of(dy, dims)
    first = backward(operands[0].apply(brick, *operands), cotangent, operands)
    sources = [*operands, cotangent]
    found = [np.zeros_like(s.array) for s in sources]
    for gradient, weight in zip(first, weights, strict=True):
        if gradient is not None:
            parts = backward(gradient, Taped.of(weight, dims), sources)
            found = [f if p is None else f + p.array for f, p in zip(found, parts, strict=True)]

    if differences:

        def projected(moved: Sequence[Array]) -> float:
            gradients = derivatives(brick, moved[:-1], moved[-1], dims)
            pairs = zip(gradients, weights, strict=True)
            return float(sum((g * w).sum() for g, w in pairs if g.dtype.kind == "f"))

        _differ(projected, [*arrays, dy], found, 1e-6)
    if torch_fn is not None:
        tensors = [*_tensors(arrays), torch.tensor(dy, requires_grad=True)]
        _second_torch(torch_fn, tensors, weights, found, rtol)


def _second_torch(
    torch_fn: TorchFunction,
    tensors: Sequence[torch.Tensor],
    weights: Sequence[Array],
    found: Sequence[Array],
    rtol: float,
) -> None:
    value = torch_fn(*tensors[:-1])
    if not value.requires_grad:
        return
    wanted = [t for t in tensors[:-1] if t.requires_grad]
    first = torch.autograd.grad(value, wanted, tensors[-1], create_graph=True, allow_unused=True)
    kept = [w for w, t in zip(weights, tensors, strict=False) if t.requires_grad]
    pairs = zip(first, kept, strict=True)
    total = torch.zeros(())
    for gradient, weight in pairs:
        if gradient is not None:
            total = total + (gradient * torch.from_numpy(weight)).sum()
    if not total.requires_grad:
        return
    second = iter(torch.autograd.grad(total, [*wanted, tensors[-1]], allow_unused=True))
    for ours, tensor in zip(found, tensors, strict=True):
        if tensor.requires_grad:
            np.testing.assert_allclose(ours, _array(next(second), tensor), rtol=rtol, atol=1e-11)


def _differ(
    function: Callable[[Sequence[Array]], float],
    arrays: Sequence[Array],
    gradients: Sequence[Array],
    step: float,
) -> None:
    """The gradients against (f(x + hv) - f(x - hv)) / 2h, one operand at a time."""
    for k, a in enumerate(arrays):
        if a.dtype.kind != "f":
            continue
        direction = _random(a.shape, 10 + k)
        values = [
            function([*arrays[:k], a + sign * step * direction, *arrays[k + 1 :]])
            for sign in (1, -1)
        ]
        expected = (values[0] - values[1]) / (2 * step)
        scale = 1e-3 * float(np.abs(gradients[k] * direction).sum())
        np.testing.assert_allclose(
            float((gradients[k] * direction).sum()), expected, rtol=1e-5, atol=1e-6 + scale * 1e-3
        )


def _result(brick: Brick, arrays: Sequence[Array], dims: Dims | None) -> Array:
    return brick.evaluate(arrays, dims or {})


def _floats(arrays: Sequence[Array]) -> bool:
    return any(a.dtype.kind == "f" for a in arrays)


def _random(shape: Sequence[int], seed: int) -> Array:
    return np.asarray(np.random.default_rng(seed).normal(size=tuple(shape)))


def _tensors(arrays: Sequence[Array]) -> list[torch.Tensor]:
    return [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]


def _array(gradient: torch.Tensor | None, like: torch.Tensor) -> Array:
    found = torch.zeros_like(like) if gradient is None else gradient
    return np.asarray(found.numpy(force=True))  # torch has zeros without memory
