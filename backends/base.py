"""What every backend offers to the rest of brickc."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..ir.dims import Size
from ..ir.kernel.capabilities import Capabilities
from ..ir.kernel.kernel import KernelProgram
from ..ir.kernel.memory import Buffer

__all__ = ["Availability", "Backend", "Launching", "Leaf", "PlannedFunction"]


@dataclass(frozen=True)
class Availability:
    """What a target can do on this machine, and with what: a line of ``brickc targets``."""

    compiles: bool
    runs: bool
    note: str


@dataclass(frozen=True)
class Leaf:
    """A parameter or state of the program: its buffer, its place, its first value."""

    name: str
    role: str
    buffer: Buffer
    #: bytes from the start of the memory that outlives calls
    offset: int
    init: tuple[str, float, float]


@dataclass(frozen=True)
class Launching:
    """How the kernels of a function are started on a device: a backend's decision, as data.

    ``form`` is "launches" (one after the other) or "persistent" (one kernel carries out all).
    ``stages`` has, for each launch of each kernel, the number of its stage; launches of one stage
    may run at the same time, those of a later one after all of an earlier one.
    """

    form: str
    reason: str
    stages: tuple[tuple[int, ...], ...]

    @property
    def count(self) -> int:
        """Number of stages."""
        return 1 + max((s for stages in self.stages for s in stages), default=-1)

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """First and last stage of every kernel."""
        return tuple((min(s), max(s)) for s in self.stages)


@dataclass(frozen=True)
class PlannedFunction:
    """A function whose memory is planned: all that a backend needs to print it."""

    name: str
    program: KernelProgram
    #: the backend's own programs, one a kernel, as ``select`` gave them
    kernels: Sequence[object]
    offsets: Mapping[str, Size]
    peak: Size
    #: the function that this one stands for where every dim is 1; empty for all others
    single_of: str = ""
    #: how its kernels are started, where the backend decides that
    launching: Launching | None = None
    #: training steps that one call of ``train_steps`` carries out at a time
    steps: int = 1
    #: buffer that each of these steps has of its own -> bytes from one step's to the next one's
    apart: Mapping[str, Size] = field(default_factory=dict)


class Backend(Protocol):
    """One target: capabilities, choice of strategies, printing."""

    name: str
    capabilities: Capabilities

    @property
    def tolerances(self) -> Mapping[str, float]:
        """Relative error against the interpreter by dtype, where it is more than usual."""
        ...

    def select(
        self, program: KernelProgram
    ) -> tuple[Sequence[object], Mapping[int, Sequence[Buffer]]]:
        """The backend's program for every kernel, and the scratch memory that each needs."""
        ...

    def launching(self, program: KernelProgram, kernels: Sequence[object]) -> Launching | None:
        """How the kernels are started; None if they are called one after the other."""
        ...

    def print(
        self,
        title: str,
        functions: Sequence[PlannedFunction],
        leaves: Sequence[Leaf],
        memory_bytes: int,
    ) -> Mapping[str, str | bytes]:
        """Files by name, text or binary; ``model.py`` is the one that is run."""
        ...

    def availability(self) -> Availability:
        """What works here. Must be quick: nothing is compiled."""
        ...
