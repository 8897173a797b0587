"""Scalar programs as chains of ufunc calls over views, every result in given memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...errors import InternalError
from ...ir.dims import Size, hint, product
from ...ir.dtypes import DType
from ...ir.kernel.kernel import Region
from ...ir.kernel.memory import Access
from ...ir.kernel.scalar import Instr
from ...ir.kernel.spaces import Groups, coalesce, order_of, project, sizes_of
from .array_program import Arg, Num, Ref
from .emitter import Emitter
from .legalise import legalise

__all__ = ["BLOCK_BYTES", "block_rows", "emit_map", "emit_region", "region_groups"]

#: a block of one array: several of them and their temporaries fit the second-level cache
BLOCK_BYTES = 128 * 1024

#: below this many bytes an array stays in cache between two calls anyway
WHOLE_BYTES = 256 * 1024

UFUNCS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative",
    "min": "minimum", "max": "maximum", "pow": "power", "exp": "exp", "expm1": "expm1",
    "log": "log", "log1p": "log1p", "sqrt": "sqrt", "tanh": "tanh", "abs": "absolute",
    "sign": "sign", "sin": "sin", "cos": "cos", "floor": "floor", "ceil": "ceil",
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal",
    "ne": "not_equal", "and": "logical_and", "or": "logical_or", "not": "logical_not",
}  # fmt: skip


def region_groups(region: Region, extra: Sequence[Sequence[Size]] = ()) -> Groups:
    """Merged axes in the order in which the (last) result lies in memory."""
    accesses = [*region.loads, *(a for _, a in region.stores)]
    leader = region.stores[-1][1] if region.stores else region.loads[0]
    strides = [a.strides for a in accesses] + list(extra)
    return coalesce(region.shape, order_of(leader), strides)


def block_rows(sizes: Sequence[Size], itemsize: int, steps: int) -> int | None:
    """Rows of the outermost axis per block; None if blocks would not pay."""
    if not sizes or steps < 2:
        return None
    row = hint(product(sizes[1:])) * itemsize
    if row * hint(sizes[0]) <= WHOLE_BYTES:
        return None
    return max(1, BLOCK_BYTES // max(1, row))


@dataclass
class _Value:
    """Where a value of the program is: a number, or an array (perhaps a temporary)."""

    arg: Arg
    dtype: DType
    temp: bool = False
    #: buffer that the array lies in, if it is memory of the program
    buffer: str | None = None
    #: temporaries of the same dtype may be swapped
    scalar: bool = False


def emit_map(em: Emitter, region: Region) -> None:
    """A kernel without anchor."""
    groups = region_groups(region)
    sizes = sizes_of(region.shape, groups) or (1,)
    program = legalise(region.program)
    itemsize = max((a.dtype.itemsize for _, a in region.stores), default=4)
    steps = sum(i.op not in ("const", "size") for i in program.instrs)
    rows = block_rows(sizes, itemsize, steps)
    with em.block(rows):
        emit_region(em, region, groups, rows)


def emit_region(
    em: Emitter,
    region: Region,
    groups: Groups,
    rows: int | None,
    anchor: Callable[[Ref], None] | Ref | None = None,
    anchor_dtype: DType | None = None,
    keep: frozenset[int] = frozenset(),
    anchor_buffer: str | None = None,
) -> dict[int, Ref]:
    """The region's program over merged axes, inside the current block if there is one.

    ``anchor`` makes input 0: a function that writes it into the memory it is given, or a
    view that holds it already, in ``anchor_buffer``. Returns where the program's results in
    ``keep`` (by position) are.
    """
    emitter = _RegionEmitter(em, region, groups, rows, anchor, anchor_dtype, anchor_buffer)
    return emitter.run(keep)


class _RegionEmitter:
    def __init__(
        self,
        em: Emitter,
        region: Region,
        groups: Groups,
        rows: int | None,
        anchor: Callable[[Ref], None] | Ref | None,
        anchor_dtype: DType | None,
        anchor_buffer: str | None,
    ) -> None:
        self.em = em
        self.region = region
        self.groups = groups
        self.sizes = sizes_of(region.shape, groups) or (1,)
        self.rows = rows
        self.program = legalise(region.program)
        self.anchor = anchor
        self.anchor_dtype = anchor_dtype
        self.anchor_buffer = anchor_buffer
        #: values whose memory is still read by others: copied when all is done
        self.postponed: list[tuple[int, Access]] = []
        self.values: list[_Value] = []
        self.free: dict[DType, list[Ref]] = {}
        self._anchor_store: Access | None = None
        self.loads: list[tuple[Access, int]] = []
        first = 0 if anchor is None else 1
        for k, access in enumerate(region.loads):
            self.loads.append((access, first + k))
        #: value number -> accesses it must be stored to
        self.stores: dict[int, list[Access]] = {}
        for position, access in region.stores:
            self.stores.setdefault(self.program.results[position], []).append(access)
        self.last_use = self._last_uses()

    def run(self, keep: frozenset[int]) -> dict[int, Ref]:
        program = self.program
        for position in keep:
            self.last_use[program.results[position]] = len(program.inputs) + len(program.instrs)
        if self.anchor is not None:
            self.values.append(self._anchor_value())
        for access, _ in self.loads:
            ref = self._view(access)
            self.values.append(_Value(ref, access.dtype, buffer=access.buffer))
        for number in range(len(program.inputs)):
            self._finish(number, stored_in=self._anchor_store if number == 0 else None)
        for k, instr in enumerate(program.instrs, start=len(program.inputs)):
            self._instr(k, instr)
        for number, access in self.postponed:
            self.em.copy(self._view(access), self.values[number].arg)
        result: dict[int, Ref] = {}
        for position in keep:
            value = self.values[program.results[position]]
            arg = value.arg
            if value.scalar or program.results[position] < len(program.inputs):
                # a number or an operand, which may be repeated along an axis
                full = self._temp(value.dtype)
                self.em.copy(full, arg)
                arg = full
            assert isinstance(arg, Ref)
            result[position] = arg
        return result

    # -- memory ------------------------------------------------------------------------------

    def _view(self, access: Access) -> Ref:
        strides = project(self.region.shape, access.strides, self.groups)
        if strides is None:
            raise InternalError(f"{self.em.kernel.name}: {access} does not fit the merged axes")
        if not self.groups:
            return self.em.view(access, (1,), (1,))
        return self.em.view(access, self.sizes, strides)

    def _last_uses(self) -> dict[int, int]:
        uses: dict[int, int] = {}
        first = len(self.program.inputs)
        for k, instr in enumerate(self.program.instrs, start=first):
            for a in instr.args:
                uses[a] = k
        return uses

    def _anchor_value(self) -> _Value:
        dtype = self.anchor_dtype
        assert dtype is not None
        if isinstance(self.anchor, Ref):
            return _Value(self.anchor, dtype, buffer=self.anchor_buffer)
        assert callable(self.anchor)
        store = self._free_store(0, at=-1)
        if store is not None:
            self._anchor_store = store
            ref = self._view(store)
            self.anchor(ref)
            return _Value(ref, dtype, buffer=store.buffer)
        ref = self._temp(dtype)
        self.anchor(ref)
        return _Value(ref, dtype, temp=True)

    def _free_store(self, number: int, at: int) -> Access | None:
        """Memory that a value may be computed in: its own store, if nothing there is needed.

        A chain's intermediate values may also use the memory of the result that they end in.
        """
        own = self.stores.get(number, [])
        dtype = self.program.dtype(number)
        for access in own:
            if self._writable(access, at):
                return access
        if own:
            return None
        for final, accesses in self.stores.items():
            if final > number and self.program.dtype(final) is dtype:
                if self.last_use.get(number, number) > final:
                    continue
                for access in accesses:
                    if self._writable(access, at):
                        return access
        return None

    def _writable(self, access: Access, at: int) -> bool:
        """Nothing that lies in this memory is needed after instruction ``at``."""
        for load, number in self.loads:
            if load.buffer == access.buffer and self.last_use.get(number, -1) > at:
                return False
        for number, value in enumerate(self.values):
            if value.buffer == access.buffer and self.last_use.get(number, -1) > at:
                return False
        strides = project(self.region.shape, access.strides, self.groups)
        return strides is not None and all(
            s != 0 or n == 1 for s, n in zip(strides, self.sizes, strict=False)
        )

    def _temp(self, dtype: DType) -> Ref:
        if self.free.get(dtype):
            return self.free[dtype].pop()
        if self.rows is not None:
            return self.em.temp(self.rows, self.sizes[1:], dtype)
        return self.em.scratch_array(self.sizes, dtype, "t")

    # -- instructions --------------------------------------------------------------------------

    def _instr(self, number: int, instr: Instr) -> None:
        if instr.op == "const":
            assert instr.literal is not None
            self.values.append(_Value(Num(instr.literal), instr.dtype, scalar=True))
        elif instr.op == "size":
            assert instr.size is not None
            ref = self.em.scalar("cast", instr.size, dtype=instr.dtype)
            self.values.append(_Value(ref, instr.dtype, scalar=True))
        elif all(self.values[a].scalar for a in instr.args):
            self.values.append(self._scalar_instr(instr))
        else:
            self._array_instr(number, instr)
            return
        self._finish(number, None)

    def _scalar_instr(self, instr: Instr) -> _Value:
        args = [self.values[a].arg for a in instr.args]
        op = UFUNCS.get(instr.op, instr.op)
        return _Value(self.em.scalar(op, *args, dtype=instr.dtype), instr.dtype, scalar=True)

    def _array_instr(self, number: int, instr: Instr) -> None:
        args = [self.values[a] for a in instr.args]
        store = self._free_store(number, at=number)
        # a select writes before it has read everything: its arguments must lie elsewhere
        target: Ref
        reused: int | None = None
        if store is not None and not (
            instr.op == "select" and any(v.arg == self._view(store) for v in args)
        ):
            target = self._view(store)
        else:
            store = None
            reused = self._dying_temp(number, instr)
            if reused is not None:
                arg = self.values[reused].arg
                assert isinstance(arg, Ref)
                target = arg
            else:
                target = self._temp(instr.dtype)
        self._emit(instr, [v.arg for v in args], target)
        value = _Value(target, instr.dtype, temp=store is None)
        if store is not None:
            value.buffer = store.buffer
        self.values.append(value)
        if reused is not None:
            self.values[reused].temp = False  # its memory is the new value's
        for a in set(instr.args):
            self._release(a, number)
        self._finish(number, store)

    def _dying_temp(self, number: int, instr: Instr) -> int | None:
        if instr.op == "select":
            return None
        for a in instr.args:
            value = self.values[a]
            if value.temp and value.dtype is instr.dtype and self.last_use.get(a) == number:
                return a
        return None

    def _release(self, number: int, at: int) -> None:
        value = self.values[number]
        if value.temp and self.last_use.get(number, -1) <= at:
            assert isinstance(value.arg, Ref)
            self.free.setdefault(value.dtype, []).append(value.arg)
            value.temp = False

    def _finish(self, number: int, stored_in: Access | None) -> None:
        """Copy a value to the stores where it was not computed."""
        value = self.values[number]
        for access in self.stores.get(number, []):
            if access is stored_in:
                continue
            if isinstance(value.arg, Ref) and value.arg == self._view(access):
                continue
            if not self._writable(access, number):
                self.postponed.append((number, access))
                self.last_use[number] = len(self.program.inputs) + len(self.program.instrs)
                continue
            self.em.copy(self._view(access), value.arg)

    def _emit(self, instr: Instr, args: list[Arg], out: Ref) -> None:
        em = self.em
        match instr.op:
            case "cast":
                em.copy(out, args[0], cast=True)
            case "select":
                self._select(instr, args, out)
            case "div" if instr.dtype.is_integer:
                em.call("floor_divide", *args, out=out)
            case op if op in UFUNCS:
                em.call(UFUNCS[op], *args, out=out)
            case op:
                raise InternalError(f"no NumPy function for {op}")

    def _select(self, instr: Instr, args: list[Arg], out: Ref) -> None:
        """Bit masks, not masked copies: exact for every value and ten times faster."""
        em = self.em
        condition, then, other = args
        if not isinstance(condition, Ref):
            em.copy(out, then if condition.value else other)
            return
        if em.is_scalar(condition):
            whole = self._temp(DType.BOOL)
            em.copy(whole, condition)
            self._select(instr, [whole, then, other], out)
            self.free.setdefault(DType.BOOL, []).append(whole)
            return
        if instr.dtype is DType.BOOL:
            spare = self._temp(DType.BOOL)
            em.call("logical_and", condition, then, out=spare)
            em.call("less", condition, other, out=out)  # (not c) and other
            em.call("logical_or", out, spare, out=out)
            self.free.setdefault(DType.BOOL, []).append(spare)
            return
        mask = self._temp(instr.dtype)
        mask_bits = em.bits(mask)
        em.call("subtract", Num(0), em.bits(condition), out=mask_bits)
        out_bits = em.bits(out)
        if other == Num(0) or other == Num(0.0):
            source = self._bits_of(then, out)
            em.call("bitwise_and", source, mask_bits, out=out_bits)
        else:
            # out = other ^ ((then ^ other) & mask)
            spare = self._temp(instr.dtype)
            spare_bits = em.bits(spare)
            left = self._bits_of(then, spare)
            right = self._bits_of(other, out)
            em.call("bitwise_xor", left, right, out=spare_bits)
            em.call("bitwise_and", spare_bits, mask_bits, out=spare_bits)
            em.call("bitwise_xor", spare_bits, right, out=out_bits)
            self.free.setdefault(instr.dtype, []).append(spare)
        self.free.setdefault(instr.dtype, []).append(mask)

    def _bits_of(self, arg: Arg, room: Ref) -> Ref:
        """The bits of an array; a number is first written to ``room``."""
        if isinstance(arg, Num) or self.em.is_scalar(arg):
            self.em.copy(room, arg)
            return self.em.bits(room)
        return self.em.bits(arg)
