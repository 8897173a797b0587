"""Contraction: one brick for linear layers, matrix products and their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import DtypeError, ShapeError
from ..brick import Array, Brick
from ..dims import Size
from ..dtypes import DType
from ..types import TensorType
from ..value import Value
from .convert import cast
from .elementwise import broadcast_shapes
from .shape import broadcast_to, reshape

__all__ = ["Contract", "contract", "linear", "matmul", "sums_dtype"]


@dataclass(frozen=True)
class Contract(Brick):
    """Product of two tensors, summed over the letters that the result lacks.

    ``spec`` is like einsum's: ``"nk,ok->no"``. A letter of one operand alone must be in the
    result, and no letter occurs twice in one place. ``sums`` is the dtype of the sums and of
    the result, f32 for halves that are not to be rounded; None is the operands' dtype.

    Shapes:  by the letters; a letter has one size
    Dtypes:  one float dtype; f32 and halves sum in f32
    Grad:    da = contract(dy, b), db = contract(a, dy)
    Raises:  ShapeError if sizes differ or the spec is bad; DtypeError if dtypes differ
    """

    mnemonic: ClassVar[str] = "contract"
    arity: ClassVar[int | None] = 2

    spec: str
    sums: DType | None = None

    def letters(self) -> tuple[str, str, str]:
        """The letters of both operands and of the result."""
        operands, arrow, result = self.spec.partition("->")
        a, comma, b = operands.partition(",")
        if not arrow or not comma or not all(c.isascii() and c.isalpha() for c in a + b + result):
            raise ShapeError("contract: bad spec", got=self.spec, expected="e.g. nk,ok->no")
        for part in (a, b, result):
            if len(set(part)) != len(part):
                raise ShapeError("contract: a letter occurs twice", got=self.spec,
                                 expected="each letter once in a place")  # fmt: skip
        if not set(result) <= set(a + b) or not set(a) ^ set(b) <= set(result):
            raise ShapeError(
                "contract: a letter of one operand alone must be in the result, and the result "
                "has no other letters", got=self.spec, expected="e.g. nk,ok->no",
                hint="sum with reduce_sum first",
            )  # fmt: skip
        return a, b, result

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        a, b, result = self.letters()
        left, right = operands
        if left.dtype is not right.dtype or not left.dtype.is_float:
            raise DtypeError("contract: operands must have one float dtype",
                             got=f"{left.dtype} and {right.dtype}", expected="one float dtype",
                             hint="cast one of them")  # fmt: skip
        sizes: dict[str, Size] = {}
        for letters, type in ((a, left), (b, right)):
            if len(letters) != type.rank:
                raise ShapeError(f"contract {self.spec}: wrong number of axes",
                                 got=list(type.shape), expected=f"axes {letters}")  # fmt: skip
            for letter, size in zip(letters, type.shape, strict=True):
                if sizes.setdefault(letter, size) != size:
                    raise ShapeError(
                        f"contract {self.spec}: {letter!r} has two sizes",
                        got=f"{left} and {right}", expected="equal sizes",
                    )  # fmt: skip
        return TensorType.of(sums_dtype(left, self.sums), (sizes[c] for c in result))

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        result = np.einsum(self.spec, *operands, optimize=True)
        return np.asarray(result, operands[0].dtype)

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        a, b, c = self.letters()
        left, right = operands
        cotangent = cast(cotangent, left.dtype)
        return (
            contract(f"{c},{b}->{a}", cotangent, right),
            contract(f"{a},{c}->{b}", left, cotangent),
        )


def sums_dtype(operand: TensorType, sums: DType | None) -> DType:
    """The dtype of a product's result. Raises DtypeError for sums that are not known."""
    if sums is not None and not (sums is DType.F32 and operand.dtype.is_half):
        raise DtypeError("products are summed in another dtype", got=f"{operand.dtype} in {sums}",
                         expected="f16 or bf16 in f32, all others in themselves")  # fmt: skip
    return operand.dtype if sums is None else sums


def contract(spec: str, a: Value, b: Value) -> Value:
    return a.apply(Contract(spec), a, b)


def linear(x: Value, w: Value) -> Value:
    """x [*B, K] and w [O, K] -> [*B, O]"""
    if w.rank != 2 or x.rank < 1:
        raise ShapeError("linear: wrong ranks", got=f"x {x.type}, w {w.type}",
                         expected="x [..., K] and w [O, K]")  # fmt: skip
    batch = "abcdefghij"[: x.rank - 1]
    return contract(f"{batch}k,ok->{batch}o", x, w)


def matmul(a: Value, b: Value) -> Value:
    """a [*B, M, K] and b [*B, K, N] -> [*B, M, N]; batch axes broadcast; vectors as in NumPy."""
    if a.rank == 0 or b.rank == 0:
        raise ShapeError("matmul of a scalar", got=f"{a.type} and {b.type}",
                         expected="at least one axis each", hint="use mul")  # fmt: skip
    if a.rank == 1 or b.rank == 1:
        left = reshape(a, (1, *a.shape)) if a.rank == 1 else a
        right = reshape(b, (*b.shape, 1)) if b.rank == 1 else b
        y = matmul(left, right)
        shape = list(y.shape)
        if b.rank == 1:
            shape.pop(-1)
        if a.rank == 1:
            shape.pop(-1 if b.rank == 1 else -2)
        return reshape(y, shape)
    batch = broadcast_shapes([a.shape[:-2], b.shape[:-2]], "matmul")
    a = broadcast_to(a, (*batch, *a.shape[-2:]))
    b = broadcast_to(b, (*batch, *b.shape[-2:]))
    letters = "abcdefghij"[: len(batch)]
    return contract(f"{letters}mk,{letters}kn->{letters}mn", a, b)
