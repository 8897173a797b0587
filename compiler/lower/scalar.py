"""SymPy expression -> typed scalar program: once per expression and dtype, then inlined.

This is the only place where SymPy meets kernels. Numerically safer forms are chosen here:
log(1+u) and exp(u)-1 keep their digits, quotients divide once, small integer powers
multiply, a ReLU is a maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import sympy as sp

from ...errors import UnsupportedError
from ...ir.dtypes import DType
from ...ir.expression import extremum, mask
from ...ir.kernel.scalar import COMPARISONS, ScalarBuilder, ScalarProgram

__all__ = ["inline", "program_of"]

_FUNCTIONS: dict[str, str] = {
    "tanh": "tanh", "exp": "exp", "log": "log", "Abs": "abs", "sign": "sign", "sin": "sin",
    "cos": "cos", "erf": "erf", "floor": "floor", "ceiling": "ceil", "logistic": "logistic",
    "softplus": "softplus", "log1p": "log1p", "expm1": "expm1",
}  # fmt: skip

_RELATIONS: dict[type[sp.Basic], str] = {
    sp.StrictLessThan: "lt",
    sp.LessThan: "le",
    sp.StrictGreaterThan: "gt",
    sp.GreaterThan: "ge",
    sp.Equality: "eq",
    sp.Unequality: "ne",
}


@lru_cache(maxsize=8192)
def program_of(expr: sp.Basic, dtypes: tuple[DType, ...]) -> ScalarProgram:
    """The program of an expression in x0, x1, … whose operands have these dtypes.

    Raises UnsupportedError for a function that has no opcode.
    """
    numeric = next((d for d in dtypes if d is not DType.BOOL), DType.BOOL)
    builder = ScalarBuilder()
    operands = [builder.input(d) for d in dtypes]
    lowering = _Lowering(builder, operands, numeric)
    return builder.build([lowering.visit(expr)])


def inline(builder: ScalarBuilder, program: ScalarProgram, args: Sequence[int]) -> int:
    """The program's only result, computed inside another program from ``args``."""
    values = list(args)
    for instr in program.instrs:
        operands = [values[a] for a in instr.args]
        match instr.op:
            case "const":
                assert instr.literal is not None
                value = builder.const(instr.literal, instr.dtype)
            case "size":
                assert instr.size is not None
                value = builder.size(instr.size, instr.dtype)
            case "cast":
                value = builder.cast(operands[0], instr.dtype)
            case "select":
                value = builder.select(*operands)
            case _:
                value = builder.op(instr.op, *operands)
        values.append(value)
    return values[program.results[0]]


class _Lowering:
    def __init__(self, builder: ScalarBuilder, operands: Sequence[int], dtype: DType) -> None:
        self.b = builder
        self.operands = operands
        self.dtype = dtype
        self.memo: dict[sp.Basic, int] = {}
        self.cases: list[tuple[type[sp.Basic], Callable[[sp.Basic], int]]] = [
            (sp.Symbol, self._symbol),
            (sp.Number, self._number),
            (sp.NumberSymbol, self._number),
            (sp.Add, self._add),
            (sp.Mul, self._mul),
            (sp.Pow, self._pow),
            (sp.Piecewise, self._piecewise),
            (sp.And, self._logical),
            (sp.Or, self._logical),
            (sp.Not, self._logical),
        ]

    def visit(self, e: sp.Basic) -> int:
        if e not in self.memo:
            self.memo[e] = self._compute(e)
        return self.memo[e]

    def _compute(self, e: sp.Basic) -> int:
        if e in (sp.true, sp.false):
            return self.b.const(bool(e), DType.BOOL)
        if isinstance(e, sp.Expr) and e.is_number and not e.has(sp.Function):
            return self._number(e)  # sqrt(pi), say
        for kind, rule in self.cases:
            if isinstance(e, kind):
                return rule(e)
        if type(e) in _RELATIONS:
            return self._relation(e)
        opcode = _FUNCTIONS.get(type(e).__name__)
        if opcode is None or not isinstance(e, sp.Function):
            raise UnsupportedError(
                "an expression uses a function that kernels do not have",
                got=type(e).__name__,
                expected=", ".join(sorted(_FUNCTIONS)),
            )
        argument = e.args[0]
        if opcode == "log" and isinstance(argument, sp.Add) and sp.S.One in argument.args:
            rest = sp.Add(*(a for a in argument.args if a != 1))
            return self.b.op("log1p", self._numeric(rest))
        return self.b.op(opcode, self._numeric(argument))

    def _numeric(self, e: sp.Basic) -> int:
        """The value as a number: conditions become 0 or 1."""
        return self.b.cast(self.visit(e), self.dtype)

    def _symbol(self, e: sp.Symbol) -> int:
        return self.operands[int(e.name[1:])]

    def _number(self, e: sp.Expr) -> int:
        if self.dtype.is_integer:
            return self.b.const(int(e), self.dtype)
        return self.b.const(float(e), self.dtype if self.dtype.is_float else DType.BOOL)

    def _add(self, e: sp.Add) -> int:
        if len(e.args) == 2 and sp.S.NegativeOne in e.args:
            other = e.args[0] if e.args[1] == -1 else e.args[1]
            if isinstance(other, sp.exp):
                return self.b.op("expm1", self._numeric(other.args[0]))
        plus = [a for a in e.args if not a.could_extract_minus_sign()]
        minus = [-a for a in e.args if a.could_extract_minus_sign()]
        # a constant comes last: (x - 1) rather than (-1 + x)
        plus.sort(key=lambda a: bool(a.is_Number))
        if not plus:
            total = self.b.op("neg", self._numeric(minus[0]))
            minus = minus[1:]
        else:
            total = self._numeric(plus[0])
        for a in plus[1:]:
            total = self.b.op("add", total, self._numeric(a))
        for a in minus:
            total = self.b.op("sub", total, self._numeric(a))
        return total

    def _mul(self, e: sp.Mul) -> int:
        numerator: list[sp.Expr] = []
        denominator: list[sp.Expr] = []
        masks: list[sp.Basic] = []
        negative = False
        for a in e.args:
            if a == -1:
                negative = not negative
            elif isinstance(a, sp.Pow) and a.exp.is_Number and a.exp.is_negative:
                denominator.append(sp.Pow(a.base, -a.exp))
            elif (condition := mask(a)) is not None:
                masks.append(condition)
            else:
                numerator.append(a)
        value = self._product(numerator)
        if denominator:
            one = self.b.const(1, self.dtype)
            over = one if value is None else value
            value = self.b.op("div", over, self._required_product(denominator))
        if value is None:
            value = self.b.const(1, self.dtype)
        if negative:
            value = self.b.op("neg", value)
        for condition in masks:
            zero = self.b.const(0, self.dtype)
            value = self.b.select(self.visit(condition), value, zero)
        return value

    def _product(self, factors: Sequence[sp.Expr]) -> int | None:
        if not factors:
            return None
        total = self._numeric(factors[0])
        for a in factors[1:]:
            total = self.b.op("mul", total, self._numeric(a))
        return total

    def _required_product(self, factors: Sequence[sp.Expr]) -> int:
        product = self._product(factors)
        assert product is not None
        return product

    def _pow(self, e: sp.Pow) -> int:
        base, exponent = e.base, e.exp
        if exponent.is_Number and exponent.is_negative:
            one = self.b.const(1, self.dtype)
            return self.b.op("div", one, self.visit(sp.Pow(base, -exponent)))
        if exponent == sp.Rational(1, 2) or exponent == 0.5:
            return self.b.op("sqrt", self._numeric(base))
        if exponent.is_Integer and int(exponent) <= 64:
            return self._integer_power(self._numeric(base), int(exponent))
        if exponent == sp.Rational(3, 2) or exponent == 1.5:
            value = self._numeric(base)
            return self.b.op("mul", value, self.b.op("sqrt", value))
        if exponent == 0.75 or exponent == sp.Rational(3, 4):
            # two square roots instead of a power: the LRN of every published network
            root = self.b.op("sqrt", self._numeric(base))
            return self.b.op("mul", root, self.b.op("sqrt", root))
        return self.b.op("pow", self._numeric(base), self._numeric(exponent))

    def _integer_power(self, base: int, n: int) -> int:
        result: int | None = None
        while n:
            if n & 1:
                result = base if result is None else self.b.op("mul", result, base)
            n >>= 1
            if n:
                base = self.b.op("mul", base, base)
        return self.b.const(1, self.dtype) if result is None else result

    def _piecewise(self, e: sp.Piecewise) -> int:
        chosen = extremum(e)
        if chosen is not None:
            op, left, right = chosen
            return self.b.op(op, self._numeric(left), self._numeric(right))
        *branches, (last, condition) = e.args
        value = self._branch(last)
        if condition != sp.true:
            raise UnsupportedError(
                "a Piecewise does not say what holds otherwise", got=str(e),
                hint="end it with (value, True)",
            )  # fmt: skip
        for branch, condition in reversed(branches):
            value = self.b.select(self.visit(condition), self._branch(branch), value)
        return value

    def _branch(self, e: sp.Basic) -> int:
        return self._numeric(e) if self.dtype is not DType.BOOL else self.visit(e)

    def _relation(self, e: sp.Basic) -> int:
        op = _RELATIONS[type(e)]
        left, right = self.visit(e.lhs), self.visit(e.rhs)
        dtypes = (self.b.dtype(left), self.b.dtype(right))
        if (DType.BOOL in dtypes and dtypes[0] is not dtypes[1]) or dtypes == (DType.BOOL,) * 2:
            for value, other in ((left, right), (right, left)):
                literal = self.b.literal(other)
                if literal is not None and self.b.dtype(value) is DType.BOOL:
                    if (op == "ne") == (not literal):
                        return value  # (c != 0) and (c == 1) are c
                    return self.b.op("not", value)
            left, right = self.b.cast(left, self.dtype), self.b.cast(right, self.dtype)
        assert op in COMPARISONS
        return self.b.op(op, left, right)

    def _logical(self, e: sp.Basic) -> int:
        if isinstance(e, sp.Not):
            return self.b.op("not", self.visit(e.args[0]))
        op = "and" if isinstance(e, sp.And) else "or"
        total = self.visit(e.args[0])
        for a in e.args[1:]:
            total = self.b.op(op, total, self.visit(a))
        return total
