"""Philox against its published answers; uniform numbers and dropout."""

from __future__ import annotations

import numpy as np
import pytest

from brickc.errors import DtypeError, ShapeError, UsageError
from brickc.ir.bricks.random import Dropout, RandomUniform, dropout, philox4x32, random_uniform
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.types import TensorType
from brickc.ir.value import Abstract, Eager

SCALAR = Abstract(TensorType(DType.I64))


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)  # fmt: skip
def test_published_answers(counter: str, key: str, expected: str) -> None:
    """kat_vectors of Random123, philox4x32 with 10 rounds."""
    c = tuple(np.array([int(w, 16)], np.uint64) for w in counter.split())
    k0, k1 = (int(w, 16) for w in key.split())
    words = philox4x32(c, (k0, k1))  # type: ignore[arg-type]
    assert [f"{int(w[0]):08x}" for w in words] == expected.split()


def draw(
    seed: int = 0, counter: int = 0, shape: tuple[int, ...] = (8,), stream: int = 0,
    dtype: DType = DType.F32,
) -> np.ndarray:  # fmt: skip
    brick = RandomUniform(shape, stream, dtype)
    return brick.evaluate([np.array(seed, np.int64), np.array(counter, np.int64)], {})


def test_where_each_number_comes_from() -> None:
    """Element i is word i % 4 of block i // 4; the rest of the counter and the key are fixed."""
    seed, counter, stream = 0x123456789ABCDEF0, 0x0FEDCBA987654321, 77
    got = draw(seed, counter, (3, 5), stream).reshape(-1)
    for i in range(15):
        words = philox4x32(
            tuple(np.array(c) for c in (i // 4, stream, 0x87654321, 0x0FEDCBA9)),  # type: ignore[arg-type]
            (0x9ABCDEF0, 0x12345678),
        )
        assert got[i] == (int(words[i % 4]) >> 8) * 2.0**-24
    zero = draw(0, 0, (4,))
    assert [int(u * 2**24) for u in zero] == [0x6627E8, 0xE169C5, 0xBC57AC, 0x9B00DB]
    # negative seeds are their two's complement
    assert [int(u * 2**24) for u in draw(-1, -1, (4,), 0)] == [
        int(w) >> 8
        for w in philox4x32(
            tuple(map(np.array, (0, 0, 2**32 - 1, 2**32 - 1))), (2**32 - 1, 2**32 - 1)
        )  # type: ignore[arg-type]
    ]


def test_same_numbers_in_both_dtypes_and_any_shape() -> None:
    a = draw(3, 4, (6, 7))
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a, draw(3, 4, (6, 7), dtype=DType.F64))
    np.testing.assert_array_equal(a.reshape(-1), draw(3, 4, (42,)))
    np.testing.assert_array_equal(a.reshape(-1)[:5], draw(3, 4, (5,)))
    assert draw(shape=(0, 3)).shape == (0, 3)
    assert draw(shape=()) == draw(shape=(1,))[0]


def test_statistics() -> None:
    u = draw(1, 2, (200_000,)).astype(np.float64)
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / u.size)
    counts = np.histogram(u, 64, (0, 1))[0]
    chi2 = ((counts - u.size / 64) ** 2 / (u.size / 64)).sum()
    assert abs(chi2 - 63) < 5 * np.sqrt(2 * 63)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / np.sqrt(u.size)


def test_every_number_has_its_influence() -> None:
    draws = [
        draw(s, c, (64,), stream=t) for s in (0, 1, 2**40) for c in (0, 1, 2**40) for t in (0, 1)
    ]
    assert len({d.tobytes() for d in draws}) == len(draws)


def train(x: np.ndarray, rate: float, counter: int = 0, stream: int = 0) -> np.ndarray:
    operands = [Eager.of(a, {}) for a in (x, np.array(5, np.int64), np.array(counter, np.int64))]
    y, updates = Dropout(rate, stream).specialise(operands, training=True)
    assert not updates
    assert isinstance(y, Eager)
    return y.array


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout(rate: float, dtype: type, rng: np.random.Generator) -> None:
    x = rng.uniform(1, 2, (300, 200)).astype(dtype)
    y = train(x, rate)
    assert y.dtype == x.dtype
    dropped = y == 0
    assert abs(dropped.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / x.size)
    np.testing.assert_allclose(y[~dropped], x[~dropped] / (1 - rate), rtol=1e-6)
    np.testing.assert_array_equal(dropped, draw(5, 0, x.shape) < np.float32(rate))


def test_dropout_repeats_itself(rng: np.random.Generator) -> None:
    x = rng.uniform(1, 2, (40, 30))
    np.testing.assert_array_equal(train(x, 0.5, 7, 2), train(x, 0.5, 7, 2))
    assert (train(x, 0.5, 7, 2) != train(x, 0.5, 8, 2)).any()
    assert (train(x, 0.5, 7, 2) != train(x, 0.5, 7, 3)).any()
    np.testing.assert_array_equal(train(x, 0.0), x)
    np.testing.assert_array_equal(Dropout(0.5, 0).evaluate([x, np.int64(0), np.int64(0)], {}), x)


def test_dropout_stops_what_is_infinite() -> None:
    y = train(np.full(64, np.inf), 0.5)
    assert set(y) == {0.0, np.inf}


def test_types() -> None:
    n = Dim("N")
    x = Abstract(TensorType(DType.F16, (n, 3)))
    assert dropout(x, SCALAR, SCALAR).type == x.type
    assert Dropout(0.5, 0).specialise([x, SCALAR, SCALAR], training=True)[0].type == x.type
    assert random_uniform(SCALAR, SCALAR, (n, 2)).type == TensorType(DType.F32, (n, 2))
    got = RandomUniform((n, 2), 0, DType.F32).evaluate([np.int64(0), np.int64(0)], {"N": 3})
    assert got.shape == (3, 2)


def test_wrong_operands() -> None:
    wide = Abstract(TensorType(DType.I64, (1,)))
    small = Abstract(TensorType(DType.I32))
    x = Abstract(TensorType(DType.F32, (4,)))
    with pytest.raises(ShapeError, match=r"random_uniform: the seed is a scalar; got i64\[1\]"):
        random_uniform(wide, SCALAR, (2,))
    with pytest.raises(DtypeError, match="dropout: the counter is an i64"):
        dropout(x, SCALAR, small)
    with pytest.raises(DtypeError, match="dropout takes floats"):
        dropout(small, SCALAR, SCALAR)
    with pytest.raises(DtypeError, match="makes f32 or f64"):
        random_uniform(SCALAR, SCALAR, (2,), dtype=DType.F16)
    with pytest.raises(UsageError, match="impossible stream"):
        random_uniform(SCALAR, SCALAR, (2,), stream=-1)
    with pytest.raises(ShapeError, match="fewer than 2\\^34"):
        random_uniform(SCALAR, SCALAR, (2**17, 2**17))
    for rate in (-0.1, 1.0, float("nan")):
        with pytest.raises(UsageError, match="impossible dropout rate"):
            Dropout(rate, 0)
