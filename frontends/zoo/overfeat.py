"""OverFeat, the fast model."""

from __future__ import annotations

from ...ir.dims import Size
from ...ir.initializers import msra
from ..containers import Sequential
from ..functional import accuracy, softmax_loss
from ..layers import Conv2d, Flatten, Linear, MaxPool, ReLU
from ..model import Model
from ..trace import BATCH, input

__all__ = ["overfeat"]


def overfeat(batch: Size = BATCH, dtype: str = "f32", classes: int = 1000) -> Model:
    """OverFeat (fast) on 231×231 images, 145,920,872 parameters.

    Source: Sermanet et al., OverFeat: integrated recognition, localization and detection using
    convolutional networks, 2013; the sizes are those of soumith/convnet-benchmarks
    """
    x = input("x", (batch, 3, 231, 231), dtype)
    t = input("t", (batch,), "i32", limit=classes)
    y = Sequential(
        Conv2d(96, 11, stride=4, init=msra),
        ReLU(),
        MaxPool(2),
        Conv2d(256, 5, init=msra),
        ReLU(),
        MaxPool(2),
        Conv2d(512, 3, padding=1, init=msra),
        ReLU(),
        Conv2d(1024, 3, padding=1, init=msra),
        ReLU(),
        Conv2d(1024, 3, padding=1, init=msra),
        ReLU(),
        MaxPool(2),
        Flatten(),
        Linear(3072, init=msra, name="fc6"),
        ReLU(),
        Linear(4096, init=msra, name="fc7"),
        ReLU(),
        Linear(classes, init=msra, name="fc8"),
    )(x)
    return Model({"logits": y}, softmax_loss(y, t), {"accuracy": accuracy(y, t)}, name="overfeat")
