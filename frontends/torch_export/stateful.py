"""Normalisation and dropout: where training and inference part ways.

One brickc model serves both, so the decision is made here and nowhere else:

- An operator that was exported with its training flag set becomes a brick that depends on the
  mode (``Dropout``, ``BatchNorm``): in ``train_step`` it does what torch does in training, in
  ``infer`` and ``evaluate`` what torch does after ``module.eval()``. The running statistics
  are the brick's to update.
- One that was exported without the flag does the same in both: its statistics are frozen,
  its dropout is none, as torch has it when such a module is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...errors import ImportModelError, UnsupportedError
from ...ir.brick import State
from ...ir.bricks import arithmetic, normalization, reduce
from ...ir.bricks import shape as shapes
from ...ir.dims import Dim, DimExpr, product
from ...ir.value import Value
from .. import functional, trace
from ..trace import Tensor
from .arguments import Out, Result, columns, scalar
from .exported import Unused

__all__ = ["STATEFUL", "Kept", "dropout"]

of = trace.of
Extent = int | Dim | DimExpr


@dataclass(frozen=True)
class Kept:
    """The next value of a buffer, which the brick that made it updates itself."""

    state: Tensor


def dropout(out: Out, input: Tensor, p: float, train: bool | None) -> Tensor:
    if not train or p == 0:
        return input
    if p == 1:
        return of(arithmetic.mul(input, 0.0))
    return functional.dropout(input, p)


def native_dropout(out: Out, input: Tensor, p: float, train: bool | None) -> Result:
    return dropout(out, input, p, train), Unused("the mask of a dropout")


# ── batch normalisation ──────────────────────────────────────────────────────────────────


def _affine(x: Tensor, y: Value, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        y = arithmetic.mul(y, columns(weight, x.rank))
    return of(y if bias is None else arithmetic.add(y, columns(bias, x.rank)))


def _frozen(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    scale = arithmetic.reciprocal(arithmetic.sqrt(arithmetic.add(var, eps)))
    y = arithmetic.mul(arithmetic.sub(x, columns(mean, x.rank)), columns(of(scale), x.rank))
    return _affine(x, y, weight, bias)


def _by_batch(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, tuple[int, ...]]:
    axes = (0, *range(2, x.rank))
    return _affine(x, normalization.normalize(x, axes, eps), weight, bias), axes


def _moved(x: Tensor, axes: tuple[int, ...], mean: Tensor, var: Tensor, momentum: float) -> Result:
    """Running statistics after the batch."""
    now = reduce.reduce_mean(x, axes, True)
    squares = reduce.reduce_sum(arithmetic.square(arithmetic.sub(x, now)), axes, False)
    count = product(x.shape[a] for a in axes)
    if not isinstance(count, int):
        raise UnsupportedError("running statistics of a named dim that belong to no buffer")
    unbiased = arithmetic.mul(squares, 1.0 / max(count - 1, 1))

    def blend(old: Tensor, new: Value) -> Tensor:
        share = arithmetic.mul(shapes.reshape(new, old.shape), momentum)
        return of(arithmetic.add(arithmetic.mul(old, 1.0 - momentum), share))

    return blend(mean, now), blend(var, unbiased)


def _full(x: Tensor, v: Tensor | None, value: float) -> Tensor:
    if v is not None:
        return v
    return of(shapes.broadcast_to(scalar(value, x.dtype), (x.shape[1],)))


def _normalised(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None,
    var: Tensor | None, training: bool, momentum: float, eps: float,
) -> tuple[Tensor, Result, Result]:  # fmt: skip
    """y, and what the running statistics become."""
    if x.rank < 2:
        raise ImportModelError("batch normalisation without channels", got=x.type)
    if not training:
        if mean is None or var is None:
            raise ImportModelError("batch normalisation without statistics")
        return _frozen(x, weight, bias, mean, var, eps), mean, var
    if mean is None or var is None:
        return _by_batch(x, weight, bias, eps)[0], None, None
    if isinstance(mean.brick, State) and isinstance(var.brick, State):
        brick = normalization.BatchNorm(float(momentum), float(eps))
        y = x.apply(brick, x, _full(x, weight, 1.0), _full(x, bias, 0.0), mean, var)
        return y, Kept(mean), Kept(var)
    y, axes = _by_batch(x, weight, bias, eps)
    after = _moved(x, axes, mean, var, momentum)
    return y, after[0], after[1]


def batch_norm(
    out: Out, input: Tensor, weight: Tensor | None, bias: Tensor | None,
    running_mean: Tensor | None, running_var: Tensor | None, training: bool, momentum: float,
    eps: float, cudnn_enabled: bool = False,
) -> Tensor:  # fmt: skip
    y, mean, var = _normalised(
        input, weight, bias, running_mean, running_var, training, momentum, eps
    )
    if training and mean is not None and not isinstance(mean, Kept):
        raise UnsupportedError("batch normalisation whose running statistics are no buffers")
    del var
    return y


_SAVED = Unused("a batch's statistics, kept for a backward pass")


def functional_batch_norm(
    out: Out, input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor,
    running_var: Tensor, training: bool, momentum: float, eps: float,
) -> Result:  # fmt: skip
    y, mean, var = _normalised(
        input, weight, bias, running_mean, running_var, training, momentum, eps
    )
    return y, _SAVED, _SAVED, mean, var


def frozen_batch_norm(
    out: Out, input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor,
    running_var: Tensor, momentum: float, eps: float,
) -> Result:  # fmt: skip
    y = _frozen(input, weight, bias, running_mean, running_var, eps)
    return y, _SAVED, _SAVED


def batch_norm_without_statistics(
    out: Out, input: Tensor, weight: Tensor | None, bias: Tensor | None, training: bool,
    momentum: float, eps: float,
) -> Result:  # fmt: skip
    return _by_batch(input, weight, bias, eps)[0], _SAVED, _SAVED


def native_batch_norm(
    out: Out, input: Tensor, weight: Tensor | None, bias: Tensor | None,
    running_mean: Tensor | None, running_var: Tensor | None, training: bool, momentum: float,
    eps: float,
) -> Result:  # fmt: skip
    """Running statistics that are no buffers are the caller's arrays, which brickc never writes."""
    y, *_ = _normalised(input, weight, bias, running_mean, running_var, training, momentum, eps)
    return y, _SAVED, _SAVED


def instance_norm(
    out: Out, input: Tensor, weight: Tensor | None, bias: Tensor | None,
    running_mean: Tensor | None, running_var: Tensor | None, use_input_stats: bool,
    momentum: float, eps: float, cudnn_enabled: bool,
) -> Tensor:  # fmt: skip
    if not use_input_stats or running_mean is not None:
        raise UnsupportedError("instance normalisation with running statistics")
    normal = normalization.normalize(input, tuple(range(2, input.rank)), eps)
    return _affine(input, normal, weight, bias)


# ── the same in both modes ───────────────────────────────────────────────────────────────


def layer_norm(
    out: Out, input: Tensor, normalized_shape: Sequence[Extent], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-05, cudnn_enable: bool = True,
) -> Tensor:  # fmt: skip
    count = len(normalized_shape)
    if count == 0 or tuple(normalized_shape) != input.shape[-count:]:
        raise ImportModelError("layer normalisation of another shape", got=list(normalized_shape),
                               expected=input.type)  # fmt: skip
    axes = tuple(range(input.rank - count, input.rank))
    return of(normalization.layer_norm(input, weight, bias, axes, eps))


def native_layer_norm(
    out: Out, input: Tensor, normalized_shape: Sequence[Extent], weight: Tensor | None,
    bias: Tensor | None, eps: float,
) -> Result:  # fmt: skip
    y = layer_norm(out, input, normalized_shape, weight, bias, eps)
    axes = tuple(range(input.rank - len(normalized_shape), input.rank))
    return y, *_moments(input, axes, True, eps)


def _moments(x: Value, axes: tuple[int, ...], keepdims: bool, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal deviation. They join the graph only if somebody reads them."""
    mean = reduce.reduce_mean(x, axes, True)
    spread = reduce.reduce_mean(arithmetic.square(arithmetic.sub(x, mean)), axes, keepdims)
    scale = arithmetic.reciprocal(arithmetic.sqrt(arithmetic.add(spread, eps)))
    return of(shapes.reshape(mean, scale.shape)), of(scale)


def group_norm(
    out: Out, input: Tensor, num_groups: int, weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-05, cudnn_enabled: bool = True,
) -> Tensor:  # fmt: skip
    n, channels = input.shape[:2]
    if num_groups < 1 or not isinstance(channels, int) or channels % num_groups:
        raise ImportModelError("groups that do not divide the channels", got=num_groups)
    rest = (channels // num_groups, *input.shape[2:])
    grouped = shapes.reshape(input, (n, num_groups, *rest))
    normal = normalization.normalize(grouped, tuple(range(2, grouped.rank)), eps)
    return _affine(input, shapes.reshape(normal, input.shape), weight, bias)


def native_group_norm(
    out: Out, input: Tensor, weight: Tensor | None, bias: Tensor | None, N: Extent, C: Extent,
    HxW: Extent, group: int, eps: float,
) -> Result:  # fmt: skip
    y = group_norm(out, input, group, weight, bias, eps)
    grouped = shapes.reshape(input, (N, group, C // group, *input.shape[2:]))
    return y, *_moments(grouped, tuple(range(2, grouped.rank)), False, eps)


def rms_norm(
    out: Out, input: Tensor, normalized_shape: Sequence[Extent], weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:  # fmt: skip
    axes = tuple(range(input.rank - len(normalized_shape), input.rank))
    least = {"f64": 2.220446049250313e-16, "f32": 1.1920928955078125e-07}
    small = least.get(input.dtype.value, 0.0009765625) if eps is None else eps
    squares = reduce.reduce_mean(arithmetic.square(input), axes, keepdims=True)
    scale = arithmetic.reciprocal(arithmetic.sqrt(arithmetic.add(squares, small)))
    y = arithmetic.mul(input, scale)
    return of(y if weight is None else arithmetic.mul(y, weight))


def fused_rms_norm(
    out: Out, input: Tensor, normalized_shape: Sequence[Extent], weight: Tensor | None,
    eps: float | None,
) -> Result:  # fmt: skip
    return rms_norm(out, input, normalized_shape, weight, eps), _SAVED


STATEFUL: dict[str, Callable[..., Result]] = {
    "dropout.default": dropout, "native_dropout.default": native_dropout,
    "batch_norm.default": batch_norm, "native_batch_norm.default": native_batch_norm,
    "_native_batch_norm_legit_functional.default": functional_batch_norm,
    "_native_batch_norm_legit.default": native_batch_norm,
    "_native_batch_norm_legit_no_training.default": frozen_batch_norm,
    "_native_batch_norm_legit.no_stats": batch_norm_without_statistics,
    "instance_norm.default": instance_norm,
    "layer_norm.default": layer_norm, "native_layer_norm.default": native_layer_norm,
    "group_norm.default": group_norm, "native_group_norm.default": native_group_norm,
    "rms_norm.default": rms_norm, "_fused_rms_norm.default": fused_rms_norm,
}  # fmt: skip
