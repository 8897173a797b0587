"""The NumPy backend: kernels as chains of ufunc calls and batched matrix products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from ...errors import UnsupportedError
from ...ir.dims import hint
from ...ir.kernel.capabilities import Capabilities
from ...ir.kernel.choices import UNDECIDED, Choice, Made
from ...ir.kernel.kernel import KernelProgram
from ...ir.kernel.memory import Buffer
from ..base import NO_CHOICES, Availability, Bench, Choices, Leaf, PlannedFunction
from ..module import print_module
from . import prelude
from .array_program import ArrayKernel
from .printer import print_function
from .strategies import carry_out

__all__ = ["FORMAT", "NumpyBackend"]

#: version of the artifact's format that the host half understands
FORMAT = 1

CAPABILITIES = Capabilities(
    name="numpy",
    epilogue=frozenset(
        {"contract", "reduce", "fold", "windowsum", "windowmax", "windowsumgrad", "pad"}
    ),
    prologue=frozenset({"reduce"}),
    convolution="contract",
    bundle_bytes=256 * 1024,
)


#: operations and bytes a second of a nominal core
_FLOPS = 5e10
_BYTES = 1e10


class NumpyBackend:
    """Implements ``backends.base.Backend``."""

    name = "numpy"
    capabilities = CAPABILITIES
    precision = "f32"
    shipped: Choices = NO_CHOICES
    tolerances: Mapping[str, float] = MappingProxyType({})

    @staticmethod
    def of(option: str) -> NumpyBackend:
        """The backend of ``numpy``; there are no options. Raises UnsupportedError."""
        if option:
            raise UnsupportedError("target numpy has no options", got=f"numpy:{option}")
        return NumpyBackend()

    def availability(self) -> Availability:
        return Availability(True, True, f"NumPy {np.__version__}")

    def select(
        self, program: KernelProgram, choices: Choices = NO_CHOICES
    ) -> tuple[Sequence[ArrayKernel], Mapping[int, Sequence[Buffer]]]:
        buffers = dict(program.buffers)
        kernels = [carry_out(kernel, buffers) for kernel in program.kernels]
        return kernels, {k: a.scratch for k, a in enumerate(kernels) if a.scratch}

    def launching(self, program: KernelProgram, kernels: Sequence[object]) -> None:
        """Kernels are called one after the other."""

    def candidates(
        self, program: KernelProgram, number: int, around: Choice = UNDECIDED
    ) -> Sequence[ArrayKernel]:
        """One way: NumPy's own routines choose their tiles."""
        return [carry_out(program.kernels[number], dict(program.buffers))]

    def estimate(self, program: KernelProgram, made: Made) -> float:
        """The larger of arithmetic and bytes, at the rates of a nominal core."""
        kernel = made.kernel
        return max(kernel.flops / _FLOPS, hint(kernel.bytes_moved) / _BYTES)

    def bench(self, threads: int | None = None) -> Bench:
        raise UnsupportedError(
            "target numpy has nothing to tune", expected="c, or triton on a machine with a GPU",
            hint="NumPy's own routines choose their tiles",
        )  # fmt: skip

    def print(
        self,
        title: str,
        functions: Sequence[PlannedFunction],
        leaves: Sequence[Leaf],
        memory_bytes: int,
    ) -> Mapping[str, str]:
        memory = {leaf.name: leaf.offset for leaf in leaves}
        texts = []
        for f in functions:
            kernels = [k for k in f.kernels if isinstance(k, ArrayKernel)]
            texts.append(print_function(f.name, f.program, kernels, f.offsets, memory, f.peak))
        used = {"blocks"}.union(*(t.helpers for t in texts))
        helpers = [getattr(prelude, name) for name in sorted(used)]
        steps = max(f.steps for f in functions)
        module = print_module(title, texts, leaves, memory_bytes, FORMAT, helpers=helpers,
                              steps=steps)  # fmt: skip
        return {"model.py": module}
