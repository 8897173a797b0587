"""One node of an ONNX graph as converters see it: operands, attributes, place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import BrickcError, DtypeError, ImportModelError, UnsupportedError
from ...ir.brick import Array, Input
from ...ir.bricks import source
from ...ir.bricks.shape import concat, reshape
from ...ir.dims import Dim, DimExpr, Size
from ...ir.dtypes import DType
from ...ir.types import Shape, TensorType
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .reading import printable
from .values import Item, Known, Stored, computed

if TYPE_CHECKING:
    import onnx

    from .importer import Importer
    from .scope import Place, Scope

__all__ = ["Node"]


class Node:
    """A node: what its operands are, what its attributes say, where errors point to."""

    def __init__(
        self,
        importer: Importer,
        proto: onnx.NodeProto,
        operands: Sequence[Item],
        attributes: Mapping[str, onnx.AttributeProto],
        opset: int,
        scope: Scope,
        place: Place,
    ) -> None:
        self.importer = importer
        self.proto = proto
        self.op: str = proto.op_type
        self.operands = tuple(operands)
        self.attributes = attributes
        self.opset = opset
        #: the names that subgraphs see
        self.scope = scope
        self.place = place
        self.where = place.where
        #: everything is known: compute at once
        self.eager = False

    # ── operands ─────────────────────────────────────────────────────────────────────────

    @property
    def count(self) -> int:
        return len(self.operands)

    def has(self, position: int) -> bool:
        """True if the operand is given; optional ones may be left out."""
        return position < len(self.operands) and self.operands[position] is not None

    def item(self, position: int) -> Item:
        if not self.has(position):
            raise ImportModelError(
                f"{self.op} lacks input {position + 1}", where=self.where,
                got=f"{len(self.operands)} inputs",
            )  # fmt: skip
        return self.operands[position]

    def tensor(self, position: int) -> Value:
        """An operand as a value that bricks can be applied to."""
        return self.value(self.item(position))

    def tensors(self) -> list[Value]:
        return [self.tensor(k) for k in range(self.count)]

    def value(self, item: Item) -> Value:
        match item:
            case Tensor():
                return item
            case Known():
                if item.symbolic:
                    return self._counted(item.array)
                return self.literal(item.array)
            case Stored():
                return self.importer.parameter(item)
        raise UnsupportedError(
            "a sequence or optional value stands where a tensor is meant", where=self.where
        )

    def literal(self, array: Array) -> Value:
        """A constant; it is computed with at once where everything is known."""
        kind = _dtype(array, self.where)
        array = np.asarray(array)
        return computed(array) if self.eager else trace.literal(array, kind)

    def number(self, value: float, dtype: DType) -> Value:
        return self.literal(np.asarray(value, dtype.numpy))

    def _counted(self, sizes: Array) -> Value:
        """Sizes that depend on dims, as a tensor of int64."""
        parts: list[Value] = []
        place = trace.literal(np.zeros((), np.int64))
        for size in sizes.flat:
            parts.append(reshape(source.dim_size(place, size, DType.I64), (1,)))
        joined = parts[0] if len(parts) == 1 else concat(parts, 0)
        return reshape(joined, sizes.shape)

    def type_of(self, position: int) -> TensorType:
        """An operand's type, without making a parameter of it."""
        match self.item(position):
            case Tensor() as tensor:
                return tensor.type
            case Stored() as stored:
                return stored.type
            case Known() as known:
                kind = DType.I64 if known.symbolic else _dtype(known.array, self.where)
                return TensorType(kind, known.array.shape)
        raise UnsupportedError("a sequence has no shape", where=self.where)

    def shape_of(self, position: int) -> Shape:
        match self.item(position):
            case Known() as known:
                return known.array.shape
            case _:
                return self.type_of(position).shape

    def is_known(self, position: int) -> bool:
        return self.has(position) and isinstance(self.item(position), Known | Stored)

    def known(self, position: int) -> Array:
        """An operand whose value the program's form depends on.

        Raises UnsupportedError if it is only known when the program runs.
        """
        match self.item(position):
            case Known() as known:
                if known.symbolic:
                    raise UnsupportedError(
                        f"{self.op}: input {position + 1} depends on a dim without a fixed size",
                        where=self.where, got=list(known.array.flat),
                        hint="give the model's inputs fixed shapes",
                    )  # fmt: skip
                return known.array
            case Stored() as stored:
                return stored.array
            case Tensor() as tensor:
                inputs = _inputs_of(tensor)
                self.importer.want(inputs)
                raise UnsupportedError(
                    f"{self.op}: input {position + 1} must be known when the model is imported",
                    where=self.where, got=f"a value that depends on {_listed(inputs)}",
                    hint=f"values={{{next(iter(sorted(inputs)), 'NAME')!r}: array}} fixes it",
                )  # fmt: skip
        raise UnsupportedError(f"{self.op}: input {position + 1} is a sequence", where=self.where)

    def sizes(self, position: int) -> tuple[Size, ...]:
        """A known vector of sizes, which may be named dims."""
        item = self.item(position)
        array = item.array if isinstance(item, Known) and item.symbolic else self.known(position)
        if array.ndim > 1 or array.dtype.kind not in "iuO":
            raise ImportModelError(
                f"{self.op}: input {position + 1} is no list of sizes", where=self.where,
                got=f"{array.dtype}{list(array.shape)}",
            )  # fmt: skip
        return tuple(s if isinstance(s, Dim | DimExpr) else int(s) for s in array.flat)

    def integers(self, position: int) -> tuple[int, ...]:
        """A known vector of integers."""
        array = self.known(position)
        if array.ndim > 1 or array.dtype.kind not in "iu":
            raise ImportModelError(
                f"{self.op}: input {position + 1} is no list of integers", where=self.where,
                got=f"{array.dtype}{list(array.shape)}",
            )  # fmt: skip
        return tuple(int(v) for v in array.flat)

    def scalar(self, position: int) -> float:
        """A known number."""
        array = self.known(position)
        if array.size != 1:
            raise ImportModelError(
                f"{self.op}: input {position + 1} is no single number", where=self.where,
                got=list(array.shape),
            )  # fmt: skip
        return array.reshape(()).item()  # type: ignore[no-any-return]

    # ── attributes ───────────────────────────────────────────────────────────────────────

    def given(self, name: str) -> bool:
        return name in self.attributes

    def attribute(self, name: str, kind: str, default: Any) -> Any:
        """The attribute's field if it is of that kind (``INT``, ``FLOATS`` …)."""
        found = self.attributes.get(name)
        if found is None:
            if default is _REQUIRED:
                raise ImportModelError(f"{self.op} lacks attribute {name}", where=self.where)
            return default
        actual = type(found).AttributeType.Name(found.type)
        if actual != kind:
            raise ImportModelError(
                f"{self.op}: attribute {name} is of the wrong kind", where=self.where,
                got=actual, expected=kind,
            )  # fmt: skip
        return getattr(found, _FIELDS[kind])

    def get_int(self, name: str, default: Any = None) -> int:
        value = self.attribute(name, "INT", _REQUIRED if default is None else default)
        return int(value)

    def get_flag(self, name: str, default: bool = False) -> bool:
        return bool(self.attribute(name, "INT", default))

    def get_float(self, name: str, default: Any = None) -> float:
        return float(self.attribute(name, "FLOAT", _REQUIRED if default is None else default))

    def get_string(self, name: str, default: str) -> str:
        value = self.attribute(name, "STRING", default.encode())
        return str(value.decode("utf-8", "replace"))

    def get_strings(self, name: str, default: Sequence[str] = ()) -> list[str]:
        value = self.attribute(name, "STRINGS", [s.encode() for s in default])
        return [s.decode("utf-8", "replace") for s in value]

    def get_ints(self, name: str, default: Any = None) -> tuple[int, ...]:
        value = self.attribute(name, "INTS", _REQUIRED if default is None else default)
        return tuple(int(v) for v in value)

    def get_floats(self, name: str, default: Sequence[float] = ()) -> list[float]:
        return [float(v) for v in self.attribute(name, "FLOATS", default)]

    def graph_of(self, name: str) -> onnx.GraphProto:
        return self.attribute(name, "GRAPH", _REQUIRED)  # type: ignore[no-any-return]

    def axes(self, rank: int, position: int, name: str = "axes") -> tuple[int, ...] | None:
        """Axes from an input (later opsets) or an attribute, not negative; None if not given."""
        if self.has(position):
            given = self.integers(position)
        elif self.given(name):
            given = self.get_ints(name)
        else:
            return None
        return tuple(self.axis(a, rank) for a in given)

    def axis(self, axis: int, rank: int) -> int:
        """The axis, not negative. Raises ImportModelError if there is no such axis."""
        if not -rank <= axis < rank:
            raise ImportModelError(
                f"{self.op}: no such axis", where=self.where, got=axis,
                expected=f"an axis of {rank}",
            )  # fmt: skip
        return axis + rank if axis < 0 else axis

    # ── errors ───────────────────────────────────────────────────────────────────────────

    def unsupported(self, what: str, got: object = None, hint: str = "") -> UnsupportedError:
        return UnsupportedError(f"{self.op}: {what}", where=self.where, got=got, hint=hint)

    def wrong(self, what: str, got: object = None, expected: object = None) -> BrickcError:
        return ImportModelError(f"{self.op}: {what}", where=self.where, got=got, expected=expected)


_REQUIRED = object()
_FIELDS = {
    "INT": "i", "INTS": "ints", "FLOAT": "f", "FLOATS": "floats", "STRING": "s",
    "STRINGS": "strings", "TENSOR": "t", "GRAPH": "g", "TYPE_PROTO": "tp",
}  # fmt: skip


def _dtype(array: Array, where: str) -> DType:
    try:
        return DType.of(array.dtype)
    except DtypeError as error:
        raise UnsupportedError(
            "an element type that brickc has not", where=where, got=error.got,
            expected=error.expected,
        ) from None  # fmt: skip


def _inputs_of(tensor: Tensor) -> set[str]:
    """The inputs of the model that a tensor depends on."""
    found: set[str] = set()
    seen: set[Tensor] = set()
    stack = [tensor]
    while stack:
        each = stack.pop()
        if each not in seen:
            seen.add(each)
            stack.extend(each.operands)
            if isinstance(each.brick, Input):
                found.add(each.brick.name)
    return found


def _listed(names: set[str]) -> str:
    return ", ".join(printable(n, 40) for n in sorted(names)[:5]) or "no input"
