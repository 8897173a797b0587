"""The Triton backend: kernels for GPUs, compiled when they run or ahead of time."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from ...ir.kernel.capabilities import Capabilities
from ...ir.kernel.choices import UNDECIDED, Choice, Made, NoSuchChoiceError, Picks, neighbours
from ...ir.kernel.kernel import KernelProgram
from ...ir.kernel.memory import Buffer
from ..base import (
    NO_CHOICES,
    Availability,
    Bench,
    Choices,
    Launching,
    Leaf,
    PlannedFunction,
    chosen_for,
)
from ..module import print_module
from . import device
from .bench import open_bench
from .build import build
from .cost import estimate
from .launches import TritonKernel
from .options import Options, parse
from .phases import decide
from .printer import Kernels, print_function
from .strategies import Context, carry_out
from .strategies.maps import map_kernels
from .tables import shipped

__all__ = ["FORMAT", "RESOURCES", "TritonBackend"]

#: version of the artifact's format that the host half understands
FORMAT = 1

#: file of an ahead-of-time program with what every kernel takes, see ``build.Binary``
RESOURCES = "kernels/resources.json"

CAPABILITIES = Capabilities(
    name="triton",
    epilogue=frozenset(
        {"contract", "reduce", "fold", "windowsum", "windowmax", "windowsumgrad",
         "windowmaxscatter", "windowmaxgather", "pad", "concat", "gather", "scatteradd",
         "convolution", "convolutioninputgrad", "convolutionweightgrad", "argreduce"}
    ),
    prologue=frozenset({"reduce"}),
    convolution="direct",
    layout="channels last",
    bundle_bytes=1 << 30,
    several_steps=True,
)  # fmt: skip

#: relative error of a few layers with operands or values rounded to 10 or 7 bits of mantissa
_ROUNDED = {"tf32": 1e-2, "f16": 1e-2, "bf16": 5e-2}


class TritonBackend:
    """Implements ``backends.base.Backend`` for one architecture and precision."""

    name = "triton"

    @property
    def capabilities(self) -> Capabilities:
        return replace(CAPABILITIES, half=self.options.half)

    @property
    def precision(self) -> str:
        """How exact numbers are between and inside products: an entry of the manifest."""
        return self.options.precision

    @property
    def tolerances(self) -> Mapping[str, float]:
        """Rounded operands cost digits: some per layer, more with fewer bits."""
        part = _ROUNDED.get(self.options.precision)
        if part is None:
            return {}
        half = self.options.half
        return {"f32": part} if half is None else {"f32": part, str(half): part}

    def __init__(self, options: Options) -> None:
        self.options = options

    @staticmethod
    def of(option: str) -> TritonBackend:
        """The backend of ``triton:option``. Raises UnsupportedError for an unknown one."""
        return TritonBackend(parse(option))

    def availability(self) -> Availability:
        """Source is always made; binaries need Triton, running needs a GPU or the interpreter."""
        there = importlib.util.find_spec("triton") is not None
        if os.environ.get("TRITON_INTERPRET") == "1" and there:
            return Availability(True, True, "Triton's interpreter (TRITON_INTERPRET=1)")
        if not there:
            return Availability(False, False, "no Triton; pip install 'brickc[triton]'")
        if os.path.exists("/dev/nvidia0") or os.path.exists("/dev/kfd"):
            return Availability(True, True, "Triton, a GPU")
        return Availability(True, False, "Triton; no GPU: compiles for sm_80, sm_90, gfx942")

    def select(
        self, program: KernelProgram, choices: Choices = NO_CHOICES
    ) -> tuple[Sequence[TritonKernel], Mapping[int, Sequence[Buffer]]]:
        kernels: list[TritonKernel] = []
        numbered = enumerate(program.kernels)
        # neighbours that only round parameters do not read each other
        for rounds, found in groupby(numbered, lambda x: program.rounds_leaf(x[1])):
            run = list(found)
            if rounds:
                kernels += map_kernels([self._context(program, k, UNDECIDED) for k, _ in run])
                continue
            for number, kernel in run:
                wanted = chosen_for(kernel, choices)
                if wanted == UNDECIDED:
                    kernels.append(self._as_shipped(program, number))
                else:
                    kernels.append(self._carry_out(program, number, wanted))
        return kernels, {k: x.scratch for k, x in enumerate(kernels) if x.scratch}

    def launching(self, program: KernelProgram, kernels: Sequence[object]) -> Launching:
        """All kernels as phases of one, or each by itself."""
        mine = [k for k in kernels if isinstance(k, TritonKernel)]
        return decide(program, mine, self.options)

    def candidates(
        self, program: KernelProgram, number: int, around: Choice = UNDECIDED
    ) -> Sequence[TritonKernel]:
        return neighbours(lambda c: self._carry_out(program, number, c), around)

    @property
    def shipped(self) -> Choices:
        return shipped(self.options)

    def _as_shipped(self, program: KernelProgram, number: int) -> TritonKernel:
        """As the table says; by the rules if it says nothing, or what no strategy offers now."""
        try:
            wanted = chosen_for(program.kernels[number], self.shipped)
            return self._carry_out(program, number, wanted)
        except NoSuchChoiceError:
            return self._carry_out(program, number, UNDECIDED)

    def estimate(self, program: KernelProgram, made: Made) -> float:
        assert isinstance(made, TritonKernel)
        return estimate(made, program, self.options)

    def bench(self, threads: int | None = None) -> Bench:
        return open_bench(self.options)

    def _carry_out(self, program: KernelProgram, number: int, wanted: Choice) -> TritonKernel:
        return carry_out(self._context(program, number, wanted))

    def _context(self, program: KernelProgram, number: int, wanted: Choice) -> Context:
        kernel = program.kernels[number]
        return Context(kernel, program.buffers, self.options, number, Picks(wanted))

    def print(
        self,
        title: str,
        functions: Sequence[PlannedFunction],
        leaves: Sequence[Leaf],
        memory_bytes: int,
    ) -> Mapping[str, str | bytes]:
        memory = {leaf.name: leaf.offset for leaf in leaves}
        kernels = Kernels()
        texts = [print_function(f, memory, kernels) for f in functions]
        source = kernels.module(title)
        target = self.options.architecture
        files: dict[str, str | bytes] = {}
        table: dict[str, tuple[int, int, int, int, int, str, str]] = {}
        resources: dict[str, Mapping[str, Any]] = {}
        if target is None:
            for k in kernels:
                table[k.name] = (k.launch.warps, k.launch.stages, 0, 0, 0, "", "")
            head = "TARGET = ('', '', 0)"
        else:
            for k, binary in zip(kernels, build(source, list(kernels), target), strict=True):
                file = f"kernels/{k.name}.{binary.suffix}"
                files[file] = binary.image
                r = binary.resources
                resources[k.name] = {**r, "tile": k.launch.tiling, "symbol": binary.symbol}
                table[k.name] = (r["warps"], r["stages"], r["threads"], r["shared"], r["scratch"],
                                 file, binary.symbol)  # fmt: skip
            files[RESOURCES] = json.dumps(resources, indent=1, sort_keys=True) + "\n"
            number = target.number if isinstance(target.number, int) else 0
            head = f"TARGET = ({target.api!r}, {target.name!r}, {number})"
        rows = "".join(f"    {name!r}: {row!r},\n" for name, row in table.items())
        literals = sorted({name for t in texts for name in t.literals})
        start = [
            "DEVICE = open_device()",
            "view, _aligned = device_view, DeviceMemory",
            *(f"{n.upper()} = resident({n.upper()})" for n in literals),
        ]
        if kernels.cooperative:
            start.append("COUNTER = resident(np.zeros(4, np.uint8))  # of grid_barrier")
        model = print_module(
            title, texts, leaves, memory_bytes, FORMAT,
            helpers=[getattr(device, name) for name in device.__all__],
            tables=(head, f"KERNELS = {{\n{rows}}}",
                    f"COOPERATIVE = {tuple(kernels.cooperative)!r}\n"
                    f"TF32 = {self.options.precision == 'tf32'!r}"),
            imports=("contextvars", "ctypes", "importlib.util"),
            start="\n".join(start),
            steps=max(f.steps for f in functions),
        )  # fmt: skip
        return {"model.py": model, "kernels.py": source, **files}
