"""AlexNet in its later, single-tower form."""

from __future__ import annotations

from ...ir.dims import Size
from ...ir.initializers import msra
from ..containers import Part, Sequential
from ..functional import accuracy, softmax_loss
from ..layers import Conv2d, Dropout, Flatten, Linear, MaxPool, ReLU
from ..model import Model
from ..trace import BATCH, input

__all__ = ["alexnet"]


def alexnet(
    batch: Size = BATCH, dtype: str = "f32", classes: int = 1000, dropout: bool = False
) -> Model:
    """AlexNet on 224×224 images, without groups and without normalisation; 61,100,840 parameters.

    ``dropout`` adds the two dropouts in front of fc6 and fc7.

    Source: Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014
    (agrees with torchvision's ``alexnet``)
    """
    x = input("x", (batch, 3, 224, 224), dtype)
    t = input("t", (batch,), "i32", limit=classes)

    def drop() -> list[Part]:
        return [Dropout(0.5)] if dropout else []

    y = Sequential(
        Conv2d(64, 11, stride=4, padding=2, init=msra),
        ReLU(),
        MaxPool(3, 2),
        Conv2d(192, 5, padding=2, init=msra),
        ReLU(),
        MaxPool(3, 2),
        Conv2d(384, 3, padding=1, init=msra),
        ReLU(),
        Conv2d(256, 3, padding=1, init=msra),
        ReLU(),
        Conv2d(256, 3, padding=1, init=msra),
        ReLU(),
        MaxPool(3, 2),
        Flatten(),
        *drop(),
        Linear(4096, init=msra, name="fc6"),
        ReLU(),
        *drop(),
        Linear(4096, init=msra, name="fc7"),
        ReLU(),
        Linear(classes, init=msra, name="fc8"),
    )(x)
    return Model({"logits": y}, softmax_loss(y, t), {"accuracy": accuracy(y, t)}, name="alexnet")
