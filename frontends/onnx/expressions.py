"""Elementwise bricks as ONNX nodes: their SymPy expressions, node by node."""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from ...errors import UnsupportedError
from ...ir.dtypes import DType
from ...ir.expression import expm1, extremum, log1p, logistic, mask, softplus
from .writer import Writer

__all__ = ["Expression"]

_FUNCTIONS: dict[type[sp.Basic], str] = {
    sp.tanh: "Tanh", sp.exp: "Exp", sp.log: "Log", sp.Abs: "Abs", sp.sign: "Sign",
    sp.sin: "Sin", sp.cos: "Cos", sp.erf: "Erf", sp.floor: "Floor", sp.ceiling: "Ceil",
    logistic: "Sigmoid", softplus: "Softplus",
}  # fmt: skip

_RELATIONS: dict[type[sp.Basic], str] = {
    sp.StrictLessThan: "Less", sp.LessThan: "LessOrEqual", sp.StrictGreaterThan: "Greater",
    sp.GreaterThan: "GreaterOrEqual", sp.Equality: "Equal",
}  # fmt: skip


class Expression:
    """One expression of operands x0, x1, … being written; numbers have ``dtype``."""

    def __init__(
        self, writer: Writer, operands: Sequence[str], dtypes: Sequence[DType], dtype: DType
    ) -> None:
        self.writer = writer
        self.operands = operands
        self.dtypes = dtypes
        self.dtype = dtype
        self._memo: dict[sp.Basic, str] = {}

    def write(self, e: sp.Basic) -> str:
        """The name of the expression's value: bool for conditions, else ``dtype``."""
        if e not in self._memo:
            self._memo[e] = self._compute(e)
        return self._memo[e]

    def is_bool(self, e: sp.Basic) -> bool:
        if e.is_Symbol:
            return self.dtypes[int(e.name[1:])] is DType.BOOL
        if isinstance(e, sp.Piecewise):
            return all(self.is_bool(value) for value, _ in e.args)
        return isinstance(e, (*_RELATIONS, sp.Unequality, sp.And, sp.Or, sp.Not)) or e in (
            sp.true, sp.false,
        )  # fmt: skip

    def numeric(self, e: sp.Basic) -> str:
        value = self.write(e)
        return self.writer.cast(value, self.dtype) if self.is_bool(e) else value

    def _compute(self, e: sp.Basic) -> str:
        add = self.writer.add
        if e.is_Symbol:
            return self.operands[int(e.name[1:])]
        if e in (sp.true, sp.false):
            return self.writer.number(bool(e), DType.BOOL)
        if isinstance(e, sp.Number | sp.NumberSymbol):
            return self.writer.number(float(e), self.dtype)
        match e:
            case sp.Add():
                return self._fold("Add", e.args)
            case sp.Mul() | sp.Pow():
                return self._product(e)
            case sp.Piecewise():
                return self._piecewise(e)
            case sp.And() | sp.Or():
                return self._logic("And" if isinstance(e, sp.And) else "Or", e.args)
            case sp.Not():
                return add("Not", self.condition(e.args[0]))
            case sp.Unequality():
                return add("Not", self._relation("Equal", e.args))
        if isinstance(e, log1p):
            return add("Log", add("Add", self.numeric(e.args[0]), self._one()))
        if isinstance(e, expm1):
            return add("Sub", add("Exp", self.numeric(e.args[0])), self._one())
        if type(e) in _RELATIONS:
            return self._relation(_RELATIONS[type(e)], e.args)
        if type(e) in _FUNCTIONS:
            return add(_FUNCTIONS[type(e)], self.numeric(e.args[0]))
        raise UnsupportedError("a function that ONNX has not", got=type(e).__name__)

    def _one(self) -> str:
        return self.writer.number(1, self.dtype)

    def _fold(self, op: str, args: Sequence[sp.Basic]) -> str:
        total = self.numeric(args[0])
        for each in args[1:]:
            total = self.writer.add(op, total, self.numeric(each))
        return total

    def _logic(self, op: str, args: Sequence[sp.Basic]) -> str:
        total = self.condition(args[0])
        for each in args[1:]:
            total = self.writer.add(op, total, self.condition(each))
        return total

    def condition(self, e: sp.Basic) -> str:
        value = self.write(e)
        return value if self.is_bool(e) else self.writer.cast(value, DType.BOOL)

    def _relation(self, op: str, args: Sequence[sp.Basic]) -> str:
        left, right = args
        # "is true" is written as a comparison with 0
        if op == "Equal" and self.is_bool(left) and right == 0:
            return self.writer.add("Not", self.write(left))
        if op == "Equal" and self.is_bool(left) and self.is_bool(right):
            return self.writer.add("Equal", self.write(left), self.write(right))
        return self.writer.add(op, self.numeric(left), self.numeric(right))

    def _product(self, e: sp.Expr) -> str:
        over: list[str] = []
        under: list[str] = []
        masks: list[str] = []
        for a in sp.Mul.make_args(e):
            kept = mask(a)
            if kept is not None:
                masks.append(self.condition(kept))
            elif isinstance(a, sp.Pow) and a.exp.is_Number and a.exp.is_negative:
                under.append(self._power(a.base, -a.exp))
            else:
                over.append(self._power(*a.args) if isinstance(a, sp.Pow) else self.numeric(a))
        value = self._joined(over) if over else self._one()
        if under:
            value = self.writer.add("Div", value, self._joined(under))
        for kept_if in masks:
            zero = self.writer.number(0, self.dtype)
            value = self.writer.add("Where", kept_if, value, zero)
        return value

    def _joined(self, names: Sequence[str]) -> str:
        total = names[0]
        for each in names[1:]:
            total = self.writer.add("Mul", total, each)
        return total

    def _power(self, base: sp.Expr, exponent: sp.Expr) -> str:
        x = self.numeric(base)
        if exponent == 1:
            return x
        if exponent == 2:
            return self.writer.add("Mul", x, x)
        if exponent in (sp.S.Half, sp.Float(0.5)):
            return self.writer.add("Sqrt", x)
        return self.writer.add("Pow", x, self.numeric(exponent))

    def _piecewise(self, e: sp.Piecewise) -> str:
        found = extremum(e)
        if found is not None and not self.is_bool(e):
            kind, a, b = found
            return self.writer.add("Max" if kind == "max" else "Min", self.numeric(a),
                                   self.numeric(b))  # fmt: skip
        logical = self.is_bool(e)
        *pairs, (otherwise, _) = e.args
        result = self.write(otherwise) if logical else self.numeric(otherwise)
        for value, condition in reversed(pairs):
            then = self.write(value) if logical else self.numeric(value)
            result = self.writer.add("Where", self.condition(condition), then, result)
        return result
