"""First values of parameters and states, as data; the same seed gives the same bits anywhere."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedError
from .dtypes import DType

__all__ = ["Initializer", "constant", "gaussian", "msra", "uniform", "xavier"]

_KINDS = ("constant", "uniform", "gaussian", "external", "seed")


@dataclass(frozen=True)
class Initializer:
    """A distribution with its numbers already worked out.

    ``constant``: every element is ``a``. ``uniform``: from ``a`` to ``b``. ``gaussian``:
    mean ``a``, standard deviation ``b``. ``external``: the model's weights file has it
    (until then zero). ``seed``: a 64-bit integer, the very seed that the others are drawn from.
    """

    kind: str
    a: float = 0.0
    b: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise UnsupportedError("unknown initializer", got=self.kind, expected=", ".join(_KINDS))

    def sample(
        self, name: str, shape: tuple[int, ...], dtype: DType, seed: int
    ) -> npt.NDArray[Any]:
        """The array: each name has its own stream, so that order and other names do not matter.

        Of a seed of more than 64 bits the low ones count.
        """
        if self.kind in ("constant", "external"):
            return np.full(shape, self.a, dtype.numpy)
        if self.kind == "seed":
            bits = np.array(seed & 0xFFFFFFFFFFFFFFFF, np.uint64)
            return np.full(shape, bits.view(np.int64), dtype.numpy)
        key = np.array([seed & 0xFFFFFFFFFFFFFFFF, zlib.crc32(name.encode())], np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key))
        if self.kind == "uniform":
            values = rng.random(shape) * (self.b - self.a) + self.a
        else:
            values = rng.standard_normal(shape) * self.b + self.a
        return values.astype(dtype.numpy)


def constant(value: float) -> Initializer:
    """Every element is ``value``."""
    return Initializer("constant", float(value))


def uniform(lo: float, hi: float) -> Initializer:
    """Uniform in [lo, hi)."""
    return Initializer("uniform", float(lo), float(hi))


def gaussian(std: float, mean: float = 0.0) -> Initializer:
    """Normal with that standard deviation and mean."""
    return Initializer("gaussian", float(mean), float(std))


def xavier(fan_in: int) -> Initializer:
    """Uniform with variance 1/fan_in: Caffe's ``xavier`` filler.

    Source: Glorot and Bengio, 2010, in the form of caffe/filler.hpp.
    """
    bound = math.sqrt(3.0 / fan_in)
    return uniform(-bound, bound)


def msra(fan_in: int) -> Initializer:
    """Normal with variance 2/fan_in, for ReLU networks. Source: He et al., 2015."""
    return gaussian(math.sqrt(2.0 / fan_in))
