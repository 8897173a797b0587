"""The onnx package, asked for only when a model is read or written."""

from __future__ import annotations

import importlib
from types import ModuleType

from ...errors import UsageError

__all__ = ["onnx_package"]


def onnx_package() -> ModuleType:
    """The module ``onnx``. Raises UsageError if it is not installed."""
    try:
        importlib.import_module("onnx.numpy_helper")
        return importlib.import_module("onnx")
    except ImportError as error:
        raise UsageError(
            "ONNX models need the onnx package", got=str(error),
            hint="pip install 'brickc[onnx]'",
        ) from None  # fmt: skip
