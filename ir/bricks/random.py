"""Random numbers as pure functions of a seed and counters, the same bits on every backend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import DtypeError, ShapeError, UsageError
from ..brick import Array, Brick, ModeDependent
from ..dims import evaluate, maximum
from ..dtypes import DType
from ..types import Shape, TensorType
from ..value import Value
from .arithmetic import greater_equal, mul, where

__all__ = ["Dropout", "RandomUniform", "dropout", "philox4x32", "random_uniform"]

#: multipliers and key increments of Philox 4x32; ten rounds
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_WORD = 0xFFFFFFFF


def philox4x32(
    counter: tuple[Array, Array, Array, Array], key: tuple[int, int]
) -> tuple[Array, Array, Array, Array]:
    """Ten rounds of Philox 4x32 on words that are held in uint64 arrays.

    Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011
    """
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    k0, k1 = key
    m0, m1 = (np.uint64(m) for m in _MULTIPLIERS)
    word, half = np.uint64(_WORD), np.uint64(32)
    for _ in range(_ROUNDS):
        p0, p1 = m0 * c0, m1 * c2
        c0, c1, c2, c3 = (
            (p1 >> half) ^ c1 ^ np.uint64(k0),
            p1 & word,
            (p0 >> half) ^ c3 ^ np.uint64(k1),
            p0 & word,
        )
        k0 = (k0 + _INCREMENTS[0]) & _WORD
        k1 = (k1 + _INCREMENTS[1]) & _WORD
    return c0, c1, c2, c3


@dataclass(frozen=True)
class RandomUniform(Brick):
    """Numbers in [0, 1): multiples of 2^-24, each a pure function of what is listed here.

    Element i in C order is word ``i % 4`` of the Philox 4x32-10 block whose key is (seed mod
    2^32, seed div 2^32) and whose counter is (``i // 4``, ``stream``, counter mod 2^32,
    counter div 2^32), seed and counter taken as unsigned 64-bit integers. The word's upper 24
    bits, times 2^-24, are the number, in f32 and f64 alike.

    Shapes:  seed [], counter [] -> y [*S], fewer than 2^34 elements
    Dtypes:  seed and counter i64; y f32 or f64
    Grad:    none
    Raises:  ShapeError if seed or counter is no scalar; DtypeError
    Source:  Salmon et al., 2011
    """

    mnemonic: ClassVar[str] = "random_uniform"
    arity: ClassVar[int | None] = 2

    shape: Shape
    stream: int
    dtype: DType

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        _check_scalars(self.mnemonic, operands)
        if self.dtype not in (DType.F32, DType.F64):
            raise DtypeError("random_uniform makes f32 or f64", got=self.dtype, expected="f32, f64")
        if not 0 <= self.stream <= _WORD:
            raise UsageError("impossible stream", got=self.stream, expected="0 <= stream < 2^32")
        type = TensorType.of(self.dtype, self.shape)
        if maximum(type.size) >= 2**34:
            raise ShapeError("random_uniform makes fewer than 2^34 elements", got=type)
        return type

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        seed, counter = (int(o) & (2**64 - 1) for o in operands)
        shape = tuple(evaluate(s, dims) for s in self.shape)
        count = math.prod(shape)
        blocks = np.arange((count + 3) // 4, dtype=np.uint64)
        rest = (self.stream, counter & _WORD, counter >> 32)
        c1, c2, c3 = (np.full_like(blocks, word) for word in rest)
        words = np.stack(philox4x32((blocks, c1, c2, c3), (seed & _WORD, seed >> 32)), axis=1)
        numbers = (words.reshape(-1)[:count] >> np.uint64(8)) * 2.0**-24
        return numbers.astype(self.dtype.numpy).reshape(shape)

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return None, None


@dataclass(frozen=True)
class Dropout(ModeDependent):
    """In training y = x/(1-rate) where u >= rate and 0 elsewhere; in inference y = x.

    u is ``random_uniform(seed, counter)`` in x's shape, drawn from ``stream``. Each step needs
    another counter: adding one to it is the model's business.

    Shapes:  x [*S], seed [], counter [] -> y [*S]
    Dtypes:  x floating; seed and counter i64; u in f32, in f64 if x is
    Grad:    dx = dy/(1-rate) where u >= rate, else 0
    Raises:  UsageError unless 0 <= rate < 1; ShapeError or DtypeError for wrong operands
    Source:  Srivastava et al., 2014, inverted as in torch and Caffe
    """

    mnemonic: ClassVar[str] = "dropout"
    arity: ClassVar[int | None] = 3

    rate: float
    stream: int

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise UsageError("impossible dropout rate", got=self.rate, expected="0 <= rate < 1")

    def specialise(
        self, operands: Sequence[Value], training: bool
    ) -> tuple[Value, Mapping[int, Value]]:
        x, seed, counter = operands
        _check_scalars(self.mnemonic, [seed.type, counter.type])
        if not x.dtype.is_float:
            raise DtypeError("dropout takes floats", got=x.type, expected="f32, f64, …")
        if not training or self.rate == 0:
            return x, {}
        dtype = DType.F64 if x.dtype is DType.F64 else DType.F32
        draws = random_uniform(seed, counter, x.shape, self.stream, dtype)
        kept = greater_equal(draws, self.rate)
        return where(kept, mul(x, 1.0 / (1.0 - self.rate)), 0.0), {}


def _check_scalars(mnemonic: str, types: Sequence[TensorType]) -> None:
    for name, type in zip(("seed", "counter"), types, strict=True):
        if type.rank != 0:
            raise ShapeError(f"{mnemonic}: the {name} is a scalar", got=type, expected="i64[]")
        if type.dtype is not DType.I64:
            raise DtypeError(f"{mnemonic}: the {name} is an i64", got=type, expected="i64[]")


def random_uniform(
    seed: Value, counter: Value, shape: Shape, stream: int = 0, dtype: DType = DType.F32
) -> Value:
    """Numbers in [0, 1) that depend on seed, counter and stream alone."""
    return seed.apply(RandomUniform(tuple(shape), stream, dtype), seed, counter)


def dropout(x: Value, seed: Value, counter: Value, rate: float = 0.5, stream: int = 0) -> Value:
    """x with a share ``rate`` of its elements set to zero in training."""
    return x.apply(Dropout(float(rate), stream), x, seed, counter)
