"""ONNX models in and out.

``from_onnx`` reads a model (opset 7 and up) as the graph that the Python API would make, with
parameters that keep their names; ``to_onnx`` writes a graph, or a whole training step.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...errors import UsageError
from ...ir.dims import Dim
from ..model import Model
from .export import to_onnx
from .importer import Importer
from .reading import read_model

if TYPE_CHECKING:
    import onnx

__all__ = ["from_onnx", "read_file", "to_onnx"]


def from_onnx(
    source: str | os.PathLike[str] | onnx.ModelProto,
    *,
    shapes: Mapping[str, Sequence[int | str | Dim]] | None = None,
    values: Mapping[str, npt.ArrayLike] | None = None,
    frozen: Sequence[str] = (),
) -> Model:
    """The model in an ONNX file, or of a message that is already loaded.

    Floating-point initializers with an axis become parameters; mean and variance of batch
    normalisations become states, which training updates; other initializers are constants.

    ``shapes`` replaces the shapes of inputs (names and ``Dim`` stand for sizes that differ
    between calls); ``values`` fixes inputs on which the program's form depends; ``frozen``
    names initializers that are not to be trained.

    Raises UnsupportedError that lists every node that is not supported, and ImportModelError
    for a file that is damaged or makes no sense.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if not path.is_file():
            raise UsageError("no such file", got=str(path))
        proto, file, folder = read_model(path), path.name, path.parent
    else:
        proto, file, folder = source, "model.onnx", None
    arrays = {name: np.asarray(value) for name, value in (values or {}).items()}
    return Importer(proto, file, folder, shapes=shapes, values=arrays, frozen=frozen).run()


def read_file(path: Path) -> Model:
    """The model in a file, as the command line asks for it."""
    return from_onnx(path)
