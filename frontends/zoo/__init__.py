"""Well-known networks, in the Python API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import UsageError
from ...ir.dims import Size
from ..model import Model
from ..trace import BATCH
from .alexnet import alexnet
from .alexnet2012 import alexnet2012
from .googlenet import googlenet
from .lenet import lenet
from .lenet5 import lenet5
from .mlp import mlp
from .overfeat import overfeat
from .vgg_a import vgg_a

__all__ = ["ZOO", "alexnet", "alexnet2012", "googlenet", "lenet", "lenet5", "mlp", "model",
           "overfeat", "vgg_a"]  # fmt: skip

ZOO: dict[str, Callable[..., Model]] = {
    "mlp": mlp,
    "lenet5": lenet5,
    "lenet": lenet,
    "alexnet": alexnet,
    "alexnet2012": alexnet2012,
    "overfeat": overfeat,
    "vgg_a": vgg_a,
    "googlenet": googlenet,
}


def model(name: str, batch: Size = BATCH, **options: Any) -> Model:
    """The network of that name. Raises UsageError if there is none."""
    if name not in ZOO:
        raise UsageError("no such network in the zoo", got=repr(name)[:80], expected=", ".join(ZOO))
    return ZOO[name](batch, **options)
