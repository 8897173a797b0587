"""Convolutions without a matrix of patches: loops over taps around register tiles.

The lanes are neighbouring examples, so that nothing depends on how wide an image or how many
the channels are. Forward and input gradient are sums over channels and taps of weights,
repeated, times vectors of the image. Padding is never stored: the loops over taps leave it
out. Where one vector of examples is all there is, neighbouring places fill the tile.
"""

from __future__ import annotations

from collections.abc import Sequence

from ....ir.dims import Size, exact_div
from ....ir.kernel import anchors
from ..emitter import Emitter
from .flatten import flatten_convolution, flatten_input_grad
from .geometry import Geometry, inside_of
from .single import channels_are_lanes, sums_over_channels
from .sums import Sums
from .taps import Axis, adjoint_axis, fixed, forward_axis

__all__ = ["convolution", "convolution_input_grad"]


def convolution(em: Emitter) -> None:
    """Strategy for Convolution."""
    flattened = flatten_convolution(em)
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Convolution)
    x, w = em.kernel.operands
    rows = exact_div(w.shape[0], anchor.groups)
    assert rows is not None
    kernel = tuple(fixed(k) for k in w.shape[2:])

    def axes(place: Sequence[Size]) -> list[Axis]:
        return [
            forward_axis(em, at, size, k, s, lo, hi, d)
            for at, size, k, s, (lo, hi), d in zip(
                place, x.shape[2:], kernel, anchor.stride, anchor.padding, anchor.dilation,
                strict=True,
            )
        ]  # fmt: skip

    def whole(at: Size) -> Axis:
        s, (lo, _), d = anchor.stride[-1], anchor.padding[-1], anchor.dilation[-1]
        return forward_axis(em, at, x.shape[-1], kernel[-1], s, 0, 0, d, lo)

    inside = None
    if len(kernel) > 1:
        inside = inside_of(x.shape[-1], em.kernel.after.shape[-1], kernel[-1], anchor)
    geo = Geometry(anchor.groups, fixed(rows), fixed(w.shape[1]), kernel, w.strides[0],
                    w.strides[1], axes, inside, whole)  # fmt: skip
    if channels_are_lanes(em):
        sums_over_channels(em, x, w, geo)
    else:
        Sums(em, x, w, geo, flattened=flattened).run()


def convolution_input_grad(em: Emitter) -> None:
    """Strategy for ConvolutionInputGrad."""
    flattened = flatten_input_grad(em)
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.ConvolutionInputGrad)
    dy, w = em.kernel.operands
    depth = exact_div(w.shape[0], anchor.groups)
    assert depth is not None
    kernel = tuple(fixed(k) for k in w.shape[2:])

    def axes(place: Sequence[Size]) -> list[Axis]:
        return [
            adjoint_axis(em, at, size, k, s, lo, d)
            for at, size, k, s, (lo, _), d in zip(
                place, dy.shape[2:], kernel, anchor.stride, anchor.padding, anchor.dilation,
                strict=True,
            )
        ]  # fmt: skip

    def whole(at: Size) -> Axis:
        tap, d = em.var("k"), anchor.dilation[-1]
        image = at + anchor.padding[-1][0] - tap * d
        return Axis(tap, kernel[-1], image, (), 0, kernel[-1])

    inside = None
    size, out = dy.shape[-1], em.kernel.after.shape[-1]
    if len(kernel) > 1 and anchor.stride[-1] == 1 and isinstance(size, int):
        assert isinstance(out, int)
        lo = anchor.padding[-1][0]
        first = min(out, max(0, (kernel[-1] - 1) * anchor.dilation[-1] - lo))
        end = min(out, size - lo)
        inside = (first, end) if end > first else None
    geo = Geometry(anchor.groups, fixed(w.shape[1]), fixed(depth), kernel, w.strides[1],
                    w.strides[0], axes, inside, whole)  # fmt: skip
    Sums(em, dy, w, geo, flattened=flattened).run()
