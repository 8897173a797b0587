"""Sizes of axes: integers, named dims with a range, and polynomials in them.

One compiled program serves every size in a dim's range, so strides, sizes and offsets
are polynomials with integer coefficients. They stay small: sums of a few products.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from ..errors import ShapeError, UnsupportedError

__all__ = ["Dim", "DimExpr", "Size", "dims_of", "evaluate", "exact_div", "hint", "maximum",
           "minimum", "product"]  # fmt: skip

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")

#: names of the dims of a product, sorted, with repetition: N·N·T is ("N", "N", "T")
Monomial = tuple[str, ...]


class _Arithmetic:
    """Operators shared by Dim and DimExpr; the results are normalised sizes."""

    def __add__(self, other: Size) -> Size:
        if other == 0:
            return self  # type: ignore[return-value]
        return _normal(_merge([_terms(self), _terms(other)]), _dims([self, other]))

    def __mul__(self, other: Size) -> Size:
        if isinstance(other, int):
            return _times(self, other)
        terms: dict[Monomial, int] = {}
        for m1, c1 in _terms(self).items():
            for m2, c2 in _terms(other).items():
                key = tuple(sorted(m1 + m2))
                terms[key] = terms.get(key, 0) + c1 * c2
        return _normal(terms, _dims([self, other]))

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + other * -1

    def __rsub__(self, other: Size) -> Size:
        return self * -1 + other

    __radd__ = __add__
    __rmul__ = __mul__

    def __floordiv__(self, other: int) -> Size:
        if other == 1:
            return self  # type: ignore[return-value]
        terms = _terms(self)
        # (a·N + r) // d = (a/d)·N + r // d where d divides a, since N is an integer
        if other > 0 and all(c % other == 0 for m, c in terms.items() if m):
            return _normal({m: c // other for m, c in terms.items()}, _dims([self]))
        raise UnsupportedError(
            "a dim that is not known at compile time cannot be divided",
            got=f"{self} // {other}",
            hint="give this axis a fixed size, or a stride of 1",
        )


@dataclass(frozen=True, eq=False)
class Dim(_Arithmetic):
    """A named axis size with an inclusive range, e.g. ``Dim("N", 1, 1024)``.

    ``typical`` is the size that cost models assume (default: 64, moved into the range).
    It changes the choice of a strategy, never a result.
    """

    name: str
    lo: int = 1
    hi: int = 1024
    typical: int = 0

    def __post_init__(self) -> None:
        if not _NAME.match(self.name) or len(self.name) > 64:
            raise ShapeError(
                "not a name for a dim", got=repr(self.name)[:80],
                expected="a letter, then letters, digits or _ (64 at most)",
            )  # fmt: skip
        if not 1 <= self.lo <= self.hi < 2**31:
            raise ShapeError(
                f"dim {self.name} has an impossible range", got=f"{self.lo}..{self.hi}",
                expected="1 <= lo <= hi < 2**31",
            )  # fmt: skip
        if self.typical == 0:
            object.__setattr__(self, "typical", min(max(64, self.lo), self.hi))
        elif not self.lo <= self.typical <= self.hi:
            raise ShapeError(
                f"dim {self.name}: the typical size is out of range", got=self.typical,
                expected=f"{self.lo}..{self.hi}",
            )  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.name == other.name

    def __hash__(self) -> int:
        return hash(("dim", self.name))

    def __repr__(self) -> str:
        return self.name

    def check(self, size: int, where: str = "") -> None:
        """Raise ShapeError unless ``size`` is in the range."""
        if not self.lo <= size <= self.hi:
            raise ShapeError(
                f"dim {self.name} is out of its range", where=where, got=size,
                expected=f"{self.lo}..{self.hi}",
                hint=f"compile with a wider range: --range {self.name}={self.lo}:{self.hi}",
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class DimExpr(_Arithmetic):
    """A polynomial in dims that is neither a constant nor a bare dim."""

    terms: tuple[tuple[Monomial, int], ...]  # sorted
    dims: tuple[Dim, ...]  # sorted by name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DimExpr) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)

    @cached_property
    def _text(self) -> str:
        parts = []
        for monomial, coefficient in self.terms:
            factors = list(monomial)
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            parts.append("*".join(factors))
        return "+".join(parts).replace("+-", "-")

    def __repr__(self) -> str:
        return self._text


Size = int | Dim | DimExpr


def _terms(size: object) -> dict[Monomial, int]:
    match size:
        case int():
            return {(): int(size)} if size else {}
        case Dim():
            return {(size.name,): 1}
        case DimExpr():
            return dict(size.terms)
    raise ShapeError("not a size", got=repr(size), expected="an int, a Dim or a sum of products")


def _times(size: object, factor: int) -> Size:
    """A product with an integer, which changes coefficients alone; most products are such."""
    if factor == 0:
        return 0
    match size:
        case Dim():
            return size if factor == 1 else DimExpr((((size.name,), factor),), (size,))
        case DimExpr():
            if factor == 1:
                return size
            scaled = tuple((monomial, c * factor) for monomial, c in size.terms)
            if len(scaled) == 1 and scaled[0][1] == 1 and len(scaled[0][0]) == 1:
                return size.dims[0]
            return DimExpr(scaled, size.dims)
    raise ShapeError("not a size", got=repr(size), expected="a Dim or a sum of products")


def _dims(sizes: Iterable[object]) -> dict[str, Dim]:
    found: dict[str, Dim] = {}
    for size in sizes:
        for dim in (size,) if isinstance(size, Dim) else getattr(size, "dims", ()):
            other = found.setdefault(dim.name, dim)
            if (other.lo, other.hi) != (dim.lo, dim.hi):
                raise ShapeError(
                    f"two dims are called {dim.name}",
                    got=f"ranges {other.lo}..{other.hi} and {dim.lo}..{dim.hi}",
                    hint="use one Dim object for one size, or give them different names",
                )
    return found


def _merge(many: Iterable[dict[Monomial, int]]) -> dict[Monomial, int]:
    total: dict[Monomial, int] = {}
    for terms in many:
        for monomial, coefficient in terms.items():
            total[monomial] = total.get(monomial, 0) + coefficient
    return total


def _normal(terms: dict[Monomial, int], dims: dict[str, Dim]) -> Size:
    terms = {m: c for m, c in terms.items() if c}
    if not terms:
        return 0
    if len(terms) == 1:
        (monomial, coefficient), *_ = terms.items()
        if not monomial:
            return coefficient
        if coefficient == 1 and len(monomial) == 1:
            return dims[monomial[0]]
    used = {name for monomial in terms for name in monomial}
    return DimExpr(
        tuple(sorted(terms.items(), key=lambda t: (-len(t[0]), t[0]))),
        tuple(dims[name] for name in sorted(used)),
    )


def dims_of(*sizes: Size) -> dict[str, Dim]:
    """The dims that occur in the sizes, by name. Raises ShapeError if two share a name."""
    return _dims(sizes)


def product(sizes: Iterable[Size]) -> Size:
    """The product of the sizes; 1 if there are none."""
    total: Size = 1
    for size in sizes:
        total = total * size
    return total


def evaluate(size: Size, dims: Mapping[str, int]) -> int:
    """The integer that a size is when the dims have these sizes."""
    if isinstance(size, int):
        return size
    total = 0
    for monomial, coefficient in _terms(size).items():
        for name in monomial:
            try:
                coefficient *= dims[name]
            except KeyError:
                raise ShapeError(f"dim {name} has no size here", got=dict(dims)) from None
        total += coefficient
    return total


def hint(size: Size) -> int:
    """The integer that cost models assume for a size."""
    return evaluate(size, {n: d.typical for n, d in _dims([size]).items()})


def minimum(size: Size) -> int:
    """A lower bound of the size over the ranges of its dims."""
    return _bound(size, largest=False)


def maximum(size: Size) -> int:
    """An upper bound of the size over the ranges of its dims."""
    return _bound(size, largest=True)


def _bound(size: Size, *, largest: bool) -> int:
    if isinstance(size, int):
        return size
    dims = _dims([size])
    total = 0
    for monomial, coefficient in _terms(size).items():
        for name in monomial:
            high = largest == (coefficient > 0)
            coefficient *= dims[name].hi if high else dims[name].lo
        total += coefficient
    return total


def exact_div(size: Size, by: Size) -> Size | None:
    """The quotient if ``by`` is one term and divides every term of ``size``; else None."""
    divisor = _terms(by)
    if len(divisor) != 1:
        return 1 if size == by else None
    (monomial, coefficient), *_ = divisor.items()
    result: dict[Monomial, int] = {}
    for m, c in _terms(size).items():
        rest = list(m)
        for name in monomial:
            if name not in rest:
                return None
            rest.remove(name)
        if c % coefficient:
            return None
        result[tuple(rest)] = c // coefficient
    return _normal(result, _dims([size, by]))
