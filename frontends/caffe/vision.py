"""Layers with windows and products: convolution, pooling, inner product.

Source: the layers of the same names in caffe/layers
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.bricks import contract, shape, window
from ...ir.bricks.convolution import Convolution, ConvolutionInputGrad
from ...ir.bricks.mode import by_mode
from ...ir.bricks.random import RandomUniform
from ...ir.bricks.unfold import unfold
from ...ir.dims import product
from ...ir.dtypes import DType
from .. import functional as fn
from .. import trace
from ..trace import Tensor
from .call import Call, axis_of, fixed
from .message import Message

__all__ = ["convolution", "deconvolution", "depthwise", "im2col", "inner_product", "pooling",
           "spp"]  # fmt: skip

#: sizes of axes that windows slide over
_WIDEST = 65_536


@dataclass(frozen=True)
class _Window:
    """Numbers of a sliding window, one for each spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]


def _each(call: Call, given: Message, name: str, rank: int, default: int) -> tuple[int, ...]:
    """kernel_size, stride and the like: for each axis, for all, or as two numbers _h and _w."""
    prefix = name.removesuffix("_size")
    pair = [f for f in (f"{prefix}_h", f"{prefix}_w") if name != "dilation" and given.has(f)]
    many = given.integers(name)
    if pair:
        if len(pair) != 2 and name == "kernel_size":
            raise call.fail(f"{prefix}_h and {prefix}_w belong together", got=pair)
        if many or rank != 2:
            raise call.fail(f"{prefix}_h and {prefix}_w are for two axes, without {name}")
        found = tuple(
            given.integer(f) if f in pair else default for f in (f"{prefix}_h", f"{prefix}_w")
        )
    elif not many:
        found = (default,) * rank
    elif len(many) in (1, rank):
        found = tuple(many) * (rank if len(many) == 1 else 1)
    else:
        raise call.fail(f"{name} for each spatial axis, or one for all", got=many, expected=rank)
    least = 0 if name == "pad" else 1
    if any(not least <= n < 2**24 for n in found):
        raise call.fail(f"impossible {name}", got=list(found), expected=f"at least {least}")
    return found


def _window(call: Call, given: Message, rank: int) -> _Window:
    return _Window(
        _each(call, given, "kernel_size", rank, 0),
        _each(call, given, "stride", rank, 1),
        _each(call, given, "pad", rank, 0),
        _each(call, given, "dilation", rank, 1),
    )


def _spatial(call: Call, x: Tensor, axis: int) -> tuple[int, ...]:
    sizes = tuple(fixed(call, n, "a spatial axis") for n in x.shape[axis + 1 :])
    if not sizes:
        raise call.fail("the bottom has no spatial axes", got=x.type)
    if any(not 1 <= n <= _WIDEST for n in sizes):
        raise call.fail("impossible spatial size", got=x.type, expected=f"1..{_WIDEST}")
    return sizes


# ── convolution ──────────────────────────────────────────────────────────────────────────


def convolution(call: Call) -> list[Tensor]:
    return _convolve(call, call.sub("convolution_param").integer("group"), transposed=False)


def deconvolution(call: Call) -> list[Tensor]:
    return _convolve(call, call.sub("convolution_param").integer("group"), transposed=True)


def depthwise(call: Call) -> list[Tensor]:
    """A convolution with a group for each channel, which forks have as a layer of its own."""
    channels = fixed(call, call.x().shape[1], "the channel axis") if call.x().rank > 1 else 1
    return _convolve(call, channels, transposed=False)


def _convolve(call: Call, group: int, *, transposed: bool) -> list[Tensor]:
    """Every bottom with the same kernels."""
    call.expect(1, 10_000)
    if len(call.tops) != len(call.bottoms):
        raise call.fail("one top for each bottom", got=len(call.tops), expected=len(call.bottoms))
    given, first = call.sub("convolution_param"), call.x()
    axis = axis_of(call, given.integer("axis"), first.rank)
    rank = first.rank - axis - 1
    if not 1 <= rank <= 3:
        raise call.unsupported(f"{rank} spatial axes; there may be 1 to 3")
    sizes = _window(call, given, rank)
    channels = fixed(call, first.shape[axis], "the channel axis")
    outputs = given.integer("num_output")
    if outputs < 1:
        raise call.fail("num_output must be positive", got=outputs)
    if group < 1 or channels % group or outputs % group:
        raise call.fail("the channels do not divide into the groups",
                        got=f"{channels} -> {outputs} channels, {group} groups")  # fmt: skip
    whole = (channels, outputs // group) if transposed else (outputs, channels // group)
    weight = call.parameter("weight", (*whole, *sizes.kernel), given.sub("weight_filler"))
    offset = None
    if given.flag("bias_term"):
        offset = call.parameter("bias", (outputs,), given.sub("bias_filler"))
    tops = []
    for k in range(len(call.bottoms)):
        x = call.x(k)
        if x.rank != first.rank or x.shape[axis] != channels:
            raise call.fail("the bottoms' shapes differ", got=f"{first.type} and {x.type}")
        space = _spatial(call, x, axis)
        lead = x.shape[:axis]
        flat = x if axis == 1 else x.reshape(product(lead), channels, *space)
        pads = tuple((p, p) for p in sizes.pad)
        if transposed:
            full = tuple(
                s * (n - 1) + d * (m - 1) + 1 - 2 * p
                for n, m, s, p, d in zip(
                    space, sizes.kernel, sizes.stride, sizes.pad, sizes.dilation, strict=True
                )
            )
            if any(not 1 <= n <= _WIDEST for n in full):
                raise call.fail("impossible size of the top", got=list(full))
            brick = ConvolutionInputGrad(sizes.stride, pads, sizes.dilation, group, full)
            y = flat.apply(brick, flat, weight)
        else:
            y = flat.apply(Convolution(sizes.stride, pads, sizes.dilation, group), flat, weight)
        if offset is not None:
            y = y + offset.reshape(outputs, *(1,) * rank)
        tops.append(y if axis == 1 else y.reshape(*lead, *y.shape[1:]))
    return tops


def im2col(call: Call) -> list[Tensor]:
    """The patches that a convolution sees: [N, C·kh·kw, rows, columns]."""
    call.expect(1)
    given, x = call.sub("convolution_param"), call.x()
    axis = axis_of(call, given.integer("axis"), x.rank)
    if axis != 1 or x.rank != 4:
        raise call.unsupported("other than images [N, C, H, W]")
    sizes = _window(call, given, 2)
    space = _spatial(call, x, 1)
    for n, k, p, d in zip(space, sizes.kernel, sizes.pad, sizes.dilation, strict=True):
        if n + 2 * p < d * (k - 1) + 1:
            raise call.fail("the kernel is larger than the image", got=sizes.kernel)
    edges = (0, 0, *sizes.pad)
    padded = fn.pad(x, edges, edges)
    tall = trace.call(unfold, padded, 2, sizes.kernel[0], sizes.stride[0], sizes.dilation[0])
    both = trace.call(unfold, tall, 3, sizes.kernel[1], sizes.stride[1], sizes.dilation[1])
    # [N, C, rows, columns, kh, kw] -> [N, C, kh, kw, rows, columns]
    moved = both.transpose(0, 1, 4, 5, 2, 3)
    count = product([x.shape[1], *sizes.kernel])
    return [moved.reshape(x.shape[0], count, *moved.shape[4:])]


def inner_product(call: Call) -> list[Tensor]:
    """x wᵀ + b on all axes from ``axis`` on, taken as one."""
    call.expect(1)
    given, x = call.sub("inner_product_param"), call.x()
    axis = axis_of(call, given.integer("axis"), x.rank)
    outputs = given.integer("num_output")
    if outputs < 1:
        raise call.fail("num_output must be positive", got=outputs)
    inputs = fixed(call, product(x.shape[axis:]), "what is multiplied")
    flat = x.reshape(*x.shape[:axis], inputs)
    filler = given.sub("weight_filler")
    if given.flag("transpose"):
        weight = call.parameter("weight", (inputs, outputs), filler)
        y = fn.matmul(flat if flat.rank > 1 else flat.reshape(1, inputs), weight)
        y = y if flat.rank > 1 else y.reshape(outputs)
    else:
        weight = call.parameter("weight", (outputs, inputs), filler)
        y = trace.call(contract.linear, flat, weight)
    if given.flag("bias_term"):
        y = y + call.parameter("bias", (outputs,), given.sub("bias_filler"))
    return [y]


# ── pooling ──────────────────────────────────────────────────────────────────────────────


def pooling(call: Call) -> list[Tensor]:
    call.expect(1)
    given, x = call.sub("pooling_param"), call.x()
    if x.rank != 4:
        raise call.fail("pooling takes images [N, C, H, W]", got=x.type)
    space = _spatial(call, x, 1)
    if given.flag("global_pooling"):
        if any(given.has(f) for f in ("kernel_size", "kernel_h", "kernel_w")):
            raise call.fail("global pooling has no kernel size")
        sizes = _Window(
            space, _pair(call, given, "stride", 1), _pair(call, given, "pad", 0), (1, 1)
        )
        if sizes.pad != (0, 0) or sizes.stride != (1, 1):
            raise call.fail("global pooling has no padding and a stride of 1")
    else:
        sizes = _Window(
            _pair(call, given, "kernel_size", 0), _pair(call, given, "stride", 1),
            _pair(call, given, "pad", 0), (1, 1),
        )  # fmt: skip
    method, ceil = given.text("pool"), given.text("round_mode") == "CEIL"
    if given.has("ceil_mode"):  # of forks, before Caffe had round_mode
        ceil = given.flag("ceil_mode")
    pooled = _pool(call, x, method, sizes, ceil)
    if len(call.tops) == 1 or method != "MAX":
        return [pooled]
    return [pooled, _places(call, x, sizes, ceil)]


def _pair(call: Call, given: Message, name: str, default: int) -> tuple[int, ...]:
    prefix = name.removesuffix("_size")
    pair = [f for f in (f"{prefix}_h", f"{prefix}_w") if given.has(f)]
    if pair and (given.has(name) or len(pair) != 2):
        raise call.fail(f"either {name}, or both {prefix}_h and {prefix}_w")
    if not pair and name == "kernel_size" and not given.has(name):
        raise call.fail("the size of the window is missing", expected="kernel_size")
    found = tuple(given.integer(f) for f in pair) or (
        (given.integer(name) if given.has(name) else default,) * 2
    )
    least = 0 if name == "pad" else 1
    if any(not least <= n <= _WIDEST for n in found):
        raise call.fail(f"impossible {name}", got=list(found), expected=f"{least}..{_WIDEST}")
    return found


def _counts(call: Call, space: Sequence[int], sizes: _Window, ceil: bool) -> list[int]:
    """Windows on each axis. In ceil mode the last one may hang over the edge; with padding it
    must still begin within the image or the padding before it."""
    counts = []
    for n, k, s, p in zip(space, sizes.kernel, sizes.stride, sizes.pad, strict=True):
        if p >= k:
            raise call.fail("the padding must be smaller than the window", got=f"{p}, {k}")
        rest = n + 2 * p - k
        count = (-(-rest // s) if ceil else rest // s) + 1
        if any(sizes.pad) and (count - 1) * s >= n + p:
            count -= 1
        if count < 1 or (count - 1) * s - p >= n:
            raise call.fail("a window lies outside the image",
                            got=f"window {k}, stride {s}, padding {p}, size {n}")  # fmt: skip
        counts.append(count)
    return counts


def _pads(
    space: Sequence[int], sizes: _Window, counts: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Padding before and after each axis, with what the last windows hang over the edge."""
    return tuple(
        (p, max(0, (count - 1) * s + k - n - p))
        for n, k, s, p, count in zip(
            space, sizes.kernel, sizes.stride, sizes.pad, counts, strict=True
        )
    )


def _places(call: Call, x: Tensor, sizes: _Window, ceil: bool) -> Tensor:
    """Where in its channel each maximum is, the first at ties: row · width + column."""
    if math.prod(sizes.kernel) > 1024:
        raise call.unsupported("places of maxima in windows of more than 1024 elements")
    space = tuple(fixed(call, n, "a spatial axis") for n in x.shape[2:])
    counts = _counts(call, space, sizes, ceil)
    pads = _pads(space, sizes, counts)
    lowest = -3.4028234663852886e38
    padded = fn.pad(x, (0, 0, *(a for a, _ in pads)), (0, 0, *(b for _, b in pads)), lowest)
    windows = _windows(padded, sizes)
    rows, columns = (
        np.arange(count) * s - p
        for count, s, p in zip(counts, sizes.stride, sizes.pad, strict=True)
    )
    first = rows[:, None] * space[1] + columns[None, :]
    inside = np.add.outer(np.arange(sizes.kernel[0]) * space[1], np.arange(sizes.kernel[1]))
    table = trace.literal(inside.reshape(-1).astype(np.float32))
    found = fn.gather(table, fn.arg_max(fn.stop_gradient(windows), 4), 0)
    return found + trace.literal(first.astype(np.float32))


def _windows(x: Tensor, sizes: _Window) -> Tensor:
    """[N, C, rows, columns, elements of the window]."""
    tall = trace.call(unfold, x, 2, sizes.kernel[0], sizes.stride[0], 1)
    both = trace.call(unfold, tall, 3, sizes.kernel[1], sizes.stride[1], 1)
    return both.reshape(*both.shape[:4], math.prod(sizes.kernel))


def _pool(call: Call, x: Tensor, method: str, sizes: _Window, ceil: bool) -> Tensor:
    space = tuple(fixed(call, n, "a spatial axis") for n in x.shape[2:])
    counts = _counts(call, space, sizes, ceil)
    pads = _pads(space, sizes, counts)
    ones, none = (1, 1), (0, 0)
    full = (*ones, *sizes.kernel), (*ones, *sizes.stride), (none, none, *pads)
    if method == "MAX":
        return trace.call(window.window_max, x, *full)
    if method == "STOCHASTIC":
        return _stochastic(call, x, sizes, pads)
    total = trace.call(window.window_sum, x, *full)
    # a window divides by what of it lies in the image and its padding
    within = [
        [min(o * s - p + k, n + p) - (o * s - p) for o in range(count)]
        for n, k, s, p, count in zip(
            space, sizes.kernel, sizes.stride, sizes.pad, counts, strict=True
        )
    ]
    area = np.outer(np.asarray(within[0], np.float64), np.asarray(within[1], np.float64))
    if (area == area.flat[0]).all():
        return total * (1.0 / float(area.flat[0]))
    return total * trace.literal((1.0 / area).astype(np.float32))


def _stochastic(call: Call, x: Tensor, sizes: _Window, pads: tuple[tuple[int, int], ...]) -> Tensor:
    """In training one element of each window, drawn by its share of the window's sum; in
    inference the mean with these shares as weights. Elements are taken to be at least 0.

    Source: Zeiler and Fergus, 2013; Caffe's kernels for it
    """
    if math.prod(sizes.kernel) > 64:
        raise call.unsupported("stochastic pooling of windows with more than 64 elements")
    edges = (0, 0, *(a for a, _ in pads)), (0, 0, *(b for _, b in pads))
    padded = fn.pad(x, *edges)
    windows = _windows(padded, sizes)
    total = fn.reduce_sum(windows, (4,))
    positive = fn.where(fn.greater(total, 0.0), total, 1.0)
    mean = fn.reduce_sum(fn.square(windows), (4,)) / positive
    stream = 2**31 + len(call.net.blobs) + call.layer.line
    brick = RandomUniform(total.shape, stream % 2**32, DType.F32)
    draws = x.apply(brick, trace.RANDOM_SEED, trace.RANDOM_COUNTER)
    limit = fn.stop_gradient(total) * draws
    chosen, so_far, done = None, None, None
    for k in range(math.prod(sizes.kernel)):
        element = _element(windows, k)
        so_far = element if so_far is None else so_far + element
        here = fn.greater_equal(fn.stop_gradient(so_far), limit)
        first = here if done is None else fn.logical_and(here, fn.logical_not(done))
        part = fn.where(first, element, 0.0)
        chosen = part if chosen is None else chosen + part
        done = here if done is None else fn.logical_or(done, here)
    assert chosen is not None
    return trace.call(by_mode, chosen, mean)


def _element(windows: Tensor, k: int) -> Tensor:
    start, stop = [0] * windows.rank, list(windows.shape)
    start[-1], stop[-1] = k, k + 1
    return trace.call(shape.slice_, windows, start, stop).reshape(*windows.shape[:-1])


def spp(call: Call) -> list[Tensor]:
    """Spatial pyramid: pooling into 1, 4, 16 … bins, all side by side."""
    call.expect(1)
    given, x = call.sub("spp_param"), call.x()
    if x.rank != 4:
        raise call.fail("a pyramid takes images [N, C, H, W]", got=x.type)
    levels, space = given.integer("pyramid_height"), _spatial(call, x, 1)
    if not 1 <= levels <= 12:
        raise call.fail("impossible pyramid_height", got=levels, expected="1..12")
    pooled = []
    for level in range(levels):
        bins = 2**level
        kernel = tuple(-(-n // bins) for n in space)
        pad = tuple((k * bins - n + 1) // 2 for k, n in zip(kernel, space, strict=True))
        sizes = _Window(kernel, kernel, pad, (1, 1))
        pooled.append(_pool(call, x, given.text("pool"), sizes, True))
    if levels == 1:
        return pooled
    return [fn.concat([y.flatten() for y in pooled], 1)]
