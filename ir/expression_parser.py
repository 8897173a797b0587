"""Scalar expressions read from text; the grammar stands in ``ir/expression_text``.

The text builds the tree that it shows, unsimplified. What simplifying could make of it later
is bounded here, too.
"""

from __future__ import annotations

import re

import sympy as sp
from sympy.core.function import AppliedUndef

from ..errors import ImportModelError
from .expression import Y, operand
from .expression_printer import (
    AND,
    COMPARE,
    COMPARISONS,
    CONSTANTS,
    DEEPEST,
    FUNCTION_NAMES,
    LONGEST,
    NOT,
    OPERAND,
    OR,
    PRODUCT,
    SUM,
)

__all__ = ["parse_expression"]

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


def parse_expression(text: str) -> sp.Basic:
    """The expression of a text. Raises ImportModelError with the place of the mistake."""
    if len(text) > LONGEST:
        raise ImportModelError(
            "an expression is too long", got=f"{len(text)} characters", expected=LONGEST
        )
    parser = _Parser(text)
    found = parser.expression(OR)
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
        if self.depth > DEEPEST:
            raise ImportModelError("an expression is nested too deeply", expected=DEEPEST)
        left = self.operand(least)
        while True:
            sign = self.token if self.kind == "sign" else ""
            if sign == "|" and least <= OR:
                left = self.connective(sp.Or, "|", AND, left)
            elif sign == "&" and least <= AND:
                left = self.connective(sp.And, "&", NOT, left)
            elif sign in COMPARISONS and least <= COMPARE:
                self.advance()
                right = self.expression(SUM)
                left = self.build(COMPARISONS[sign], self.number(left), self.number(right))
                if self.token in COMPARISONS:
                    raise self.mistake("'&' between two comparisons")
            elif sign in ("+", "-") and sign and least <= SUM:
                left = self.sum(left)
            else:
                break
        self.depth -= 1
        return left

    def operand(self, least: int) -> sp.Basic:
        if self.kind == "sign" and self.token == "!":
            if least > NOT:
                raise self.mistake("a number")
            self.advance()
            return self.build(sp.Not, self.condition(self.expression(NOT)))
        if self.kind == "sign" and self.token == "-":
            if least > SUM:
                raise self.mistake("a number, a name or '('")
            self.advance()
            return self.negated(self.product())
        return self.product() if least <= PRODUCT else self.power()

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
            inner = self.expression(OR)
            self.expect(")")
            return inner
        if self.kind in ("integer", "rational", "float"):
            return self.literal()
        if self.kind != "name":
            raise self.mistake("a number, a name or '('")
        name = self.token
        if name in CONSTANTS:
            self.advance()
            return CONSTANTS[name]
        if OPERAND.match(name):
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
        args = [self.expression(OR)]
        while self.accept(","):
            args.append(self.expression(OR))
        self.expect(")")
        if name == "select":
            return self.select(args)
        for a in args:
            self.number(a)
        if name == "D":
            return self.derivative(args)
        if name == "sqrt" or name in FUNCTION_NAMES:
            if len(args) != 1:
                raise self.mistake(f"one argument of {name}, not {len(args)},")
            if name == "sqrt":
                return self.build(sp.Pow, args[0], sp.S.Half)
            return self.build(FUNCTION_NAMES[name], args[0])
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
