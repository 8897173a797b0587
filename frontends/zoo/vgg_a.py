"""VGG, configuration A."""

from __future__ import annotations

from ...ir.dims import Size
from ...ir.initializers import msra
from ..containers import Part, Sequential
from ..functional import accuracy, softmax_loss
from ..layers import Conv2d, Dropout, Flatten, Linear, MaxPool, ReLU
from ..model import Model
from ..trace import BATCH, input

__all__ = ["vgg_a"]

#: output channels of the convolutions between the pools
_BLOCKS = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def vgg_a(
    batch: Size = BATCH, dtype: str = "f32", classes: int = 1000, dropout: bool = False
) -> Model:
    """VGG with 11 weight layers on 224×224 images, 132,863,336 parameters.

    ``dropout`` adds the dropouts behind fc6 and fc7. Weights start as in He et al., 2015,
    with which it trains from scratch.

    Source: Simonyan and Zisserman, Very deep convolutional networks for large-scale image
    recognition, 2014, table 1
    """
    x = input("x", (batch, 3, 224, 224), dtype)
    t = input("t", (batch,), "i32", limit=classes)
    parts: list[Part] = []
    for block, widths in enumerate(_BLOCKS, 1):
        for number, channels in enumerate(widths, 1):
            parts += [
                Conv2d(channels, 3, padding=1, init=msra, name=f"conv{block}_{number}"),
                ReLU(name=f"relu{block}_{number}"),
            ]
        parts.append(MaxPool(2))
    parts.append(Flatten())
    for number in (6, 7):
        parts += [Linear(4096, init=msra, name=f"fc{number}"), ReLU(name=f"relu{number}")]
        if dropout:
            parts.append(Dropout(0.5, name=f"drop{number}"))
    parts.append(Linear(classes, init=msra, name="fc8"))
    y = Sequential(*parts)(x)
    return Model({"logits": y}, softmax_loss(y, t), {"accuracy": accuracy(y, t)}, name="vgg_a")
