"""Which convolutions Winograd's transforms carry out, in what blocks, and what that would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....ir.dims import Size, exact_div, hint
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.kernel import Kernel, Region
from ....ir.kernel.memory import Access
from .cook_toom import Transform, operations, transform
from .taps import fixed

__all__ = ["GAIN", "Plan", "plans_of", "suits"]

Convolutions = anchors.Convolution | anchors.ConvolutionInputGrad | anchors.ConvolutionWeightGrad

#: bytes of transformed inputs that stay in the second cache beside all else
INPUT_BYTES = 1_400_000

#: bytes of transformed filters that need not be fetched again for every block of columns
FILTER_BYTES = 1_000_000

#: bytes that come from beyond the second cache in the time of one multiply-add of a vector
FAR_BYTES = 3.3

#: the least gain, in the model, for which a convolution is carried out this way
GAIN = 1.15


@dataclass(frozen=True)
class Plan:
    """One convolution as Winograd's, and what speaks for it.

    Costs are in multiply-adds of vectors.
    """

    m: int
    groups: int
    #: channels that are made and summed, in one group
    rows: int
    depth: int
    #: zeros before the image, on both axes
    before: tuple[int, int]
    #: tiles on both axes
    tiles: tuple[int, int]
    #: lanes hold neighbouring tiles too
    flat: bool
    #: columns of a tile of registers, and its rows
    width: int
    height: int
    cost: float
    direct: float

    @property
    def transform(self) -> Transform:
        return transform(self.m, 3)

    @property
    def name(self) -> str:
        """Name of the choice."""
        return f"winograd {self.m}x{self.m}"

    @property
    def why(self) -> str:
        """What it is, and what speaks for it."""
        gain = self.direct / self.cost
        return f"F({self.m}x{self.m}, 3x3): {gain:.2f} times faster than direct in the model"


def suits(
    anchor: Convolutions,
    taps: Sequence[Size],
    images: Sequence[Access | Region],
    dtype: DType,
    lanes: int,
) -> bool:
    """True for 3 x 3 taps side by side, known images, and a batch whose lanes can be filled."""
    known = all(isinstance(n, int) for image in images for n in image.shape[1:])
    if not known or tuple(taps) != (3, 3) or not dtype.is_float:
        return False
    if anchor.stride != (1, 1) or anchor.dilation != (1, 1):
        return False
    batch = images[0].shape[0]
    if not isinstance(batch, int):
        return True
    return batch > 1 and (lanes % batch if batch < lanes else batch % lanes) == 0


def plans_of(kernel: Kernel, lanes: int, columns: int, *, fast: bool) -> list[Plan]:
    """The ways in which Winograd's transforms can carry the kernel out.

    ``columns`` are those of a full tile of registers. ``fast`` allows the larger tiles.
    """
    found = (_plan(kernel, lanes, columns, m) for m in ((2, 4) if fast else (2,)))
    return [plan for plan in found if plan is not None]


def _plan(kernel: Kernel, lanes: int, columns: int, m: int) -> Plan | None:
    anchor = kernel.anchor
    if not isinstance(anchor, anchors.Convolution | anchors.ConvolutionInputGrad):
        return None
    image, w = kernel.operands
    dtype = kernel.after.program.inputs[0]
    if not suits(anchor, w.shape[2:], (image, kernel.after), dtype, lanes):
        return None
    batch = image.shape[0]
    flat = isinstance(batch, int) and batch < lanes
    if image.strides[0] not in (0, 1):
        return None
    backward = isinstance(anchor, anchors.ConvolutionInputGrad)
    a, b = exact_div(w.shape[0], anchor.groups), w.shape[1]
    assert isinstance(a, int)
    assert isinstance(b, int)
    rows, depth = (b, a) if backward else (a, b)
    before = tuple(2 - lo if backward else lo for lo, _ in anchor.padding)
    if min(before) < 0:
        return None
    shape = kernel.after.shape
    tiles = tuple(-(-fixed(n) // m) for n in shape[2:])
    per_row = -(-tiles[1] * hint(batch) // lanes) if flat else tiles[1]
    count = tiles[0] * per_row * (1 if flat else -(-hint(batch) // lanes))
    points = (m + 2) ** 2
    item = dtype.itemsize
    width = next(
        (t for t in range(columns, 0, -1) if points * depth * t * lanes * item <= INPUT_BYTES), 0
    )
    if not width:
        return None
    height = {4: 6, 3: 8, 2: 12 if columns >= 4 else 6, 1: 12}[width]
    t = transform(m, 3)
    blocks = -(-count // width)
    used = blocks * width
    tall = -(-rows // height) * height
    filters = points * depth * rows * item
    # one multiply-add a cycle and port; other instructions share the same ports
    cost: float = points * tall * depth * used
    cost += used * depth * (operations(t.data) + 2 * points + 4 * m * m)
    cost += used * rows * (operations(t.output) + 2 * points + m * m * (lanes // 2 if flat else 4))
    cost += rows * depth / lanes * (operations(t.filter) + 20 * 9 + points)
    if filters > FILTER_BYTES:
        cost += blocks * filters / FAR_BYTES / 2
    places = fixed(shape[2]) * -(-fixed(shape[3]) * hint(batch) // lanes)
    direct = 9.0 * -(-rows // 6) * 6 * depth * places
    # at the edges of the image, and with few rows, direct tiles are not full
    direct *= 1.15
    pair = (before[0], before[1])
    return Plan(m, anchor.groups, rows, depth, pair, (tiles[0], tiles[1]), flat, width, height,
                cost * anchor.groups, direct * anchor.groups)  # fmt: skip
