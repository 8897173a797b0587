"""Weights on their way back into a PyTorch module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..model import Model
from .live import import_torch

if TYPE_CHECKING:
    import torch

__all__ = ["torch_state"]

Array = npt.NDArray[Any]


def torch_state(model: Model, arrays: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """``arrays`` as tensors under the names of the module that the model came from.

    What the program does not keep, as no function that was compiled needs it, has the value
    that it was imported with. A model that came from elsewhere has all its parameters and
    states here, under their own names.
    """
    torch = import_torch()
    names: Mapping[str, str | Array]
    if model.imported is not None:
        names = model.imported
    else:
        own = [*model.parameters, *(n for n in model.states if not n.startswith("random."))]
        names = {name: name for name in own}
    given = model.weights or {}
    found: dict[str, Any] = {}
    for name, source in names.items():
        if isinstance(source, str):
            source = arrays[source] if source in arrays else given[source]
        found[name] = torch.from_numpy(np.array(source))
    return found
