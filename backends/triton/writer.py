"""Text of Triton kernels, piece by piece: parameters, indices, loads, stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ...ir.dims import Dim, DimExpr, Size, dims_of, maximum, product
from ...ir.dtypes import DType
from ...ir.kernel.kernel import Kernel
from ...ir.kernel.memory import Access, Buffer, Space
from .launches import Grid, Launch

__all__ = [
    "ALIGNED_ELEMENTS",
    "Coord",
    "Tile",
    "Writer",
    "dtype_text",
    "is_aligned",
    "wide",
    "with_masks",
]

#: parameters and states of another number of elements may lie anywhere: updates join them without
#: gaps, those of a multiple of it first
ALIGNED_ELEMENTS = 16

_TL = {DType.F64: "tl.float64", DType.F32: "tl.float32", DType.F16: "tl.float16",
       DType.BF16: "tl.bfloat16", DType.I64: "tl.int64", DType.I32: "tl.int32",
       DType.BOOL: "tl.int1"}  # fmt: skip


def dtype_text(dtype: DType) -> str:
    """The dtype in Triton's language."""
    return _TL[dtype]


def wide(dtype: DType) -> DType:
    """What values of the dtype are computed in: halves are widened as they are loaded."""
    return DType.F32 if dtype.is_half else dtype


@dataclass(frozen=True)
class Coord:
    """An index along one axis: text, and the dim of the tile along which it varies."""

    text: str
    dim: int | None


@dataclass(frozen=True)
class Tile:
    """Part of an index space that a program works on at once.

    ``block`` is the tile's shape, of one or two dims; ``coords`` has an entry per axis of the
    index space; ``masks`` maps a dim of the tile to a vector that is true inside the space.
    ``whole`` are masks in the tile's full shape.
    """

    block: tuple[int, ...]
    coords: tuple[Coord, ...]
    masks: Mapping[int, str] = field(default_factory=dict)
    whole: tuple[str, ...] = ()

    def expand(self, text: str, dim: int | None) -> str:
        """A vector along one dim of the tile, in the tile's rank."""
        if dim is None or len(self.block) == 1:
            return text
        places = [":" if d == dim else "None" for d in range(len(self.block))]
        return f"{text}[{', '.join(places)}]"

    def mask(self, dims: Sequence[int]) -> str:
        """Text of the mask over these dims; empty if nothing needs one."""
        parts = [self.expand(self.masks[d], d) for d in dims if d in self.masks]
        return " & ".join([*parts, *self.whole])


class Writer:
    """One kernel's text under construction."""

    def __init__(self, kernel: Kernel, buffers: Mapping[str, Buffer], suffix: str = "") -> None:
        self.kernel = kernel
        self.buffers = buffers
        self.name = kernel.name + suffix
        self.lines: list[str] = []
        self.depth = 1
        self.pointers: list[str] = []
        self.dims: dict[str, Dim] = {}
        self.helpers: set[str] = set()
        self._fresh: dict[str, int] = {}
        touched = {a.buffer for a in (*kernel.reads(), *kernel.writes())}
        sizes = [maximum(buffers[name].size) for name in touched if name in buffers]
        largest = max(*sizes, 1, maximum(product(kernel.after.shape)))
        if kernel.before:
            largest = max(largest, maximum(product(kernel.before.shape)))
        #: indices need 64 bits
        self.wide = largest >= 2**31

    # -- text ------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def comment(self, text: str) -> None:
        self.line(f"# {text}")

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """A ``for`` or ``if`` with what is written inside the ``with`` as its body."""
        self.line(head)
        self.depth += 1
        yield
        self.depth -= 1

    def fresh(self, prefix: str) -> str:
        number = self._fresh.get(prefix, 0)
        self._fresh[prefix] = number + 1
        return f"{prefix}{number}"

    def let(self, prefix: str, text: str) -> str:
        """A new variable."""
        name = self.fresh(prefix)
        self.line(f"{name} = {text}")
        return name

    def size(self, size: Size) -> str:
        """A size as text; the dims in it become parameters."""
        if isinstance(size, int):
            return str(size)
        for name, dim in dims_of(size).items():
            self.dims.setdefault(name, dim)
        if isinstance(size, Dim):
            return _dim(size.name)
        assert isinstance(size, DimExpr)
        parts = []
        for monomial, coefficient in size.terms:
            factors = [_dim(n) for n in monomial]
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            parts.append(" * ".join(factors))
        return f"({' + '.join(parts)})"

    def pointer(self, buffer: str) -> str:
        if buffer not in self.pointers:
            self.pointers.append(buffer)
        return f"p{self.pointers.index(buffer)}"

    # -- indices -----------------------------------------------------------------------------------

    def program(self) -> str:
        """The number of the tile that the text is called for, see ``Launch``."""
        return self.let("pid", f"tl.cast(tile, tl.int{64 if self.wide else 32})")

    def split_program(self, pid: str, counts: Sequence[str]) -> list[str]:
        """The tile's number as one index per count, the last one fastest."""
        if len(counts) == 1:
            return [pid]
        names = []
        rest = pid
        for count in reversed(counts[1:]):
            names.append(self.let("pid", f"{rest} % {count}"))
            rest = self.let("pid", f"{rest} // {count}")
        return [rest, *reversed(names)]

    def split(
        self, flat: str, sizes: Sequence[Size], dim: int | None, prefix: str = "i"
    ) -> list[Coord]:
        """Coordinates of a flat index over axes of these sizes, outermost first."""
        found = [Coord("0", None)] * len(sizes)
        real = [k for k, n in enumerate(sizes) if n != 1]
        rest = flat
        for position in range(len(real) - 1, -1, -1):
            k = real[position]
            if position == 0:
                found[k] = Coord(rest, dim)
                break
            count = self.size(sizes[k])
            found[k] = Coord(self.let(prefix, f"{rest} % {count}"), dim)
            rest = self.let(prefix, f"{rest} // {count}")
        return found

    def offset(self, access: Access, tile: Tile, *, full: bool = False) -> tuple[str, list[int]]:
        """Text of ``offset + Σ coordinate·stride``, and the dims of the tile it varies along."""
        return self.sum_of(tile, access.offset, zip(tile.coords, access.strides, access.shape,
                                                    strict=True), full=full)  # fmt: skip

    def sum_of(
        self,
        tile: Tile,
        start: Size,
        terms: Iterator[tuple[Coord, Size, Size]] | Sequence[tuple[Coord, Size, Size]],
        *,
        full: bool = False,
    ) -> tuple[str, list[int]]:
        by_dim: dict[int | None, list[str]] = {}
        for coord, stride, count in terms:
            if stride == 0 or count == 1 or coord.text == "0":
                continue
            text = coord.text if stride == 1 else f"{_wrapped(coord.text)} * {self.size(stride)}"
            by_dim.setdefault(coord.dim, []).append(text)
        parts = []
        if start != 0:
            parts.append(self.size(start))
        parts += by_dim.pop(None, [])
        dims = sorted(d for d in by_dim if d is not None)
        for d in dims:
            texts = by_dim[d]
            if len(texts) == 1 and texts[0].isidentifier():
                parts.append(tile.expand(texts[0], d))
            elif len(tile.block) == 1:
                parts += texts
            else:
                parts.append(tile.expand(f"({' + '.join(texts)})", d))
        if full and len(dims) < len(tile.block):
            parts.append(f"tl.zeros({list(tile.block)}, tl.int32)")
            dims = list(range(len(tile.block)))
        return " + ".join(parts) or "0", dims

    # -- memory ------------------------------------------------------------------------------------

    def load(
        self, access: Access, tile: Tile, *, full: bool = False, other: str = "",
        prefix: str = "x", raw: bool = False,
    ) -> str:  # fmt: skip
        """A variable with the access's elements; outside the mask ``other``, or anything.

        Halves are widened to f32 unless ``raw``.
        """
        offset, dims = self.offset(access, tile, full=full or bool(tile.whole))
        mask = tile.mask(dims)
        return self.load_at(access, offset, mask, other=other, prefix=prefix, raw=raw)

    def load_at(
        self, access: Access, offset: str, mask: str, *, other: str = "", prefix: str = "x",
        raw: bool = False,
    ) -> str:  # fmt: skip
        pointer = self.pointer(access.buffer)
        extra = f", mask={mask}" if mask else ""
        if mask and other:
            extra += f", other={other}"
        text = f"tl.load({pointer} + {offset}{extra})"
        if access.dtype is DType.BOOL:
            text += " != 0"
        if access.dtype.is_half and not raw:
            self.helpers.add("widened")
            text = f"widened({text})"
        return self.let(prefix, text)

    def rounded(self, value: str, dtype: DType) -> str:
        """Text of an f32 value as a half, to the nearest and ties to even."""
        if dtype is DType.BF16:
            self.helpers.add("bf16")
            return f"bf16({value})"
        return f"{_wrapped(value)}.to({dtype_text(dtype)})"

    def store(self, access: Access, tile: Tile, value: str, *, done: bool = False) -> None:
        """Write the elements; halves are rounded unless that is ``done``."""
        offset, dims = self.offset(access, tile, full=True)
        mask = tile.mask(dims)
        extra = f", mask={mask}" if mask else ""
        if access.dtype is DType.BOOL:
            value = f"{value}.to(tl.int8)"
        if access.dtype.is_half and not done:
            value = self.rounded(value, access.dtype)
        self.line(f"tl.store({self.pointer(access.buffer)} + {offset}, {value}{extra})")

    # -- the launch -----------------------------------------------------------------------------

    def launch(
        self,
        grid: Sequence[tuple[Size, int]],
        *,
        warps: int = 4,
        stages: int = 1,
        tiling: str = "",
        scratch: Sequence[Buffer] = (),
    ) -> Launch:
        for size, _ in grid:
            for name, dim in dims_of(size).items():
                self.dims.setdefault(name, dim)
        known = {**self.buffers, **{b.name: b for b in scratch}}
        buffers = tuple(known[n] for n in self.pointers)
        if not self.lines:
            self.line("pass")
        return Launch(
            self.name,
            tuple(self.lines),
            buffers,
            tuple(is_aligned(b) for b in buffers),
            tuple(sorted(self.dims)),
            Grid(tuple(grid)),
            frozenset(self.helpers),
            warps,
            stages,
            tiling,
        )


def is_aligned(buffer: Buffer) -> bool:
    """Whether its address is a multiple of 16 bytes wherever it lies."""
    if buffer.space in (Space.PARAMETER, Space.STATE):
        return maximum(buffer.size) % ALIGNED_ELEMENTS == 0
    return True


def _dim(name: str) -> str:
    return f"n_{name}"


def _wrapped(text: str) -> str:
    return text if text.isidentifier() else f"({text})"


def with_masks(tile: Tile, *whole: str) -> Tile:
    """The tile with more masks in its full shape."""
    return replace(tile, whole=(*tile.whole, *whole))
