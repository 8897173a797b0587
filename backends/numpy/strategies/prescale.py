"""A factor of a large product moves to its smaller operand.

NumPy has no product that adds to its result, so ``W -= lr * (x @ dy)`` costs a pass over memory
of W's size for the factor and one for the difference. ``W -= x @ (lr * dy)`` is the same, and
dy is small where W is large.
"""

from __future__ import annotations

from dataclasses import replace

from ....ir.dims import Size, hint, product
from ....ir.kernel.kernel import Region
from ....ir.kernel.memory import Access
from ....ir.kernel.scalar import ScalarProgram
from ....ir.kernel.spaces import order_of
from ..array_program import Arg, Num
from ..emitter import Emitter

__all__ = ["prescale"]

#: the result has at least so many elements for each of the operand: below, nothing is saved
SMALLER = 4


def prescale(em: Emitter) -> None:
    """Take the epilogue's factor of the anchor's value out of the kernel of ``em``.

    Does nothing where there is no such factor, or no small operand to take it.
    """
    kernel = em.kernel
    found = _factor(kernel.after)
    if found is None:
        return
    place, number = found
    factor = _argument(em, kernel.after, number)
    small = min((0, 1), key=lambda k: _elements(kernel.operands[k]))
    operand = kernel.operands[small]
    if factor is None or _overlaps(operand) or operand.dtype is not kernel.after.program.inputs[0]:
        return
    if _elements(operand) * SMALLER > hint(product(kernel.after.shape)):
        return
    operands = list(kernel.operands)
    operands[small] = _scaled(em, operand, factor)
    after = _without(kernel.after, place, number)
    em.kernel = replace(kernel, operands=tuple(operands), after=after)


def _factor(region: Region) -> tuple[int, int] | None:
    """The only use of the anchor's value, if that is a product: its number and the factor's."""
    program = region.program
    uses = [(k, i) for k, i in enumerate(program.instrs, start=len(program.inputs)) if 0 in i.args]
    stored = {program.results[position] for position, _ in region.stores}
    if len(uses) != 1 or 0 in stored or uses[0][1].op != "mul" or not uses[0][1].dtype.is_float:
        return None
    number, instr = uses[0]
    factors = [a for a in instr.args if a != 0]
    return (number, factors[0]) if factors else None


def _argument(em: Emitter, region: Region, number: int) -> Arg | None:
    """A number that the program has in the text or in memory; None for anything else."""
    program = region.program
    if number >= len(program.inputs):
        instr = program.instrs[number - len(program.inputs)]
        return Num(instr.literal) if instr.op == "const" and instr.literal is not None else None
    access = region.loads[number - 1]
    if any(s != 0 for s in access.strides) and hint(product(access.shape)) != 1:
        return None
    return em.view(access, (1,), (1,), whole=True)


def _elements(access: Access) -> int:
    """Elements in memory at the typical sizes; a repeated axis counts once."""
    return hint(product(n for n, s in zip(access.shape, access.strides, strict=True) if s != 0))


def _overlaps(access: Access) -> bool:
    """True for a sliding view, which has more elements than memory."""
    within: Size = 1
    for axis in reversed(order_of(access)):
        if access.strides[axis] == 0:
            continue
        if hint(access.strides[axis]) < hint(within):
            return True
        within = access.strides[axis] * access.shape[axis]
    return False


def _scaled(em: Emitter, operand: Access, factor: Arg) -> Access:
    """The operand times the factor, dense, its axes in the order in which they lie."""
    order = [a for a in order_of(operand) if operand.strides[a] != 0]
    shape = tuple(operand.shape[a] for a in order)
    dense = em.scratch_access(shape, operand.dtype, "scaled")
    strides: list[Size] = [0] * len(operand.shape)
    for axis, stride in zip(order, dense.strides, strict=True):
        strides[axis] = stride
    source = em.view(operand, shape, tuple(operand.strides[a] for a in order))
    em.call("multiply", source, factor, out=em.view(dense, shape, dense.strides))
    return replace(dense, shape=operand.shape, strides=tuple(strides))


def _without(region: Region, place: int, factor: int) -> Region:
    """The region with the anchor's value where the product ``place`` was."""
    program = region.program
    first = len(program.inputs)
    kept = [i for k, i in enumerate(program.instrs, start=first) if k != place]
    used = {a for i in kept for a in i.args} | set(program.results)
    # nothing else reads the factor: it is no operand of the region any more
    gone = {place} if factor in used else {place, factor}

    def new(value: int) -> int:
        return 0 if value == place else value - sum(g < value for g in gone)

    instrs = tuple(
        replace(i, args=tuple(new(a) for a in i.args))
        for k, i in enumerate(program.instrs, start=first)
        if k not in gone
    )
    inputs = tuple(d for k, d in enumerate(program.inputs) if k not in gone)
    loads = tuple(x for k, x in enumerate(region.loads, start=1) if k not in gone)
    results = tuple(new(r) for r in program.results)
    return replace(region, program=ScalarProgram(inputs, instrs, results), loads=loads)
