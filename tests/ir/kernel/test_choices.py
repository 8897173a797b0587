"""Decisions by name: defaults, wanted ones, neighbours; keys of kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from brickc.errors import InternalError
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.kernel.anchors import Contract
from brickc.ir.kernel.choices import (
    UNDECIDED,
    Choice,
    NoSuchChoiceError,
    Options,
    Picks,
    kernel_key,
    neighbours,
)
from brickc.ir.kernel.kernel import Kernel, Region
from brickc.ir.kernel.memory import Access
from brickc.ir.kernel.scalar import ScalarBuilder


def test_defaults_are_taken_and_noted() -> None:
    picks = Picks()
    assert picks.pick("rows", 6, (4, 6, 2)) == 6
    assert picks.pick("copy", "whole", ("panels",)) == "whole"
    choice, options = picks.finish()
    assert str(choice) == "rows=6 copy=whole"
    assert options == (("rows", (4, 2)), ("copy", ("panels",)))


def test_wanted_decisions_are_taken() -> None:
    picks = Picks(Choice((("rows", 4),)))
    assert picks.pick("rows", 6, (4,)) == 4
    assert picks.finish() == (Choice((("rows", 4),)), (("rows", (6,)),))


def test_what_is_wrong_for_the_kernel_is_refused() -> None:
    with pytest.raises(NoSuchChoiceError, match=r"no such choice of rows; got 5; expected 6, 4"):
        Picks(Choice((("rows", 5),))).pick("rows", 6, (4,))
    picks = Picks(Choice((("colums", 5),)))
    picks.pick("rows", 6)
    with pytest.raises(NoSuchChoiceError, match=r"got colums; expected rows"):
        picks.finish()
    with pytest.raises(InternalError, match="'rows' twice"):
        picks.pick("rows", 6)


@dataclass(frozen=True)
class Thing:
    kernel: Kernel
    choice: Choice
    options: Options


def thing(wanted: Choice) -> Thing:
    """Rows depend on columns: 2 x 6 and 1 x 12, and 4 goes with both."""
    picks = Picks(wanted)
    columns = picks.pick("columns", 2, (1,))
    picks.pick("rows", 12 // columns, (4,))
    return Thing(product(), *picks.finish())


def test_neighbours_differ_in_one_decision() -> None:
    found = [str(t.choice) for t in neighbours(thing)]
    assert found == ["columns=2 rows=6", "columns=1 rows=12", "columns=2 rows=4"]
    # a decision after the one that differs stays where it can
    around = neighbours(thing, Choice((("columns", 2), ("rows", 4))))
    assert [str(t.choice) for t in around] == [
        "columns=2 rows=4", "columns=1 rows=4", "columns=1 rows=12", "columns=2 rows=6",
    ]  # fmt: skip
    with pytest.raises(NoSuchChoiceError):
        neighbours(thing, Choice((("rows", 5),)))
    assert neighbours(thing, UNDECIDED) == neighbours(thing)


def product(
    rows: int | Dim = 8,
    buffers: tuple[str, str, str] = ("x", "w", "y"),
    name: str = "fc",
    dtype: DType = DType.F32,
) -> Kernel:
    """y[i, j] = Σ x[i, k] w[k, j]"""
    x, w, y = buffers
    builder = ScalarBuilder()
    after = Region(
        (rows, 4),
        builder.build([builder.input(dtype)]),
        (),
        ((0, Access(y, dtype, 0, (rows, 4), (4, 1))),),
    )
    operands = (
        Access(x, dtype, 0, (rows, 3), (3, 1)),
        Access(w, dtype, 0, (3, 4), (4, 1)),
    )
    return Kernel(name, Contract("ik", "kj", "ij"), operands, None, after, ("a note",), (1, 2))


def test_keys_do_not_depend_on_names() -> None:
    assert kernel_key(product()) == kernel_key(product(buffers=("a", "b", "c"), name="fc2"))
    assert kernel_key(product()) == kernel_key(replace(product(), notes=(), nodes=()))


@pytest.mark.parametrize(
    "other",
    [
        product(9),
        product(dtype=DType.F64),
        product(buffers=("x", "w", "x")),
        product(Dim("N", 1, 8)),
        replace(product(), anchor=Contract("ik", "kj", "ji")),
    ],
)
def test_keys_depend_on_what_is_computed(other: Kernel) -> None:
    assert kernel_key(product()) != kernel_key(other)


def test_keys_depend_on_ranges_and_typical_sizes() -> None:
    sizes = [Dim("N", 1, 64), Dim("N", 1, 128), Dim("N", 1, 128, 16)]
    assert len({kernel_key(product(n)) for n in sizes}) == 3
