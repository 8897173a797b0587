"""The layers: bricks with parameters of their own, made at the first call.

Weights start as Caffe's ``xavier`` filler has it (uniform, variance 1/fan-in), which suits
tanh and logistic networks; give ``init=msra`` (normal, variance 2/fan-in) to deep ReLU
networks. Biases start at zero. Every parameter has its own random stream, keyed by the seed
and the parameter's name: the same seed gives the same weights, on any machine and whatever
other parameters there are.

Images are [N, C, H, W], as in Caffe and torch: axis 0 counts examples, axis 1 channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ShapeError, UsageError
from ..ir.brick import Brick
from ..ir.bricks import normalization, random
from ..ir.bricks.contract import linear
from ..ir.bricks.convolution import Convolution, ConvolutionInputGrad
from ..ir.bricks.indexing import gather
from ..ir.bricks.reduce import reduce_mean
from ..ir.bricks.window import max_pool, mean_pool
from ..ir.dims import Size
from ..ir.initializers import constant, xavier
from . import trace
from .activations import (
    ELU,
    GELU,
    Elementwise,
    LeakyReLU,
    Logistic,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    Unary,
)
from .layer import (
    Init,
    Layer,
    channels_of,
    expect_float,
    expect_rank,
    fixed_size,
    per_axis,
    per_channel,
)
from .trace import Tensor

__all__ = [
    "ELU", "GELU", "LRN", "BatchNorm", "Bias", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose2d",
    "Dropout", "Elementwise", "Embedding", "Flatten", "GlobalMeanPool", "Lambda", "LayerNorm",
    "LeakyReLU", "Linear", "LogSoftmax", "Logistic", "MaxPool", "MeanPool", "PReLU", "ReLU",
    "Reshape", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh",
]  # fmt: skip

_ZERO = constant(0.0)
_ONE = constant(1.0)


# ── affine ───────────────────────────────────────────────────────────────────────────────


@dataclass(eq=False, repr=False)
class Linear(Layer):
    """y = x wᵀ + b on the last axis; weight [out, in], bias [out]."""

    kind: ClassVar[str] = "linear"

    out: int
    bias: bool = True
    init: Init = xavier
    bias_init: Init = _ZERO

    def forward(self, x: Tensor) -> Tensor:
        expect_float(x)
        if x.rank < 1:
            raise ShapeError("an input of one axis or more is needed", got=x.type)
        fan_in = fixed_size(x, -1, "features")
        weight = self.parameter("weight", (self.out, fan_in), self.init, x, fan_in)
        y = trace.of(linear(x, weight))
        return y + self.parameter("bias", (self.out,), self.bias_init, x) if self.bias else y


@dataclass(eq=False, repr=False)
class Bias(Layer):
    """y = x + b with one b for every channel (axis 1; the last axis of a matrix)."""

    kind: ClassVar[str] = "bias"

    init: Init = _ZERO

    def forward(self, x: Tensor) -> Tensor:
        expect_float(x)
        return x + per_channel(self, "bias", self.init, x)


@dataclass(eq=False, repr=False)
class _Convolution(Layer):
    kind: ClassVar[str] = "conv"
    rank: ClassVar[int]

    out_channels: int
    kernel: int | Sequence[int]
    stride: int | Sequence[int] = 1
    padding: int | Sequence[int] = 0
    dilation: int | Sequence[int] = 1
    groups: int = 1
    bias: bool = True
    init: Init = xavier
    bias_init: Init = _ZERO

    def _sizes(self, x: Tensor) -> tuple[tuple[int, ...], ...]:
        expect_float(x)
        axes = ("D", "H", "W")[3 - self.rank :]
        expect_rank(x, 2 + self.rank, f"[N, C, {', '.join(axes)}]")
        return (
            per_axis(self.kernel, self.rank, "kernel", 1),
            per_axis(self.stride, self.rank, "stride", 1),
            per_axis(self.padding, self.rank, "padding", 0),
            per_axis(self.dilation, self.rank, "dilation", 1),
        )

    def _grouped(self, channels: int) -> None:
        if self.groups < 1 or channels % self.groups or self.out_channels % self.groups:
            raise ShapeError(
                "the channels do not divide into the groups",
                got=f"{channels} -> {self.out_channels} channels, {self.groups} groups",
            )

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride, padding, dilation = self._sizes(x)
        channels = fixed_size(x, 1, "channels")
        self._grouped(channels)
        shape = (self.out_channels, channels // self.groups, *kernel)
        fan_in = _product(shape[1:])
        weight = self.parameter("weight", shape, self.init, x, fan_in)
        pairs = tuple((p, p) for p in padding)
        y = x.apply(Convolution(stride, pairs, dilation, self.groups), x, weight)
        return y + per_channel(self, "bias", self.bias_init, y) if self.bias else y


class Conv1d(_Convolution):
    """The convolution of [N, C, W] with out_channels kernels (a correlation, as everywhere);
    weight [out, C/groups, k], bias [out]."""

    rank: ClassVar[int] = 1


class Conv2d(_Convolution):
    """The convolution of [N, C, H, W] with out_channels kernels (a correlation, as everywhere);
    weight [out, C/groups, kh, kw], bias [out]."""

    rank: ClassVar[int] = 2


class Conv3d(_Convolution):
    """The convolution of [N, C, D, H, W] with out_channels kernels;
    weight [out, C/groups, kd, kh, kw], bias [out]."""

    rank: ClassVar[int] = 3


@dataclass(eq=False, repr=False)
class ConvTranspose2d(_Convolution):
    """The adjoint of the Conv2d that has these strides; weight [C, out/groups, kh, kw].

    Shapes:  [N, C, H, W] -> [N, out, (H-1)·stride - 2·padding + dilation·(k-1) +
             output_padding + 1, …], as torch has it
    """

    kind: ClassVar[str] = "convtranspose"
    rank: ClassVar[int] = 2

    output_padding: int | Sequence[int] = 0

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride, padding, dilation = self._sizes(x)
        extra = per_axis(self.output_padding, self.rank, "output padding", 0)
        channels = fixed_size(x, 1, "channels")
        self._grouped(channels)
        shape = (channels, self.out_channels // self.groups, *kernel)
        # as many inputs meet in an output as a kernel of the forward convolution has taps,
        # thinned by the stride
        fan_in = max(1, channels // self.groups * _product(kernel) // _product(stride))
        weight = self.parameter("weight", shape, self.init, x, fan_in)
        sizes = tuple(
            (size - 1) * s - 2 * p + d * (k - 1) + e + 1
            for size, s, p, d, k, e in zip(
                x.shape[2:], stride, padding, dilation, kernel, extra, strict=True
            )
        )
        pairs = tuple((p, p) for p in padding)
        brick = ConvolutionInputGrad(stride, pairs, dilation, self.groups, sizes)
        y = x.apply(brick, x, weight)
        return y + per_channel(self, "bias", self.bias_init, y) if self.bias else y


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


@dataclass(eq=False, repr=False)
class Embedding(Layer):
    """Row ``i`` of a table [count, size] for every index i: [...] -> [..., size]."""

    kind: ClassVar[str] = "embedding"

    count: int
    size: int
    init: Init = xavier
    dtype: str = "f32"

    def forward(self, indices: Tensor) -> Tensor:
        if "weight" not in self._tensors:
            like = trace.literal(0, self.dtype)
            self.parameter("weight", (self.count, self.size), self.init, like, self.size)
        return trace.of(gather(self._tensors["weight"], indices, 0))


# ── pooling ──────────────────────────────────────────────────────────────────────────────


def _spatial(x: Tensor) -> int:
    """The number of spatial axes."""
    if x.rank < 3:
        raise ShapeError("an input with spatial axes is needed", got=x.type, expected="[N, C, *S]")
    return x.rank - 2


@dataclass(eq=False, repr=False)
class _Pool(Layer):
    kind: ClassVar[str] = "pool"

    window: int | Sequence[int]
    stride: int | Sequence[int] | None = None
    padding: int | Sequence[int] = 0
    ceil_mode: bool = False

    def _sizes(self, x: Tensor) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        expect_float(x)
        rank = _spatial(x)
        window = per_axis(self.window, rank, "window", 1)
        stride = window if self.stride is None else per_axis(self.stride, rank, "stride", 1)
        return window, stride, per_axis(self.padding, rank, "padding", 0)


class MaxPool(_Pool):
    """The largest element of every window; ``stride`` is the window's size unless given.

    ``ceil_mode`` keeps a last window that hangs over the edge, as Caffe always does.
    """

    def forward(self, x: Tensor) -> Tensor:
        window, stride, padding = self._sizes(x)
        return trace.of(max_pool(x, window, stride, padding, self.ceil_mode))


@dataclass(eq=False, repr=False)
class MeanPool(_Pool):
    """The mean of every window; ``stride`` is the window's size unless given.

    ``count_include_pad``: zeros of the padding count as elements, as in Caffe and torch.
    """

    count_include_pad: bool = True

    def forward(self, x: Tensor) -> Tensor:
        window, stride, padding = self._sizes(x)
        return trace.of(
            mean_pool(x, window, stride, padding, self.ceil_mode, self.count_include_pad)
        )


@dataclass(eq=False, repr=False)
class GlobalMeanPool(Layer):
    """The mean over all spatial axes: [N, C, *S] -> [N, C]."""

    kind: ClassVar[str] = "pool"

    def forward(self, x: Tensor) -> Tensor:
        _spatial(x)
        return trace.of(reduce_mean(x, tuple(range(2, x.rank)), False))


# ── normalisation and noise ──────────────────────────────────────────────────────────────


@dataclass(eq=False, repr=False)
class LRN(Unary):
    """x / (k + alpha/size · sum of squares)^beta over ``size`` neighbouring channels.

    ``within``: over a square window of the same channel instead. Source: Krizhevsky et al.,
    2012, with Caffe's alpha (the paper's is alpha/size).
    """

    kind: ClassVar[str] = "norm"

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0
    within: bool = False

    def _brick(self, x: Tensor) -> Brick:
        numbers = self.size, float(self.alpha), float(self.beta), float(self.k)
        kind = normalization.LRNWithin if self.within else normalization.LRNAcross
        return kind(*numbers)


@dataclass(eq=False, repr=False)
class BatchNorm(Layer):
    """(x - mean)/sqrt(variance + eps)·weight + bias for every channel (axis 1).

    In training mean and variance are the batch's, and running ones follow them by
    ``momentum`` (torch's: the share of the new); in inference they are the running ones.

    Source: Ioffe and Szegedy, 2015; agrees with torch
    """

    kind: ClassVar[str] = "batchnorm"

    momentum: float = 0.1
    eps: float = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        expect_float(x)
        channels = (channels_of(x),)
        brick = normalization.BatchNorm(float(self.momentum), float(self.eps))
        return x.apply(
            brick,
            x,
            self.parameter("weight", channels, _ONE, x),
            self.parameter("bias", channels, _ZERO, x),
            self.state("running_mean", channels, _ZERO, x),
            self.state("running_var", channels, _ONE, x),
        )


@dataclass(eq=False, repr=False)
class LayerNorm(Layer):
    """(x - mean)/sqrt(variance + eps)·weight + bias over the last ``axes`` axes.

    Source: Ba, Kiros and Hinton, 2016; agrees with torch
    """

    kind: ClassVar[str] = "layernorm"

    axes: int = 1
    eps: float = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        expect_float(x)
        if not 1 <= self.axes <= x.rank:
            raise ShapeError(f"no last {self.axes} axes", got=x.type)
        last = range(x.rank - self.axes, x.rank)
        shape = tuple(fixed_size(x, a, "features") for a in last)
        weight = self.parameter("weight", shape, _ONE, x)
        bias = self.parameter("bias", shape, _ZERO, x)
        return trace.of(normalization.layer_norm(x, weight, bias, tuple(last), float(self.eps)))


@dataclass(eq=False, repr=False)
class Dropout(Layer):
    """In training sets a share ``rate`` of the elements to zero and scales up the others.

    The draws depend on the model's seed, its step counter and the layer, nothing else: a
    step can be repeated exactly, on any backend.
    """

    kind: ClassVar[str] = "dropout"

    rate: float = 0.5

    def forward(self, x: Tensor) -> Tensor:
        expect_float(x)
        if not 0 <= self.rate < 1:
            raise UsageError("impossible rate", got=self.rate, expected="0 <= rate < 1")
        # Model numbers the streams, since only it knows what else the network contains
        brick = random.Dropout(float(self.rate), 0)
        return x.apply(brick, x, trace.RANDOM_SEED, trace.RANDOM_COUNTER)


# ── shapes and functions ─────────────────────────────────────────────────────────────────


@dataclass(eq=False, repr=False)
class Flatten(Layer):
    """The axes from ``start`` on as one: [N, C, H, W] -> [N, C·H·W]."""

    kind: ClassVar[str] = "flatten"

    start: int = 1

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(self.start)


@dataclass(eq=False, repr=False)
class Reshape(Layer):
    """Another shape for each example: axis 0 stays. One size may be -1."""

    kind: ClassVar[str] = "reshape"

    shape: Sequence[Size]

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)


@dataclass(eq=False, repr=False)
class Lambda(Layer):
    """A function of tensors as a layer: ``Lambda(lambda x: x * 2)``."""

    kind: ClassVar[str] = "lambda"

    function: Callable[..., Tensor]

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.function(*args, **kwargs)
