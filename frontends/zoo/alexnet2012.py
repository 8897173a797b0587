"""AlexNet as it won the ImageNet challenge of 2012, in Caffe's edition."""

from __future__ import annotations

from ...ir.dims import Size
from ...ir.initializers import constant, gaussian
from ..containers import Part, Sequential
from ..functional import accuracy, softmax_loss
from ..layer import Param
from ..layers import LRN, Conv2d, Dropout, Flatten, Linear, MaxPool, ReLU
from ..model import Model
from ..trace import BATCH, input

__all__ = ["alexnet2012"]

_NARROW = gaussian(0.005)
_WIDE = gaussian(0.01)
# biases learn at twice the rate and do not decay; those of the layers that the paper names
# start at 0.1, so that their ReLUs begin with positive inputs
_ZERO = Param(constant(0.0), lr_scale=2.0, decay_scale=0.0)
_TENTH = Param(constant(0.1), lr_scale=2.0, decay_scale=0.0)


def alexnet2012(
    batch: Size = BATCH, dtype: str = "f32", classes: int = 1000, dropout: bool = True
) -> Model:
    """AlexNet on 227×227 images: groups, overlapping pools, local response normalisation,
    dropout; 60,965,224 parameters.

    As in Caffe, normalisation follows the ReLU and precedes the pool.

    Source: Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional
    neural networks, 2012; caffe/models/bvlc_alexnet
    """
    x = input("x", (batch, 3, 227, 227), dtype)
    t = input("t", (batch,), "i32", limit=classes)

    def drop(name: str) -> list[Part]:
        return [Dropout(0.5, name=name)] if dropout else []

    y = Sequential(
        Conv2d(96, 11, stride=4, init=_WIDE, bias_init=_ZERO),
        ReLU(),
        LRN(5, 1e-4, 0.75),
        MaxPool(3, 2),
        Conv2d(256, 5, padding=2, groups=2, init=_WIDE, bias_init=_TENTH),
        ReLU(),
        LRN(5, 1e-4, 0.75),
        MaxPool(3, 2),
        Conv2d(384, 3, padding=1, init=_WIDE, bias_init=_ZERO),
        ReLU(),
        Conv2d(384, 3, padding=1, groups=2, init=_WIDE, bias_init=_TENTH),
        ReLU(),
        Conv2d(256, 3, padding=1, groups=2, init=_WIDE, bias_init=_TENTH),
        ReLU(),
        MaxPool(3, 2, name="pool5"),
        Flatten(),
        Linear(4096, init=_NARROW, bias_init=_TENTH, name="fc6"),
        ReLU(name="relu6"),
        *drop("drop6"),
        Linear(4096, init=_NARROW, bias_init=_TENTH, name="fc7"),
        ReLU(name="relu7"),
        *drop("drop7"),
        Linear(classes, init=_WIDE, bias_init=_ZERO, name="fc8"),
    )(x)
    return Model(
        {"logits": y}, softmax_loss(y, t), {"accuracy": accuracy(y, t)}, name="alexnet2012"
    )
