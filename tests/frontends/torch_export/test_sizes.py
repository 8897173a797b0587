"""Sizes as torch writes them."""

from __future__ import annotations

import pytest

from brickc.errors import BrickcError, ImportModelError, UnsupportedError
from brickc.frontends.torch_export.sizes import OPEN_END, dim_of, size_of
from brickc.ir.dims import Dim, Size

N, M = Dim("batch", 1, 64), Dim("M", 2, 8)
DIMS = {"s77": N, "s1": M}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7), ("s77", N), ("2*s77 + 1", N * 2 + 1), ("s77*s1", N * M), ("s77**2", N * N),
        ("-s77 + 3", N * -1 + 3), ("(4*s77)//2", N * 2), ("s77 - 1", N - 1),
        ("Symbol('s77', positive=True, integer=True)", N), ("Integer(12)", 12),
        ("Add(Mul(Integer(2), Symbol('s77')), Integer(-1))", N * 2 - 1),
        ("Pow(Symbol('s1', integer=True), Integer(2))", M * M),
        ("FloorDiv(Mul(Integer(6), Symbol('s77')), Integer(3))", N * 2),
    ],
)  # fmt: skip
def test_polynomials(text: str, expected: Size) -> None:
    assert size_of(text, DIMS) == expected


@pytest.mark.parametrize(
    "text",
    ["s77/2", "Mod(s77, 2)", "Max(1, s77)", "s77**s1", "s77**99", "s77//2", "f(s77)", "s77.real",
     "[s77]", "s77 if s77 else 1", "1.5", "True", "'s77'", "x" * 1000, "π", "Symbol(s77)",
     "*".join(["(s77 + s1 + 1)"] * 14)],
)  # fmt: skip
def test_what_is_no_polynomial(text: str) -> None:
    with pytest.raises(BrickcError):
        size_of(text, DIMS)


@pytest.mark.parametrize("text", ["", "s77 +", "u0", "((((", "10" * 40])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises((ImportModelError, UnsupportedError)):
        size_of(text, DIMS)


@pytest.mark.parametrize(
    ("lo", "hi", "expected"),
    [(0, None, (1, OPEN_END)), (None, None, (1, OPEN_END)), (2, 64, (2, 64)),
     (2, 2**63 - 1, (2, OPEN_END)), (5000, None, (5000, 5000))],
)  # fmt: skip
def test_ranges(lo: int | None, hi: int | None, expected: tuple[int, int]) -> None:
    dim = dim_of("N", lo, hi)
    assert (dim.lo, dim.hi) == expected


@pytest.mark.parametrize(
    ("name", "lo", "hi"), [("N", 9, 3), ("1N", 1, 2), ("", 1, 2), ("N", 1, -5)]
)
def test_impossible_ranges(name: str, lo: int, hi: int) -> None:
    with pytest.raises(ImportModelError):
        dim_of(name, lo, hi)
