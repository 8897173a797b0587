"""Discrete Fourier transforms as products with matrices of cosines and sines.

Complex numbers are a last axis of two, real and imaginary part.
"""

from __future__ import annotations

import math

import numpy as np

from ....ir.brick import Array
from ....ir.bricks import arithmetic as a
from ....ir.bricks.contract import contract
from ....ir.bricks.shape import concat, pad, transpose
from ....ir.bricks.unfold import unfold
from ....ir.value import Value
from ..node import Node
from .kind import Table
from .movement import cut, fixed
from .shapes import squeezed, unsqueezed

__all__ = ["TABLE"]

#: elements of one matrix
_LARGEST_MATRIX = 2**24


def _angles(node: Node, rows: int, columns: int, length: int) -> Array:
    """2π·n·k/length, with n·k taken modulo the length so that it stays exact."""
    if length < 1 or rows * columns > _LARGEST_MATRIX:
        raise node.unsupported("so long a transform", length)
    turns = np.multiply.outer(np.arange(rows), np.arange(columns)) % length
    return np.asarray(2 * math.pi * turns / length)


def _times(node: Node, x: Value, matrix: Array) -> Value:
    """The last axis of x times the matrix."""
    letters = "abcdefgh"[: x.rank - 1]
    weights = node.literal(matrix.astype(x.dtype.numpy))
    return contract(f"{letters}m,mn->{letters}n", x, weights)


def _fitted(node: Node, x: Value, length: int) -> Value:
    """The last axis cut or filled with zeros to the length."""
    size = fixed(node, x.shape[-1], "a transform")
    if size >= length:
        return cut(x, x.rank - 1, 0, length)
    return pad(x, [0] * x.rank, [0] * (x.rank - 1) + [length - size])


def _parts(node: Node, x: Value, axis: int) -> tuple[Value, Value | None]:
    """Real and imaginary part with the axis last; None for numbers that are real."""
    last = x.rank - 1
    width = fixed(node, x.shape[last], "the last axis")
    if width not in (1, 2) or axis == last or not x.dtype.is_float or x.rank > 8:
        raise node.wrong("the last axis is no number", x.type)
    order = [k for k in range(last) if k != axis] + [axis]
    found = []
    for k in range(width):
        found.append(transpose(squeezed(cut(x, last, k, k + 1), (last,)), order))
    return found[0], found[1] if width == 2 else None


def _joined(parts: list[Value], axis: int, rank: int) -> Value:
    """The last axis back at its place, the parts along a new last axis."""
    order = list(range(rank - 2))
    order.insert(axis, rank - 2)
    moved = [unsqueezed(transpose(p, order), (rank - 1,)) for p in parts]
    return moved[0] if len(moved) == 1 else concat(moved, rank - 1)


def transform(node: Node, x: Value, axis: int, length: int, inverse: bool, onesided: bool) -> Value:
    real, imaginary = _parts(node, x, axis)
    if inverse and onesided:
        if imaginary is None:
            raise node.wrong("half a spectrum of real numbers", x.type)
        count = length // 2 + 1
        real, imaginary = _fitted(node, real, count), _fitted(node, imaginary, count)
        angles = _angles(node, count, length, length)
        # every frequency but the first and the middle one stands for two
        twice = np.array([1 if 2 * k in (0, length) else 2 for k in range(count)])[:, None]
        scale = twice / length
        signal = a.sub(_times(node, real, np.cos(angles) * scale),
                       _times(node, imaginary, np.sin(angles) * scale))  # fmt: skip
        return _joined([signal], axis, x.rank)
    count = length // 2 + 1 if onesided else length
    angles = _angles(node, length, count, length)
    cosines, sines = np.cos(angles), np.sin(angles) * (1 if inverse else -1)
    if inverse:
        cosines, sines = cosines / length, sines / length
    real = _fitted(node, real, length)
    re, im = _times(node, real, cosines), _times(node, real, sines)
    if imaginary is not None:
        imaginary = _fitted(node, imaginary, length)
        re = a.sub(re, _times(node, imaginary, sines))
        im = a.add(im, _times(node, imaginary, cosines))
    return _joined([re, im], axis, x.rank)


def dft(node: Node) -> Value:
    """Until opset 19 the axis is an attribute, then operand 2."""
    x = node.tensor(0)
    if node.opset < 20:
        given = node.get_int("axis", 1)
    else:
        given = int(node.scalar(2)) if node.has(2) else -2
    axis = node.axis(given, x.rank)
    inverse, onesided = node.get_flag("inverse"), node.get_flag("onesided")
    size = fixed(node, x.shape[axis], "a transform")
    usual = 2 * (size - 1) if inverse and onesided else size
    length = int(node.scalar(1)) if node.has(1) else usual
    return transform(node, x, axis, length, inverse, onesided)


def stft(node: Node) -> Value:
    """Frames [N, F, L], weighted by the window, each transformed."""
    x, step = node.tensor(0), int(node.scalar(1))
    if x.rank != 3:
        raise node.wrong("the signal is no [N, L, 1 or 2]", x.type)
    window = node.tensor(2) if node.has(2) else None
    if node.has(3):
        length = int(node.scalar(3))
    elif window is not None:
        length = fixed(node, window.shape[0], "the window")
    else:
        raise node.wrong("neither a window nor a length")
    if step < 1 or length < 1:
        raise node.wrong("impossible frames", f"{length} every {step}")
    frames = transpose(unfold(x, 1, length, step), (0, 1, 3, 2))
    if window is not None:
        frames = a.mul(frames, unsqueezed(window, (1,)))
    return transform(node, frames, 2, length, False, node.get_flag("onesided", True))


TABLE: Table = {"DFT": dft, "STFT": stft}
