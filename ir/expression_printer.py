"""Scalar expressions written as text; the grammar stands in ``ir/expression_text``."""

from __future__ import annotations

import re
from collections.abc import Callable

import sympy as sp
from sympy.core.function import AppliedUndef

from ..errors import UnsupportedError
from .expression import FUNCTIONS, Y, operand

__all__ = ["print_expression"]

#: bounds of a text: characters, parentheses within parentheses
LONGEST = 1_000_000
DEEPEST = 64

OPERAND = re.compile(r"x(0|[1-9][0-9]{0,5})\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

FUNCTION_NAMES: dict[str, type[sp.Basic]] = {f.__name__: f for f in FUNCTIONS}
CONSTANTS: dict[str, sp.Basic] = {
    "pi": sp.pi, "E": sp.E, "inf": sp.oo, "nan": sp.nan, "true": sp.true, "false": sp.false,
}  # fmt: skip
COMPARISONS: dict[str, type[sp.Basic]] = {
    "<": sp.StrictLessThan, "<=": sp.LessThan, ">": sp.StrictGreaterThan,
    ">=": sp.GreaterThan, "==": sp.Equality, "!=": sp.Unequality,
}  # fmt: skip
_SIGNS = {kind: sign for sign, kind in COMPARISONS.items()}
_RESERVED = {*FUNCTION_NAMES, *CONSTANTS, "select", "sqrt", "D", "y"}

# binding strength, weakest first
OR, AND, NOT, COMPARE, SUM, PRODUCT, POWER, ATOM = range(8)


# ── printing ─────────────────────────────────────────────────────────────────────────────


def print_expression(expr: sp.Basic) -> str:
    """The text of an expression. Raises UnsupportedError for what has no text form."""
    try:
        text, _ = _print(expr, {})
    except RecursionError:
        raise UnsupportedError("an expression is nested too deeply for its text form") from None
    depth = deepest = 0
    for sign in text:
        depth += (sign == "(") - (sign == ")")
        deepest = max(deepest, depth)
    if deepest >= DEEPEST:
        raise UnsupportedError(
            "an expression is nested too deeply for its text form", got=deepest, expected=DEEPEST
        )
    return text


def _print(e: sp.Basic, memo: dict[sp.Basic, tuple[str, int]]) -> tuple[str, int]:
    """Text and binding strength."""
    found = memo.get(e)
    if found is None:
        found = memo[e] = _print_new(e, lambda part, least: _at_least(part, least, memo))
        if len(found[0]) > LONGEST:
            raise UnsupportedError("an expression is too long for its text form")
    return found


def _at_least(e: sp.Basic, least: int, memo: dict[sp.Basic, tuple[str, int]]) -> str:
    text, strength = _print(e, memo)
    return text if strength >= least else f"({text})"


def _print_new(e: sp.Basic, at: Callable[[sp.Basic, int], str]) -> tuple[str, int]:
    if isinstance(e, sp.Symbol):
        if e != Y and not (OPERAND.match(e.name) and e == operand(int(e.name[1:]))):
            raise _no_text(e, "the symbols x0, x1, … and y of ir/expression")
        return e.name, ATOM
    for name, constant in CONSTANTS.items():
        if e is constant:
            return name, ATOM
    match e:
        case sp.Number():
            return _print_number(e)
        case sp.Add() if len(e.args) > 1:
            return _print_sum(e.args, at), SUM
        case sp.Mul() if len(e.args) > 1:
            return _print_product(e.args, at)
        case sp.Pow():
            return _print_power(e, at)
        case sp.Piecewise():
            return f"select({', '.join(_branches(e, at))})", ATOM
        case sp.And():
            return " & ".join(at(a, NOT) for a in e.args), AND
        case sp.Or():
            return " | ".join(at(a, AND) for a in e.args), OR
        case sp.Not():
            return f"!({at(e.args[0], OR)})", NOT
        case sp.Derivative():
            parts = [at(e.expr, OR)]
            for variable, count in e.variable_count:
                parts += [at(variable, OR), at(count, OR)]
            return f"D({', '.join(parts)})", ATOM
        case AppliedUndef():
            name = e.func.__name__
            known = name in _RESERVED or OPERAND.match(name) or not _NAME.match(name)
            if known or sp.Function(name) != e.func or not e.args:
                raise _no_text(e, "an unspecified function with a name of its own")
    if type(e) in _SIGNS:
        left, right = (at(a, SUM) for a in e.args)
        return f"{left}{_SIGNS[type(e)]}{right}", COMPARE
    if type(e) in FUNCTIONS or isinstance(e, AppliedUndef):
        return f"{e.func.__name__}({', '.join(at(a, OR) for a in e.args)})", ATOM
    raise _no_text(e, ", ".join(sorted(FUNCTION_NAMES)))


def _no_text(e: sp.Basic, expected: str) -> UnsupportedError:
    return UnsupportedError(
        "an expression has no text form", got=f"{type(e).__name__} {e}"[:200], expected=expected
    )


def _print_number(e: sp.Number) -> tuple[str, int]:
    if e is sp.S.NegativeInfinity:
        return "-inf", SUM
    if isinstance(e, sp.Float):
        if e._prec != 53 or sp.Float(float(e)) != e:  # exponents have no bounds in SymPy
            raise _no_text(e, "floats of 53 bits, in the range of f64")
        text = repr(float(e))
    else:
        text = str(e)
    if text.startswith("-"):
        return text, SUM
    return text, POWER if "/" in text else ATOM


def _print_sum(args: tuple[sp.Basic, ...], at: Callable[[sp.Basic, int], str]) -> str:
    text = ""
    for k, a in enumerate(args):
        # a negative number or a product that starts with one carries its own sign
        part = at(a, PRODUCT)
        bare = at(a, SUM)
        if bare.startswith("-") and not isinstance(a, sp.Add):
            text += bare
        else:
            text += ("+" if k else "") + part
    return text


def _print_product(
    args: tuple[sp.Basic, ...], at: Callable[[sp.Basic, int], str]
) -> tuple[str, int]:
    first, *rest = args
    sign = ""
    nested = len(rest) == 1 and isinstance(rest[0], sp.Mul)
    if _negative(first) and not isinstance(rest[0], sp.Number) and not nested:
        # -3*x is Mul(-3, x) and -x is Mul(-1, x); the parser folds the sign in
        sign = "-"
        if first is sp.S.NegativeOne:
            first, *rest = rest
            divisor = _divisor(first, at)
            text = at(first, POWER) if divisor is None else f"1/{divisor}"
        else:
            text = at(-first, POWER)
    elif (divisor := _divisor(first, at)) is not None:
        text = f"1/{divisor}"
    elif first is sp.S.One:
        text = "(1)"  # 1/x*y would start with the divisor
    else:
        text = at(first, POWER)
    for a in rest:
        divisor = _divisor(a, at)
        text += f"*{at(a, POWER)}" if divisor is None else f"/{divisor}"
    return sign + text, SUM if sign else PRODUCT


def _negative(e: sp.Basic) -> bool:
    """True for numbers that print with a sign and negate exactly."""
    if isinstance(e, sp.Float):
        return _print_number(e)[0].startswith("-")
    return isinstance(e, sp.Rational) and bool(e < 0)


def _divisor(e: sp.Basic, at: Callable[[sp.Basic, int], str]) -> str | None:
    """The text of 1/e, if e is a power that is best read as a division."""
    if not isinstance(e, sp.Pow) or isinstance(e.base, sp.Pow | sp.Number):
        return None
    base, exponent = e.args
    if not isinstance(exponent, sp.Integer) or not _negative(exponent):
        return None
    if exponent is sp.S.NegativeOne:
        return at(base, ATOM)
    return f"{at(base, ATOM)}^{-int(exponent)}"


def _print_power(e: sp.Pow, at: Callable[[sp.Basic, int], str]) -> tuple[str, int]:
    base, exponent = e.args
    divisor = _divisor(e, at)
    if divisor is not None:
        return f"1/{divisor}", PRODUCT
    if exponent is sp.S.Half:
        return f"sqrt({at(base, OR)})", ATOM
    bare = isinstance(exponent, sp.Integer | sp.Symbol)
    power = at(exponent, ATOM) if bare else f"({at(exponent, OR)})"
    return f"{at(base, ATOM)}^{power}", POWER


def _branches(e: sp.Piecewise, at: Callable[[sp.Basic, int], str]) -> list[str]:
    parts = []
    for k, (value, condition) in enumerate(e.args):
        if condition is sp.true and k == len(e.args) - 1 and k:
            parts.append(at(value, OR))
        else:
            parts += [at(condition, OR), at(value, OR)]
    return parts
