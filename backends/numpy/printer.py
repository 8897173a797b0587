"""Array programs and tables as the text of ``model.py``. It decides nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...errors import InternalError
from ...ir.dims import Size
from ...ir.kernel.kernel import KernelProgram
from ...ir.kernel.memory import Access, Buffer, Space, contiguous_strides
from ..module import (
    RESERVED,
    FunctionText,
    comment,
    dim_names,
    dtype_name,
    function_entry,
    print_size,
)
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

__all__ = ["print_function"]

#: functions of the prelude that a call may name
_HELPERS = ("take_into", "scatter_add_into", "nan_windows", "philox_uniform")


class _Names:
    """One identifier per view, block list and scalar of a function."""

    def __init__(self, taken: frozenset[str]) -> None:
        self.taken = set(taken)
        self.by_definition: dict[object, str] = {}

    def unique(self, base: str) -> str:
        name, number = base, 2
        while name in self.taken:
            name = f"{base}_{number}"
            number += 1
        self.taken.add(name)
        return name


def _number(number: Num) -> str:
    """A literal as a Python expression."""
    value = number.value
    if isinstance(value, float) and not math.isfinite(value):
        return "np.nan" if math.isnan(value) else "np.inf" if value > 0 else "-np.inf"
    return repr(value)


def _tuple(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


class _FunctionPrinter:
    def __init__(
        self,
        program: KernelProgram,
        kernels: Sequence[ArrayKernel],
        offsets: Mapping[str, Size],
        memory: Mapping[str, int],
        peak: Size,
    ) -> None:
        self.program = program
        self.kernels = kernels
        self.offsets = offsets
        self.memory = memory
        self.peak = peak
        self.dims = dim_names(program.dims)
        self.names = _Names(RESERVED | frozenset(self.dims.values()))
        self.literals: dict[str, Buffer] = {}
        self.bind: list[str] = []
        self.run: list[str] = []
        self.buffers = dict(program.buffers)
        for kernel in kernels:
            self.buffers.update({b.name: b for b in kernel.scratch})

    def size(self, size: Size) -> str:
        return print_size(size, self.dims)

    # -- bindings ---------------------------------------------------------------------------

    def view(self, view: View) -> str:
        key = (view.buffer, view.dtype, view.offset, view.shape, view.strides)
        if key in self.names.by_definition:
            return self.names.by_definition[key]
        name = self.names.unique(view.name)
        self.names.by_definition[key] = name
        buffer = self.buffers[view.buffer]
        base, offset = self._place(buffer)
        at = offset + view.offset * view.itemsize
        shape = _tuple([self.size(n) for n in view.shape])
        text = f'{name} = view({base}, "{view.dtype}", {self.size(at)}, {shape}'
        dense = contiguous_strides(view.shape, tuple(range(len(view.shape))))
        same = all(
            a == b or n == 1 for a, b, n in zip(view.strides, dense, view.shape, strict=True)
        )
        if not same:
            text += f", {_tuple([self.size(s) for s in view.strides])}"
        self.bind.append(f"    {text})")
        return name

    def _place(self, buffer: Buffer) -> tuple[str, Size]:
        match buffer.space:
            case Space.PARAMETER | Space.STATE:
                return "memory", self.memory[buffer.label]
            case Space.LITERAL:
                self.literals[buffer.name] = buffer
                return buffer.name.upper(), 0
            case _:
                return "arena", self.offsets[buffer.name]

    def _bindings(self, bindings: Sequence[Binding]) -> dict[str, str]:
        """Print the bindings; kernel-local names -> names in the function."""
        local: dict[str, str] = {}
        for b in bindings:
            match b:
                case View():
                    local[b.name] = self.view(b)
                case Blocks():
                    name = self.names.unique(b.name)
                    arrays = _tuple([local[n] for n in b.sliced])
                    text = f"{name} = blocks({b.step}, {arrays}"
                    if b.temps:
                        text += f", {_tuple([local[n] for n in b.temps])}"
                    self.bind.append(f"    {text})")
                    local[b.name] = name
                case ScalarDef():
                    name = self.names.unique(b.name)
                    self.bind.append(f"    {name} = {self._scalar(b, local)}")
                    local[b.name] = name
        return local

    def _scalar(self, b: ScalarDef, local: Mapping[str, str]) -> str:
        args = []
        for a in b.args:
            match a:
                case Ref():
                    args.append(local[a.name])
                case Num():
                    args.append(_number(a))
                case _:
                    args.append(self.size(a))
        symbol = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}.get(b.op)
        match b.op:
            case "cast":
                return f"{b.kind}({args[0]})"
            case "select":
                return f"{args[1]} if {args[0]} else {args[2]}"
            case _ if symbol is not None and b.kind == "float":
                return f"{args[0]} {symbol} {args[1]}"
        return f"{b.kind}(np.{b.op}({', '.join(args)}))"

    # -- statements -------------------------------------------------------------------------

    def _statement(self, s: Statement, local: dict[str, str], indent: str) -> None:
        match s:
            case Call():
                self.run.append(indent + self._call(s, local))
            case Loop():
                inner = dict(local)
                variables = []
                for v in s.variables:
                    inner[v] = v
                    variables.append(v)
                # one variable: unpack the tuple of one
                target = ", ".join(variables) + ("," if len(variables) == 1 else "")
                self.run.append(f"{indent}for {target} in {local[s.blocks]}:")
                for b in s.body:
                    self._statement(b, inner, indent + "    ")
            case _:
                raise InternalError(f"no printing for {s!r}")

    def _call(self, call: Call, local: Mapping[str, str]) -> str:
        args = [self._arg(a, local) for a in call.args]
        if call.out is not None:
            args.append(f"out={local[call.out.name]}")
        args += [f"{k}={v!r}" for k, v in call.options]
        prefix = "" if call.function in _HELPERS else "np."
        return f"{prefix}{call.function}({', '.join(args)})"

    def _arg(self, arg: Arg, local: Mapping[str, str]) -> str:
        if isinstance(arg, Ref):
            return local[arg.name]
        return _number(arg)

    # -- the function -------------------------------------------------------------------------

    def print(self, name: str) -> FunctionText:
        helpers: set[str] = set()
        inputs, outputs, given = [], [], []
        for key, access in self.program.inputs.items():
            staged = self._logical(access, key)
            inputs.append(f"{key!r}: {staged}")
            given.append(self.names.unique("given"))
            self.run.append(f"        np.copyto({staged}, {given[-1]})")
        for number, kernel in enumerate(self.kernels):
            self._kernel(number, kernel)
            helpers |= kernel.helpers
        for key, access in self.program.outputs.items():
            outputs.append(f"{key!r}: {self._logical(access, key)}")
        arguments = "".join(f", {d}" for d in self.dims.values())
        # comments alone are no body: a kernel may come down to nothing
        comments_only = all(not t.strip() or t.lstrip().startswith("#") for t in self.run)
        body = [*self.run, "        pass"] if comments_only else self.run
        lines = [
            f"def bind_{name}(arena, memory{arguments}):",
            f'    """{name}: {len(self.kernels)} kernels. Returns (run, inputs, outputs)."""',
            *self.bind,
            "",
            # what overflows shows in the results; the loss is checked for it
            '    @np.errstate(all="ignore")',
            f"    def run({', '.join(given)}):",
            *body,
            "",
            f"    return run, {{{', '.join(inputs)}}}, {{{', '.join(outputs)}}}",
        ]
        return FunctionText(
            "\n".join(lines),
            function_entry(name, self.program, self.peak),
            self.literals,
            frozenset(helpers),
        )

    def _logical(self, access: Access, hint: str) -> str:
        """The value as the caller knows it, axes in logical order."""
        definition = View(
            access.buffer,
            access.buffer,
            dtype_name(access.dtype),
            access.dtype.itemsize,
            access.offset,
            access.shape,
            access.strides,
        )
        return self.view(definition)

    def _kernel(self, number: int, kernel: ArrayKernel) -> None:
        k = kernel.kernel
        self.bind.append("")
        self.bind.append(f"    # {number}: {k.name}")
        local = self._bindings(kernel.bindings)
        self.run.append("")
        self.run.append(f"        # {number}: {k.name} ({kernel.strategy})")
        self.run += [f"        #   {comment(n)}" for n in k.notes]
        for s in kernel.statements:
            self._statement(s, local, "        ")


def print_function(
    name: str,
    program: KernelProgram,
    kernels: Sequence[ArrayKernel],
    offsets: Mapping[str, Size],
    memory: Mapping[str, int],
    peak: Size,
) -> FunctionText:
    """The source of one function. ``memory`` maps labels of leaves to byte offsets."""
    return _FunctionPrinter(program, kernels, offsets, memory, peak).print(name)
