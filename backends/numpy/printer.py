"""Array programs and tables as the text of ``model.py``. It decides nothing."""

from __future__ import annotations

import base64
import builtins
import inspect
import keyword
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...errors import InternalError
from ...ir.dims import Dim, DimExpr, Size, maximum
from ...ir.kernel.kernel import KernelProgram
from ...ir.kernel.memory import Access, Buffer, Space, contiguous_strides
from ..base import Leaf
from . import host, prelude
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
    dtype_name,
)

__all__ = ["FunctionText", "print_function", "print_module"]

_MARKER = "# --- from here on: part of every generated module"

#: words that a dim may not be called in generated code
_RESERVED = frozenset(dir(builtins)) | {"np", "view", "blocks", "arena", "memory", "run"}


@dataclass(frozen=True)
class FunctionText:
    """Source of one bind function, its table entry, and what it needs."""

    source: str
    entry: str
    literals: Mapping[str, Buffer]
    helpers: frozenset[str]


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


def dim_names(dims: Mapping[str, Dim]) -> dict[str, str]:
    """Identifiers for dims; a dim called ``lambda`` becomes ``lambda_``."""
    return {n: f"{n}_" if keyword.iskeyword(n) or n in _RESERVED else n for n in dims}


def print_size(size: Size, dims: Mapping[str, str]) -> str:
    """A size as a Python expression."""
    if isinstance(size, int):
        return str(size)
    if isinstance(size, Dim):
        return dims[size.name]
    assert isinstance(size, DimExpr)
    parts = []
    for monomial, coefficient in size.terms:
        factors = [dims[n] for n in monomial]
        if coefficient != 1 or not factors:
            factors.insert(0, str(coefficient))
        parts.append(" * ".join(factors))
    return " + ".join(parts)


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
        self.names = _Names(_RESERVED | frozenset(self.dims.values()))
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
        helper = call.function in ("take_into", "scatter_add_into", "philox_uniform")
        prefix = "" if helper else "np."
        return f"{prefix}{call.function}({', '.join(args)})"

    def _arg(self, arg: Arg, local: Mapping[str, str]) -> str:
        if isinstance(arg, Ref):
            return local[arg.name]
        return _number(arg)

    # -- the function -------------------------------------------------------------------------

    def print(self, name: str) -> FunctionText:
        helpers: set[str] = set()
        inputs, outputs = [], []
        for key, access in self.program.inputs.items():
            inputs.append(f"{key!r}: {self._logical(access, key)}")
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
            "    def run():",
            *body,
            "",
            f"    return run, {{{', '.join(inputs)}}}, {{{', '.join(outputs)}}}",
        ]
        return FunctionText("\n".join(lines), self._entry(name), self.literals, frozenset(helpers))

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
        self.run += [f"        #   {_comment(n)}" for n in k.notes]
        for s in kernel.statements:
            self._statement(s, local, "        ")

    def _entry(self, name: str) -> str:
        dims = {n: (d.lo, d.hi) for n, d in self.program.dims.items()}
        renamed = {self.dims[n]: r for n, r in dims.items()}
        inputs = {
            key: {
                "dtype": dtype_name(a.dtype),
                "shape": tuple(self._shape(s) for s in a.shape),
                "limit": self.program.limits.get(key, 0),
            }
            for key, a in self.program.inputs.items()
        }
        outputs = {
            key: {"dtype": dtype_name(a.dtype), "shape": tuple(self._shape(s) for s in a.shape)}
            for key, a in self.program.outputs.items()
        }
        arguments = ", ".join(self.dims.values())
        head = f"lambda {arguments}:" if arguments else "lambda:"
        return (
            f"    {name!r}: {{\n"
            f"        'bind': bind_{name},\n"
            f"        'arena': {head} {self.size(self.peak)},\n"
            f"        'dims': {renamed!r},\n"
            f"        'inputs': {inputs!r},\n"
            f"        'outputs': {outputs!r},\n"
            f"    }},"
        )

    def _shape(self, size: Size) -> int | str | tuple[tuple[int, tuple[str, ...]], ...]:
        if isinstance(size, int):
            return size
        if isinstance(size, Dim):
            return self.dims[size.name]
        return tuple((c, tuple(self.dims[d] for d in m)) for m, c in size.terms)


def _comment(text: str) -> str:
    """Any text as one comment line: no control characters, bounded."""
    safe = "".join(c if c.isprintable() else "?" for c in text)
    return safe if len(safe) <= 240 else safe[:237] + "..."


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


def print_module(
    title: str,
    functions: Sequence[FunctionText],
    leaves: Sequence[Leaf],
    memory_bytes: int,
    format: int,
) -> str:
    """The whole of ``model.py``."""
    literals: dict[str, Buffer] = {}
    helpers: set[str] = {"view", "blocks"}
    for f in functions:
        for name, buffer in f.literals.items():
            if literals.setdefault(name, buffer).data != buffer.data:
                raise InternalError(f"two literals are called {name}")
        helpers |= f.helpers
    parts = [
        f'"""{_comment(title)}\n\nGenerated by brickc; runs on NumPy alone. Text form of every'
        ' stage in ir/.\n\n    import model; p = model.load(); p.functions\n"""',
        "from __future__ import annotations\n\nimport base64\n" + _host_imports(),
        *(_source(getattr(prelude, h)) for h in sorted(helpers)),
        *(_literal(n.upper(), b) for n, b in sorted(literals.items())),
        *(f.source for f in functions),
        f"FORMAT = {format}",
        "FUNCTIONS = {\n" + "\n".join(f.entry for f in functions) + "\n}",
        "LEAVES = {\n" + "\n".join(_leaf(leaf) for leaf in leaves) + "\n}",
        f"MEMORY_BYTES = {memory_bytes}",
        _host_body(),
        'if __name__ == "__main__":\n    print(describe())',
    ]
    return "\n\n\n".join(p.strip("\n") for p in parts) + "\n"


def _source(function: Callable[..., object]) -> str:
    return inspect.getsource(function)


def _host_text() -> str:
    text = inspect.getsource(host)
    return text[text.index(_MARKER) :].split("\n", 1)[1]


def _host_imports() -> str:
    head, _, _ = _host_text().partition("\n\n\n")
    return head.strip()


def _host_body() -> str:
    _, _, body = _host_text().partition("\n\n\n")
    return body


def _literal(name: str, buffer: Buffer) -> str:
    text = base64.b64encode(buffer.data).decode()
    return f'{name} = np.frombuffer(base64.b64decode("{text}"), np.uint8)'


def _leaf(leaf: Leaf) -> str:
    b = leaf.buffer
    shape = tuple(maximum(s) for s in b.shape)
    strides = tuple(maximum(s) for s in b.strides)
    entry = {
        "role": leaf.role,
        "dtype": dtype_name(b.dtype),
        "shape": shape,
        "strides": strides,
        "offset": leaf.offset,
        "init": leaf.init,
    }
    return f"    {leaf.name!r}: {entry!r},"
