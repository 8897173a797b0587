"""Gradients as tensors of the network: a loss may contain the slope of what it trains.

The rules are the bricks' own (``Brick.vjp``), applied while the network is written down;
``compiler/differentiate.py`` does the same to a finished graph and then differentiates these
nodes like any others.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..compiler.optimize.expand import has_own_vjp
from ..errors import DtypeError, UnsupportedError, UsageError
from ..ir.brick import Composite, ModeDependent
from ..ir.bricks.arithmetic import add
from ..ir.bricks.shape import broadcast_to
from ..ir.bricks.source import constant
from ..ir.value import Value
from .place import here
from .trace import Tensor

__all__ = ["gradients"]


def gradients(y: Tensor, wrt: Sequence[Tensor], *, inference: bool = False) -> list[Tensor | None]:
    """dy/dx as a tensor for every x in ``wrt``; None where y does not depend on x.

    Shapes:  y of any shape stands for the sum of its elements; each result has its x's shape
    Dtypes:  f32, f64; each result has its x's dtype
    Grad:    the results are differentiable again

    A tensor in ``wrt`` is held to be independent of the others. ``inference`` differentiates
    dropout and batch normalization as inference computes them. Raises UnsupportedError
    without it if one of the two lies between, or if a brick has no derivative.

    slope, = bc.gradients(critic(x), [x])
    loss = error + 10.0 * ((slope * slope).sum(axis=1) - 1.0).mean()
    """
    for tensor in (y, *wrt):
        if not isinstance(tensor, Tensor):
            raise UsageError(
                "gradients are taken of tensors", where=str(here()), got=type(tensor).__name__
            )
        if not tensor.dtype.is_float:
            raise DtypeError(
                "only floating-point tensors have gradients", where=str(here()), got=tensor.type
            )
    ones = broadcast_to(constant(y, 1.0, y.dtype), y.shape)
    found = _pulled_back(y, ones, wrt, inference)
    return [g if isinstance(g, Tensor) else None for g in found]


def _pulled_back(
    y: Tensor, cotangent: Value, wrt: Sequence[Value], inference: bool
) -> list[Value | None]:
    """The cotangents of ``wrt``, given that of y."""
    wanted = set(wrt)
    active = _active(y, wanted)
    total: dict[Value, Value] = {y: cotangent}
    for tensor in reversed(active):
        if tensor not in total or tensor in wanted:
            continue
        parts = _parts(tensor, total[tensor], inference)
        for operand, part in zip(tensor.operands, parts, strict=True):
            if part is not None and operand.dtype.is_float:
                old = total.get(operand)
                total[operand] = part if old is None else add(old, part)
    return [total.get(x) for x in wrt]


def _active(y: Tensor, leaves: set[Value]) -> list[Tensor]:
    """Every tensor through which y depends on the leaves, after its operands."""
    order: list[Tensor] = []
    active: set[Tensor] = set()
    seen: set[Tensor] = {y}
    # depth first without recursion: networks may be deeper than Python's stack
    stack = [(y, iter(() if y in leaves else y.operands))]
    while stack:
        tensor, rest = stack[-1]
        for operand in rest:
            if operand not in seen:
                seen.add(operand)
                stack.append((operand, iter(() if operand in leaves else operand.operands)))
                break
        else:
            stack.pop()
            if tensor in leaves or any(o in active for o in tensor.operands):
                active.add(tensor)
                order.append(tensor)
    return order


def _parts(tensor: Tensor, cotangent: Value, inference: bool) -> Sequence[Value | None]:
    """The operands' cotangents: by the brick's rule, or by those of what it stands for."""
    brick = tensor.brick
    if isinstance(brick, ModeDependent):
        if not inference:
            raise UnsupportedError(
                f"the gradient of {brick.mnemonic}, whose training and inference differ",
                where=str(tensor.origin), hint="inference=True takes that of inference",
            )  # fmt: skip
        whole, _ = brick.specialise(tensor.operands, training=False)
    elif isinstance(brick, Composite) and not has_own_vjp(brick):
        whole = brick.expand(tensor.operands)
    else:
        return brick.vjp(tensor.operands, tensor, cotangent)
    assert isinstance(whole, Tensor)
    return _pulled_back(whole, cotangent, tensor.operands, inference)
