"""A function as the C backend sees it: its kernels in order, and where each buffer lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from ...ir.dims import Size, hint, product
from ...ir.kernel.kernel import Kernel, KernelProgram, Region
from ...ir.kernel.loops import LoopKernel
from ...ir.kernel.memory import Access, Buffer, Space, contiguous_strides
from ...ir.kernel.scalar import ScalarBuilder
from .printer import print_size, word

__all__ = ["Base", "Function", "Literals", "Place", "pays", "place_of", "staging",
           "works_alone"]  # fmt: skip

#: elementary operations and bytes at the typical sizes under which one thread is faster
_ALONE = 2_000_000


class Base(Enum):
    """What an address counts from."""

    ARENA = "r->arena"
    MEMORY = "r->memory"
    INPUT = "r->inputs"
    LITERAL = "literal"


@dataclass(frozen=True)
class Place:
    """The first byte of a buffer. ``at`` is a number of bytes; of an input, its number."""

    base: Base
    at: Size = 0
    literal: str = ""

    def print(self) -> str:
        """The place as a C expression."""
        match self.base:
            case Base.INPUT:
                return f"{self.base.value}[{print_size(self.at)}]"
            case Base.LITERAL:
                return self.literal
        return f"{self.base.value} + {print_size(self.at)}"


@dataclass(frozen=True)
class Function:
    """``kernels`` begin with the copies of the arguments."""

    name: str
    program: KernelProgram
    kernels: tuple[LoopKernel, ...]
    buffers: Mapping[str, Buffer]
    places: Mapping[str, Place]
    peak: Size
    #: a C condition under which several threads are faster than one
    parallel: str = "1"
    #: kernels that do some of a later one's work, by number, and that one
    pairs: Mapping[int, int] = field(default_factory=dict)

    def actual(self, kernel: LoopKernel, buffer: str) -> str:
        """The buffer that a name in the kernel's phases stands for."""
        return dict(kernel.arguments).get(buffer, buffer)


def staging(name: str, access: Access, number: int, taken: frozenset[str]) -> tuple[Buffer, Kernel]:
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


class Literals:
    """Constant data of a program: one array for equal data, each under a symbol of its own."""

    def __init__(self) -> None:
        self.arrays: dict[str, bytes] = {}
        self._symbols: dict[bytes, str] = {}

    def symbol(self, buffer: Buffer) -> str:
        """The array with a buffer's data."""
        if buffer.data not in self._symbols:
            base = symbol = f"{word(buffer.name)}_data"
            number = 2
            while symbol in self.arrays:
                symbol = f"{base}{number}"
                number += 1
            self.arrays[symbol] = buffer.data
            self._symbols[buffer.data] = symbol
        return self._symbols[buffer.data]


def place_of(
    buffer: Buffer, memory: Mapping[str, int], offsets: Mapping[str, Size], literals: Literals
) -> Place | None:
    """Where a buffer lies; None if no kernel touches it, and it has no place."""
    match buffer.space:
        case Space.PARAMETER | Space.STATE:
            return Place(Base.MEMORY, memory[buffer.label])
        case Space.LITERAL:
            return Place(Base.LITERAL, literal=literals.symbol(buffer))
    return Place(Base.ARENA, offsets[buffer.name]) if buffer.name in offsets else None


def _work(program: KernelProgram) -> int:
    return sum(k.flops + hint(k.bytes_moved) for k in program.kernels)


def works_alone(program: KernelProgram) -> bool:
    """True if one thread is faster at the typical sizes; ``pays`` says the same of any size."""
    return _work(program) <= _ALONE


def pays(program: KernelProgram) -> str:
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
