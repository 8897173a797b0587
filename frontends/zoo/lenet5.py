"""LeNet-5, the network of 1998."""

from __future__ import annotations

from ...ir.dims import Size
from ..containers import Sequential
from ..functional import accuracy, softmax_loss
from ..layers import Conv2d, Flatten, Linear, MeanPool, Tanh
from ..model import Model
from ..trace import BATCH, input

__all__ = ["lenet5"]


def lenet5(batch: Size = BATCH, dtype: str = "f32", classes: int = 10) -> Model:
    """LeNet-5 on 32×32 images, 61,706 parameters.

    The names are the paper's. As it is written today: C3 sees all of S2's maps (the paper's
    table of connections leaves some out), the pooling layers have no coefficients, and ten
    linear outputs under softmax stand for the radial basis functions.

    Source: LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document
    recognition, 1998
    """
    x = input("x", (batch, 1, 32, 32), dtype)
    t = input("t", (batch,), "i32", limit=classes)
    y = Sequential(
        Conv2d(6, 5, name="c1"),
        Tanh(),
        MeanPool(2, name="s2"),
        Conv2d(16, 5, name="c3"),
        Tanh(),
        MeanPool(2, name="s4"),
        Conv2d(120, 5, name="c5"),
        Tanh(),
        Flatten(),
        Linear(84, name="f6"),
        Tanh(),
        Linear(classes, name="output"),
    )(x)
    return Model({"logits": y}, softmax_loss(y, t), {"accuracy": accuracy(y, t)}, name="lenet5")
