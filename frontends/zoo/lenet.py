"""Caffe's LeNet."""

from __future__ import annotations

from ...ir.dims import Size
from ...ir.initializers import constant, xavier
from ..containers import Sequential
from ..functional import accuracy, softmax_loss
from ..layer import Param
from ..layers import Conv2d, Flatten, Linear, MaxPool, ReLU
from ..model import Model
from ..trace import BATCH, input

__all__ = ["lenet"]

#: biases learn at twice the rate
_BIAS = Param(constant(0.0), lr_scale=2.0)


def lenet(batch: Size = BATCH, dtype: str = "f32", classes: int = 10) -> Model:
    """LeNet as in Caffe's MNIST example, on 28×28 images; 431,080 parameters.

    Source: caffe/examples/mnist/lenet_train_test.prototxt
    """
    x = input("x", (batch, 1, 28, 28), dtype)
    t = input("t", (batch,), "i32", limit=classes)
    y = Sequential(
        Conv2d(20, 5, init=xavier, bias_init=_BIAS),
        MaxPool(2),
        Conv2d(50, 5, init=xavier, bias_init=_BIAS),
        MaxPool(2),
        Flatten(),
        Linear(500, init=xavier, bias_init=_BIAS, name="ip1"),
        ReLU(),
        Linear(classes, init=xavier, bias_init=_BIAS, name="ip2"),
    )(x)
    return Model({"logits": y}, softmax_loss(y, t), {"accuracy": accuracy(y, t)}, name="lenet")
