"""What strategies write loop programs with: names, regions, loops over index spaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...ir.dims import Dim, Size, hint, product
from ...ir.dtypes import DType
from ...ir.kernel.choices import UNDECIDED, Choice, Picks
from ...ir.kernel.kernel import Kernel, Region
from ...ir.kernel.loops import (
    Bound,
    Compute,
    For,
    IndexOp,
    Let,
    Load,
    LoopKernel,
    Parallel,
    Phase,
    Split,
    Statement,
    Store,
    When,
    var,
)
from ...ir.kernel.memory import Access, Buffer, Space

__all__ = ["BYTE", "Block", "Emitter", "index_of", "leader", "round_up"]

#: operations up to which one thread is faster than two that meet afterwards (some 2 µs), and how
#: many of them a byte is worth
ALONE = 400_000
BYTE = 5

#: elements that make a chunk of work worth giving out
CHUNK = 4096

Block = list[Statement]


def index_of(access: Access, at: Sequence[Size]) -> Size:
    """The element of the buffer at a position of the access."""
    index: Size = access.offset
    for position, stride in zip(at, access.strides, strict=True):
        index = index + position * stride
    return index


def leader(region: Region) -> Access:
    """The access whose order in memory the loops follow: the last result."""
    return region.stores[-1][1]


class Emitter:
    """Collects the phases and the scratch memory of one kernel."""

    def __init__(
        self,
        kernel: Kernel,
        lanes: int,
        registers: int,
        taken: frozenset[str],
        wanted: Choice = UNDECIDED,
        *,
        fast: bool = False,
    ) -> None:
        self.kernel = kernel
        #: may results be less exact than those of sums in any order?
        self.fast = fast
        #: every decision that could be another one goes through here, by name
        self.picks = Picks(wanted)
        self.pick = self.picks.pick
        self.lanes = lanes
        #: columns and rows of the largest register tile: sums, a vector a column, one element
        # (a vector of float64 takes two registers)
        wide = kernel.after.program.inputs[:1] == (DType.F64,)
        self.tile = (4 if registers >= 32 else 2) // (2 if wide else 1), 6
        #: how many vectors fit into the registers
        self.vectors_held = registers // (2 if wide else 1)
        self.phases: list[Phase] = []
        self._costs: list[int | None] = []
        self.scratch: list[Buffer] = []
        self._taken = set(taken)
        #: the first number behind a name that may be free
        self._numbers: dict[str, int] = {}

    # -- names ---------------------------------------------------------------------------------

    def name(self, base: str) -> str:
        """An identifier that nothing else in the kernel has."""
        found, number = base, self._numbers.get(base, 2)
        while found in self._taken:
            found = f"{base}{number}"
            number += 1
        self._taken.add(found)
        self._numbers[base] = number
        return found

    def var(self, base: str) -> Dim:
        """A fresh integer."""
        return var(self.name(base))

    def scratch_buffer(self, base: str, dtype: DType, size: Size) -> Buffer:
        """Memory in the arena that lives as long as the kernel."""
        buffer = Buffer(self.name(base), dtype, size, Space.ARENA)
        self.scratch.append(buffer)
        return buffer

    def finish(self, strategy: str) -> LoopKernel:
        whole = self.kernel.flops + BYTE * hint(self.kernel.bytes_moved)
        costs = (whole if c is None else c for c in self._costs)
        phases = tuple(
            replace(p, alone=ALONE / max(c, 1) if c <= ALONE else 0.0)
            for p, c in zip(self.phases, costs, strict=True)
        )
        choice, options = self.picks.finish()
        scratch = tuple(self.scratch)
        return LoopKernel(self.kernel, strategy, phases, scratch, choice, options)

    def phase(
        self,
        work: Parallel,
        note: str = "",
        private: tuple[Buffer, ...] = (),
        cost: int | None = None,
    ) -> None:
        """One more phase. ``cost`` is its work in operations, that of the kernel if not given."""
        self.phases.append(Phase(work, private, note))
        self._costs.append(cost)

    def split(self, size: Size) -> Split:
        """A split of an axis with fresh names."""
        return Split(size, self.name("lo"), self.name("hi"))

    # -- regions -------------------------------------------------------------------------------

    def load(
        self,
        access: Access,
        at: Sequence[Size],
        axis: int | None,
        part: Size | None = None,
        base: str = "x",
        fill: bool | int | float = 0,
    ) -> tuple[str, Load]:
        """Load along ``axis`` from a position; one element into all lanes if it is None."""
        stride = 0 if axis is None else access.strides[axis]
        name = self.name(base)
        rest = None if stride == 0 else part
        load = Load(name, access.dtype, access.buffer, index_of(access, at), stride, rest, fill)
        return name, load

    def region(
        self,
        region: Region,
        at: Sequence[Size],
        axis: int | None,
        part: Size | None = None,
        *values: str,
    ) -> tuple[Block, list[str]]:
        """The region's loads, instructions and stores at a position; and its results' names.

        ``axis`` is the axis of the lanes, None if all lanes hold the same element. ``values``
        are the first inputs of the program: the anchor's.
        """
        body: Block = []
        names: list[str] = [*values]
        for access in region.loads:
            name, load = self.load(access, at, axis, part)
            names.append(name)
            body.append(load)
        program = region.program
        for instr in program.instrs:
            name = self.name("v")
            source = program.dtype(instr.args[0]) if instr.args else instr.dtype
            if instr.op == "select":
                source = instr.dtype
            body.append(
                Compute(name, instr.dtype, instr.op, tuple(names[a] for a in instr.args), source,
                        instr.literal, instr.size)
            )  # fmt: skip
            names.append(name)
        results = [names[r] for r in program.results]
        for position, access in region.stores:
            stride, rest = (1, 1) if axis is None else (access.strides[axis], part)
            body.append(
                Store(results[position], access.dtype, access.buffer, index_of(access, at),
                      stride, rest)
            )  # fmt: skip
        return body, results

    # -- loops ---------------------------------------------------------------------------------

    def vectors(
        self,
        start: Bound,
        stop: Bound,
        body: Callable[[Size, Size | None], Block],
        base: str = "i",
    ) -> Block:
        """Loop over vectors of [start, stop): whole ones, then what is left.

        ``body(index, part)`` gives the statements for one vector.
        """
        width = self.lanes
        if isinstance(start, int) and isinstance(stop, int):
            whole = start + (stop - start) // width * width
            out: Block = []
            if whole - start == width:
                out += body(start, None)
            elif whole > start:
                i = self.var(base)
                out.append(For(i.name, start, whole, tuple(body(i, None)), width))
            if whole < stop:
                out += body(whole, stop - whole)
            return out
        rest = self.var("rest")
        i = self.var(base)
        count = IndexOp("sub", stop, start)
        end = self.var("whole")
        tail = tuple(body(end, rest))
        return [
            Let(rest.name, IndexOp("mod", count, width)),
            Let(end.name, IndexOp("sub", stop, rest)),
            For(i.name, start, end, tuple(body(i, None)), width),
            When(0, rest, tail),
        ]

    def spread(
        self,
        sizes: Sequence[Size],
        body: Callable[[list[Size], Size | None], Block],
        *,
        vector: bool = True,
        work: int = 1,
        serial: bool = False,
    ) -> Parallel:
        """All positions of an index space, outermost axis first, in chunks for the threads.

        The last axis is walked in vectors if ``vector``. ``work`` is the cost of one
        element, which decides how large a chunk is. ``serial`` makes one chunk of it all.
        """
        outer = list(sizes[:-1]) if vector else list(sizes)
        chunk = self.var("c")
        grain = max(1, CHUNK // max(1, work))
        # an axis of unknown size that vectors run along is the batch
        split = None
        if vector and outer and not isinstance(sizes[-1], int) and not serial:
            split = self.split(sizes[-1])
        inner_count = max(1, hint(sizes[-1])) if vector and sizes else 1

        def nest(at: list[Size], left: Sequence[Size]) -> Block:
            if left:
                i = self.var("i")
                return [For(i.name, 0, left[0], tuple(nest([*at, i], left[1:])))]
            if vector:
                lo: Bound = 0 if split is None else var(split.lo)
                hi: Bound = sizes[-1] if split is None else var(split.hi)
                return self.vectors(lo, hi, lambda i, part: body([*at, i], part))
            return body(at, None)

        if serial or not sizes:
            return Parallel(chunk.name, 1, tuple(nest([], outer)))
        if not outer:
            block = max(self.lanes, grain // self.lanes * self.lanes)
            size = sizes[-1]
            stop = IndexOp("min", size, (chunk + 1) * block)
            inside = self.vectors(chunk * block, stop, lambda i, part: body([i], part))
            return Parallel(chunk.name, round_up(size, block), tuple(inside))
        first = hint(outer[0])
        rest = max(1, hint(product(outer[1:])) * inner_count)
        if first < 8 and len(outer) > 1:
            # few places on the outermost axis: give out blocks of the outer two
            inner = max(1, hint(product(outer[2:])) * inner_count)
            rows = max(1, grain // inner)
            i, j, n = self.var("i"), self.var("i"), self.var("n")
            number, start = self.var("b"), self.var("start")
            blocks = round_up(outer[1], rows)
            statements: Block = [
                Let(n.name, blocks),
                # a thread's share is the same places of every channel, as in convolutions
                Let(i.name, IndexOp("mod", chunk, outer[0])),
                Let(number.name, IndexOp("div", chunk, outer[0])),
                Let(start.name, number * rows),
                For(j.name, start, IndexOp("min", outer[1], start + rows),
                    tuple(nest([i, j], outer[2:]))),
            ]  # fmt: skip
            count = IndexOp("mul", outer[0], blocks)
            return Parallel(chunk.name, count, tuple(statements), split)
        rows = max(1, grain // rest)
        i = self.var("i")
        stop = IndexOp("min", outer[0], (chunk + 1) * rows)
        loop = For(i.name, chunk * rows, stop, tuple(nest([i], outer[1:])))
        return Parallel(chunk.name, round_up(outer[0], rows), (loop,), split)


def round_up(size: Size, by: int) -> Bound:
    """The quotient, rounded up."""
    if isinstance(size, int):
        return -(-size // by)
    return size if by == 1 else IndexOp("div", size + (by - 1), by)
