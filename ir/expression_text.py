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

from .expression_parser import parse_expression
from .expression_printer import print_expression

__all__ = ["parse_expression", "print_expression"]
