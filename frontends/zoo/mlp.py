"""The multilayer perceptron of the first lecture."""

from __future__ import annotations

from ...ir.dims import Size
from ..containers import Sequential
from ..functional import accuracy, softmax_loss
from ..layers import Linear, Tanh
from ..model import Model
from ..trace import BATCH, input

__all__ = ["mlp"]


def mlp(batch: Size = BATCH, dtype: str = "f32", classes: int = 10) -> Model:
    """784-512-512-10 with tanh, on flattened 28×28 images; 669,706 parameters.

    Source: Rumelhart, Hinton and Williams, Learning representations by back-propagating
    errors, 1986 (the method); trained on cross entropy instead of squares
    """
    x = input("x", (batch, 784), dtype)
    t = input("t", (batch,), "i32", limit=classes)
    y = Sequential(
        Linear(512, name="fc1"),
        Tanh(),
        Linear(512, name="fc2"),
        Tanh(),
        Linear(classes, name="fc3"),
    )(x)
    return Model({"logits": y}, softmax_loss(y, t), {"accuracy": accuracy(y, t)}, name="mlp")
