"""The C backend: kernels as loops over vectors, in one source file and one shared library."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from ...errors import InternalError, UnsupportedError, UsageError
from ...ir.dims import Size, hint, product
from ...ir.kernel.capabilities import Capabilities
from ...ir.kernel.choices import UNDECIDED, Choice, Made, neighbours
from ...ir.kernel.kernel import Kernel, KernelProgram, Region
from ...ir.kernel.loops import LoopKernel
from ...ir.kernel.memory import Access, Buffer, Space, contiguous_strides
from ...ir.kernel.scalar import ScalarBuilder
from ..base import NO_CHOICES, Availability, Bench, Choices, Leaf, PlannedFunction, chosen_for
from ..host import ModelError
from ..module import FunctionText, comment, dim_names, dtype_name, function_entry, print_module
from ..module import print_size as python_size
from . import library
from .bench import CBench
from .build import compiler, prelude, shared_library
from .cost import estimate
from .cpu import Cpu, chosen
from .printer import RESERVED, print_function, print_literals, print_size, word
from .standalone import print_entries, print_header
from .strategies import carry_out, carry_out_pair, pairs

__all__ = ["FORMAT", "CBackend"]

#: version of the artifact's format that the host half understands
FORMAT = 1

CAPABILITIES = Capabilities(
    name="c",
    epilogue=frozenset(
        {"contract", "reduce", "fold", "windowsum", "windowmax", "windowsumgrad",
         "windowmaxscatter", "windowmaxgather", "pad", "concat", "gather", "scatteradd",
         "convolution", "convolutioninputgrad", "convolutionweightgrad", "argreduce"}
    ),
    prologue=frozenset({"reduce"}),
    convolution="direct",
    layout="batch innermost",
    single=True,
    bundle_bytes=256 * 1024,
    apart_bytes=1024,
)  # fmt: skip

#: relative errors that numerics "fast" may make, by dtype
FAST = {"f32": 1e-3, "f64": 1e-8}

#: elementary operations and bytes at the typical sizes under which one thread is faster
_ALONE = 2_000_000


class CBackend:
    """Implements ``backends.base.Backend`` for one instruction set."""

    name = "c"
    capabilities = CAPABILITIES
    precision = "f32"
    shipped: Choices = NO_CHOICES

    def __init__(self, cpu: Cpu, *, fast: bool = False) -> None:
        self.cpu = cpu
        #: numerics "fast": see docs/c.md
        self.fast = fast
        self.tolerances: Mapping[str, float] = MappingProxyType(FAST if fast else {})

    @staticmethod
    def of(option: str) -> CBackend:
        """The backend of ``c:option``. Raises UnsupportedError for an unknown processor."""
        return CBackend(chosen(option))

    def availability(self) -> Availability:
        command = compiler()
        if command is None:
            return Availability(False, False, "no C compiler; pip install 'brickc[c]'")
        return Availability(True, True, f"{' '.join(command)}, {self.cpu.name}")

    def select(
        self, program: KernelProgram, choices: Choices = NO_CHOICES
    ) -> tuple[Sequence[LoopKernel], Mapping[int, Sequence[Buffer]]]:
        taken = _names(program)
        lanes, registers = self.cpu.lanes, self.cpu.registers
        done: dict[int, LoopKernel] = {}
        for i, j in pairs(program, lanes).items():
            done[i], done[j] = carry_out_pair(program.kernels, (i, j), lanes, registers, taken)
        kernels = [
            done[n] if n in done else self._carry_out(k, taken, n, chosen_for(k, choices))
            for n, k in enumerate(program.kernels)
        ]
        return kernels, {k: x.scratch for k, x in enumerate(kernels) if x.scratch}

    def candidates(
        self, program: KernelProgram, number: int, around: Choice = UNDECIDED
    ) -> Sequence[LoopKernel]:
        taken, kernel = _names(program), program.kernels[number]
        together = pairs(program, self.cpu.lanes)
        if number in together or number in together.values():
            return [self._carry_out(kernel, taken, number)]
        return neighbours(lambda c: self._carry_out(kernel, taken, number, c), around)

    def estimate(self, program: KernelProgram, made: Made) -> float:
        assert isinstance(made, LoopKernel)
        return estimate(made, program, self.cpu).seconds

    def bench(self, threads: int | None = None) -> Bench:
        missing = library.missing_abilities(self.cpu.needs)
        if missing or self.cpu.machine not in ("", platform.machine()):
            raise UnsupportedError(
                f"kernels for {self.cpu.name} cannot be timed here",
                got=f"no {', '.join(missing)}" if missing else platform.machine(),
                hint="tune on the machine that the program is for",
            )
        try:
            count = library.thread_count(threads)
        except ModelError as error:
            raise UsageError(str(error)) from None
        return CBench(self.cpu, count, works_alone, fast=self.fast)

    def _carry_out(
        self, kernel: Kernel, taken: frozenset[str], number: int, wanted: Choice = UNDECIDED
    ) -> LoopKernel:
        return carry_out(
            kernel, self.cpu.lanes, self.cpu.registers, taken, number, wanted, fast=self.fast
        )

    def launching(self, program: KernelProgram, kernels: Sequence[object]) -> None:
        """Kernels are called one after the other."""

    def print(
        self,
        title: str,
        functions: Sequence[PlannedFunction],
        leaves: Sequence[Leaf],
        memory_bytes: int,
    ) -> Mapping[str, str | bytes]:
        source = self.source(title, functions, leaves)
        memory = {leaf.name: leaf.offset for leaf in leaves}
        module = print_module(
            title,
            [_bind(f, memory) for f in functions],
            leaves,
            memory_bytes,
            FORMAT,
            helpers=(library.missing_abilities, library.open_library, library.thread_count,
                     library.set_threads, library.entry),
            tables=(f"NEEDS = {self.cpu.needs!r}\nTHREADS = ctypes.c_int(1)",),
            imports=("ctypes",),
            start="LIBRARY = open_library()\nset_threads()",
            steps=max(f.steps for f in functions),
        )  # fmt: skip
        built = shared_library(source, self.cpu)
        return {"model.py": module, "model.c": source, "libmodel.so": built}

    def standalone(
        self,
        title: str,
        functions: Sequence[PlannedFunction],
        leaves: Sequence[Leaf],
        memory_bytes: int,
    ) -> Mapping[str, str]:
        """``model.c`` and ``model.h``: a program that needs a C compiler and nothing else."""
        memory = {leaf.name: leaf.offset for leaf in leaves}
        source = self.source(title, functions, leaves)
        return {
            "model.c": "#define ENTRY static\n"
            + source
            + "\n"
            + print_entries(title, functions, memory),
            "model.h": print_header(
                title, functions, leaves, memory_bytes, " ".join(self.cpu.flags)
            ),
        }

    def source(
        self, title: str, functions: Sequence[PlannedFunction], leaves: Sequence[Leaf]
    ) -> str:
        """The C source of the whole program."""
        memory = {leaf.name: leaf.offset for leaf in leaves}
        literals: dict[str, Buffer] = {}
        texts = []
        for f in functions:
            texts.append(self._function(f, memory, literals))
        head = (
            f"/* {comment(title).replace('*/', '* /')}\n *\n * Generated by brickc for "
            f"{self.cpu.name}.\n */\n"
        )
        return "\n\n".join([head + prelude(self.cpu), print_literals(literals), *texts]) + "\n"

    def _function(
        self, f: PlannedFunction, memory: Mapping[str, int], literals: dict[str, Buffer]
    ) -> str:
        kernels = [k for k in f.kernels if isinstance(k, LoopKernel)]
        program = f.program
        buffers = dict(program.buffers)
        places: dict[str, str] = {}
        for k in kernels:
            buffers.update({b.name: b for b in k.scratch})
        taken = _names(program) | set(buffers)
        staged: list[LoopKernel] = []
        for number, (name, access) in enumerate(program.inputs.items()):
            given, kernel = _staging(name, access, number, taken)
            buffers[given.name] = given
            places[given.name] = f"r->inputs[{number}]"
            staged.append(self._carry_out(kernel, taken | {given.name}, number))
        for name, buffer in buffers.items():
            if name in places:
                continue
            match buffer.space:
                case Space.PARAMETER | Space.STATE:
                    places[name] = f"r->memory + {memory[buffer.label]}"
                case Space.LITERAL:
                    held = literals.setdefault(name, buffer)
                    if held.data != buffer.data:
                        raise InternalError(f"two literals are called {name}")
                    places[name] = f"{word(name)}_data"
                case _:
                    # a buffer that no kernel touches has no place
                    if name in f.offsets:
                        places[name] = f"r->arena + {print_size(f.offsets[name])}"
        return print_function(f.name, program, [*staged, *kernels], buffers, places, _pays(program))


def _names(program: KernelProgram) -> frozenset[str]:
    return RESERVED | frozenset(program.buffers) | frozenset(
        w for d in program.dims for w in (d, word(d))
    )  # fmt: skip


def _staging(
    name: str, access: Access, number: int, taken: frozenset[str]
) -> tuple[Buffer, Kernel]:
    """A kernel that copies an argument, which lies in row-major order, to its buffer."""
    label = f"given{number}"
    while label in taken:
        label += "_"
    given = Buffer(label, access.dtype, product(access.shape), Space.INPUT, name)
    order = tuple(range(len(access.shape)))
    load = replace(access, buffer=label, offset=0, strides=contiguous_strides(access.shape, order))
    builder = ScalarBuilder()
    value = builder.input(access.dtype)
    region = Region(access.shape, builder.build([value]), (load,), ((0, access),))
    note = f"{name}: {access.dtype}{list(access.shape)} as it is given"
    return given, Kernel(f"stage {name}", None, (), None, region, (note,), ())


def _work(program: KernelProgram) -> int:
    return sum(k.flops + hint(k.bytes_moved) for k in program.kernels)


def works_alone(program: KernelProgram) -> bool:
    """True if one thread is faster at the typical sizes; ``_pays`` says the same of any size."""
    return _work(program) <= _ALONE


def _pays(program: KernelProgram) -> str:
    """A C condition: is there enough work for several threads?"""
    cost = _work(program)
    size: Size = 1
    typical = 1
    for dim in program.dims.values():
        size = size * dim
        typical *= dim.typical
    if isinstance(size, int):
        return "1" if cost > _ALONE else "0"
    return f"{print_size(size)} >= {max(1, _ALONE * typical // max(1, cost))}"


def _bind(f: PlannedFunction, memory: Mapping[str, int]) -> FunctionText:
    """The Python side of a function: views of its arguments and results, and the call."""
    names = dim_names(f.program.dims)
    arguments = "".join(f", {d}" for d in names.values())
    lines = [
        f"def bind_{f.name}(arena, memory{arguments}):",
        f'    """{f.name}: {len(f.kernels)} kernels. Returns (run, inputs, outputs)."""',
    ]
    tables: list[list[str]] = [[], []]
    literals: dict[str, Buffer] = {}
    sides = (f.program.inputs, f.program.outputs)
    for table, side in zip(tables, sides, strict=True):
        for key, access in side.items():
            shape = _tuple([python_size(n, names) for n in access.shape])
            strides = _tuple([python_size(n, names) for n in access.strides])
            buffer = f.program.buffers[access.buffer]
            base: str = "arena"
            offset: Size = 0
            match buffer.space:
                case Space.PARAMETER | Space.STATE:
                    base, offset = "memory", memory[buffer.label]
                case Space.LITERAL:
                    base = buffer.name.upper()
                    literals[buffer.name] = buffer
                case _:
                    offset = f.offsets[buffer.name]
            at = offset + access.offset * access.dtype.itemsize
            table.append(f'{key!r}: view({base}, "{dtype_name(access.dtype)}", '
                         f"{python_size(at, names)}, {shape}, {strides})")  # fmt: skip
    for word_, table in zip(("inputs", "outputs"), tables, strict=True):
        lines.append(f"    {word_} = {{")
        lines += [f"        {t}," for t in table]
        lines.append("    }")
    dims = _tuple(list(names.values()))
    lines.append(f"    run = entry({f.name!r}, arena, memory, {dims}, [*inputs.values()])")
    lines.append("    return run, inputs, outputs")
    return FunctionText(
        "\n".join(lines),
        function_entry(f.name, f.program, f.peak),
        literals,
        frozenset(),
        f.single_of,
    )


def _tuple(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
