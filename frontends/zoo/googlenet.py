"""GoogLeNet, the first Inception network."""

from __future__ import annotations

from ...ir.dims import Size
from ...ir.initializers import constant, xavier
from ..containers import Parallel, Part, Sequential
from ..functional import accuracy, softmax_loss
from ..layer import Param
from ..layers import LRN, Conv2d, Dropout, Flatten, Linear, MaxPool, MeanPool, ReLU
from ..model import Model
from ..trace import BATCH, Tensor, input

__all__ = ["googlenet"]

_BIAS = Param(constant(0.2), lr_scale=2.0, decay_scale=0.0)
_ZERO = Param(constant(0.0), lr_scale=2.0, decay_scale=0.0)

#: 1×1; 3×3 with its reduction in front; 5×5 with its reduction in front; behind the pool
_INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(
    batch: Size = BATCH,
    dtype: str = "f32",
    classes: int = 1000,
    aux: bool = False,
    lrn: bool = True,
    dropout: bool = True,
) -> Model:
    """GoogLeNet on 224×224 images, 6,998,552 parameters (13,378,280 with ``aux``).

    ``aux`` adds the two auxiliary classifiers, whose losses count 0.3 each; ``lrn`` the
    normalisations around conv2; ``dropout`` the dropouts. Names, sizes and rounding (pools
    keep a last window that hangs over the edge) are Caffe's.

    Source: Szegedy et al., Going deeper with convolutions, 2014; caffe/models/bvlc_googlenet
    """
    x = input("x", (batch, 3, 224, 224), dtype)
    t = input("t", (batch,), "i32", limit=classes)

    y = Sequential(
        *_conv("conv1/7x7_s2", 64, 7, stride=2, padding=3),
        _pool("pool1/3x3_s2"),
        *([LRN(5, 1e-4, 0.75, name="pool1/norm1")] if lrn else []),
        *_conv("conv2/3x3_reduce", 64, 1),
        *_conv("conv2/3x3", 192, 3, padding=1),
        *([LRN(5, 1e-4, 0.75, name="conv2/norm2")] if lrn else []),
        _pool("pool2/3x3_s2"),
        _inception("3a"),
        _inception("3b"),
        _pool("pool3/3x3_s2"),
        _inception("4a"),
    )(x)
    first = y
    y = Sequential(_inception("4b"), _inception("4c"), _inception("4d"))(y)
    second = y
    y = Sequential(
        _inception("4e"),
        _pool("pool4/3x3_s2"),
        _inception("5a"),
        _inception("5b"),
        MeanPool(7, 1, name="pool5/7x7_s1"),
        *([Dropout(0.4, name="pool5/drop_7x7_s1")] if dropout else []),
        Flatten(),
        Linear(classes, bias_init=_ZERO, name="loss3/classifier"),
    )(y)

    loss = softmax_loss(y, t)
    if aux:
        for name, branch in (("loss1", first), ("loss2", second)):
            logits = _auxiliary(name, branch, classes, dropout)
            loss = loss + 0.3 * softmax_loss(logits, t)
    return Model({"logits": y}, loss, {"accuracy": accuracy(y, t)}, name="googlenet")


def _conv(name: str, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> list[Part]:
    folder, _, rest = name.rpartition("/")
    return [
        Conv2d(channels, kernel, stride, padding, init=xavier, bias_init=_BIAS, name=name),
        ReLU(name=f"{folder}/relu_{rest}"),
    ]


def _pool(name: str) -> MaxPool:
    return MaxPool(3, 2, ceil_mode=True, name=name)


def _inception(name: str) -> Parallel:
    one, reduce3, three, reduce5, five, project = _INCEPTION[name]
    at = f"inception_{name}"
    return Parallel(
        Sequential(*_conv(f"{at}/1x1", one, 1)),
        Sequential(
            *_conv(f"{at}/3x3_reduce", reduce3, 1), *_conv(f"{at}/3x3", three, 3, padding=1)
        ),
        Sequential(*_conv(f"{at}/5x5_reduce", reduce5, 1), *_conv(f"{at}/5x5", five, 5, padding=2)),
        Sequential(
            MaxPool(3, 1, padding=1, name=f"{at}/pool"), *_conv(f"{at}/pool_proj", project, 1)
        ),
    )


def _auxiliary(name: str, x: Tensor, classes: int, dropout: bool) -> Tensor:
    return Sequential(
        MeanPool(5, 3, name=f"{name}/ave_pool"),
        *_conv(f"{name}/conv", 128, 1),
        Flatten(),
        Linear(1024, bias_init=_BIAS, name=f"{name}/fc"),
        ReLU(name=f"{name}/relu_fc"),
        *([Dropout(0.7, name=f"{name}/drop_fc")] if dropout else []),
        Linear(classes, bias_init=_ZERO, name=f"{name}/classifier"),
    )(x)
