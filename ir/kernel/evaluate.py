"""What a kernel means, element by element: the oracle for what backends make of it.

Nothing is computed but the elements that are asked for, so that a few hundred of a large kernel
cost little. Every anchor is its definition, written over the taps that reach one element of its
value; floats are computed in double precision. Slow, obvious, and of no use to a backend.

Over 500 lines: one method for each anchor, which say the same thing in the same words.

Positions are lists of integer arrays, one an axis, which broadcast against each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InternalError
from ..dims import Size, evaluate
from ..dtypes import DType
from . import anchors
from .kernel import Kernel, Pool, Region
from .memory import Access
from .scalar import Instr

__all__ = ["Memory", "cost_of", "elements_of", "stored"]

Array = npt.NDArray[Any]
At = Sequence[Array]

#: buffer -> its elements, flat
Memory = Mapping[str, Array]

_WORD = np.uint64(0xFFFFFFFF)


def _each(function: Callable[[float], float]) -> Callable[[Array], Array]:
    def apply(x: Array) -> Array:
        return np.fromiter((function(v) for v in x.ravel()), np.float64, x.size).reshape(x.shape)

    return apply


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative,
    "min": np.minimum, "max": np.maximum, "pow": np.power, "exp": np.exp, "expm1": np.expm1,
    "log": np.log, "log1p": np.log1p, "sqrt": np.sqrt, "tanh": np.tanh, "abs": np.abs,
    "sign": np.sign, "sin": np.sin, "cos": np.cos, "floor": np.floor, "ceil": np.ceil,
    "logistic": lambda x: 0.5 * (1 + np.tanh(0.5 * x)),
    "softplus": lambda x: np.logaddexp(0, x), "erf": _each(math.erf),
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "eq": np.equal, "ne": np.not_equal, "select": np.where, "and": np.logical_and,
    "or": np.logical_or, "not": np.logical_not,
}  # fmt: skip


def stored(kernel: Kernel, memory: Memory, dims: Mapping[str, int], at: At) -> list[Array]:
    """The elements that the kernel's last region stores at a position, one array a store.

    They come from the memory as it is before the kernel runs, floats unrounded in f64.
    """
    with np.errstate(all="ignore"):
        evaluator = _Evaluator(kernel, memory, dims)
        return evaluator.after(at) if kernel.pool is None else evaluator.pooled(kernel.pool, at)


def elements_of(access: Access, dims: Mapping[str, int], at: At) -> Array:
    """Where in its flat buffer the access has its elements."""
    index: Any = evaluate(access.offset, dims)
    for position, stride in zip(at, access.strides, strict=True):
        index = index + position * evaluate(stride, dims)
    return np.asarray(index)


def cost_of(kernel: Kernel, dims: Mapping[str, int]) -> int:
    """Elements that one element of the value is made of, about."""

    def total(sizes: Sequence[Size]) -> int:
        return math.prod(evaluate(n, dims) for n in sizes)

    if kernel.pool is not None:
        return math.prod(kernel.pool.window) * cost_of(replace(kernel, pool=None), dims)
    match kernel.anchor:
        case anchors.Contract(a, b, result):
            sizes = dict(zip(a + b, [n for o in kernel.operands for n in o.shape], strict=False))
            return total([n for c, n in sizes.items() if c not in result])
        case anchors.Reduce(axes=axes):
            shape = kernel.before.shape if kernel.before else kernel.operands[0].shape
            return total([shape[a] for a in axes])
        case anchors.ArgReduce(axis=axis):
            return total([kernel.operands[0].shape[axis]])
        case anchors.WindowMaxScatter(window=window):
            return math.prod(window) ** 2
        case anchors.WindowSum() | anchors.WindowSumGrad() | anchors.WindowMax() as anchor:
            return math.prod(anchor.window)
        case anchors.WindowMaxGather(window=window) | anchors.WindowArgMax(window=window):
            return math.prod(window)
        case anchors.PooledInputGrad(groups=groups):
            w = kernel.operands[2].shape
            return total([w[0], *w[2:]]) // groups
        case anchors.PooledWeightGrad(size=size):
            return total([kernel.operands[1].shape[0], *size])
        case anchors.Convolution():
            return total(kernel.operands[1].shape[1:])
        case anchors.ConvolutionInputGrad(groups=groups):
            w = kernel.operands[1].shape
            return total([w[0], *w[2:]]) // groups
        case anchors.ConvolutionWeightGrad():
            dy = kernel.operands[1].shape
            return total([dy[0], *dy[2:]])
        case anchors.ScatterAdd():
            return total(kernel.operands[0].shape)
    return 1


def _grid(*sizes: int) -> list[Array]:
    """All positions of an index space, flat, with an axis in front for the elements."""
    return [g.reshape(1, -1) for g in np.indices(sizes)] if sizes else []


class _Evaluator:
    def __init__(self, kernel: Kernel, memory: Memory, dims: Mapping[str, int]) -> None:
        self.kernel = kernel
        self.memory = memory
        self.dims = dims

    def sizes(self, shape: Sequence[Size]) -> list[int]:
        return [evaluate(n, self.dims) for n in shape]

    def read(self, access: Access, at: At, inside: Array | None = None) -> Array:
        """Elements of an access; outside, where ``inside`` is false, something or other."""
        index = elements_of(access, self.dims, at)
        if inside is not None:
            index = np.where(inside, index, evaluate(access.offset, self.dims))
        values = self.memory[access.buffer][index]
        if access.dtype is DType.BOOL:
            return np.asarray(values != 0)
        return values.astype(np.float64) if access.dtype.is_float else values

    # -- regions -------------------------------------------------------------------------------

    def after(self, at: At) -> list[Array]:
        region = self.kernel.after
        values = [] if self.kernel.anchor is None else [self.value(at)]
        shape = np.broadcast_shapes((1,), *(a.shape for a in at))
        return [np.broadcast_to(r, shape) for r in self.region(region, at, values)]

    def pooled(self, pool: Pool, at: At) -> list[Array]:
        """What the region after the pool stores, at places of the pooled index space."""
        found = []
        for tap in np.ndindex(*pool.window):
            place = [p * k + t for p, k, t in zip(at, pool.window, tap, strict=True)]
            region = self.kernel.after
            found.append(self.results(region, place, [self.value(place)])[pool.source])
        parts = np.stack([np.asarray(f).reshape(-1) for f in found])
        values = [parts.sum(0) if pool.op == "sum" else parts.max(0)]
        if pool.numbered:
            values.append(parts.argmax(0))  # takes the first NaN where there is one
        return self.region(pool.after, at, values)

    def region(self, region: Region, at: At, values: list[Array]) -> list[Array]:
        """The values that a region stores, in the order of its stores."""
        found = self.results(region, at, values)
        return [found[position] for position, _ in region.stores]

    def results(self, region: Region, at: At, values: list[Array]) -> list[Array]:
        values = values + [self.read(access, at) for access in region.loads]
        program = region.program
        for instr in program.instrs:
            values.append(self.instr(instr, [values[a] for a in instr.args], values, program.dtype))
        return [values[r] for r in program.results]

    def instr(
        self,
        instr: Instr,
        args: Sequence[Array],
        values: Sequence[Array],
        dtype_of: Callable[[int], DType],
    ) -> Array:
        wide = np.dtype(np.float64) if instr.dtype.is_float else instr.dtype.numpy
        match instr.op:
            case "const":
                # a literal has its dtype's precision
                return np.asarray(instr.literal, instr.dtype.numpy).astype(wide)
            case "size":
                assert instr.size is not None
                return np.asarray(evaluate(instr.size, self.dims)).astype(wide)
            case "cast":
                if instr.dtype is DType.BOOL:
                    return np.asarray(args[0] != 0)
                return args[0].astype(wide)
            case "div":
                if instr.dtype.is_float:
                    return np.asarray(np.divide(*args))
                # integers divide towards zero, as in C
                return np.asarray(np.trunc(np.divide(*args)), wide)
        function = _FUNCTIONS.get(instr.op)
        if function is None:
            raise InternalError(f"no definition of the instruction {instr.op}")
        return np.asarray(function(*args))

    # -- anchors -------------------------------------------------------------------------------

    def value(self, at: At) -> Array:
        """The anchor's value."""
        anchor = self.kernel.anchor
        # one axis for the elements, one behind it for taps
        at = [np.reshape(a, (-1, 1)) for a in at]
        match anchor:
            case anchors.Contract():
                return self.contract(anchor, at)
            case anchors.Reduce():
                return self.reduce(anchor, at)
            case anchors.ArgReduce():
                return self.arg_reduce(anchor, at)
            case anchors.WindowSum() | anchors.WindowMax():
                return self.window(anchor, at)
            case anchors.WindowSumGrad():
                return self.window_sum_grad(anchor, at)
            case anchors.WindowMaxScatter():
                return self.window_max_scatter(anchor, at)
            case anchors.WindowMaxGather():
                return self.window_max_gather(anchor, at)
            case anchors.WindowArgMax():
                return self.window_arg_max(anchor, at)
            case anchors.PooledInputGrad():
                return self.pooled_input_grad(anchor, at)
            case anchors.PooledWeightGrad():
                return self.pooled_weight_grad(anchor, at)
            case anchors.Convolution():
                return self.convolution(anchor, at)
            case anchors.ConvolutionInputGrad():
                return self.convolution_input_grad(anchor, at)
            case anchors.ConvolutionWeightGrad():
                return self.convolution_weight_grad(anchor, at)
            case anchors.Fold():
                return self.fold(anchor, at)
            case anchors.Pad():
                return self.pad(anchor, at)
            case anchors.Concat():
                return self.concat(anchor, at)
            case anchors.Gather():
                x, indices = self.kernel.operands
                count = len(indices.shape)
                number = self.read(indices, at[anchor.axis : anchor.axis + count])
                return self.read(x, [*at[: anchor.axis], number, *at[anchor.axis + count :]])[:, 0]
            case anchors.ScatterAdd():
                return self.scatter_add(anchor, at)
            case anchors.Iota():
                return at[anchor.axis][:, 0]
            case anchors.RandomUniform():
                return self.random_uniform(anchor, at)
        raise InternalError(f"no definition of the anchor {self.kernel.kind}")

    def contract(self, anchor: anchors.Contract, at: At) -> Array:
        a, b = self.kernel.operands
        sizes = dict(zip(anchor.a, self.sizes(a.shape), strict=True))
        sizes |= dict(zip(anchor.b, self.sizes(b.shape), strict=True))
        summed = [c for c in sizes if c not in anchor.result]
        place = dict(zip(anchor.result, at, strict=True))
        place |= dict(zip(summed, _grid(*(sizes[c] for c in summed)), strict=True))
        left = self.read(a, [place[c] for c in anchor.a])
        right = self.read(b, [place[c] for c in anchor.b])
        return np.asarray((left * right).sum(-1))

    def reduce(self, anchor: anchors.Reduce, at: At) -> Array:
        before = self.kernel.before
        shape = self.sizes(before.shape if before else self.kernel.operands[0].shape)
        taps = dict(zip(anchor.axes, _grid(*(shape[a] for a in anchor.axes)), strict=True))
        kept = iter([x for k, x in enumerate(at) if not (anchor.keepdims and k in anchor.axes)])
        place = [taps[a] if a in taps else next(kept) for a in range(len(shape))]
        if before is None:
            values = self.read(self.kernel.operands[0], place)
        else:
            values = self.results(before, place, [])[0]
            values = np.broadcast_to(values, np.broadcast_shapes(*(p.shape for p in place)))
        function: Any = {"sum": np.sum, "max": np.max, "min": np.min}[anchor.op]
        return np.asarray(function(values, axis=-1)).reshape(-1)

    def arg_reduce(self, anchor: anchors.ArgReduce, at: At) -> Array:
        (x,) = self.kernel.operands
        (along,) = _grid(self.sizes(x.shape)[anchor.axis])
        rest = at[anchor.axis + 1 :] if anchor.keepdims else at[anchor.axis :]
        values = self.read(x, [*at[: anchor.axis], along, *rest])
        return np.asarray((np.argmax if anchor.op == "max" else np.argmin)(values, axis=-1))

    def window(self, anchor: anchors.WindowSum | anchors.WindowMax, at: At) -> Array:
        (x,) = self.kernel.operands
        place, inside = self._taken(anchor, x, at, _grid(*anchor.window))
        values = self.read(x, place, inside)
        if isinstance(anchor, anchors.WindowSum):
            return np.asarray(np.where(inside, values, 0).sum(-1))
        return np.asarray(np.where(inside, values, -np.inf).max(-1))

    def _taken(
        self, anchor: Any, x: Access, at: Sequence[Any], taps: Sequence[Any]
    ) -> tuple[list[Array], Array]:
        """Places of a window's taps in the image, and which of them are not padding."""
        place = []
        inside: Any = True
        for a, size in enumerate(self.sizes(x.shape)):
            here = at[a] * anchor.stride[a] - anchor.padding[a][0] + taps[a]
            inside = inside & (here >= 0) & (here < size)
            place.append(here)
        return place, np.asarray(inside)

    def _windows(
        self, anchor: Any, count: Sequence[int], at: At, taps: Sequence[Array]
    ) -> tuple[list[Array], Array]:
        """The window that has a place of the image as its tap, and whether there is one."""
        place = []
        there: Any = True
        for a, size in enumerate(count):
            reach = at[a] + anchor.padding[a][0] - taps[a]
            number = reach // anchor.stride[a]
            there = there & (reach % anchor.stride[a] == 0) & (number >= 0) & (number < size)
            place.append(number)
        return place, np.asarray(there)

    def window_sum_grad(self, anchor: anchors.WindowSumGrad, at: At) -> Array:
        (dy,) = self.kernel.operands
        place, there = self._windows(anchor, self.sizes(dy.shape), at, _grid(*anchor.window))
        return np.asarray(np.where(there, self.read(dy, place, there), 0).sum(-1))

    def _winner(self, anchor: Any, place: Sequence[Array]) -> tuple[Array, Array]:
        """The number of the first tap that is the maximum of a window, and whether one is."""
        x, y, _ = self.kernel.operands
        wide = [p[..., None] for p in place]
        taps, inside = self._taken(anchor, x, wide, _grid(*anchor.window))
        values = self.read(x, taps, inside)
        # a window outside the image has no winner; reading needs a place all the same
        known = np.ones(np.broadcast_shapes(*(p.shape for p in place)), np.bool_)
        for p, size in zip(place, self.sizes(y.shape), strict=True):
            known &= (p >= 0) & (p < size)
        top = self.read(y, place, known)[..., None]
        hits = inside & ((values == top) | np.isnan(values)) & known[..., None]
        return hits.argmax(-1), hits.any(-1)

    def window_max_scatter(self, anchor: anchors.WindowMaxScatter, at: At) -> Array:
        _, y, v = self.kernel.operands
        place, there = self._windows(anchor, self.sizes(y.shape), at, _grid(*anchor.window))
        number, some = self._winner(anchor, place)
        mine = there & some & (number == np.arange(math.prod(anchor.window)))
        return np.asarray(np.where(mine, self.read(v, place, there), 0).sum(-1))

    def window_max_gather(self, anchor: anchors.WindowMaxGather, at: At) -> Array:
        x, _, v = self.kernel.operands
        number, some = self._winner(anchor, at)
        taps = [t.reshape(-1)[number] for t in _grid(*anchor.window)]
        place, inside = self._taken(anchor, x, at, taps)
        return np.asarray(np.where(some & inside, self.read(v, place, inside), 0)[:, 0])

    def window_arg_max(self, anchor: anchors.WindowArgMax, at: At) -> Array:
        (x,) = self.kernel.operands
        place, inside = self._taken(anchor, x, at, _grid(*anchor.window))
        # NumPy's argmax takes the first NaN where there is one
        return np.asarray(self.read(x, place, inside).argmax(-1))

    def _unpooled(self, anchor: Any, index: Access, v: Access, at: At, there: Array) -> Array:
        """The gradient of the image at places: that of its window, at the winner's place."""
        number: Any = 0
        window = list(at[:2])
        for p, k, size in zip(at[2:], anchor.window, self.sizes(v.shape)[2:], strict=True):
            window.append(p // k)
            number = number * k + p % k
            there = there & (p // k < size)
        wins = there & (self.read(index, window, there) == number)
        return np.asarray(np.where(wins, self.read(v, window, there), 0))

    def convolution(self, anchor: anchors.Convolution, at: At) -> Array:
        x, w = self.kernel.operands
        sizes = self.sizes(w.shape)
        group = at[1] // (sizes[0] // anchor.groups)
        channel, *kernel = _grid(*sizes[1:])
        place, inside = self._through(anchor, x, at[2:], kernel)
        image = self.read(x, [at[0], group * sizes[1] + channel, *place], inside)
        weight = self.read(w, [at[1], channel, *kernel])
        return np.asarray(np.where(inside, image * weight, 0).sum(-1))

    def _through(
        self, anchor: Any, x: Access, at: At, kernel: Sequence[Array]
    ) -> tuple[list[Array], Array]:
        """Where in the image a tap of the kernel lies, and whether that is inside."""
        place = []
        inside: Any = True
        for a, size in enumerate(self.sizes(x.shape)[2:]):
            here = at[a] * anchor.stride[a] - anchor.padding[a][0] + kernel[a] * anchor.dilation[a]
            inside = inside & (here >= 0) & (here < size)
            place.append(here)
        return place, np.asarray(inside)

    def convolution_input_grad(self, anchor: anchors.ConvolutionInputGrad, at: At) -> Array:
        dy, w = self.kernel.operands

        def gradient(place: At, there: Array) -> Array:
            return self.read(dy, place, there)

        return self._input_grad(anchor, at, w, self.sizes(dy.shape)[2:], gradient)

    def pooled_input_grad(self, anchor: anchors.PooledInputGrad, at: At) -> Array:
        index, v, w = self.kernel.operands

        def gradient(place: At, there: Array) -> Array:
            return self._unpooled(anchor, index, v, place, there)

        return self._input_grad(anchor, at, w, anchor.size, gradient)

    def _input_grad(
        self,
        anchor: Any,
        at: At,
        w: Access,
        count: Sequence[int],
        gradient: Callable[[At, Array], Array],
    ) -> Array:
        outputs, channels, *extent = self.sizes(w.shape)
        group, channel = at[1] // channels, at[1] % channels
        o, *kernel = _grid(outputs // anchor.groups, *extent)
        o = group * (outputs // anchor.groups) + o
        place = []
        there: Any = True
        for a, size in enumerate(count):
            reach = at[2 + a] + anchor.padding[a][0] - kernel[a] * anchor.dilation[a]
            number = reach // anchor.stride[a]
            there = there & (reach % anchor.stride[a] == 0) & (number >= 0) & (number < size)
            place.append(number)
        values = gradient([at[0], o, *place], np.asarray(there))
        weight = self.read(w, [o, channel, *kernel])
        return np.asarray(np.where(there, values * weight, 0).sum(-1))

    def convolution_weight_grad(self, anchor: anchors.ConvolutionWeightGrad, at: At) -> Array:
        x, dy = self.kernel.operands
        batch, outputs, *count = self.sizes(dy.shape)
        return self._weight_grad(
            anchor, at, x, (batch, outputs, *count), lambda place: self.read(dy, place)
        )

    def pooled_weight_grad(self, anchor: anchors.PooledWeightGrad, at: At) -> Array:
        x, index, v = self.kernel.operands

        def gradient(place: At) -> Array:
            shape = np.broadcast_shapes(*(p.shape for p in place))
            return self._unpooled(anchor, index, v, place, np.ones(shape, np.bool_))

        batch, outputs = self.sizes(v.shape)[:2]
        return self._weight_grad(anchor, at, x, (batch, outputs, *anchor.size), gradient)

    def _weight_grad(
        self,
        anchor: Any,
        at: At,
        x: Access,
        shape: Sequence[int],
        gradient: Callable[[At], Array],
    ) -> Array:
        batch, outputs, *count = shape
        channels = self.sizes(x.shape)[1] // anchor.groups
        group = at[0] // (outputs // anchor.groups)
        n, *there = _grid(batch, *count)
        place, inside = self._through(anchor, x, there, at[2:])
        image = self.read(x, [n, group * channels + at[1], *place], inside)
        return np.asarray(np.where(inside, image * gradient([n, at[0], *there]), 0).sum(-1))

    def fold(self, anchor: anchors.Fold, at: At) -> Array:
        (x,) = self.kernel.operands
        sizes = self.sizes(x.shape)
        (k,) = _grid(sizes[-1])
        reach = at[anchor.axis] - k * anchor.dilation
        number = reach // anchor.stride
        there = (reach % anchor.stride == 0) & (number >= 0) & (number < sizes[anchor.axis])
        place = [*at[: anchor.axis], number, *at[anchor.axis + 1 :], k]
        return np.asarray(np.where(there, self.read(x, place, there), 0).sum(-1))

    def pad(self, anchor: anchors.Pad, at: At) -> Array:
        (x,) = self.kernel.operands
        place = []
        inside: Any = np.ones((1, 1), np.bool_)
        for a, size in enumerate(self.sizes(x.shape)):
            reach = at[a] - anchor.lo[a]
            number = reach // (anchor.interior[a] + 1)
            inside = inside & (reach % (anchor.interior[a] + 1) == 0)
            inside = inside & (number >= 0) & (number < size)
            place.append(number)
        values = self.read(x, place, inside)
        padding = np.asarray(anchor.value).astype(values.dtype)
        return np.asarray(np.where(inside, values, padding)[:, 0])

    def concat(self, anchor: anchors.Concat, at: At) -> Array:
        found: Array | None = None
        start = 0
        for x in self.kernel.operands:
            size = self.sizes(x.shape)[anchor.axis]
            number = at[anchor.axis] - start
            mine = (number >= 0) & (number < size)
            if size:
                place = [*at[: anchor.axis], number, *at[anchor.axis + 1 :]]
                inside = np.broadcast_to(mine, np.broadcast_shapes(*(p.shape for p in place)))
                values = self.read(x, place, inside)
                found = values if found is None else np.where(mine, values, found)
            start += size
        assert found is not None
        return np.asarray(found[:, 0])

    def scatter_add(self, anchor: anchors.ScatterAdd, at: At) -> Array:
        indices, updates = self.kernel.operands
        there = _grid(*self.sizes(indices.shape))
        mine = self.read(indices, there) == at[anchor.axis]
        values = self.read(updates, [*at[: anchor.axis], *there, *at[anchor.axis + 1 :]])
        return np.asarray(np.where(mine, values, 0).sum(-1))

    def random_uniform(self, anchor: anchors.RandomUniform, at: At) -> Array:
        seed, counter = (
            np.asarray(self.read(o, [])).astype(np.int64).reshape(()).view(np.uint64)
            for o in self.kernel.operands
        )
        index = np.zeros((1,), np.uint64)
        for position, size in zip(at, self.sizes(self.kernel.after.shape), strict=True):
            index = index * np.uint64(size) + position[:, 0].astype(np.uint64)
        rest = (anchor.stream, counter & _WORD, counter >> _WORD_BITS)
        words = [index // np.uint64(4), *(np.full_like(index, word) for word in rest)]
        keys = [seed & _WORD, seed >> _WORD_BITS]
        for _ in range(10):
            p0, p1 = words[0] * np.uint64(0xD2511F53), words[2] * np.uint64(0xCD9E8D57)
            words = [(p1 >> _WORD_BITS) ^ words[1] ^ keys[0], p1 & _WORD,
                     (p0 >> _WORD_BITS) ^ words[3] ^ keys[1], p0 & _WORD]  # fmt: skip
            keys = [(keys[0] + np.uint64(0x9E3779B9)) & _WORD,
                    (keys[1] + np.uint64(0xBB67AE85)) & _WORD]  # fmt: skip
        chosen = np.choose((index % np.uint64(4)).astype(np.int64), words)
        return np.asarray((chosen >> np.uint64(8)).astype(np.float64) * 2.0**-24)


_WORD_BITS = np.uint64(32)
