"""From an ONNX graph to tensors: names, nodes in order, functions and subgraphs.

One pass over the nodes. What is not supported is collected, with its place, and reported at
once at the end; what depends on it is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BrickcError, DtypeError, ImportModelError, UnsupportedError
from ...ir.brick import Array, Leaf
from ...ir.bricks.source import DimSize
from ...ir.dims import Dim, Size, dims_of
from ...ir.initializers import Initializer
from ...ir.origin import Origin
from ...ir.types import TensorType
from ...ir.value import Eager
from .. import trace
from ..model import Model
from ..place import at
from ..trace import Tensor
from .functions import Body, body_of
from .names import Names
from .node import Node
from .package import onnx_package
from .reading import DTYPES, array_of, opset_of, printable
from .scope import Place, Scope
from .signature import Signature
from .sizes import fold
from .table import find, takes
from .values import Failed, Item, Known, Listed, Stored, TooLargeError, plain_sizes

if TYPE_CHECKING:
    import onnx

__all__ = ["Importer"]

#: nodes after functions, loops and branches have been written out
_MOST_NODES = 30_000
#: functions in functions, graphs in graphs
_DEEPEST = 24

#: the first value of what is stored: the weights that come with the model
_FROM_FILE = Initializer("external")

Shapes = Mapping[str, Sequence[int | str | Dim]]


class Importer:
    """One model on its way in. ``wanted`` are inputs whose values the program's form needs."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        file: str,
        folder: Path | None,
        *,
        shapes: Shapes | None = None,
        values: Mapping[str, Array] | None = None,
        frozen: Sequence[str] = (),
    ) -> None:
        self.onnx = onnx_package()
        self.proto = proto
        self.file = file
        self.folder = folder
        self.shapes = dict(shapes or {})
        self.values = dict(values or {})
        self.frozen = frozenset(frozen)
        self.opsets = opset_of(proto, file)
        self.functions = self._local_functions()
        self.signature = Signature.of(proto.graph)
        self.names = Names()
        self.dims: dict[str, Dim] = {}
        self.weights: dict[str, Array] = {}
        self.inputs: dict[str, Tensor] = {}
        #: the file's name of an input -> the model's
        self.names_of: dict[str, str] = {}
        self.updates: dict[Tensor, Tensor] = {}
        self.wanted: set[str] = set()
        self.problems: list[str] = []
        self.count = 0

    def want(self, names: set[str]) -> None:
        """Remember inputs (by the model's names) that must be known."""
        self.wanted |= {k for k, name in self.names_of.items() if name in names}

    # ── the whole ────────────────────────────────────────────────────────────────────────

    def run(self) -> Model:
        """The model. Raises UnsupportedError that lists all that is not supported."""
        name = self.names.clean(self.proto.graph.name, "model")
        outputs = self.outputs()
        kept = self._reached([*outputs.values(), *self.updates.values()])
        weights = {k: w for k, w in self.weights.items() if k in kept}
        model = Model(outputs, name=name, weights=weights, updates=self.updates)
        graph = model.inference()
        known = {n for i in graph.inputs.values() for n in graph.node(i).type.dims}
        for node in graph.nodes():
            # a size that is asked for alone, while nothing reads the tensor that has it
            sizes = [node.brick.size] if isinstance(node.brick, DimSize) else node.type.shape
            lost = dims_of(*sizes).keys() - known
            if lost:
                raise UnsupportedError(
                    f"a result depends on dim {min(lost)}, but on no input that has it",
                    where=str(node.origin), hint="give that input a fixed shape",
                )  # fmt: skip
        return model

    def _reached(self, roots: Sequence[Tensor]) -> set[str]:
        """Names of the leaves that the roots depend on: other weights are not needed."""
        seen: set[Tensor] = set(roots)
        stack = list(roots)
        while stack:
            fresh = [o for o in stack.pop().operands if o not in seen]
            seen.update(fresh)
            stack.extend(fresh)
        return {t.brick.name for t in seen if isinstance(t.brick, Leaf)}

    def outputs(self) -> dict[str, Tensor]:
        """The graph's outputs as tensors."""
        graph = self.proto.graph
        scope = Scope(opsets=self.opsets)
        self._declare(graph, scope)
        self.walk(graph.node, scope)
        self._report()
        found: dict[str, Tensor] = {}
        names = Names()
        with at(Origin(self.file, 0)):
            for value in graph.output:
                item = self._result(value.name, scope)
                tensor = self._output(item, value.name)
                found[names.unique(value.name, "output")] = tensor
        if not found:
            raise ImportModelError("the graph has no outputs", where=self.file)
        return found

    def _result(self, name: str, scope: Scope) -> Item:
        try:
            return scope.find(name)
        except KeyError:
            raise ImportModelError(
                f"output {printable(name)!r} is not computed", where=self.file
            ) from None

    def _output(self, item: Item, name: str) -> Tensor:
        place = Place(Origin(self.file), f"{self.file}: output {printable(name)!r}")
        proto = self.onnx.NodeProto(op_type="output")
        node = Node(self, proto, [item], {}, 0, Scope(), place)
        value = node.tensor(0)
        assert isinstance(value, Tensor)
        return value

    def _report(self) -> None:
        if not self.problems:
            return
        shown = self.problems[:200]
        more = len(self.problems) - len(shown)
        if more:
            shown.append(f"and {more} more")
        count = len(self.problems)
        raise UnsupportedError(
            f"{count} node{'s are' if count > 1 else ' is'} not supported",
            where=self.file, got="\n  " + "\n  ".join(shown),
        )  # fmt: skip

    # ── inputs and initializers ──────────────────────────────────────────────────────────

    def _declare(self, graph: onnx.GraphProto, scope: Scope) -> None:
        inputs = {value.name for value in graph.input}
        if len(inputs) != len(graph.input):
            raise ImportModelError("two inputs have one name", where=self.file)
        for tensor in graph.initializer:
            item = self._initializer(tensor, tensor.name in inputs)
            scope.define(tensor.name, item, self.file)
        for sparse in graph.sparse_initializer:
            where = f"sparse initializer {printable(sparse.values.name)!r}"
            self.problems.append(where)
            scope.define(sparse.values.name, Failed(), self.file)
        for value in graph.input:
            if value.name not in scope.items:
                scope.define(value.name, self._input(value), self.file)

    def _initializer(self, tensor: onnx.TensorProto, is_input: bool) -> Item:
        where = f"{self.file}: initializer {printable(tensor.name)!r}"

        def load() -> Array:
            return array_of(tensor, self.folder, where)

        dtype = DTYPES.get(tensor.data_type)
        trainable = dtype is not None and dtype.is_float and (is_input or len(tensor.dims) > 0)
        if dtype is not None and trainable and tensor.name not in self.frozen:
            try:
                type = TensorType.of(dtype, tuple(tensor.dims))
            except BrickcError as error:
                raise error.at(where) from None
            weight = is_input or not self.signature.is_constant(tensor.name)
            return Stored(self.names.unique(tensor.name, "weight"), type, load, weight)
        try:
            return Known(load())
        except UnsupportedError as error:
            self.problems.append(str(error))
            return Failed()

    def _input(self, value: onnx.ValueInfoProto) -> Item:
        name = self.names.unique(value.name, "input")
        self.names_of[value.name] = name
        if value.name in self.values:
            return Known(np.asarray(self.values[value.name]))
        where = f"{self.file}: input {printable(value.name)!r}"
        if value.type.WhichOneof("value") != "tensor_type":
            self.problems.append(f"{where} is no tensor")
            return Failed()
        declared = value.type.tensor_type
        dtype = DTYPES.get(declared.elem_type)
        if dtype is None:
            kind = declared.elem_type
            known = kind in self.onnx.TensorProto.DataType.values()
            text = self.onnx.TensorProto.DataType.Name(kind).lower() if known else f"type {kind}"
            self.problems.append(f"{where}: brickc has no element type {text}")
            return Failed()
        given = self.shapes.get(value.name)
        if given is not None:
            shape = [self._given_size(s) for s in given]
        elif declared.HasField("shape"):
            shape = [self._size(d, f"{name}_{axis}") for axis, d in enumerate(declared.shape.dim)]
        else:
            raise ImportModelError(
                f"input {printable(value.name)!r} has no shape", where=self.file,
                hint=f"shapes={{{printable(value.name)!r}: ('N', 3, 224, 224)}} gives it one",
            )  # fmt: skip
        with at(Origin(self.file, 0)):
            tensor = trace.input(name, shape, dtype)
        self.inputs[value.name] = tensor
        return tensor

    def _given_size(self, size: int | str | Dim) -> Size:
        if isinstance(size, Dim):
            return self.dims.setdefault(size.name, size)
        return self._dim(size) if isinstance(size, str) else size

    def _size(self, dim: onnx.TensorShapeProto.Dimension, name: str) -> Size:
        if dim.HasField("dim_value"):
            return int(dim.dim_value)
        return self._dim(dim.dim_param or name)

    def _dim(self, text: str) -> Dim:
        """The named dim of that text, which may be anything."""
        if text not in self.dims:
            plain = printable(text, 40)
            clean = "".join(c if c.isascii() and c.isalnum() else "_" for c in plain)
            name = clean if clean[:1].isalpha() else f"d{clean}"
            taken = {d.name for d in self.dims.values()}
            number, unique = 1, name
            while unique in taken:
                number += 1
                unique = f"{name}_{number}"
            self.dims[text] = Dim(unique)
        return self.dims[text]

    def parameter(self, stored: Stored) -> Tensor:
        """The parameter that an initializer is. Its layer is the first node that uses it.

        A mask with infinities in it is a constant, whatever it is called.
        """
        if stored.leaf is None:
            array = self._fitting(stored)
            if not stored.trained or not np.isfinite(array).all():
                stored.leaf = trace.literal(array, stored.type.dtype)
                return stored.leaf
            stored.leaf = trace.parameter(stored.name, array.shape, _FROM_FILE, stored.type.dtype)
            self.weights[stored.name] = array
        return stored.leaf

    def state(self, stored: Stored) -> Tensor | None:
        """The state that an initializer is (a running mean); None if it is trained elsewhere."""
        if stored.leaf is None:
            array = self._fitting(stored)
            stored.leaf = trace.state(stored.name, array.shape, _FROM_FILE, stored.type.dtype)
            self.weights[stored.name] = array
        is_state = stored.leaf.brick.mnemonic == "state"
        return stored.leaf if is_state else None

    def _fitting(self, stored: Stored) -> Array:
        array = stored.array
        if not np.can_cast(array.dtype, stored.type.dtype.numpy, "same_kind"):
            raise DtypeError("an initializer of another type", got=array.dtype)
        return array

    # ── nodes ────────────────────────────────────────────────────────────────────────────

    def walk(self, nodes: Sequence[onnx.NodeProto], scope: Scope) -> None:
        """Import nodes in order; the names they define go into the scope."""
        for index, proto in enumerate(nodes):
            self.count += 1
            if self.count > _MOST_NODES:
                raise ImportModelError(
                    "too many nodes, with loops and functions written out", where=self.file,
                    expected=f"at most {_MOST_NODES}",
                )  # fmt: skip
            label = printable(proto.name) or printable(f"{proto.op_type}_{index}")
            if scope.place is not None:
                place = Place(scope.place.origin, f"{scope.place.where} in {label}")
            else:
                where = f'{self.file}:node {index} "{label}"'
                place = Place(Origin(self.file, index, label), where)
            with at(place.origin):
                self._node(proto, scope, place)

    def _node(self, proto: onnx.NodeProto, scope: Scope, place: Place) -> None:
        operands = self._operands(proto, scope, place.where)
        if any(isinstance(o, Failed) for o in operands):
            results: Sequence[Item] = [Failed()] * len(proto.output)
        else:
            try:
                results = self._convert(proto, operands, scope, place)
            except UnsupportedError as error:
                self.problems.append(str(error.at(place.where)))
                results = [Failed()] * len(proto.output)
            except BrickcError as error:
                raise error.at(place.where) from None
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                # a file may say anything; what a converter did not expect is the file's fault
                raise ImportModelError(
                    f"{printable(proto.op_type)}: operands and attributes do not fit together",
                    where=place.where, got=f"{type(error).__name__}: {error}"[:300],
                ) from error  # fmt: skip
        used = [name for name in proto.output if name]
        if len(results) < len(proto.output) and any(proto.output[len(results) :]):
            self.problems.append(
                f"{place.where}: {proto.op_type} has no output "
                f"{len(results) + 1} that brickc knows of"
            )
            results = [*results, *[Failed()] * (len(proto.output) - len(results))]
        if len(set(used)) != len(used):
            raise ImportModelError("a node has two outputs of one name", where=place.where)
        for name, item in zip(proto.output, results, strict=False):
            if name:
                scope.define(name, item, place.where)

    def _operands(self, proto: onnx.NodeProto, scope: Scope, where: str) -> list[Item]:
        found: list[Item] = []
        for name in proto.input:
            if not name:
                found.append(None)
                continue
            try:
                found.append(scope.find(name))
            except KeyError:
                raise ImportModelError(
                    f"{printable(name)!r} is used before it is computed", where=where,
                    hint="nodes must be sorted, and there must be no cycle",
                ) from None  # fmt: skip
        while found and found[-1] is None:
            found.pop()
        return found

    def _convert(
        self, proto: onnx.NodeProto, operands: list[Item], scope: Scope, place: Place
    ) -> Sequence[Item]:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        attributes = self._attributes(proto, scope, place.where)
        opset = scope.opsets.get(domain, 0)
        node = Node(self, proto, operands, attributes, opset, scope, place)
        local = self.functions.get((domain, proto.op_type, proto.overload))
        if local is not None:
            return self._call(local, node)
        convert = find(domain, proto.op_type, opset)
        if convert is None:
            body = body_of(node, domain, self.opsets)
            if body is None:
                raise UnsupportedError(
                    f"brickc has no operator {printable(f'{domain}.' if domain else '')}"
                    f"{printable(proto.op_type)}", where=place.where,
                    got=f"opset {opset}",
                )  # fmt: skip
            return self._call(body, node)
        takes(node, domain)
        folded = fold(node)
        if folded is not None:
            return folded
        plain = all(isinstance(o, Known) and not o.symbolic for o in operands if o is not None)
        if plain:
            node.eager = True
            try:
                return self._listed(convert(node))
            except TooLargeError:
                node.eager = False
        return self._listed(convert(node))

    def _listed(self, results: object) -> list[Item]:
        many = results if isinstance(results, tuple | list) else (results,)
        return [self._item(r) for r in many]

    def _item(self, result: object) -> Item:
        if isinstance(result, Eager):
            return Known(result.array)
        if isinstance(result, Known):
            return Known(plain_sizes(result.array))
        assert isinstance(result, Tensor | Listed | Stored | Failed) or result is None
        return result

    def _attributes(
        self, proto: onnx.NodeProto, scope: Scope, where: str
    ) -> dict[str, onnx.AttributeProto]:
        """The node's attributes; those that refer to the function's call are looked up there."""
        found: dict[str, onnx.AttributeProto] = {}
        for attribute in proto.attribute:
            if attribute.name in found:
                raise ImportModelError(
                    f"attribute {printable(attribute.name)!r} is given twice", where=where
                )
            if attribute.ref_attr_name:
                given = scope.attributes.get(attribute.ref_attr_name)
                if given is not None:
                    found[attribute.name] = given
            else:
                found[attribute.name] = attribute
        return found

    # ── functions and subgraphs ──────────────────────────────────────────────────────────

    def _local_functions(self) -> dict[tuple[str, str, str], Body]:
        found: dict[tuple[str, str, str], Body] = {}
        for function in self.proto.functions:
            domain = "" if function.domain == "ai.onnx" else function.domain
            key = (domain, function.name, function.overload)
            if key in found:
                raise ImportModelError(
                    f"two functions are called {printable(function.name)!r}", where=self.file
                )
            found[key] = Body.of(function, self.opsets)
        return found

    def inner(self, node: Node, outer: Scope | None, body: Body | None = None) -> Scope:
        """A scope for a function's or subgraph's nodes, one floor down."""
        depth = node.scope.depth + 1
        if depth > _DEEPEST:
            raise ImportModelError(
                "functions or graphs are nested too deeply", where=node.where,
                expected=f"at most {_DEEPEST}",
            )  # fmt: skip
        if body is None:
            assert outer is not None
            return Scope(outer, outer.attributes, outer.opsets, depth, node.place)
        attributes = {**body.defaults, **node.attributes}
        return Scope(None, attributes, body.opsets, depth, node.place)

    def _call(self, body: Body, node: Node) -> Sequence[Item]:
        scope = self.inner(node, None, body)
        if len(node.operands) > len(body.inputs):
            raise node.wrong("too many inputs", len(node.operands), len(body.inputs))
        padded = [*node.operands, *[None] * (len(body.inputs) - len(node.operands))]
        for name, item in zip(body.inputs, padded, strict=True):
            scope.define(name, item, node.where)
        self.walk(body.nodes, scope)
        count = len(node.proto.output)
        # a body may leave out optional outputs
        return [scope.items.get(name) for name in body.outputs[:count]]

    def subgraph(self, graph: onnx.GraphProto, node: Node, items: Sequence[Item]) -> list[Item]:
        """The outputs of a subgraph on these inputs."""
        scope = self.inner(node, node.scope)
        if len(items) != len(graph.input):
            raise node.wrong("a subgraph has other inputs", len(graph.input), len(items))
        for value, item in zip(graph.input, items, strict=True):
            scope.define(value.name, item, node.where)
        for tensor in graph.initializer:
            array = array_of(tensor, self.folder, node.where)
            scope.define(tensor.name, Known(array), node.where)
        self.walk(graph.node, scope)
        return [self._result(value.name, scope) for value in graph.output]
