"""Losses and accuracy.

Source: the layers of the same names in caffe/layers
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...ir.bricks.source import dim_size, iota
from ...ir.dims import Size, product
from ...ir.types import TensorType
from .. import functional as fn
from .. import trace
from ..trace import Tensor
from .call import Call, axis_of, fixed

__all__ = ["accuracy", "contrastive", "euclidean", "hinge", "infogain", "multinomial", "sigmoid",
           "softmax"]  # fmt: skip

#: chances below this are taken for it where a logarithm is needed
_LEAST = 1e-20


def _all(call: Call, x: Tensor) -> Tensor:
    """The sum of what belongs to examples that count; axis 0 of x are the examples."""
    if call.mask is not None:
        wide = call.mask.reshape(x.shape[0], *(1,) * (x.rank - 1))
        x = fn.where(wide, x, 0.0)
    return fn.reduce_sum(x, tuple(range(x.rank)))


def _count(call: Call, x: Tensor, sizes: Sequence[Size]) -> Tensor:
    """How many elements there are; the first of the sizes are the examples."""
    if call.mask is None or not sizes:
        return trace.call(dim_size, x, product(sizes), x.dtype)
    some = fn.reduce_sum(call.mask.astype(x.dtype), (0,))
    rest = trace.call(dim_size, x, product(sizes[1:]), x.dtype)
    return fn.maximum(some * rest, 1.0)


def _labels(call: Call, x: Tensor, axis: int, *, anything: bool = False) -> Tensor:
    """The labels, one for every place of x beside the class axis."""
    classes = fixed(call, x.shape[axis], "the class axis")
    labels = call.indices(1, classes, anything=anything)
    wanted = (*x.shape[:axis], *x.shape[axis + 1 :])
    if product(labels.shape) != product(wanted):
        raise call.fail("the number of labels does not fit the predictions",
                        got=labels.type, expected=x.type)  # fmt: skip
    return labels if labels.shape == wanted else labels.reshape(*wanted)


def _is_label(x: Tensor, labels: Tensor, axis: int) -> Tensor:
    """True where the class is the label."""
    ones = tuple(n if a == axis else 1 for a, n in enumerate(x.shape))
    classes = trace.call(iota, x, TensorType(labels.dtype, ones), axis)
    wide = (*labels.shape[:axis], 1, *labels.shape[axis:])
    return fn.equal(classes, labels.reshape(*wide))


def _normalizer(call: Call, x: Tensor, labels: Sequence[Size], outer: Sequence[Size],
                mode: str, valid: Tensor | None) -> Tensor:  # fmt: skip
    """What a loss is divided by, at least 1; ``valid`` is 1 where a label counts."""
    match mode:
        case "NONE":
            return _count(call, x, ())
        case "BATCH_SIZE":
            return _count(call, x, outer)
        case "VALID" if valid is not None:
            return fn.maximum(_all(call, valid), 1.0)
        case _:
            return _count(call, x, labels)


def _mode(call: Call, default: str) -> str:
    """normalization, or what the older ``normalize`` says."""
    given = call.sub("loss_param")
    if given.has("normalization"):
        return given.text("normalization")
    if given.has("normalize"):
        return "VALID" if given.flag("normalize") else "BATCH_SIZE"
    return default


def _valid(call: Call, labels: Tensor, like: Tensor) -> Tensor | None:
    """1 where a label is not to be ignored; None if all count."""
    given = call.sub("loss_param")
    if not given.has("ignore_label"):
        return None
    return fn.not_equal(labels, given.integer("ignore_label")).astype(like.dtype)


def softmax(call: Call) -> list[Tensor]:
    """The mean of -log softmax(x)[label]; the second top holds the softmax."""
    call.expect(2)
    x = call.x()
    axis = axis_of(call, call.sub("softmax_param").integer("axis"), x.rank)
    ignores = call.sub("loss_param").has("ignore_label")
    labels = _labels(call, x, axis, anything=ignores)
    mode = _mode(call, "VALID")
    plain = axis == 1 and not ignores and call.mask is None
    if plain and (mode in ("VALID", "FULL") or (mode == "BATCH_SIZE" and x.rank == 2)):
        loss = fn.softmax_loss(x, labels)
    else:
        chosen = fn.where(_is_label(x, labels, axis), fn.log_softmax(x, axis), 0.0)
        each = fn.neg(fn.reduce_sum(chosen, (axis,)))
        valid = _valid(call, labels, x)
        each = each if valid is None else each * valid
        outer = x.shape[:axis]
        loss = _all(call, each) / _normalizer(call, x, labels.shape, outer, mode, valid)
    return [loss, fn.softmax(x, axis)] if len(call.tops) > 1 else [loss]


def euclidean(call: Call) -> list[Tensor]:
    """Half the squared distance, divided by the number of examples."""
    call.expect(2)
    a, b = call.x(0), call.x(1)
    if a.rank < 1 or b.rank < 1 or a.shape[0] != b.shape[0] or (
        product(a.shape[1:]) != product(b.shape[1:])
    ):  # fmt: skip
        raise call.fail("the bottoms do not fit", got=f"{a.type} and {b.type}")
    gap = a - (b if a.shape == b.shape else b.reshape(*a.shape))
    return [_all(call, fn.square(gap)) * 0.5 / _count(call, a, a.shape[:1])]


def hinge(call: Call) -> list[Tensor]:
    """Margins one against all: the sum of max(0, 1 ± x), or of their squares, over N."""
    call.expect(2)
    x = call.x()
    if x.rank < 2:
        raise call.fail("the predictions have no classes", got=x.type)
    flat = x.flatten()
    classes = fixed(call, flat.shape[1], "the classes")
    labels = call.indices(1, classes)
    if product(labels.shape) != x.shape[0]:
        raise call.fail("one label for each example", got=labels.type, expected=x.type)
    right = _is_label(flat, labels.reshape(x.shape[0]), 1)
    margins = fn.relu(fn.where(right, fn.neg(flat), flat) + 1.0)
    if call.sub("hinge_loss_param").text("norm") == "L2":
        margins = fn.square(margins)
    return [_all(call, margins) / _count(call, x, x.shape[:1])]


def contrastive(call: Call) -> list[Tensor]:
    """1/2N · sum of y·d² + (1-y)·max(margin - d, 0)²; the legacy version has margin - d² there.

    The slope of d is Caffe's, 1/(d + 1e-4), so that equal points have one.
    """
    call.expect(3)
    a, b = call.x(0), call.x(1)
    if a.rank < 2 or a.shape != b.shape:
        raise call.fail("the bottoms do not fit", got=f"{a.type} and {b.type}")
    flag = call.bottoms[2]
    if product(flag.shape) != a.shape[0]:
        raise call.fail("one label for each pair", got=flag.type, expected=a.type)
    given = call.sub("contrastive_loss_param")
    margin = given.real("margin")
    alike = fn.not_equal(flag.reshape(a.shape[0]), 0 if flag.dtype.is_integer else 0.0)
    squares = fn.square(a - b).flatten()
    far = fn.reduce_sum(squares, (1,))
    if given.flag("legacy_version"):
        apart = fn.relu(margin - far)
    else:
        level = fn.stop_gradient(fn.sqrt(far))
        distance = level + (far - fn.stop_gradient(far)) / ((level + 1e-4) * 2.0)
        apart = fn.square(fn.relu(margin - distance))
    return [_all(call, fn.where(alike, far, apart)) * 0.5 / _count(call, a, a.shape[:1])]


def multinomial(call: Call) -> list[Tensor]:
    """The mean of -log p[label] of chances p."""
    call.expect(2)
    x = call.x()
    if x.rank < 2:
        raise call.fail("the predictions have no classes", got=x.type)
    flat = x.flatten()
    labels = call.indices(1, fixed(call, flat.shape[1], "the classes"))
    if product(labels.shape) != x.shape[0]:
        raise call.fail("one label for each example", got=labels.type, expected=x.type)
    right = _is_label(flat, labels.reshape(x.shape[0]), 1)
    chance = fn.reduce_sum(fn.where(right, flat, 0.0), (1,))
    floor = fn.stop_gradient(fn.maximum(chance, _LEAST))
    # below the threshold the slope is still that of the logarithm there
    logarithm = fn.log(floor) + (chance - fn.stop_gradient(chance)) / floor
    return [fn.neg(_all(call, logarithm)) / _count(call, x, x.shape[:1])]


def infogain(call: Call) -> list[Tensor]:
    """The mean of -sum over j of H[label, j]·log softmax(x)[j]; H is a file or the third bottom.

    Since 2017 the layer takes scores, not chances, and applies the softmax itself.
    """
    call.expect(2, 3)
    x, given = call.x(), call.sub("infogain_loss_param")
    axis = axis_of(call, given.integer("axis"), x.rank)
    if call.sub("loss_param").has("normalize"):
        raise call.fail("normalize is obsolete here", expected="normalization")
    ignores = call.sub("loss_param").has("ignore_label")
    labels = _labels(call, x, axis, anything=ignores)
    size = fixed(call, x.shape[axis], "the class axis")
    if len(call.bottoms) == 3:
        table = call.x(2)
        if product(table.shape) != size * size:
            raise call.fail("H is no square of the classes", got=table.type, expected=size)
        table = table.reshape(size, size)
    else:
        table = _matrix(call, given.text("source"), size)
    logs = fn.log_softmax(x, axis)
    clipped = logs + fn.stop_gradient(fn.maximum(logs, math.log(_LEAST)) - logs)
    # rows of H for every label, with the classes on x's class axis
    hot = _is_label(x, labels, axis).astype(x.dtype)
    rows = fn.matmul(_last(hot, axis), table)
    each = fn.neg(fn.reduce_sum(rows * _last(clipped, axis), (rows.rank - 1,)))
    valid = _valid(call, labels, x)
    each = each if valid is None else each * valid
    mode = call.sub("loss_param").text("normalization")
    loss = _all(call, each) / _normalizer(call, x, labels.shape, x.shape[:axis], mode, valid)
    return [loss, fn.softmax(x, axis)] if len(call.tops) > 1 else [loss]


def _last(x: Tensor, axis: int) -> Tensor:
    """x with one axis moved to the end."""
    return x if axis == x.rank - 1 else x.transpose(*(a for a in range(x.rank) if a != axis), axis)


def _matrix(call: Call, source: str, size: int) -> Tensor:
    from .binary import read_blob

    if call.net.find is None or not source:
        raise call.fail("H is missing", expected="a third bottom, or infogain_loss_param.source")
    path = call.net.find(source)
    if path is None:
        raise call.fail("the file with H is not there", got=repr(source)[:80],
                        expected="a file in the network's folder")  # fmt: skip
    blob = read_blob(path)
    if blob.size != size * size:
        raise call.fail("H is no square of the classes", got=list(blob.shape), expected=size)
    return trace.literal(blob.reshape(size, size).astype(np.float32))


def sigmoid(call: Call) -> list[Tensor]:
    """Cross entropy of logistic(x) with targets in 0..1, summed; by default over N."""
    call.expect(2)
    x, t = call.x(0), fn.stop_gradient(call.x(1))
    if x.rank < 1 or product(x.shape) != product(t.shape):
        raise call.fail("the bottoms do not fit", got=f"{x.type} and {t.type}")
    t = t if t.shape == x.shape else t.reshape(*x.shape)
    each = fn.softplus(x) - x * t
    valid = None
    given = call.sub("loss_param")
    if given.has("ignore_label"):
        valid = fn.not_equal(t, float(given.integer("ignore_label"))).astype(x.dtype)
        each = fn.where(fn.not_equal(valid, 0.0), each, 0.0)
    mode = _mode(call, "BATCH_SIZE")
    return [_all(call, each) / _normalizer(call, x, x.shape, x.shape[:1], mode, valid)]


def accuracy(call: Call) -> list[Tensor]:
    """The share of examples with fewer than top_k classes beside the label's at least as large.

    The second top holds the share for every class.
    """
    call.expect(2)
    given, x = call.sub("accuracy_param"), fn.stop_gradient(call.x())
    axis = axis_of(call, given.integer("axis"), x.rank)
    ignores = given.has("ignore_label")
    labels = _labels(call, x, axis, anything=ignores)
    classes, count = fixed(call, x.shape[axis], "the class axis"), given.integer("top_k")
    if not 1 <= count <= classes:
        raise call.fail("impossible top_k", got=count, expected=f"1..{classes}")
    right = _is_label(x, labels, axis)
    own = fn.reduce_sum(fn.where(right, x, 0.0), (axis,), True)
    better = fn.reduce_sum(fn.greater_equal(x, own).astype("f32"), (axis,))
    hits = fn.less_equal(better, float(count)).astype("f32")
    valid = None
    if ignores:
        valid = fn.not_equal(labels, given.integer("ignore_label")).astype("f32")
        hits = hits * valid
    total = (
        _count(call, hits, labels.shape) if valid is None else fn.maximum(_all(call, valid), 1.0)
    )
    tops = [_all(call, hits) / total]
    if len(call.tops) > 1:
        member = right.astype("f32")
        wide = (*labels.shape[:axis], 1, *labels.shape[axis:])
        if valid is not None:
            member = member * valid.reshape(*wide)
        if call.mask is not None:
            member = member * call.mask.astype("f32").reshape(x.shape[0], *(1,) * (x.rank - 1))
        axes = tuple(a for a in range(x.rank) if a != axis)
        there = fn.reduce_sum(member, axes)
        found = fn.reduce_sum(member * hits.reshape(*wide), axes)
        tops.append(found / fn.maximum(there, 1.0))
    return tops
