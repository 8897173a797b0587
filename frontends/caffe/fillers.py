"""Fillers: how a blob starts.

Source: caffe/filler.hpp
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from ...ir.initializers import Initializer, constant, gaussian, uniform
from .message import Message

__all__ = ["fill"]

Array = npt.NDArray[Any]

#: elements of a blob that is filled here; others are filled by the compiled program
_LARGEST = 2**27


def fill(filler: Message, shape: tuple[int, ...], name: str) -> tuple[Initializer, Array | None]:
    """The distribution of a filler for a blob of that shape.

    Fillers that are no plain distribution (bilinear, positive_unitball, sparse gaussian) give
    an array as well, drawn by the parameter's name alone.
    Raises ImportModelError for an unknown type or numbers that make no sense.
    """
    type = filler.text("type")
    sparse = filler.integer("sparse")
    if sparse != -1 and type != "gaussian":
        raise filler.fail(f"a {type} filler is not sparse", "sparse", got=sparse)
    match type:
        case "constant":
            return constant(filler.real("value")), None
        case "uniform":
            return uniform(filler.real("min"), filler.real("max")), None
        case "gaussian":
            return _gaussian(filler, shape, name, sparse)
        case "xavier":
            bound = math.sqrt(3.0 / _fan(filler, shape))
            return uniform(-bound, bound), None
        case "msra":
            return gaussian(math.sqrt(2.0 / _fan(filler, shape))), None
        case "bilinear":
            return constant(0.0), _bilinear(filler, shape)
        case "positive_unitball":
            _bounded(filler, shape)
            rows = _first(shape)
            flat = _rng(name).random((rows, math.prod(shape) // rows))
            total = flat.sum(axis=1, keepdims=True)
            return constant(0.0), (flat / total).reshape(shape).astype(np.float32)
    raise filler.fail(
        "unknown filler", "type", got=repr(type)[:60],
        expected="constant, uniform, gaussian, xavier, msra, bilinear or positive_unitball",
    )  # fmt: skip


def _first(shape: tuple[int, ...]) -> int:
    return max(1, shape[0]) if shape else 1


def _fan(filler: Message, shape: tuple[int, ...]) -> float:
    """The number that a variance is divided by: inputs, outputs, or their mean."""
    count = math.prod(shape)
    fan_in = count // _first(shape)
    fan_out = count // max(1, shape[1]) if len(shape) > 1 else count
    norm = filler.text("variance_norm")
    chosen = {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}[norm]
    return max(1, chosen)


def _gaussian(
    filler: Message, shape: tuple[int, ...], name: str, sparse: int
) -> tuple[Initializer, Array | None]:
    mean, std = filler.real("mean"), filler.real("std")
    if std < 0:
        raise filler.fail("a standard deviation below 0", "std", got=std)
    if sparse == -1:
        return gaussian(std, mean), None
    if sparse < 0:
        raise filler.fail("a number of non-zero weights below 0", "sparse", got=sparse)
    _bounded(filler, shape)
    rng = _rng(name)
    values = rng.standard_normal(shape) * std + mean
    kept = rng.random(shape) < sparse / _first(shape)
    return constant(0.0), np.where(kept, values, 0.0).astype(np.float32)


def _bilinear(filler: Message, shape: tuple[int, ...]) -> Array:
    if len(shape) != 4 or shape[2] != shape[3]:
        raise filler.fail("bilinear fills square kernels of four axes", "type", got=list(shape))
    _bounded(filler, shape)
    width = shape[3]
    factor = math.ceil(width / 2)
    centre = (width - 1) / (2.0 * factor)
    line = 1 - np.abs(np.arange(width) / factor - centre)
    return np.broadcast_to(np.outer(line, line), shape).astype(np.float32)


def _bounded(filler: Message, shape: tuple[int, ...]) -> None:
    if math.prod(shape) > _LARGEST:
        raise filler.fail("too large a blob for this filler", got=f"{list(shape)}",
                          expected=f"at most {_LARGEST} elements")  # fmt: skip


def _rng(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[zlib.crc32(name.encode()), 0x0CAFFE]))
