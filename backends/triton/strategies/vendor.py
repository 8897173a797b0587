"""Products and convolutions by torch, which calls cuBLAS and cuDNN; what follows is one launch.

Only where the kernel is compiled when it runs: an artifact made ahead of time has no torch. torch
takes operands of any strides, so layouts stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ....ir.dims import Size, product
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.memory import Access, contiguous_strides
from ....ir.kernel.spaces import coalesce, project, sizes_of
from ..launches import LibraryCall, TritonKernel
from .common import Context, anchor_dtype, ordered_sum, scratch, walk

__all__ = ["LIBRARY_FLOPS", "RULE", "library_kernel", "pays", "possible"]

#: operations from which a library is asked unless something was measured
LIBRARY_FLOPS = 2_000_000_000

RULE = "products and convolutions of 2 GFLOP and more, where a pass for the epilogue counts little"

_Convolution = anchors.Convolution | anchors.ConvolutionInputGrad | anchors.ConvolutionWeightGrad


def pays(context: Context) -> bool:
    """The rule where nothing was measured."""
    return context.kernel.flops >= LIBRARY_FLOPS


def possible(context: Context) -> LibraryCall | None:
    """The call that computes the anchor's value into scratch memory; None if torch has none."""
    kernel = context.kernel
    if not isinstance(kernel.anchor, anchors.Contract | _Convolution):
        return None
    dtype = anchor_dtype(kernel)
    exact = {"f32": (DType.F32, DType.F64), "tf32": (DType.F32,)}
    if dtype not in exact.get(context.options.precision, ()):
        return None
    if any(x.dtype is not dtype for x in kernel.operands):
        return None
    shape = kernel.after.shape
    whole = contiguous_strides(shape, walk(kernel.after))
    result = Access("", dtype, 0, shape, whole)
    if isinstance(kernel.anchor, anchors.Contract):
        return _matmul(kernel.anchor, kernel.operands, result)
    return _convolution(kernel.anchor, kernel.operands, result)


def library_kernel(context: Context, call: LibraryCall) -> TritonKernel:
    """The call, then the region after the anchor over its value."""
    kernel = context.kernel
    after = kernel.after
    if after.program.is_identity and len(after.stores) == 1:
        # nothing follows: the value goes where it belongs
        ((_, target),) = after.stores
        reads = {x.buffer for x in kernel.operands}
        if target.dtype is call.result.dtype and target.buffer not in reads:
            steps = _as(call, after.shape, target)
            if steps is not None:
                return TritonKernel(kernel, (), library=replace(call, result=steps))
    value = scratch(context, "value", call.result.dtype, product(after.shape))
    call = replace(call, result=replace(call.result, buffer=value.name))
    epilogue = ordered_sum(context, value, 1, "_epilogue", walk(after))
    return TritonKernel(kernel, (epilogue,), (value,), library=call)


def _as(call: LibraryCall, shape: Sequence[Size], target: Access) -> Access | None:
    """The target in the shape of the call's result; None if it does not step evenly there."""
    if call.function != "matmul":
        return target
    groups = call.groups
    steps = project(shape, target.strides, groups)
    if steps is None:
        return None
    return replace(target, shape=call.result.shape, strides=_filled(groups, steps))


def _filled(groups: Sequence[Sequence[int]], steps: Sequence[Size]) -> tuple[Size, ...]:
    return tuple(0 if not g else s for g, s in zip(groups, steps, strict=True))


def _matmul(
    anchor: anchors.Contract, operands: Sequence[Access], result: Access
) -> LibraryCall | None:
    """[B, M, K] times [B, K, N], where the letters of each are one even step in memory."""
    left, right = operands
    sizes = dict(zip(anchor.a, left.shape, strict=True)) | dict(
        zip(anchor.b, right.shape, strict=True)
    )
    letters = anchor.result
    batch = [c for c in letters if c in anchor.a and c in anchor.b]
    rows = [c for c in letters if c in anchor.a and c not in anchor.b]
    columns = [c for c in letters if c in anchor.b and c not in anchor.a]
    summed = [c for c in anchor.b if c not in letters]
    if any(c not in anchor.a for c in summed) or len(anchor.a) != len(batch + rows + summed):
        return None  # a letter of one operand alone is summed
    a = dict(zip(anchor.a, left.strides, strict=True))
    b = dict(zip(anchor.b, right.strides, strict=True))
    y = dict(zip(letters, result.strides, strict=True))

    def merged(mine: Sequence[str], *steps: dict[str, Size]) -> tuple[Size, list[Size]] | None:
        shape = [sizes[c] for c in mine]
        strides = [[s[c] for c in mine] for s in steps]
        groups = coalesce(shape, range(len(mine)), strides)
        if len(groups) > 1:
            return None
        found = [project(shape, s, groups) or (0,) for s in strides]
        return product(sizes_of(shape, groups)), [s[0] for s in found]

    parts = (
        merged(batch, a, b, y),
        merged(rows, a, y),
        merged(columns, b, y),
        merged(summed, a, b),
    )
    if any(p is None for p in parts):
        return None
    (n, (an, bn, yn)), (m, (am, ym)), (c, (bc, yc)), (k, (ak, bk)) = parts  # type: ignore[misc]
    places = [tuple(letters.index(x) for x in group) for group in (batch, rows, columns)]
    return LibraryCall(
        "matmul",
        (replace(left, shape=(n, m, k), strides=(an, am, ak)),
         replace(right, shape=(n, k, c), strides=(bn, bk, bc))),
        replace(result, shape=(n, m, c), strides=(yn, ym, yc)),
        groups=tuple(places),
    )  # fmt: skip


def _convolution(
    anchor: _Convolution, operands: Sequence[Access], result: Access
) -> LibraryCall | None:
    if any(lo != hi or lo < 0 for lo, hi in anchor.padding) or len(anchor.padding) > 3:
        return None  # torch pads both sides alike
    name = {
        anchors.Convolution: "convolution",
        anchors.ConvolutionInputGrad: "input_grad",
        anchors.ConvolutionWeightGrad: "weight_grad",
    }[type(anchor)]
    settings = (
        ("stride", tuple(anchor.stride)),
        ("padding", tuple(lo for lo, _ in anchor.padding)),
        ("dilation", tuple(anchor.dilation)),
        ("groups", anchor.groups),
    )
    return LibraryCall(name, tuple(operands), result, settings)
