"""Launches: what the printer of the Triton backend writes down. All decisions are in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...ir.dims import Size, dims_of
from ...ir.kernel.choices import UNDECIDED, Choice, Options
from ...ir.kernel.kernel import Kernel
from ...ir.kernel.memory import Access, Buffer

__all__ = ["DESCRIPTORS", "LOADS", "POINTERS", "Grid", "Launch", "LibraryCall", "Persistent",
           "Phase", "TritonKernel"]  # fmt: skip

#: a decision of products: how operands that lie as matrices are read
LOADS, POINTERS, DESCRIPTORS = "loads", "pointers", "descriptors"


#: warps of a persistent kernel: the sums of the largest tiles fit the registers of so many
PERSISTENT_WARPS = 8


@dataclass(frozen=True)
class Grid:
    """Number of tiles: the product of ``ceil(size / block)``."""

    factors: tuple[tuple[Size, int], ...]


@dataclass(frozen=True)
class Launch:
    """One ``@triton.jit`` function and how it is started.

    The body works on one tile, whose number is its parameter ``tile``: in a kernel of its own that
    is the program's number, in a phase of a larger kernel (``persistent``) a loop's.
    The other parameters are pointers ``p0``, ``p1``, … to the ``pointers`` (names of buffers), then
    the sizes of ``dims``. Everything else is written into the text as a number, so that two
    launches with equal ``body`` and ``helpers`` are one kernel.
    """

    name: str
    body: tuple[str, ...]
    pointers: tuple[Buffer, ...]
    #: whether each pointer's address is a multiple of 16 bytes wherever it is used
    aligned: tuple[bool, ...]
    dims: tuple[str, ...]
    grid: Grid
    helpers: frozenset[str]
    warps: int = 4
    stages: int = 1
    #: what the tiles are, for the comment above the kernel
    tiling: str = ""


@dataclass(frozen=True)
class LibraryCall:
    """A function of torch's that computes a kernel's anchor, before the kernel's launches.

    "matmul" of [B, M, K] and [B, K, N], "convolution" of image and weights, "input_grad" of the
    result's cotangent and weights, "weight_grad" of image and cotangent.
    """

    function: str
    operands: tuple[Access, ...]
    result: Access
    #: stride, padding, dilation and groups of a convolution
    settings: tuple[tuple[str, object], ...] = ()
    #: axes of the kernel's result behind each axis of a product's
    groups: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class TritonKernel:
    """The launches that carry out one kernel, and the memory that they need in between.

    Without launches it is carried out by those of the kernel before it.
    """

    kernel: Kernel
    launches: tuple[Launch, ...]
    scratch: tuple[Buffer, ...] = ()
    choice: Choice = UNDECIDED
    options: Options = ()
    #: what torch does before the launches
    library: LibraryCall | None = None

    @property
    def starts(self) -> int:
        """Launches, a library's call among them."""
        return len(self.launches) + (self.library is not None)

    @property
    def has_descriptors(self) -> bool:
        """Operands are read by descriptors, not pointers."""
        return self.choice.as_dict().get(LOADS) == DESCRIPTORS


@dataclass(frozen=True)
class Phase:
    """A launch as part of a persistent kernel: its kernel's number, and its stage's."""

    kernel: int
    launch: Launch
    stage: int


@dataclass(frozen=True)
class Persistent:
    """A function as one kernel: phases by stages, a barrier of the whole grid between stages.

    Its parameters are pointers to all buffers, the barrier's counter, the sizes, and the number of
    steps if it carries out several; ``apart`` is as in ``PlannedFunction``.
    """

    name: str
    #: in the order in which they stand in the text
    phases: tuple[Phase, ...]
    apart: Mapping[str, Size] = field(default_factory=dict)
    warps: int = PERSISTENT_WARPS

    @property
    def loops(self) -> bool:
        """It takes the number of steps."""
        return bool(self.apart)

    @property
    def pointers(self) -> tuple[Buffer, ...]:
        """Every buffer once, in the order of their first use."""
        used = {b.name: b for p in self.phases for b in p.launch.pointers}
        return tuple(used.values())

    @property
    def aligned(self) -> tuple[bool, ...]:
        """Whether each pointer's address is a multiple of 16 bytes."""
        every: dict[str, bool] = {}
        for p in self.phases:
            for b, yes in zip(p.launch.pointers, p.launch.aligned, strict=True):
                every[b.name] = every.get(b.name, True) and yes
        return tuple(every[b.name] for b in self.pointers)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dims that the text speaks of."""
        mine = {d for p in self.phases for d in p.launch.dims}
        return tuple(sorted(mine | set(dims_of(*self.apart.values()))))

    @property
    def stages(self) -> int:
        """Loads under way in the loops of products: as many as the most eager phase has."""
        return max(p.launch.stages for p in self.phases)

    @property
    def tiling(self) -> str:
        """What it is made of."""
        return f"{len(self.phases)} phases in {self.barriers + 1} stages"

    @property
    def barriers(self) -> int:
        """Barriers in one step."""
        return len({p.stage for p in self.phases}) - 1
