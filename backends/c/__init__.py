"""The C backend: kernels as loops over vectors, in one source file and one shared library."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ...errors import InternalError, UnsupportedError, UsageError
from ...ir.dims import Size
from ...ir.dtypes import DType
from ...ir.kernel.capabilities import Capabilities
from ...ir.kernel.choices import UNDECIDED, Choice, Made, neighbours
from ...ir.kernel.kernel import Kernel, KernelProgram
from ...ir.kernel.loops import LoopKernel
from ...ir.kernel.memory import Buffer, Space
from ..base import NO_CHOICES, Availability, Bench, Choices, Leaf, PlannedFunction, chosen_for
from ..host import ModelError
from ..module import FunctionText, dim_names, dtype_name, function_entry, print_module
from ..module import print_size as python_size
from . import library
from .bench import CBench
from .build import compiler, compiler_flags, prelude, shared_library
from .cost import estimate
from .cpu import lacking
from .functions import Base, Function, Literals, Place, pays, place_of, staging, works_alone
from .loading import opened
from .options import Options, parse
from .printer import RESERVED, word
from .report import SELF_TEST
from .self_test import TOLERANCES, self_test
from .sharing import numbered, shared
from .source import Source, comment_text, print_source
from .standalone import print_entries, print_header
from .strategies import carry_out, carry_out_pair, pairs

__all__ = ["FORMAT", "CBackend"]

#: where a generated module opens its library
_START = "LIBRARY = open_library()\nset_threads()"

#: version of the artifact's format that the host half understands
FORMAT = 1

CAPABILITIES = Capabilities(
    name="c",
    epilogue=frozenset(
        {"contract", "reduce", "fold", "windowsum", "windowmax", "windowsumgrad",
         "windowmaxscatter", "windowmaxgather", "pad", "concat", "gather", "scatteradd",
         "convolution", "convolutioninputgrad", "convolutionweightgrad", "argreduce",
         "windowargmax", "pooledinputgrad", "pooledweightgrad"}
    ),
    prologue=frozenset({"reduce"}),
    convolution="direct",
    layout="batch innermost",
    pooled_gradients=True,
    pool=frozenset({"convolution"}),
    single=True,
    bundle_bytes=256 * 1024,
    apart_bytes=1024,
)  # fmt: skip

#: relative errors that numerics "fast" may make, by dtype
FAST = {"f32": 1e-3, "f64": 1e-8}


class CBackend:
    """Implements ``backends.base.Backend`` for one instruction set."""

    name = "c"
    capabilities = CAPABILITIES
    precision = "f32"
    shipped: Choices = NO_CHOICES

    def __init__(self, options: Options, *, fast: bool = False) -> None:
        self.options = options
        self.cpu = options.cpu
        #: numerics "fast": see docs/c.md
        self.fast = fast
        self.tolerances: Mapping[str, float] = MappingProxyType(FAST if fast else {})
        #: loop programs of kernels that were carried out, for all that are equal
        self._made: dict[object, LoopKernel] = {}

    @staticmethod
    def of(option: str) -> CBackend:
        """The backend of ``c:option``. Raises UnsupportedError for an unknown option."""
        return CBackend(parse(option))

    def availability(self) -> Availability:
        try:
            command = compiler()
        except UsageError as error:
            return Availability(False, False, str(error))
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
            both = carry_out_pair(program.kernels, (i, j), lanes, registers, taken)
            done[i], done[j] = (numbered(k, n, taken) for k, n in zip(both, (i, j), strict=True))
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
        def make(formal: Kernel, names: frozenset[str]) -> LoopKernel:
            words = RESERVED | names | {word(n) for n in names}
            return carry_out(
                formal, self.cpu.lanes, self.cpu.registers, words, wanted, fast=self.fast
            )

        return shared(self._made, kernel, number, make, taken, wanted)

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
            helpers=(library.Absent, library.missing_abilities, library.open_library,
                     library.thread_count, library.set_threads, library.entry),
            tables=(f"NEEDS = {self.cpu.needs!r}\nTHREADS = ctypes.c_int(1)",),
            imports=("ctypes",),
            start=_START,
            steps=max(f.steps for f in functions),
        )  # fmt: skip
        if not self.options.built:
            return {"model.py": module, "model.c": source.text}
        built = self.build(source, "-DTESTED")
        report = self._tested(built, functions, leaves, memory_bytes)
        text = json.dumps(report, indent=2, sort_keys=True) + "\n"
        return {"model.py": module, "model.c": source.text, "libmodel.so": built, SELF_TEST: text}

    def cannot_run(self) -> str:
        """Why programs of this target do not run on this machine; empty if they do."""
        return lacking(self.cpu) if self.options.built else "it is source alone"

    def stand_in(self, sources: Mapping[str, str | bytes]) -> Mapping[str, str | bytes]:
        """Sources of a module that holds weights but says, when called, why it cannot run."""
        module = sources["model.py"]
        assert isinstance(module, str)
        if module.count(_START) != 1:
            raise InternalError("the module does not open its library where it should")
        absent = f"DEVICE = LIBRARY = Absent({self.cannot_run()!r})"
        return {"model.py": module.replace(_START, absent)}

    def build(self, source: Source, *extra: str) -> bytes:
        """The shared library of a source."""
        return shared_library(source.units(), self.cpu, extra=(*self.options.flags, *extra))

    def _tested(
        self,
        built: bytes,
        functions: Sequence[PlannedFunction],
        leaves: Sequence[Leaf],
        memory_bytes: int,
    ) -> dict[str, object]:
        """Run every kernel once, where it can run. Raises InternalError for one that is wrong."""
        why = lacking(self.cpu) if self.options.tested else "it was not asked for"
        if why:
            return {"tested": False, "reason": f"not tested here: {why}"}
        command = compiler()
        assert command is not None
        flags = (*compiler_flags(command, self.cpu), *self.options.flags)
        parts = TOLERANCES | {DType(n): part for n, part in self.tolerances.items()}
        with opened(built) as loaded:
            done = self_test(
                loaded, self._placed(functions, leaves, Literals()), memory_bytes, self.cpu.lanes,
                " ".join((*command, *flags)), parts,
            )  # fmt: skip
        results = {name: [r.as_dict() for r in found] for name, found in done.results.items()}
        return {"tested": True, "kernels": done.kernels, "sizes": done.sizes, "results": results,
                "tolerances": {str(d): parts[d] for d in TOLERANCES}}  # fmt: skip

    def standalone(
        self,
        title: str,
        functions: Sequence[PlannedFunction],
        leaves: Sequence[Leaf],
        memory_bytes: int,
    ) -> Mapping[str, str]:
        """``model.c`` and ``model.h``: a program that needs a C compiler and nothing else."""
        source = self.source(title, functions, leaves).text
        places = {f.name: f.places for f in self._placed(functions, leaves, Literals())}
        return {
            "model.c": "#define ENTRY static\n"
            + source
            + "\n"
            + print_entries(title, functions, places),
            "model.h": print_header(
                title, functions, leaves, memory_bytes, " ".join(self.cpu.flags)
            ),
        }

    def source(
        self, title: str, functions: Sequence[PlannedFunction], leaves: Sequence[Leaf]
    ) -> Source:
        """The C source of the whole program."""
        head = f"/* {comment_text(title)}\n *\n * Generated by brickc for {self.cpu.name}.\n */\n"
        literals = Literals()
        placed = self._placed(functions, leaves, literals)
        return print_source(head + prelude(self.cpu).rstrip(), placed, literals)

    def _placed(
        self,
        functions: Sequence[PlannedFunction],
        leaves: Sequence[Leaf],
        literals: Literals,
    ) -> list[Function]:
        """The functions with the copies of their arguments, and a place for every buffer."""
        memory = {leaf.name: leaf.offset for leaf in leaves}
        found = []
        for f in functions:
            kernels = [k for k in f.kernels if isinstance(k, LoopKernel)]
            buffers = dict(f.program.buffers)
            for k in kernels:
                buffers.update({b.name: b for b in k.scratch})
            places = {}
            for name, buffer in buffers.items():
                place = place_of(buffer, memory, f.offsets, literals)
                if place is not None:
                    places[name] = place
            taken = _names(f.program) | set(buffers)
            staged = []
            for number, (name, access) in enumerate(f.program.inputs.items()):
                given, kernel = staging(name, access, number, taken)
                buffers[given.name] = given
                places[given.name] = Place(Base.INPUT, number)
                staged.append(self._carry_out(kernel, taken | {given.name}, number))
            found.append(
                Function(f.name, f.program, (*staged, *kernels), buffers, places, f.peak,
                         pays(f.program),
                         {a + len(staged): b + len(staged)
                          for a, b in pairs(f.program, self.cpu.lanes).items()})
            )  # fmt: skip
        return found


def _names(program: KernelProgram) -> frozenset[str]:
    return RESERVED | frozenset(program.buffers) | frozenset(
        w for d in program.dims for w in (d, word(d))
    )  # fmt: skip


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
