"""Scalar expressions as text and back, exactly: no ``eval``, no ``sympify`` of text.

The text shows the tree as it is, and the parser builds that tree without simplifying, so
``parse_expression(print_expression(e)) == e`` for every expression, simplified or not::

    x0*(1-x1^2)        sums, products, powers; a/b is a*b^(-1); sqrt(a) is a^(1/2)
    3  1/2  0.1        integers, rationals, floats of 53 bits (repr); pi, E, inf, nan
    tanh(x0)           the functions of ``expression.FUNCTIONS``, by SymPy's names
    select(c, a, b)    Piecewise((a, c), (b, True)); more branches: select(c, a, d, b, …)
    x0<=1 & !(x1==0)   comparisons, and, or, not, true, false
    f1(x0, x1)         a function about which nothing is known
    D(f1(x0, x1), x1)  its derivative; D(…, x1, 2) the second one
"""

from __future__ import annotations

import re
from collections.abc import Callable

import sympy as sp
from sympy.core.function import AppliedUndef

from ..errors import ImportModelError, UnsupportedError
from .expression import FUNCTIONS, Y, operand

__all__ = ["parse_expression", "print_expression"]

_LONGEST = 1_000_000
_DEEPEST = 64
#: bits that numbers may grow to when somebody simplifies the expression
_HEAVIEST = 2**24

_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<float>[0-9]+\.[0-9]*(?:e[+-]?[0-9]{1,4})?|[0-9]+e[+-]?[0-9]{1,4})"
    r"|(?P<rational>[0-9]+/[0-9]+)"
    r"|(?P<integer>[0-9]+)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign><=|>=|==|!=|[-+*/^(),<>&|!])"
    r")"
)
_OPERAND = re.compile(r"x(0|[1-9][0-9]{0,5})\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

_FUNCTIONS: dict[str, type[sp.Basic]] = {f.__name__: f for f in FUNCTIONS}
_CONSTANTS: dict[str, sp.Basic] = {
    "pi": sp.pi, "E": sp.E, "inf": sp.oo, "nan": sp.nan, "true": sp.true, "false": sp.false,
}  # fmt: skip
_COMPARISONS: dict[str, type[sp.Basic]] = {
    "<": sp.StrictLessThan, "<=": sp.LessThan, ">": sp.StrictGreaterThan,
    ">=": sp.GreaterThan, "==": sp.Equality, "!=": sp.Unequality,
}  # fmt: skip
_SIGNS = {kind: sign for sign, kind in _COMPARISONS.items()}
_RESERVED = {*_FUNCTIONS, *_CONSTANTS, "select", "sqrt", "D", "y"}

# binding strength, weakest first
_OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _POWER, _ATOM = range(8)


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
    if deepest >= _DEEPEST:
        raise UnsupportedError(
            "an expression is nested too deeply for its text form", got=deepest, expected=_DEEPEST
        )
    return text


def _print(e: sp.Basic, memo: dict[sp.Basic, tuple[str, int]]) -> tuple[str, int]:
    """Text and binding strength."""
    found = memo.get(e)
    if found is None:
        found = memo[e] = _print_new(e, lambda part, least: _at_least(part, least, memo))
        if len(found[0]) > _LONGEST:
            raise UnsupportedError("an expression is too long for its text form")
    return found


def _at_least(e: sp.Basic, least: int, memo: dict[sp.Basic, tuple[str, int]]) -> str:
    text, strength = _print(e, memo)
    return text if strength >= least else f"({text})"


def _print_new(e: sp.Basic, at: Callable[[sp.Basic, int], str]) -> tuple[str, int]:
    if isinstance(e, sp.Symbol):
        if e != Y and not (_OPERAND.match(e.name) and e == operand(int(e.name[1:]))):
            raise _no_text(e, "the symbols x0, x1, … and y of ir/expression")
        return e.name, _ATOM
    for name, constant in _CONSTANTS.items():
        if e is constant:
            return name, _ATOM
    match e:
        case sp.Number():
            return _print_number(e)
        case sp.Add() if len(e.args) > 1:
            return _print_sum(e.args, at), _SUM
        case sp.Mul() if len(e.args) > 1:
            return _print_product(e.args, at)
        case sp.Pow():
            return _print_power(e, at)
        case sp.Piecewise():
            return f"select({', '.join(_branches(e, at))})", _ATOM
        case sp.And():
            return " & ".join(at(a, _NOT) for a in e.args), _AND
        case sp.Or():
            return " | ".join(at(a, _AND) for a in e.args), _OR
        case sp.Not():
            return f"!({at(e.args[0], _OR)})", _NOT
        case sp.Derivative():
            parts = [at(e.expr, _OR)]
            for variable, count in e.variable_count:
                parts += [at(variable, _OR), at(count, _OR)]
            return f"D({', '.join(parts)})", _ATOM
        case AppliedUndef():
            name = e.func.__name__
            known = name in _RESERVED or _OPERAND.match(name) or not _NAME.match(name)
            if known or sp.Function(name) != e.func or not e.args:
                raise _no_text(e, "an unspecified function with a name of its own")
    if type(e) in _SIGNS:
        left, right = (at(a, _SUM) for a in e.args)
        return f"{left}{_SIGNS[type(e)]}{right}", _COMPARE
    if type(e) in FUNCTIONS or isinstance(e, AppliedUndef):
        return f"{e.func.__name__}({', '.join(at(a, _OR) for a in e.args)})", _ATOM
    raise _no_text(e, ", ".join(sorted(_FUNCTIONS)))


def _no_text(e: sp.Basic, expected: str) -> UnsupportedError:
    return UnsupportedError(
        "an expression has no text form", got=f"{type(e).__name__} {e}"[:200], expected=expected
    )


def _print_number(e: sp.Number) -> tuple[str, int]:
    if e is sp.S.NegativeInfinity:
        return "-inf", _SUM
    if isinstance(e, sp.Float):
        if e._prec != 53 or sp.Float(float(e)) != e:  # exponents have no bounds in SymPy
            raise _no_text(e, "floats of 53 bits, in the range of f64")
        text = repr(float(e))
    else:
        text = str(e)
    if text.startswith("-"):
        return text, _SUM
    return text, _POWER if "/" in text else _ATOM


def _print_sum(args: tuple[sp.Basic, ...], at: Callable[[sp.Basic, int], str]) -> str:
    text = ""
    for k, a in enumerate(args):
        # a negative number or a product that starts with one carries its own sign
        part = at(a, _PRODUCT)
        bare = at(a, _SUM)
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
            text = at(first, _POWER) if divisor is None else f"1/{divisor}"
        else:
            text = at(-first, _POWER)
    elif (divisor := _divisor(first, at)) is not None:
        text = f"1/{divisor}"
    elif first is sp.S.One:
        text = "(1)"  # 1/x*y would start with the divisor
    else:
        text = at(first, _POWER)
    for a in rest:
        divisor = _divisor(a, at)
        text += f"*{at(a, _POWER)}" if divisor is None else f"/{divisor}"
    return sign + text, _SUM if sign else _PRODUCT


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
        return at(base, _ATOM)
    return f"{at(base, _ATOM)}^{-int(exponent)}"


def _print_power(e: sp.Pow, at: Callable[[sp.Basic, int], str]) -> tuple[str, int]:
    base, exponent = e.args
    divisor = _divisor(e, at)
    if divisor is not None:
        return f"1/{divisor}", _PRODUCT
    if exponent is sp.S.Half:
        return f"sqrt({at(base, _OR)})", _ATOM
    bare = isinstance(exponent, sp.Integer | sp.Symbol)
    power = at(exponent, _ATOM) if bare else f"({at(exponent, _OR)})"
    return f"{at(base, _ATOM)}^{power}", _POWER


def _branches(e: sp.Piecewise, at: Callable[[sp.Basic, int], str]) -> list[str]:
    parts = []
    for k, (value, condition) in enumerate(e.args):
        if condition is sp.true and k == len(e.args) - 1 and k:
            parts.append(at(value, _OR))
        else:
            parts += [at(condition, _OR), at(value, _OR)]
    return parts


# ── parsing ──────────────────────────────────────────────────────────────────────────────


def parse_expression(text: str) -> sp.Basic:
    """The expression of a text. Raises ImportModelError with the place of the mistake."""
    if len(text) > _LONGEST:
        raise ImportModelError(
            "an expression is too long", got=f"{len(text)} characters", expected=_LONGEST
        )
    parser = _Parser(text)
    found = parser.expression(_OR)
    if parser.kind != "end":
        raise parser.mistake("an operator or the end")
    return found


class _Parser:
    """Precedence climbing over the tokens."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.kind = ""
        self.token = ""
        self.start = 0
        self.position = 0
        self.depth = 0
        #: what parse_expression builds is not simplified; this bounds what simplifying makes
        self.weights: dict[sp.Basic, int] = {}
        self.advance()

    # -- tokens --

    def advance(self) -> str:
        """Move to the next token; gives the one that was left."""
        left = self.token
        match = _TOKEN.match(self.text, self.position)
        if match is None:
            rest = self.text[self.position :].lstrip()
            self.start = len(self.text) - len(rest)
            self.kind, self.token = ("end", "") if not rest else ("unknown", rest[0])
            self.position = len(self.text) if not rest else self.start
            if rest:
                raise self.mistake("an expression")
            return left
        self.kind = match.lastgroup or ""
        self.token = match[self.kind]
        self.start = match.start(self.kind)
        self.position = match.end()
        return left

    def accept(self, sign: str) -> bool:
        if self.kind == "sign" and self.token == sign:
            self.advance()
            return True
        return False

    def expect(self, sign: str) -> None:
        if not self.accept(sign):
            raise self.mistake(f"'{sign}'")

    def mistake(self, expected: str) -> ImportModelError:
        around = self.text[max(0, self.start - 20) : self.start + 20]
        return ImportModelError(
            f"an expression is wrong at character {self.start + 1}, near {around!r}",
            got=repr(self.token[:40]) if self.token else "the end", expected=expected,
        )  # fmt: skip

    # -- grammar --

    def expression(self, least: int) -> sp.Basic:
        """An expression whose operators bind at least as strongly as ``least``."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ImportModelError("an expression is nested too deeply", expected=_DEEPEST)
        left = self.operand(least)
        while True:
            sign = self.token if self.kind == "sign" else ""
            if sign == "|" and least <= _OR:
                left = self.connective(sp.Or, "|", _AND, left)
            elif sign == "&" and least <= _AND:
                left = self.connective(sp.And, "&", _NOT, left)
            elif sign in _COMPARISONS and least <= _COMPARE:
                self.advance()
                right = self.expression(_SUM)
                left = self.build(_COMPARISONS[sign], self.number(left), self.number(right))
                if self.token in _COMPARISONS:
                    raise self.mistake("'&' between two comparisons")
            elif sign in ("+", "-") and sign and least <= _SUM:
                left = self.sum(left)
            else:
                break
        self.depth -= 1
        return left

    def operand(self, least: int) -> sp.Basic:
        if self.kind == "sign" and self.token == "!":
            if least > _NOT:
                raise self.mistake("a number")
            self.advance()
            return self.build(sp.Not, self.condition(self.expression(_NOT)))
        if self.kind == "sign" and self.token == "-":
            if least > _SUM:
                raise self.mistake("a number, a name or '('")
            self.advance()
            return self.negated(self.product())
        return self.product() if least <= _PRODUCT else self.power()

    def connective(self, kind: type[sp.Basic], sign: str, least: int, first: sp.Basic) -> sp.Basic:
        args = [self.condition(first)]
        while self.accept(sign):
            args.append(self.condition(self.expression(least)))
        return self.build(kind, *args)

    def sum(self, first: sp.Basic) -> sp.Basic:
        args = [self.number(first)]
        while self.kind == "sign" and self.token in ("+", "-"):
            negative = self.advance() == "-"
            term = self.number(self.product())
            args.append(self.negated(term) if negative else term)
        return self.build(sp.Add, *args)

    def negated(self, term: sp.Basic) -> sp.Basic:
        """-term, with the sign in a leading number: -3*x is Mul(-3, x)."""
        if isinstance(term, sp.Number):
            return -term
        self.number(term)
        if isinstance(term, sp.Mul) and isinstance(term.args[0], sp.Number):
            return self.build(sp.Mul, -term.args[0], *term.args[1:])
        if isinstance(term, sp.Mul):
            return self.build(sp.Mul, sp.S.NegativeOne, *term.args)
        return self.build(sp.Mul, sp.S.NegativeOne, term)

    def product(self) -> sp.Basic:
        literal = self.kind == "integer" and self.token == "1"
        first = self.power()
        args = [first]
        while self.kind == "sign" and self.token in ("*", "/"):
            self.number(args[-1])
            if self.advance() == "*":
                args.append(self.number(self.power()))
                continue
            divisor = self.reciprocal(self.number(self.power()))
            if literal and len(args) == 1 and args[0] is first and first is sp.S.One:
                args = [divisor]  # 1/x is the power itself
                literal = False
            else:
                args.append(divisor)
        return args[0] if len(args) == 1 else self.build(sp.Mul, *args)

    def reciprocal(self, e: sp.Basic) -> sp.Basic:
        if isinstance(e, sp.Rational) and e != 0:
            return 1 / e
        if isinstance(e, sp.Pow) and isinstance(e.exp, sp.Integer) and e.exp > 0:
            return self.build(sp.Pow, e.base, -e.exp)
        return self.build(sp.Pow, e, sp.S.NegativeOne)

    def power(self) -> sp.Basic:
        base = self.atom()
        if not self.accept("^"):
            return base
        exponent = self.number(self.atom())
        if self.kind == "sign" and self.token == "^":
            raise self.mistake("parentheses: (a^b)^c or a^(b^c)")
        return self.build(sp.Pow, self.number(base), exponent)

    def atom(self) -> sp.Basic:
        if self.kind == "sign" and self.token == "(":
            self.advance()
            inner = self.expression(_OR)
            self.expect(")")
            return inner
        if self.kind in ("integer", "rational", "float"):
            return self.literal()
        if self.kind != "name":
            raise self.mistake("a number, a name or '('")
        name = self.token
        if name in _CONSTANTS:
            self.advance()
            return _CONSTANTS[name]
        if _OPERAND.match(name):
            self.advance()
            return operand(int(name[1:]))
        if name == "y":
            self.advance()
            return Y
        return self.call()

    def literal(self) -> sp.Basic:
        kind, token = self.kind, self.token
        if len(token) > 800:
            raise self.mistake("at most 800 digits")
        if kind == "float":
            if float(token) == float("inf"):
                raise self.mistake("a number that a float can hold")
            number: sp.Basic = sp.Float(float(token))
        elif kind == "integer":
            number = sp.Integer(int(token))
        else:
            over, under = token.split("/")
            if int(under) == 0:
                raise self.mistake("a divisor that is not 0")
            number = sp.Rational(int(over), int(under))
        self.advance()
        return number

    def call(self) -> sp.Basic:
        place = self.start
        name = self.advance()
        if not (self.kind == "sign" and self.token == "("):
            self.start = place
            self.token = name
            raise self.mistake("x0, x1, …, y or a function")
        self.advance()
        args = [self.expression(_OR)]
        while self.accept(","):
            args.append(self.expression(_OR))
        self.expect(")")
        if name == "select":
            return self.select(args)
        for a in args:
            self.number(a)
        if name == "D":
            return self.derivative(args)
        if name == "sqrt" or name in _FUNCTIONS:
            if len(args) != 1:
                raise self.mistake(f"one argument of {name}, not {len(args)},")
            if name == "sqrt":
                return self.build(sp.Pow, args[0], sp.S.Half)
            return self.build(_FUNCTIONS[name], args[0])
        if len(name) > 64:
            raise self.mistake("a name of at most 64 characters")
        return self.build(sp.Function(name), *args)

    def select(self, args: list[sp.Basic]) -> sp.Basic:
        pairs = [(b, self.condition(a)) for a, b in zip(args[::2], args[1::2], strict=False)]
        if len(args) % 2:
            pairs.append((args[-1], sp.true))
        for value, _ in pairs:
            self.number(value)
        found = sp.Piecewise(*pairs, evaluate=False)
        self.weigh(found, sum(self.weight(a) for a in args))
        return found

    def derivative(self, args: list[sp.Basic]) -> sp.Basic:
        expr, *rest = args
        if not isinstance(expr, AppliedUndef):
            raise self.mistake("a derivative of an unspecified function such as f1(x0)")
        counts: list[tuple[sp.Basic, sp.Basic]] = []
        for a in rest:
            if isinstance(a, sp.Symbol) and a in expr.args:
                counts.append((a, sp.S.One))
            elif isinstance(a, sp.Integer) and counts and 1 <= a <= 8:
                counts[-1] = (counts[-1][0], a)
            else:
                raise self.mistake("an argument of the function, or how often to derive")
        if not counts:
            raise self.mistake("what to derive by")
        return sp.Derivative(expr, *counts)

    # -- building --

    def build(self, kind: type[sp.Basic], *args: sp.Basic) -> sp.Basic:
        """The node as written, not simplified."""
        weight = sum(self.weight(a) for a in args)
        if kind is sp.Pow:
            base, exponent = args
            size = self.weight(exponent)
            constant = not exponent.free_symbols
            if constant and not isinstance(exponent, sp.Number) and size > 16:
                raise self.mistake("a smaller exponent")
            if isinstance(exponent, sp.Number) and exponent.is_finite:
                weight = self.weight(base) * (1 + int(abs(exponent)))
            elif constant:
                weight = self.weight(base) * 2**size
        found = kind(*args, evaluate=False)
        self.weigh(found, weight)
        return found

    def weight(self, e: sp.Basic) -> int:
        """Bits of the numbers in e, were its powers worked out."""
        if isinstance(e, sp.Rational):
            return int(e.p).bit_length() + int(e.q).bit_length()
        if isinstance(e, sp.Float):
            return 64 + abs(int(e._mpf_[2]))
        return self.weights.get(e, 1)

    def weigh(self, e: sp.Basic, weight: int) -> None:
        if weight > _HEAVIEST:
            raise self.mistake("smaller numbers")
        self.weights[e] = weight

    def number(self, e: sp.Basic) -> sp.Basic:
        if not isinstance(e, sp.Expr):
            raise self.mistake("a number before this, not a condition")
        return e

    def condition(self, e: sp.Basic) -> sp.Basic:
        if not isinstance(e, sp.logic.boolalg.Boolean):
            raise self.mistake("a condition before this, not a number")
        return e
