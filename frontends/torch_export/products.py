"""Matrix products, convolutions and attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...errors import ImportModelError, UnsupportedError
from ...ir.bricks import arithmetic, contract, normalization, reduce
from ...ir.bricks import shape as shapes
from ...ir.bricks.convolution import Convolution, ConvolutionInputGrad
from ...ir.bricks.source import iota
from ...ir.dims import Size
from ...ir.dtypes import DType
from ...ir.types import TensorType
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import Number, Out, Result, columns, each, fixed, promote, scalar, to
from .reductions import masked_softmax

__all__ = ["PRODUCTS"]

of = trace.of


def _weighted(x: Tensor, product: Value, beta: Number, alpha: Number) -> Tensor:
    """beta · x + alpha · product; beta = 0 leaves x out, NaN and all."""
    y = product if alpha == 1 else arithmetic.mul(product, scalar(alpha, product.dtype))
    if beta == 0:
        return of(y)
    x = to(x, y.dtype)
    first = x if beta == 1 else arithmetic.mul(x, scalar(beta, x.dtype))
    return of(arithmetic.add(first, y))


def matmul(out: Out, x: Tensor, other: Tensor) -> Tensor:
    if not x.dtype.is_float:
        raise UnsupportedError("a matrix product of integers", got=x.dtype)
    return of(contract.matmul(*promote(x, other)))


def addmm(
    out: Out, x: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Number = 1, alpha: Number = 1
) -> Tensor:
    return _weighted(x, matmul(out, mat1, mat2), beta, alpha)


def addmv(
    out: Out, x: Tensor, mat: Tensor, vec: Tensor, *, beta: Number = 1, alpha: Number = 1
) -> Tensor:
    return _weighted(x, matmul(out, mat, vec), beta, alpha)


def addr(
    out: Out, x: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Number = 1, alpha: Number = 1
) -> Tensor:
    outer = arithmetic.mul(shapes.reshape(vec1, (vec1.shape[0], 1)), vec2)
    return _weighted(x, outer, beta, alpha)


def addbmm(
    out: Out, x: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1
) -> Tensor:
    each_ = matmul(out, batch1, batch2)
    return _weighted(x, reduce.reduce_sum(each_, (0,), False), beta, alpha)


def linear(out: Out, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if weight.rank == 1:
        y = matmul(out, input, weight)
    else:
        y = of(contract.linear(input, weight))
    return y if bias is None else of(arithmetic.add(y, bias))


def einsum(
    out: Out, equation: str, tensors: Sequence[Tensor], *, path: Sequence[int] | None = None
) -> Tensor:
    """Products of two and sums; a letter that stands alone is summed first."""
    text = equation.replace(" ", "")
    left, arrow, result = text.partition("->")
    parts = left.split(",")
    if len(text) > 200 or not left.replace(",", "").isalpha() or len(parts) != len(tensors):
        raise UnsupportedError("such an einsum", got=equation[:80])
    if not arrow:
        result = "".join(sorted(c for c in set(left) if left.count(c) == 1 and c != ","))
    if any(len(set(p)) != len(p) or len(p) != x.rank for p, x in zip(parts, tensors, strict=True)):
        raise UnsupportedError("an einsum with a diagonal", got=equation[:80])
    letters, total = parts[0], tensors[0]
    for k in range(1, len(parts)):
        later = set("".join(parts[k + 1 :])) | set(result)
        letters, total = _without(letters, total, set(parts[k]) | later)
        other, right = _without(parts[k], tensors[k], set(letters) | later)
        joined = "".join(dict.fromkeys(letters + other))
        kept = "".join(c for c in joined if c in later)
        total = of(contract.contract(f"{letters},{other}->{kept}", *promote(total, right)))
        letters = kept
    letters, total = _without(letters, total, set(result))
    if set(letters) != set(result) or len(set(result)) != len(result):
        raise UnsupportedError("such an einsum", got=equation[:80])
    return of(shapes.transpose(total, [letters.index(c) for c in result])) if result else total


def _without(letters: str, x: Tensor, needed: set[str]) -> tuple[str, Tensor]:
    """x summed over the letters that nobody needs."""
    gone = tuple(a for a, c in enumerate(letters) if c not in needed)
    if not gone:
        return letters, x
    kept = "".join(c for c in letters if c in needed)
    return kept, of(reduce.reduce_sum(x, gone, False))


def outer(out: Out, x: Tensor, vec2: Tensor) -> Tensor:
    a, b = promote(x, vec2)
    return of(arithmetic.mul(shapes.reshape(a, (a.shape[0], 1)), b))


# ── convolutions ─────────────────────────────────────────────────────────────────────────


def convolution(
    out: Out, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], transposed: bool,
    output_padding: Sequence[int], groups: int,
) -> Tensor:  # fmt: skip
    if transposed:
        return transposed_convolution(
            out, input, weight, bias, stride, padding, output_padding, groups, dilation
        )
    return forward_convolution(out, input, weight, bias, stride, padding, dilation, groups)


def forward_convolution(
    out: Out, input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    rank = weight.rank - 2
    pairs = tuple((p, p) for p in each(padding, rank))
    return _convolved(input, weight, bias, each(stride, rank), pairs, each(dilation, rank), groups)


def padded_convolution(
    out: Out, input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: int | Sequence[int] = 1, padding: str = "valid",
    dilation: int | Sequence[int] = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """``same`` pads so that the size stays; what is odd goes to the end."""
    rank = weight.rank - 2
    steps = each(dilation, rank)
    if padding not in ("same", "valid"):
        raise ImportModelError("an unknown padding", got=padding, expected="same, valid")
    pairs = []
    for k, d in zip(weight.shape[2:], steps, strict=True):
        total = d * (fixed(k) - 1) if padding == "same" else 0
        pairs.append((total // 2, total - total // 2))
    return _convolved(input, weight, bias, each(stride, rank), tuple(pairs), steps, groups)


def _convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...],
    pairs: tuple[tuple[int, int], ...], dilation: tuple[int, ...], groups: int,
) -> Tensor:  # fmt: skip
    x, alone = _batched(x, weight.rank)
    y = of(x.apply(Convolution(stride, pairs, dilation, groups), x, weight))
    return _finished(y, bias, alone)


def transposed_convolution(
    out: Out, input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0, groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:  # fmt: skip
    rank = weight.rank - 2
    steps, pads, holes = each(stride, rank), each(padding, rank), each(dilation, rank)
    extra = each(output_padding, rank)
    x, alone = _batched(input, weight.rank)
    # output padding takes rows back that the padding cut off; what is more than that is zero
    pairs = tuple((p, max(p - e, 0)) for p, e in zip(pads, extra, strict=True))
    sizes: list[Size] = []
    for n, k, s, (lo, hi), d in zip(
        x.shape[2:], weight.shape[2:], steps, pairs, holes, strict=True
    ):
        sizes.append((n - 1) * s + d * (fixed(k) - 1) + 1 - lo - hi)
    brick = ConvolutionInputGrad(steps, pairs, holes, groups, tuple(sizes))
    y: Value = x.apply(brick, x, weight)
    more = [0, 0, *(max(e - p, 0) for p, e in zip(pads, extra, strict=True))]
    if any(more):
        y = shapes.pad(y, [0] * y.rank, more)
    return _finished(of(y), bias, alone)


def _batched(x: Tensor, rank: int) -> tuple[Tensor, bool]:
    """The input with a batch axis, and whether it had none."""
    if x.rank == rank - 1:
        return of(shapes.reshape(x, (1, *x.shape))), True
    return x, False


def _finished(y: Tensor, bias: Tensor | None, alone: bool) -> Tensor:
    if bias is not None:
        y = of(arithmetic.add(y, columns(bias, y.rank)))
    return of(shapes.reshape(y, y.shape[1:])) if alone else y


# ── attention ────────────────────────────────────────────────────────────────────────────


def attention(
    out: Out, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, *, scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """softmax(q kᵀ · scale + mask) v on the last two axes, dropout on the weights.

    Source: Vaswani et al., 2017; agrees with torch's scaled_dot_product_attention
    """
    from .stateful import dropout

    if enable_gqa and query.shape[-3] != key.shape[-3]:
        ratio = fixed(query.shape[-3]) // fixed(key.shape[-3])
        key, value = _repeated(key, ratio), _repeated(value, ratio)
    factor = 1.0 / math.sqrt(fixed(query.shape[-1])) if scale is None else scale
    order = (*range(key.rank - 2), key.rank - 1, key.rank - 2)
    scores = contract.matmul(arithmetic.mul(query, factor), shapes.transpose(key, order))
    low = -math.inf
    if is_causal:
        kind = TensorType(DType.I64, (query.shape[-2], key.shape[-2]))
        past = arithmetic.less_equal(iota(query, kind, 1), iota(query, kind, 0))
        scores = arithmetic.where(past, scores, low)
    if attn_mask is not None:
        if attn_mask.dtype is DType.BOOL:
            scores = arithmetic.where(attn_mask, scores, low)
        else:
            scores = arithmetic.add(scores, to(attn_mask, query.dtype))
    scores_ = of(scores)
    if attn_mask is not None and attn_mask.dtype is DType.BOOL:
        # a row that sees nothing attends to nothing
        weights = masked_softmax(scores_, scores_.rank - 1)
    else:
        weights = of(normalization.softmax(scores_, -1))
    weights = dropout(out, weights, dropout_p, True)
    return of(contract.matmul(weights, value))


def _repeated(x: Tensor, times: int) -> Tensor:
    a = x.rank - 3
    thin = shapes.reshape(x, (*x.shape[: a + 1], 1, *x.shape[a + 1 :]))
    wide = shapes.broadcast_to(thin, (*x.shape[: a + 1], times, *x.shape[a + 1 :]))
    return of(shapes.reshape(wide, (*x.shape[:a], x.shape[a] * times, *x.shape[a + 1 :])))


PRODUCTS: dict[str, Callable[..., Result]] = {
    **{f"{name}.default": matmul for name in ("matmul", "mm", "bmm", "mv", "dot", "vdot")},
    "addmm.default": addmm, "baddbmm.default": addmm, "addmv.default": addmv,
    "addr.default": addr, "addbmm.default": addbmm,
    "linear.default": linear, "einsum.default": einsum, "outer.default": outer,
    "convolution.default": convolution,
    **{f"conv{n}d.default": forward_convolution for n in (1, 2, 3)},
    **{f"conv{n}d.padding": padded_convolution for n in (1, 2, 3)},
    "conv_transpose1d.default": transposed_convolution,
    "conv_transpose2d.input": transposed_convolution,
    "conv_transpose3d.input": transposed_convolution,
    "scaled_dot_product_attention.default": attention,
}  # fmt: skip
