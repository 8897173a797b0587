"""Launches as the text of ``kernels.py``, and what ``model.py`` says of them; no decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import InternalError, UnsupportedError
from ...ir.dims import Size, exact_div
from ...ir.dtypes import DType
from ...ir.kernel.memory import Access, Buffer, Space
from ..base import PlannedFunction
from ..module import FunctionText, comment, dim_names, dtype_name, function_entry, print_size
from .launches import Grid, Launch, LibraryCall, Persistent, Phase, TritonKernel
from .prelude import prelude_text

__all__ = ["KernelText", "Kernels", "PersistentText", "print_function"]

#: dtype -> what Triton calls it in a signature; flags are bytes
_SIGNATURE = {DType.F64: "fp64", DType.F32: "fp32", DType.F16: "fp16", DType.BF16: "bf16",
              DType.I64: "i64", DType.I32: "i32", DType.BOOL: "i8"}  # fmt: skip


@dataclass
class TileText:
    """The body of launches as a function of a tile's number, whoever calls it."""

    name: str
    launch: Launch
    #: what it is for, a line each
    notes: list[str] = field(default_factory=list)

    def parameters(self) -> list[str]:
        """Names of the parameters after the tile's number, in order."""
        pointers = [f"p{k}" for k in range(len(self.launch.pointers))]
        return [*pointers, *(f"n_{d}" for d in self.launch.dims)]

    def text(self) -> str:
        """Source, under comments that say what it is."""
        lines = [f"# {comment(note)}" for note in self.notes]
        if self.launch.tiling:
            lines.append(f"# tile: {comment(self.launch.tiling)}")
        lines += ["@triton.jit", f"def {self.name}({', '.join(['tile', *self.parameters()])}):"]
        return "\n".join([*lines, *self.launch.body])


@dataclass
class KernelText:
    """A kernel with a program for each tile; equal launches of all functions share it."""

    name: str
    launch: Launch
    tile: TileText

    def signature(self) -> list[str]:
        """Types of the parameters in order, as ahead-of-time compilation wants them."""
        pointers = [f"*{_SIGNATURE[b.dtype]}" for b in self.launch.pointers]
        return [*pointers, *("i32" for _ in self.launch.dims)]

    def parameters(self) -> list[str]:
        """Names of the parameters in order."""
        return self.tile.parameters()

    def text(self) -> str:
        """Source: the tile of the program's number."""
        parameters = self.parameters()
        # sizes are not looked into: a kernel compiled ahead of time serves all of them
        fixed = f"(do_not_specialize={[f'n_{d}' for d in self.launch.dims]!r})"
        return "\n".join([
            f"@triton.jit{fixed if self.launch.dims else ''}",
            f"def {self.name}({', '.join(parameters)}):",
            f"    {self.tile.name}({', '.join(['tl.program_id(0)', *parameters])})",
        ])  # fmt: skip


@dataclass
class PersistentText:
    """A kernel that carries out a whole function, phase after phase."""

    name: str
    launch: Persistent
    #: the text of each phase
    tiles: list[TileText]

    def signature(self) -> list[str]:
        """Types of the parameters in order."""
        pointers = [f"*{_SIGNATURE[b.dtype]}" for b in self.launch.pointers]
        return [*pointers, "*i32", *("i32" for _ in self._sizes())]

    def parameters(self) -> list[str]:
        """Names of the parameters in order."""
        pointers = [f"p{k}" for k in range(len(self.launch.pointers))]
        return [*pointers, "counter", *self._sizes()]

    def _sizes(self) -> list[str]:
        return [*(f"n_{d}" for d in self.launch.dims), *(["steps"] if self.launch.loops else [])]

    def text(self) -> str:
        """Source: a loop over tiles for each phase."""
        k = self.launch
        lines = [
            f"# {k.tiling}, {k.barriers} barriers",
            f"@triton.jit(do_not_specialize={self._sizes()!r})",
            f"def {self.name}({', '.join(self.parameters())}):",
            "    first = tl.program_id(0)",
            "    count = tl.num_programs(0)",
        ]
        pad = "    "
        if k.loops:
            lines += ["    for step in range(steps):",
                      "        at = tl.cast(step, tl.int64)"]  # fmt: skip
            pad = " " * 8
        start, before = "first", -1
        for number, (phase, tile) in enumerate(zip(k.phases, self.tiles, strict=True)):
            if before != phase.stage:
                if number:
                    lines.append(f"{pad}grid_barrier(counter, first, count)")
                lines.append(f"{pad}# stage {phase.stage}")
                start = "first"
            else:
                lines.append(f"{pad}first{number} = next_first({start}, tiles{number - 1}, count)")
                start = f"first{number}"
            before = phase.stage
            lines.append(f"{pad}tiles{number} = {self._count(phase.launch.grid)}")
            lines.append(f"{pad}for tile in range({start}, tiles{number}, count):")
            sizes = [f"n_{d}" for d in phase.launch.dims]
            arguments = ["tile", *(self._pointer(b) for b in phase.launch.pointers), *sizes]
            lines.append(f"{pad}    {tile.name}({', '.join(arguments)})")
        if k.loops:
            lines += ["        if step + 1 < steps:",
                      "            grid_barrier(counter, first, count)"]  # fmt: skip
        return "\n".join(lines)

    def _size(self, size: Size) -> str:
        return print_size(size, {d: f"n_{d}" for d in self.launch.dims})

    def _pointer(self, buffer: Buffer) -> str:
        name = f"p{[b.name for b in self.launch.pointers].index(buffer.name)}"
        if buffer.name not in self.launch.apart:
            return name
        step = exact_div(self.launch.apart[buffer.name], buffer.dtype.itemsize)
        assert step is not None, "buffers are cache lines apart"
        return f"{name} + at * ({self._size(step)})"

    def _count(self, grid: Grid) -> str:
        factors = []
        for size, block in grid.factors:
            if isinstance(size, int):
                factors.append(str(-(-size // block)))
            else:
                text = self._size(size)
                factors.append(f"({text})" if block == 1 else f"tl.cdiv({text}, {block})")
        return " * ".join(t for t in factors if t != "1") or "1"


class Kernels:
    """All kernels of a program and the tiles that they work on; equal ones once."""

    def __init__(self) -> None:
        self.by_key: dict[object, KernelText | PersistentText] = {}
        self.tiles: dict[object, TileText] = {}

    def tile(self, launch: Launch, kind: str) -> TileText:
        """The body of a launch, made now if there is none like it."""
        key = (launch.body, launch.dims)
        if key not in self.tiles:
            self.tiles[key] = TileText(f"{kind}_{len(self.tiles)}_tile", launch)
        return self.tiles[key]

    def name(self, launch: Launch, kind: str) -> KernelText:
        """The kernel of a launch, made now if there is none like it."""
        dtypes = tuple(b.dtype for b in launch.pointers)
        key = (launch.body, dtypes, launch.aligned, launch.dims, launch.warps, launch.stages)
        found = self.by_key.get(key)
        if not isinstance(found, KernelText):
            tile = self.tile(launch, kind)
            found = KernelText(f"{kind}_{len(self.by_key)}", launch, tile)
            self.by_key[key] = found
        return found

    def whole(self, launch: Persistent, tiles: list[TileText]) -> PersistentText:
        """The kernel that carries out a whole function."""
        found = PersistentText(f"{launch.name}_phases", launch, tiles)
        self.by_key[found.name] = found
        return found

    @property
    def cooperative(self) -> list[str]:
        """Names of the kernels whose programs wait for one another."""
        return [k.name for k in self if isinstance(k, PersistentText)]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.by_key.values())

    def module(self, title: str) -> str:
        """The text of ``kernels.py``."""
        helpers = set().union(*(t.launch.helpers for t in self.tiles.values()))
        if self.cooperative:
            helpers |= {"grid_barrier", "next_first"}
        prelude = prelude_text(helpers)
        parts = [
            f'"""{comment(title)}: Triton kernels, generated by brickc; model.py starts them.\n\n'
            'Pointers p0, p1, ... and sizes n_N are the parameters; all else is a number.\n"""',
            ("import os\n\n" if "os.environ" in prelude else "")
            + "import triton\nimport triton.language as tl",
            *filter(None, [prelude]),
            *(t.text() for t in self.tiles.values()),
            *(k.text() for k in self),
        ]
        return "\n\n\n".join(p.strip("\n") for p in parts) + "\n"


class _Places:
    """Where the buffers of a function lie, as Python."""

    def __init__(self, f: PlannedFunction, memory: Mapping[str, int]) -> None:
        self.f = f
        self.memory = memory
        self.names = dim_names(f.program.dims)
        self.literals: dict[str, Buffer] = {}

    def at(self, buffer: Buffer) -> tuple[str, Size]:
        match buffer.space:
            case Space.PARAMETER | Space.STATE:
                return "memory", self.memory[buffer.label]
            case Space.LITERAL:
                held = self.literals.setdefault(buffer.name, buffer)
                if held.data != buffer.data:
                    raise InternalError(f"two literals are called {buffer.name}")
                return buffer.name.upper(), 0
            case _:
                return "arena", self.f.offsets[buffer.name]

    def pointer(self, buffer: Buffer) -> str:
        """Where a buffer lies; of those that each step has of its own, how far apart they are."""
        base, offset = self.at(buffer)
        # NumPy has no name for it, and only f32 crosses to the host
        name = "bfloat16" if buffer.dtype is DType.BF16 else dtype_name(buffer.dtype)
        ahead = self.f.apart.get(buffer.name)
        last = "" if ahead is None else f", {self.size(ahead)}"
        return f'({base}, {self.size(offset)}, "{name}"{last})'

    def view(self, access: Access) -> str:
        base, offset = self.at(self.f.program.buffers[access.buffer])
        at = offset + access.offset * access.dtype.itemsize
        shape = _tuple([self.size(n) for n in access.shape])
        strides = _tuple([self.size(n) for n in access.strides])
        several = ""
        if self.f.apart:
            several = f", steps, {self.size(self.f.apart.get(access.buffer, 0))}"
        return (f'view({base}, "{dtype_name(access.dtype)}", {self.size(at)}, {shape}, '
                f"{strides}{several})")  # fmt: skip

    def call(self, call: LibraryCall, kernel: TritonKernel) -> str:
        """A library's call in the form of a launch: pointers, then shapes and strides of views."""
        if self.f.apart:
            raise UnsupportedError(
                "several steps a launch cannot call vendor libraries",
                got=f"{kernel.kernel.name} of {self.f.name}", expected="steps_per_launch=1",
            )  # fmt: skip
        held = {**self.f.program.buffers, **{b.name: b for b in kernel.scratch}}
        pointers, views = [], []
        for access in (*call.operands, call.result):
            base, offset = self.at(held[access.buffer])
            at = offset + access.offset * access.dtype.itemsize
            pointers.append(f'({base}, {self.size(at)}, "{dtype_name(access.dtype)}")')
            shape = _tuple([self.size(n) for n in access.shape])
            views.append(f"({shape}, {_tuple([self.size(n) for n in access.strides])})")
        return (f'("torch.{call.function}", {dict(call.settings)!r}, {_tuple(pointers)}, '
                f"{_tuple(views)})")  # fmt: skip

    def size(self, size: Size) -> str:
        return print_size(size, self.names)

    def programs(self, grid: Grid) -> str:
        factors = []
        for size, block in grid.factors:
            text = self.size(size)
            if isinstance(size, int):
                factors.append(str(-(-size // block)))
            elif block == 1:
                factors.append(f"({text})")
            else:
                factors.append(f"-(-({text}) // {block})")
        kept = [t for t in factors if t != "1"]
        return " * ".join(kept) or "1"


def print_function(f: PlannedFunction, memory: Mapping[str, int], kernels: Kernels) -> FunctionText:
    """The Python side of a function: views of its arguments and results, and its launches."""
    places = _Places(f, memory)
    program = f.program
    arguments = "".join(f", {d}" for d in places.names.values())
    if f.apart:
        arguments += ", steps=0"
    mine = [k for k in f.kernels if isinstance(k, TritonKernel)]
    launches = sum(len(k.launches) for k in mine)
    lines = [
        f"def bind_{f.name}(arena, memory{arguments}):",
        f'    """{f.name}: {len(mine)} kernels, {launches} launches. '
        'Returns (run, inputs, outputs)."""',
    ]
    for word, side in (("inputs", program.inputs), ("outputs", program.outputs)):
        lines.append(f"    {word} = {{")
        lines += [f"        {key!r}: {places.view(access)}," for key, access in side.items()]
        lines.append("    }")
    if f.launching is not None and f.launching.form == "persistent":
        lines += _whole(f, mine, places, kernels)
        several = ""
    else:
        lines += _one_by_one(f, mine, places, kernels)
        several = ", steps" if f.apart else ""
    lines.append(f"    return sequence(launches, inputs{several}), inputs, outputs")
    entry = function_entry(f.name, program, f.peak, f.steps if f.apart else 1)
    return FunctionText("\n".join(lines), entry, places.literals, frozenset(), f.single_of)


def _one_by_one(
    f: PlannedFunction, mine: Sequence[TritonKernel], places: _Places, kernels: Kernels
) -> list[str]:
    """A line for every launch."""
    lines = ["    launches = ["]
    for number, kernel in enumerate(mine):
        lines.append(f"        # {number}: {comment(kernel.kernel.name)}")
        lines += [f"        #   {comment(n)}" for n in kernel.kernel.notes]
        if kernel.library is not None:
            lines.append(f"        {places.call(kernel.library, kernel)},")
        for launch in kernel.launches:
            text = kernels.name(launch, _kind(kernel, launch))
            _remember(text.tile, kernel, f"{f.name} {number}")
            pointers = _tuple([places.pointer(b) for b in launch.pointers])
            sizes = _tuple([places.names[d] for d in launch.dims])
            lines.append(f'        ("{text.name}", {places.programs(launch.grid)}, '
                         f"{pointers}, {sizes}),")  # fmt: skip
    return [*lines, "    ]"]


def _whole(
    f: PlannedFunction, mine: Sequence[TritonKernel], places: _Places, kernels: Kernels
) -> list[str]:
    """The one launch of a persistent kernel, which has no more programs than there is work for."""
    assert f.launching is not None
    phases, tiles = [], []
    every = [
        (stage, number, kernel, launch)
        for number, (kernel, at) in enumerate(zip(mine, f.launching.stages, strict=True))
        for stage, launch in zip(at, kernel.launches, strict=True)
    ]
    work: dict[int, list[str]] = {}
    for stage, number, kernel, launch in sorted(every, key=lambda p: p[:2]):
        phases.append(Phase(number, launch, stage))
        tiles.append(kernels.tile(launch, _kind(kernel, launch)))
        _remember(tiles[-1], kernel, f"{f.name} {number}")
        work.setdefault(stage, []).append(places.programs(launch.grid))
    whole = Persistent(f.name, tuple(phases), f.apart)
    text = kernels.whole(whole, tiles)
    lines = ["    # tiles of each stage"]
    lines += ["    tiles = ("]
    lines += [f"        {' + '.join(counts)}," for counts in work.values()]
    lines += ["    )", "    pointers = ("]
    lines += [f"        {places.pointer(b)},  # {b.name}" for b in whole.pointers]
    lines += ['        (COUNTER, 0, "int32"),', "    )"]
    sizes = [places.names[d] for d in whole.dims] + (["max(steps, 1)"] if f.apart else [])
    lines.append(f'    launches = [("{text.name}", max(tiles), pointers, {_tuple(sizes)})]')
    return lines


def _kind(kernel: TritonKernel, launch: Launch) -> str:
    return kernel.kernel.kind + launch.name.removeprefix(kernel.kernel.name)


def _remember(text: TileText, kernel: TritonKernel, where: str) -> None:
    if not text.notes:
        text.notes = [f"{where}: {kernel.kernel.name}", *(f"  {n}" for n in kernel.kernel.notes)]
    else:
        text.notes.append(f"{where}: {kernel.kernel.name}")


def _tuple(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
