"""ONNX nodes being written: names, constants, sizes, and a few shapes of nodes in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UnsupportedError
from ...ir.brick import Array
from ...ir.dims import Dim, DimExpr, Size
from ...ir.dtypes import DType
from ...ir.graph import Graph
from ...ir.types import TensorType
from .functions import ELEMENTS
from .package import onnx_package

if TYPE_CHECKING:
    import onnx

__all__ = ["Writer"]


class Writer:
    """Nodes and constants of one ONNX graph. Values are their names."""

    def __init__(self, graph: Graph) -> None:
        self.onnx = onnx_package()
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        #: node id -> name
        self.names: dict[int, str] = {}
        #: named dim -> a name of an int64 vector of one element
        self._dims: dict[str, str] = {}
        self._sizes: dict[Size, str] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._taken: set[str] = set()
        #: what the nodes that are being written stand for
        self.place = ""

    def unique(self, stem: str) -> str:
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return name

    # ── nodes ────────────────────────────────────────────────────────────────────────────

    def add(self, op: str, *operands: str, name: str = "", **attributes: Any) -> str:
        """A node with one result."""
        result = name or self.unique(op.lower())
        node = self.onnx.helper.make_node(op, list(operands), [result], **attributes)
        node.doc_string = self.place
        self.nodes.append(node)
        return result

    def constant(self, array: Array) -> str:
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._known:
            name = self.unique("constant")
            self.constants[name] = array
            self._known[key] = name
        return self._known[key]

    def ints(self, values: Sequence[int]) -> str:
        return self.constant(np.asarray(values, np.int64))

    def number(self, value: float, dtype: DType) -> str:
        return self.constant(np.asarray(value, dtype.numpy))

    # ── sizes ────────────────────────────────────────────────────────────────────────────

    def find_dims(self, leaves: Mapping[str, TensorType]) -> None:
        """Where each named dim can be read off."""
        for name, type in leaves.items():
            for axis, size in enumerate(type.shape):
                if isinstance(size, Dim) and size.name not in self._dims:
                    self._dims[size.name] = self.add("Shape", name, start=axis, end=axis + 1)

    def size(self, size: Size) -> str:
        """The size as an int64 vector of one element."""
        if isinstance(size, int):
            return self.ints([size])
        if size not in self._sizes:
            self._sizes[size] = self._computed(size)
        return self._sizes[size]

    def _computed(self, size: Dim | DimExpr) -> str:
        terms = (((size.name,), 1),) if isinstance(size, Dim) else size.terms
        total = ""
        for monomial, coefficient in terms:
            part = ""
            for dim in monomial:
                if dim not in self._dims:
                    raise UnsupportedError(f"dim {dim} is the size of no input", got=str(size))
                part = self.add("Mul", part, self._dims[dim]) if part else self._dims[dim]
            if coefficient != 1 or not part:
                factor = self.ints([coefficient])
                part = self.add("Mul", part, factor) if part else factor
            total = self.add("Add", total, part) if total else part
        return total

    def shape(self, sizes: Sequence[Size]) -> str:
        """The sizes as an int64 vector."""
        if all(isinstance(s, int) for s in sizes):
            return self.ints([s for s in sizes if isinstance(s, int)])
        return self.add("Concat", *(self.size(s) for s in sizes), axis=0)

    # ── shapes of nodes ──────────────────────────────────────────────────────────────────

    def cast(self, x: str, dtype: DType) -> str:
        return self.add("Cast", x, to=ELEMENTS[dtype])

    def reshape(self, x: str, sizes: Sequence[Size]) -> str:
        return self.add("Reshape", x, self.shape(sizes), allowzero=1)

    def transpose(self, x: str, order: Sequence[int]) -> str:
        return x if list(order) == sorted(order) else self.add("Transpose", x, perm=list(order))

    def slice(
        self, x: str, axes: Sequence[int], start: Sequence[int], stop: Sequence[Size],
        step: Sequence[int],
    ) -> str:  # fmt: skip
        if not axes:
            return x
        return self.add("Slice", x, self.ints(start), self.shape(stop), self.ints(axes),
                        self.ints(step))  # fmt: skip

    def pad(self, x: str, lo: Sequence[int], hi: Sequence[int], value: str) -> str:
        if not any(lo) and not any(hi):
            return x
        return self.add("Pad", x, self.ints([*lo, *hi]), value)

    def spread(self, x: str, type: TensorType, interior: Sequence[int], value: float) -> str:
        """x with ``interior`` elements of that value between those of each axis."""
        sizes = list(type.shape)
        for axis, gap in enumerate(interior):
            if not gap:
                continue
            n = sizes[axis]
            x = self.reshape(x, [*sizes[: axis + 1], 1, *sizes[axis + 1 :]])
            rank = len(sizes) + 1
            hi = [gap if k == axis + 1 else 0 for k in range(rank)]
            x = self.pad(x, [0] * rank, hi, self.number(value, type.dtype))
            sizes[axis] = n * (gap + 1)
            x = self.reshape(x, sizes)
            last = sizes[axis] - gap
            x = self.slice(x, [axis], [0], [last], [1])
            sizes[axis] = last
        return x

    def zeros(self, sizes: Sequence[Size], dtype: DType) -> str:
        return self.add("Expand", self.number(0, dtype), self.shape(sizes))
