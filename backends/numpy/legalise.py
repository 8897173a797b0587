"""Scalar programs in terms of what NumPy has: no logistic, softplus or erf."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ...ir.dtypes import DType
from ...ir.kernel.scalar import ScalarBuilder, ScalarProgram

__all__ = ["legalise"]


@lru_cache(maxsize=4096)
def legalise(program: ScalarProgram) -> ScalarProgram:
    """The same program with the missing functions written out."""
    if not any(
        i.op in ("logistic", "softplus", "erf") or (i.op == "div" and i.dtype.is_integer)
        for i in program.instrs
    ):
        return program
    b = ScalarBuilder()
    values = [b.input(d) for d in program.inputs]
    for instr in program.instrs:
        args = [values[a] for a in instr.args]
        match instr.op:
            case "const":
                assert instr.literal is not None
                value = b.const(instr.literal, instr.dtype)
            case "size":
                assert instr.size is not None
                value = b.size(instr.size, instr.dtype)
            case "cast":
                value = b.cast(args[0], instr.dtype)
            case "select":
                value = b.select(*args)
            case "logistic":
                value = _logistic(b, args[0], instr.dtype)
            case "softplus":
                value = _softplus(b, args[0], instr.dtype)
            case "erf":
                value = _erf(b, args[0], instr.dtype)
            case "div" if instr.dtype.is_integer:
                value = _integer_quotient(b, *args)
            case _:
                value = b.op(instr.op, *args)
        values.append(value)
    return b.build([values[r] for r in program.results])


def _integer_quotient(b: ScalarBuilder, x: int, y: int) -> int:
    """x / y cut towards zero, from NumPy's quotient, which is rounded down."""
    down = b.op("div", x, y)
    zero = b.const(0, b.dtype(x))
    rest = b.op("sub", x, b.op("mul", down, y))
    signs_differ = b.op("ne", b.op("lt", x, zero), b.op("lt", y, zero))
    up = b.op("and", b.op("ne", rest, zero), signs_differ)
    return b.op("add", down, b.cast(up, b.dtype(x)))


def _logistic(b: ScalarBuilder, x: int, dtype: DType) -> int:
    """1/(1 + exp(-x)); the bound keeps exp finite where the result has long become zero."""
    bound = b.const(math.floor(math.log(float(np.finfo(dtype.numpy).max))), dtype)
    exp = b.op("exp", b.op("min", b.op("neg", x), bound))
    one = b.const(1, dtype)
    return b.op("div", one, b.op("add", exp, one))


def _softplus(b: ScalarBuilder, x: int, dtype: DType) -> int:
    zero = b.const(0, dtype)
    small = b.op("log1p", b.op("exp", b.op("neg", b.op("abs", x))))
    return b.op("add", b.op("max", x, zero), small)


def _polynomial(b: ScalarBuilder, x: int, coefficients: list[float], dtype: DType) -> int:
    """Horner's rule; the first coefficient belongs to the highest power."""
    total = b.const(coefficients[0], dtype)
    for c in coefficients[1:]:
        total = b.op("add", b.op("mul", total, x), b.const(c, dtype))
    return total


@lru_cache(maxsize=1)
def _erf_tables() -> tuple[list[float], list[float]]:
    """Chebyshev fits, as powers: erf(x)/x in x² on |x| < 1, and g(t) = erfc(x)·exp(x²)
    with t = (x - 3)/(x + 3) on x >= 1, to about 1e-16. Derived here, not taken from a table.
    """
    from numpy.polynomial import chebyshev, polynomial

    nodes = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    squares = (nodes + 1) / 2
    series = [math.erf(math.sqrt(s)) / math.sqrt(s) for s in squares]
    small = chebyshev.cheb2poly(chebyshev.chebfit(nodes, series, 14))
    # x² = (u + 1)/2 -> powers of x²
    shifted = np.zeros(1)
    for c in small[::-1]:
        shifted = polynomial.polyadd(polynomial.polymul(shifted, [-1.0, 2.0]), [c])
    # t runs over [-1/2, 1) for x in [1, inf); beyond x = 27 erfc is zero in f64
    lo, hi = -0.5, (27 - 3) / (27 + 3)
    ts = (nodes + 1) / 2 * (hi - lo) + lo
    xs = 3 * (1 + ts) / (1 - ts)
    scaled = [_erfcx(x) for x in xs]
    large = chebyshev.cheb2poly(chebyshev.chebfit(nodes, scaled, 24))
    powers = np.zeros(1)
    for c in large[::-1]:
        line = [-(lo + hi) / (hi - lo), 2 / (hi - lo)]
        powers = polynomial.polyadd(polynomial.polymul(powers, line), [c])
    return [float(c) for c in shifted[::-1]], [float(c) for c in powers[::-1]]


def _erfcx(x: float) -> float:
    """erfc(x)·exp(x²) for x >= 1, by the continued fraction (Lentz would do; 200 terms do)."""
    total = 0.0
    for k in range(400, 0, -1):
        total = (k / 2) / (x + total)
    return 1 / (math.sqrt(math.pi) * (x + total))


def _erf(b: ScalarBuilder, x: int, dtype: DType) -> int:
    small_c, large_c = _erf_tables()
    one = b.const(1, dtype)
    square = b.op("mul", x, x)
    capped = b.op("min", square, one)
    small = b.op("mul", x, _polynomial(b, capped, small_c, dtype))
    size = b.op("min", b.op("max", b.op("abs", x), one), b.const(27, dtype))
    three = b.const(3, dtype)
    t = b.op("div", b.op("sub", size, three), b.op("add", size, three))
    tail = b.op("mul", _polynomial(b, t, large_c, dtype),
                b.op("exp", b.op("neg", b.op("mul", size, size))))  # fmt: skip
    large = b.op("mul", b.op("sign", x), b.op("sub", one, tail))
    return b.select(b.op("lt", square, one), small, large)
