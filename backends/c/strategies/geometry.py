"""What forward convolution and its input gradient differ in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ....ir.dims import Size
from ....ir.kernel import anchors
from .taps import Axis

__all__ = ["Geometry", "inside_of"]


@dataclass(frozen=True)
class Geometry:
    """Loops of one kernel over channels and taps.

    ``rows`` and ``depth`` are output and input channels of one group, with the strides of
    ``w`` along them and along groups. ``axes`` gives the loops over taps at a place;
    ``inside`` the places of the last axis at which all taps meet the image, None if that is
    not known, and the loop over taps there.
    """

    groups: int
    rows: int
    depth: int
    kernel: tuple[int, ...]
    row_stride: Size
    depth_stride: Size
    axes: Callable[[Sequence[Size]], list[Axis]]
    inside: tuple[int, int] | None
    whole: Callable[[Size], Axis]


def inside_of(
    size: Size, out: Size, kernel: int, anchor: anchors.Convolution
) -> tuple[int, int] | None:
    """Places of the last axis at which all taps meet the image."""
    if not (isinstance(size, int) and isinstance(out, int)):
        return None
    s, (lo, _), d = anchor.stride[-1], anchor.padding[-1], anchor.dilation[-1]
    first = min(out, -(-lo // s))
    end = min(out, (size - 1 - (kernel - 1) * d + lo) // s + 1)
    return (first, end) if end > first else None
