"""Collects the bindings and statements of one kernel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ...errors import InternalError
from ...ir.dims import Size, product
from ...ir.dtypes import DType
from ...ir.kernel.kernel import Kernel
from ...ir.kernel.memory import Access, Buffer, Space, contiguous_strides
from ..module import dtype_name
from .array_program import (
    Arg,
    ArrayKernel,
    Binding,
    Blocks,
    Call,
    Loop,
    Num,
    Ref,
    ScalarDef,
    Statement,
    View,
)

__all__ = ["Emitter"]

#: the integer type whose bits stand for a float's, by item size
_BITS = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}


class Emitter:
    """Where strategies write to. Names are unique within the kernel; the printer adds its own
    prefix. In a block, views that have the blocked axis become loop variables."""

    def __init__(self, kernel: Kernel, buffers: dict[str, Buffer]) -> None:
        self.kernel = kernel
        self.buffers = buffers
        self.scratch: list[Buffer] = []
        self.bindings: list[Binding] = []
        self.helpers: set[str] = set()
        self._statements: list[list[Statement]] = [[]]
        self._views: dict[object, str] = {}
        self._names: set[str] = set()
        self._block: _Block | None = None
        #: name of a view -> its definition, so that its bits can be viewed too
        self._defined: dict[str, View] = {}
        #: loop variable -> the view that it is a block of
        self._outer: dict[str, str] = {}
        self._scalars: set[str] = set()

    # -- memory ----------------------------------------------------------------------------

    def view(
        self,
        access: Access,
        shape: Sequence[Size],
        strides: Sequence[Size],
        *,
        offset: Size | None = None,
        name: str = "",
        whole: bool = False,
        repeat: bool = False,
    ) -> Ref:
        """A view of an access's buffer; repeated axes (stride 0) get size 1, unless ``repeat``.

        Inside a block the view is cut along its outermost axis, unless ``whole``.
        """
        squeezed = tuple(
            1 if s == 0 and not repeat else n for n, s in zip(shape, strides, strict=True)
        )
        at = access.offset if offset is None else offset
        itemsize = access.dtype.itemsize
        definition = View(
            name or access.buffer, access.buffer, dtype_name(access.dtype), itemsize, at,
            squeezed, tuple(strides),
        )  # fmt: skip
        return self._use(definition, sliced=bool(squeezed) and not whole and squeezed[0] != 1)

    def scratch_array(self, shape: Sequence[Size], dtype: DType, name: str) -> Ref:
        """New memory of the kernel's own, contents undefined."""
        access = self.scratch_access(shape, dtype, name)
        return self.view(access, access.shape, access.strides)

    def scratch_access(self, shape: Sequence[Size], dtype: DType, name: str) -> Access:
        unique = self._unique(f"{self.kernel.name}_{name}")
        size = product(shape)
        buffer = Buffer(unique, dtype, size, Space.ARENA)
        self.scratch.append(buffer)
        self.buffers[unique] = buffer
        strides = contiguous_strides(tuple(shape), tuple(range(len(shape))))
        return Access(unique, dtype, 0, tuple(shape), strides)

    def temp(self, rows: int, rest: Sequence[Size], dtype: DType, name: str = "t") -> Ref:
        """Memory for one block: ``rows`` rows, of which a block uses as many as it has."""
        access = self.scratch_access((rows, *rest), dtype, name)
        definition = View(
            access.buffer, access.buffer, dtype_name(dtype), dtype.itemsize, 0, access.shape,
            access.strides,
        )  # fmt: skip
        return self._use(definition, sliced=self._block is not None, temp=True)

    def bits(self, ref: Ref) -> Ref:
        """The same memory as integers of the same width: for masks."""
        outer = self._outer.get(ref.name, ref.name)
        view = self._defined[outer]
        as_bits = View(
            f"{view.name}_bits", view.buffer, _BITS[view.itemsize], view.itemsize, view.offset,
            view.shape, view.strides,
        )  # fmt: skip
        temp = self._block is not None and outer in self._block.temps
        return self._use(as_bits, sliced=ref.name in self._outer, temp=temp)

    def _use(self, definition: View, *, sliced: bool, temp: bool = False) -> Ref:
        key = (definition.buffer, definition.dtype, definition.offset, definition.shape,
               definition.strides)  # fmt: skip
        if key in self._views:
            name = self._views[key]
        else:
            name = self._unique(definition.name)
            self._views[key] = name
            named = View(name, *_rest(definition))
            self.bindings.append(named)
            self._defined[name] = named
        if self._block is None or not sliced:
            return Ref(name)
        variable = self._block.variable(name, temp)
        self._outer[variable] = name
        return Ref(variable)

    def _unique(self, base: str) -> str:
        name, number = base, 2
        while name in self._names:
            name = f"{base}_{number}"
            number += 1
        self._names.add(name)
        return name

    # -- statements --------------------------------------------------------------------------

    def call(self, function: str, *args: Arg, out: Ref | None = None, **options: object) -> None:
        self._statements[-1].append(Call(function, args, out, tuple(options.items())))

    def copy(self, target: Ref, source: Arg, *, cast: bool = False) -> None:
        if cast:
            self.call("copyto", target, source, casting="unsafe")
        else:
            self.call("copyto", target, source)

    def fill(self, target: Ref, value: float) -> None:
        self.call("copyto", target, Num(value))

    def scalar(self, op: str, *args: Ref | Num | Size, dtype: DType) -> Ref:
        """A number that is known once the batch size is."""
        name = self._unique("scale")
        kind = "float" if dtype.is_float else "bool" if dtype is DType.BOOL else "int"
        self.bindings.append(ScalarDef(name, op, args, kind))
        self._scalars.add(name)
        return Ref(name)

    def is_scalar(self, ref: Ref) -> bool:
        """True for a number from ``scalar``."""
        return ref.name in self._scalars

    @contextmanager
    def block(self, step: int | None) -> Iterator[None]:
        """Within: views with the outermost axis are walked ``step`` rows at a time.

        None for step means no loop: the statements run once over everything.
        """
        if step is None:
            yield
            return
        if self._block is not None:
            raise InternalError(f"{self.kernel.name}: a block inside a block")
        self._block = _Block(self)
        self._statements.append([])
        yield
        body = tuple(self._statements.pop())
        block, self._block = self._block, None
        name = self._unique(f"{self.kernel.name}_blocks")
        sliced = tuple(n for n in block.names if n not in block.temps)
        temps = tuple(n for n in block.names if n in block.temps)
        variables = tuple(block.names[n] for n in (*sliced, *temps))
        self.bindings.append(Blocks(name, step, sliced, temps))
        self._statements[-1].append(Loop(name, variables, body))

    def finish(self, strategy: str) -> ArrayKernel:
        return ArrayKernel(
            self.kernel,
            strategy,
            tuple(self.scratch),
            tuple(self.bindings),
            tuple(self._statements[0]),
            frozenset(self.helpers),
        )


class _Block:
    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        #: view -> loop variable
        self.names: dict[str, str] = {}
        self.temps: set[str] = set()

    def variable(self, name: str, temp: bool) -> str:
        if name not in self.names:
            self.names[name] = self.emitter._unique(f"{name}_b")
        if temp:
            self.temps.add(name)
        return self.names[name]


def _rest(view: View) -> tuple[str, str, int, Size, tuple[Size, ...], tuple[Size, ...]]:
    return view.buffer, view.dtype, view.itemsize, view.offset, view.shape, view.strides
