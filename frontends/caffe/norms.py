"""Layers that normalise: local response, batch statistics, mean and variance, softmax.

Source: the layers of the same names in caffe/layers
"""

from __future__ import annotations

from ...ir.bricks.mode import by_mode
from ...ir.bricks.source import dim_size
from ...ir.dims import product
from ...ir.initializers import constant
from .. import functional as fn
from .. import trace
from ..trace import Tensor
from .call import Call, axis_of, fixed

__all__ = ["batch_norm", "lrn", "mvn", "softmax"]


def lrn(call: Call) -> list[Tensor]:
    """x / (k + alpha/size · sum of squares)^beta over neighbouring channels; within a channel
    over a square window, with alpha/size² and a constant of 1."""
    call.expect(1)
    given, x = call.sub("lrn_param"), call.x()
    size, within = given.integer("local_size"), given.text("norm_region") == "WITHIN_CHANNEL"
    if size % 2 == 0 or not 1 <= size <= 1023:
        raise call.fail("local_size is an odd number", got=size, expected="1, 3, 5 …")
    if x.rank != 4:
        raise call.fail("LRN takes images [N, C, H, W]", got=x.type)
    k = 1.0 if within else given.real("k")
    return [fn.lrn(x, size, given.real("alpha"), given.real("beta"), k, within=within)]


def softmax(call: Call) -> list[Tensor]:
    call.expect(1)
    x = call.x()
    return [fn.softmax(x, axis_of(call, call.sub("softmax_param").integer("axis"), x.rank))]


def batch_norm(call: Call) -> list[Tensor]:
    """(x - mean)/sqrt(variance + eps) for every channel, without scale and bias.

    The blobs are running sums: mean and variance are theirs divided by the third blob. In
    training the batch's own are used, unless use_global_stats says otherwise, and the sums
    become fraction·sum + new, the variance without its bias.
    """
    call.expect(1)
    given, x = call.sub("batch_norm_param"), call.x()
    if x.rank < 2:
        raise call.fail("the bottom has no channels", got=x.type)
    for spec in call.layer.subs("param"):
        if spec.real("lr_mult") != 0:
            raise call.fail("the statistics are no trained parameters", got="lr_mult not 0")
    channels, eps = fixed(call, x.shape[1], "the channel axis"), given.real("eps")
    if eps <= 0:
        raise call.fail("eps must be positive", got=eps)
    zero = constant(0.0)
    mean = call.state("mean", (channels,), zero)
    variance = call.state("variance", (channels,), zero)
    factor = call.state("factor", (1,), zero)
    # without any batch so far the sums are 0, and so is what is divided
    inverse = fn.where(fn.equal(factor, 0.0), 0.0, fn.reciprocal(_not_zero(factor)))
    ones = (channels, *(1,) * (x.rank - 2))
    deviation = fn.sqrt(variance * inverse + eps)
    stored = (x - (mean * inverse).reshape(*ones)) / deviation.reshape(*ones)
    forced = given.has("use_global_stats")
    if forced and given.flag("use_global_stats"):
        return [stored]
    axes = (0, *range(2, x.rank))
    centre = fn.reduce_mean(x, axes, True)
    spread = fn.reduce_mean(fn.square(x - centre), axes, True)
    own = (x - centre) / fn.sqrt(spread + eps)
    if call.training:
        fraction = given.real("moving_average_fraction")
        size = product([x.shape[a] for a in axes])
        count = trace.call(dim_size, x, size, x.dtype)
        less = trace.call(dim_size, x, size - 1, x.dtype)
        bessel = fn.where(fn.greater(less, 0.0), count / fn.maximum(less, 1.0), 1.0)
        for state, new in (
            (mean, centre.reshape(channels)),
            (variance, spread.reshape(channels) * bessel),
            (factor, trace.literal([1.0], "f32")),
        ):
            before = call.net.updates.get(state, state)
            call.net.updates[state] = before * fraction + fn.stop_gradient(new)
    return [own if forced else trace.call(by_mode, own, stored)]


def _not_zero(x: Tensor) -> Tensor:
    return fn.where(fn.equal(x, 0.0), 1.0, x)


def mvn(call: Call) -> list[Tensor]:
    """x - mean, divided by the deviation + eps, over each channel's places, or over all.

    The derivative of the deviation is Caffe's, with eps where the root is 0.
    """
    call.expect(1)
    given, x = call.sub("mvn_param"), call.x()
    if x.rank < 2:
        raise call.fail("the bottom has no channels", got=x.type)
    axes = tuple(range(1 if given.flag("across_channels") else 2, x.rank))
    if not axes:
        raise call.fail("there is nothing to take a mean of", got=x.type)
    centred = x - fn.reduce_mean(x, axes, True)
    if not given.flag("normalize_variance"):
        return [centred]
    eps = given.real("eps")
    variance = fn.reduce_mean(fn.square(centred), axes, True)
    level = fn.stop_gradient(fn.sqrt(variance))
    # the value is the root, the slope 1/(2·(root + eps))
    root = level + (variance - fn.stop_gradient(variance)) / ((level + eps) * 2.0)
    return [centred / (root + eps)]
