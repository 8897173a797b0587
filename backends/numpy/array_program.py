"""Array programs: what the NumPy backend makes of a kernel, before it is text.

Two parts. *Bindings* run once per batch size: views of memory, and lists of blocks of
views. *Statements* run in every call: ufunc calls, copies, loops over blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Size
from ...ir.kernel.choices import UNDECIDED, Choice, Options
from ...ir.kernel.kernel import Kernel
from ...ir.kernel.memory import Buffer

__all__ = ["Arg", "ArrayKernel", "Binding", "Blocks", "Call", "Loop", "Num", "Ref", "ScalarDef",
           "Statement", "View"]  # fmt: skip


@dataclass(frozen=True)
class Ref:
    """A name: a view, a loop variable, a scalar."""

    name: str


@dataclass(frozen=True)
class Num:
    """A literal number."""

    value: bool | int | float


Arg = Ref | Num


@dataclass(frozen=True)
class View:
    """``name`` = elements of a buffer; offset and strides count elements of ``dtype``'s size."""

    name: str
    buffer: str
    dtype: str
    itemsize: int
    offset: Size
    shape: tuple[Size, ...]
    strides: tuple[Size, ...]


@dataclass(frozen=True)
class Blocks:
    """``name`` = list of tuples: ``step`` rows of each sliced array, as many rows of each temp."""

    name: str
    step: int
    sliced: tuple[str, ...]
    temps: tuple[str, ...]


@dataclass(frozen=True)
class ScalarDef:
    """``name`` = a Python number, worked out from sizes when the batch size is known.

    ``op`` is "cast" (a number or size as ``kind``), "select", or the name of a ufunc; ``kind``
    is the Python type of the result: float, int or bool.
    """

    name: str
    op: str
    args: tuple[Ref | Num | Size, ...]
    kind: str


Binding = View | Blocks | ScalarDef


@dataclass(frozen=True)
class Call:
    """``np.function(*args, out=out, **options)``; ``out`` is None for methods and copyto."""

    function: str
    args: tuple[Arg, ...]
    out: Ref | None = None
    options: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class Loop:
    """``for variables in blocks: body``"""

    blocks: str
    variables: tuple[str, ...]
    body: tuple[Statement, ...]


Statement = Call | Loop


@dataclass(frozen=True)
class ArrayKernel:
    """A kernel with its strategy's result."""

    kernel: Kernel
    strategy: str
    scratch: tuple[Buffer, ...]
    bindings: tuple[Binding, ...]
    statements: tuple[Statement, ...]
    #: functions of the module's prelude that the statements call
    helpers: frozenset[str] = frozenset()
    choice: Choice = UNDECIDED
    options: Options = ()
