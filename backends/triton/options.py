"""What may follow ``triton:`` in a target's name."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UnsupportedError
from ...ir.dtypes import DType

__all__ = ["ARCHITECTURES", "PRECISIONS", "VENDOR", "Architecture", "Options", "parse"]


@dataclass(frozen=True)
class Architecture:
    """A GPU that kernels are compiled for ahead of time."""

    name: str
    #: "cuda" or "hip", and the number or name that Triton knows it by
    api: str
    number: int | str
    warp: int
    #: bytes of shared memory that one block may use
    shared: int


ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture("sm_80", "cuda", 80, 32, 166_912),
        Architecture("sm_90", "cuda", 90, 32, 232_448),
        Architecture("gfx942", "hip", "gfx942", 64, 65_536),
    )
}

#: f32 in full; products of operands rounded to tf32 (10 bits of mantissa); or activations and
#: gradients kept as halves, bf16 (7 bits) or f16 (10 bits). Sums are f32 always
PRECISIONS = ("f32", "tf32", "bf16", "f16")


#: how a function's kernels are started: each by itself, or all as phases of one kernel
FORMS = ("launches", "persistent")


#: lets torch carry out products and convolutions
VENDOR = "vendor"


@dataclass(frozen=True)
class Options:
    """``architecture`` None: kernels are compiled when they run, for the device there is.

    ``form`` is one of FORMS, or empty where each function decides for itself.
    """

    architecture: Architecture | None
    precision: str
    form: str = ""
    #: torch may carry out products and convolutions, by cuBLAS and cuDNN
    vendor: bool = False

    @property
    def half(self) -> DType | None:
        """The dtype between kernels, if it is a half."""
        return {"bf16": DType.BF16, "f16": DType.F16}.get(self.precision)


def parse(text: str) -> Options:
    """``""``, ``"sm_90"``, ``"tf32"``, ``"sm_90,tf32"`` … Raises UnsupportedError."""
    architecture: Architecture | None = None
    precision = "f32"
    form = ""
    vendor = False
    for word in filter(None, text.split(",")):
        if word in ARCHITECTURES:
            architecture = ARCHITECTURES[word]
        elif word in PRECISIONS:
            precision = word
        elif word in FORMS:
            form = word
        elif word == VENDOR:
            vendor = True
        else:
            raise UnsupportedError(
                "unknown option of target triton",
                got=f"triton:{text}",
                expected=", ".join((*ARCHITECTURES, *PRECISIONS, *FORMS, VENDOR))
                + ", joined by commas",
            )
    if form == "persistent" and architecture is not None and architecture.api != "cuda":
        raise UnsupportedError(
            "persistent kernels are for CUDA", got=f"triton:{text}",
            hint=f"leave it out: {architecture.name} starts each kernel by itself",
        )  # fmt: skip
    if vendor and architecture is not None:
        raise UnsupportedError(
            "programs compiled ahead of time have no vendor libraries", got=f"triton:{text}",
            expected="triton, compiled where it runs, or no vendor libraries",
            hint="cuBLAS and cuDNN are called through torch, which the artifact does not need",
        )  # fmt: skip
    if vendor and form == "persistent":
        raise UnsupportedError(
            "a persistent kernel cannot call vendor libraries", got=f"triton:{text}",
            hint="leave one of the two out",
        )  # fmt: skip
    return Options(architecture, precision, form, vendor)
