"""Resizing: every axis by a fixed matrix, or by picking elements.

The coordinates, kernels and rounding rules are those of ONNX's Resize.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ....ir.brick import Array
from ....ir.bricks import arithmetic as a
from ....ir.bricks.arithmetic import where
from ....ir.bricks.contract import contract
from ....ir.bricks.indexing import gather
from ....ir.value import Value
from ..node import Node
from .kind import Table
from .movement import fixed

__all__ = ["TABLE"]

#: elements of the matrix of one axis
_LARGEST_MATRIX = 2**24


@dataclass(frozen=True)
class Axis:
    """How one axis is resized: to ``size`` elements, ``scale`` times as many, within ``roi``."""

    number: int
    size: int
    scale: float
    roi: tuple[float, float]


@dataclass(frozen=True)
class Rules:
    """What the node says about all axes."""

    mode: str
    transformation: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool
    extrapolation: float


def coordinates(count: int, axis: Axis, rules: Rules) -> Array:
    """Where in the input each element of the output lies."""
    y = np.arange(axis.size, dtype=np.float64)
    length = axis.scale * count
    match rules.transformation:
        case "align_corners":
            return np.zeros_like(y) if length == 1 else y * (count - 1) / (length - 1)
        case "asymmetric":
            return y / axis.scale
        case "tf_crop_and_resize":
            start, end = axis.roi
            if length == 1:
                return np.full_like(y, (start + end) * (count - 1) / 2)
            return start * (count - 1) + y * (end - start) * (count - 1) / (length - 1)
        case "pytorch_half_pixel" if length == 1:
            return np.full_like(y, -0.5)
        case "half_pixel" | "pytorch_half_pixel":
            return (y + 0.5) / axis.scale - 0.5
        case "half_pixel_symmetric":
            return count / 2 * (1 - axis.size / length) + (y + 0.5) / axis.scale - 0.5
        case "tf_half_pixel_for_nn":
            return (y + 0.5) / axis.scale
    raise ValueError(f"unknown coordinate transformation {rules.transformation}")


def _linear(distance: Array, cubic: float) -> Array:
    return np.asarray(np.clip(1 - np.abs(distance), 0, 1))


def _cubic(distance: Array, cubic: float) -> Array:
    """Keys' kernel: 1 at 0, 0 from 2 on. Source: R. G. Keys, 1981."""
    d = np.abs(distance)
    near = ((cubic + 2) * d - (cubic + 3)) * d * d + 1
    far = ((cubic * d - 5 * cubic) * d + 8 * cubic) * d - 4 * cubic
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


_KERNELS: dict[str, tuple[Callable[[Array, float], Array], int]] = {
    "linear": (_linear, 1),
    "cubic": (_cubic, 2),
}


def matrix(count: int, axis: Axis, rules: Rules) -> Array:
    """[size, count]: what each element of the output takes from those of the input."""
    kernel, radius = _KERNELS[rules.mode]
    x = coordinates(count, axis, rules)
    shrink = min(axis.scale, 1.0) if rules.antialias else 1.0
    reach = math.ceil(radius / shrink) + 1
    near = np.floor(x).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
    weights = kernel((near - x[:, None]) * shrink, rules.cubic)
    if rules.exclude_outside:
        weights = np.where((near < 0) | (near >= count), 0.0, weights)
    sums = weights.sum(1, keepdims=True)
    weights = weights / np.where(sums == 0, 1.0, sums)
    result = np.zeros((axis.size, count))
    rows = np.broadcast_to(np.arange(axis.size)[:, None], near.shape)
    np.add.at(result, (rows, np.clip(near, 0, count - 1)), weights)
    return result


def picks(count: int, axis: Axis, rules: Rules) -> Array:
    """[size]: the number of the element that each element of the output is."""
    x = coordinates(count, axis, rules)
    match rules.nearest:
        case "round_prefer_floor":
            found = np.ceil(x - 0.5)
        case "round_prefer_ceil":
            found = np.floor(x + 0.5)
        case "floor":
            found = np.floor(x)
        case "ceil":
            found = np.ceil(x)
        case _:
            raise ValueError(f"unknown nearest mode {rules.nearest}")
    return np.clip(found, 0, count - 1).astype(np.int64)


def resized(node: Node, x: Value, axes: list[Axis], rules: Rules) -> Value:
    if rules.mode not in ("nearest", "linear", "cubic"):
        raise node.unsupported("a mode", rules.mode)
    outside: Value | None = None
    for axis in axes:
        k = axis.number
        count = fixed(node, x.shape[k], "an axis that is resized")
        work = axis.size if rules.mode == "nearest" else axis.size * count
        if axis.size < 0 or work > _LARGEST_MATRIX or not axis.scale > 0:
            raise node.unsupported("so large a size", axis.size)
        if count == 0:
            raise node.wrong("nothing can be resized", x.type)
        plain = axis.size == count and axis.scale == 1.0
        if plain and rules.transformation != "tf_crop_and_resize":
            continue
        if rules.transformation == "tf_crop_and_resize":
            place = coordinates(count, axis, rules)
            beyond = (place < 0) | (place > count - 1)
            shape = [axis.size if j == k else 1 for j in range(x.rank)]
            flags = node.literal(beyond.reshape(shape))
            outside = flags if outside is None else a.logical_or(outside, flags)
        if rules.mode == "nearest":
            x = gather(x, node.literal(picks(count, axis, rules)), k)
        else:
            if not x.dtype.is_float:
                raise node.unsupported("interpolating whole numbers", x.type)
            weights = node.literal(matrix(count, axis, rules).astype(x.dtype.numpy))
            letters = "abcdefghij"[: x.rank]
            changed = letters[:k] + "o" + letters[k + 1 :]
            x = contract(f"{letters},o{letters[k]}->{changed}", x, weights)
    if outside is not None:
        x = where(outside, node.number(rules.extrapolation, x.dtype), x)
    return x


def _rules(node: Node, transformation: str, nearest: str) -> Rules:
    mode = node.get_string("mode", "nearest")
    return Rules(
        {"bilinear": "linear", "trilinear": "linear"}.get(mode, mode),
        node.get_string("coordinate_transformation_mode", transformation),
        node.get_string("nearest_mode", nearest),
        node.get_float("cubic_coeff_a", -0.75),
        node.get_flag("exclude_outside"),
        node.get_flag("antialias"),
        node.get_float("extrapolation_value", 0.0),
    )


def _by_scales(node: Node, x: Value, scales: list[float], rules: Rules) -> Value:
    if len(scales) != x.rank or not all(0 < s < 2**31 for s in scales):
        raise node.wrong("one positive scale an axis is needed", scales, x.rank)
    axes = [
        Axis(k, math.floor(fixed(node, x.shape[k], "an axis that is resized") * s), s, (0, 1))
        for k, s in enumerate(scales)
        if s != 1.0
    ]
    return resized(node, x, axes, rules)


def upsample(node: Node) -> Value:
    x = node.tensor(0)
    scales = node.get_floats("scales") if node.opset < 9 else [float(s) for s in node.known(1)]
    return _by_scales(node, x, scales, _rules(node, "asymmetric", "floor"))


def resize_10(node: Node) -> Value:
    scales = [float(s) for s in node.known(1)]
    return _by_scales(node, node.tensor(0), scales, _rules(node, "asymmetric", "floor"))


def resize(node: Node) -> Value:
    """Operands: x, region of interest, scales, sizes; one of the last two is given."""
    x = node.tensor(0)
    rules = _rules(node, "half_pixel", "round_prefer_floor")
    chosen = tuple(node.axis(k, x.rank) for k in node.get_ints("axes", tuple(range(x.rank))))
    roi = [0.0] * len(chosen) + [1.0] * len(chosen)
    if rules.transformation == "tf_crop_and_resize":
        roi = [float(v) for v in node.known(1)]
        if len(roi) != 2 * len(chosen):
            raise node.wrong("the region has not two numbers an axis", len(roi), 2 * len(chosen))
    by_scale = node.has(2) and (not node.is_known(2) or node.known(2).size > 0)
    if by_scale == (node.has(3) and (not node.is_known(3) or node.known(3).size > 0)):
        raise node.wrong("either scales or sizes are needed")
    counts = {
        k: fixed(node, x.shape[k], "an axis that is resized")
        for j, k in enumerate(chosen)
        if not (by_scale and _is_one(node, j))
    }
    if by_scale:
        scales = [float(s) for s in node.known(2).reshape(-1)]
        sizes = [math.floor(counts.get(k, 1) * s) for k, s in zip(chosen, scales, strict=True)]
    else:
        sizes = list(node.integers(3))
        scales = [n / counts[k] for n, k in zip(sizes, chosen, strict=True)]
        policy = node.get_string("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            scale = min(scales) if policy == "not_larger" else max(scales)
            scales = [scale] * len(scales)
            sizes = [math.floor(scale * counts[k] + 0.5) for k in chosen]
    axes = [
        Axis(k, size, scale, (roi[j], roi[len(chosen) + j]))
        for j, (k, size, scale) in enumerate(zip(chosen, sizes, scales, strict=True))
        if k in counts
    ]
    return resized(node, x, axes, rules)


def _is_one(node: Node, position: int) -> bool:
    scales = node.known(2).reshape(-1)
    whole = node.get_string("coordinate_transformation_mode", "") != "tf_crop_and_resize"
    return whole and position < len(scales) and float(scales[position]) == 1.0


TABLE: Table = {
    "Upsample": upsample,
    "Resize": {10: resize_10, 11: resize},
}
