"""What every backend offers to the rest of brickc."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from ..ir.dims import Size
from ..ir.kernel.capabilities import Capabilities
from ..ir.kernel.choices import UNDECIDED, Choice, Made, kernel_key
from ..ir.kernel.kernel import Kernel, KernelProgram
from ..ir.kernel.memory import Buffer

__all__ = ["NO_CHOICES", "Availability", "Backend", "Bench", "Choices", "Launching", "Leaf",
           "PlannedFunction", "Timed", "Trial", "chosen_for"]  # fmt: skip

#: ``choices.kernel_key`` of a kernel -> what was decided for it beforehand, by a tuner or a table
Choices = Mapping[str, Choice]

NO_CHOICES: Choices = MappingProxyType({})


def chosen_for(kernel: Kernel, choices: Choices) -> Choice:
    """What a table says of a kernel; nothing if it does not have it."""
    return choices.get(kernel_key(kernel), UNDECIDED) if choices else UNDECIDED


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
    may run at the same time, those of a later one after all of an earlier one. A kernel without
    launches is carried out by the launches of the one before it.
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
        found: list[tuple[int, int]] = []
        for stages in self.stages:
            found.append((min(stages), max(stages)) if stages else found[-1])
        return tuple(found)


@dataclass(frozen=True)
class PlannedFunction:
    """A function whose memory is planned: all that a backend needs to print it."""

    name: str
    program: KernelProgram
    #: the backend's own programs, one a kernel, as ``select`` gave them
    kernels: Sequence[Made]
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


@dataclass(frozen=True)
class Trial:
    """One kernel of a program, by number, and ways to carry it out; the first is the usual one."""

    program: KernelProgram
    number: int
    ways: Sequence[Made]


class Timed(Protocol):
    """The ways of a trial, built and ready to run on the device that they are for."""

    def seconds(self, way: int) -> float:
        """How long one run takes now."""
        ...

    def error(self, way: int) -> Mapping[str, float]:
        """Largest relative difference to the first way's results, by dtype; inf if it fails."""
        ...


class Bench(Protocol):
    """Times kernels for a tuner."""

    #: all that times depend on beside the kernel: processor, compiler, threads, our own code
    environment: Mapping[str, str]

    def build(self, trials: Sequence[Trial]) -> Sequence[Timed]:
        """Builds all ways of all trials at once. Raises BuildError, UnsupportedError."""
        ...


class Backend(Protocol):
    """One target: capabilities, choice of strategies, printing."""

    name: str

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def precision(self) -> str:
        """How products and values between kernels are rounded; "f32" if they are not."""
        ...

    @property
    def shipped(self) -> Choices:
        """Choices that came with brickc; what a caller wants goes before them."""
        ...

    @property
    def tolerances(self) -> Mapping[str, float]:
        """Relative error against the interpreter by dtype, where it is more than usual."""
        ...

    def select(
        self, program: KernelProgram, choices: Choices = ...
    ) -> tuple[Sequence[Made], Mapping[int, Sequence[Buffer]]]:
        """The backend's program for every kernel, and the scratch memory that each needs.

        ``choices`` are taken as they are; the cost model decides about all other kernels.
        """
        ...

    def candidates(
        self, program: KernelProgram, number: int, around: Choice = UNDECIDED
    ) -> Sequence[Made]:
        """Ways to carry out one kernel, by number.

        The first is ``around``, as ``select`` takes it; the others differ from it in one decision.
        A target with one way for each kernel gives that one.
        """
        ...

    def estimate(self, program: KernelProgram, made: Made) -> float:
        """Seconds that the cost model expects of a kernel at the typical sizes.

        For a nominal machine: good for comparing, not for predicting.
        """
        ...

    def bench(self, threads: int | None = None) -> Bench:
        """Where candidates are timed; ``threads`` None for as many as a program has by itself.

        Raises UnsupportedError for a target with nothing to tune, or nothing here to time on.
        """
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
