"""Functions: operators that are written down as other operators.

A model may bring its own, and ONNX's schemas give bodies for many of its operators, some of
which depend on the types of a node's operands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...ir.dims import Size
from ...ir.dtypes import DType
from .package import onnx_package
from .values import Known, Listed, Stored

if TYPE_CHECKING:
    import onnx

    from .node import Node

__all__ = ["Body", "body_of"]

ELEMENTS = {
    DType.F32: 1, DType.I32: 6, DType.I64: 7, DType.BOOL: 9, DType.F16: 10, DType.F64: 11,
    DType.BF16: 16,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Body:
    """What a call of a function stands for."""

    inputs: Sequence[str]
    outputs: Sequence[str]
    nodes: Sequence[onnx.NodeProto]
    #: attributes that a call may leave out
    defaults: Mapping[str, onnx.AttributeProto]
    opsets: Mapping[str, int]

    @staticmethod
    def of(
        function: onnx.FunctionProto,
        opsets: Mapping[str, int],
        defaults: Mapping[str, onnx.AttributeProto] | None = None,
    ) -> Body:
        own = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in function.opset_import}
        given = {**(defaults or {}), **{a.name: a for a in function.attribute_proto}}
        return Body(
            list(function.input), list(function.output), list(function.node), given,
            {**opsets, **own},
        )  # fmt: skip


def body_of(node: Node, domain: str, opsets: Mapping[str, int]) -> Body | None:
    """The body that ONNX's own schema gives for a node; None if it gives none."""
    onnx = onnx_package()
    try:
        schema = onnx.defs.get_schema(node.op, node.opset, domain)
    except onnx.defs.SchemaError:
        return None
    defaults = {
        name: attribute.default_value
        for name, attribute in schema.attributes.items()
        if attribute.default_value.name
    }
    text: bytes | None = None
    if schema.has_function:
        version = max((v for v in schema.function_opset_versions if v <= node.opset), default=None)
        if version is not None:
            text = schema.get_function_with_opset_version(version)
    if text is None and schema.has_context_dependent_function:
        versions = schema.context_dependent_function_opset_versions
        version = max((v for v in versions if v <= node.opset), default=None)
        if version is not None:
            call = _call(node)
            types = [_type(node, k) for k in range(node.count)]
            text = schema.get_context_dependent_function_with_opset_version(
                version, call.SerializeToString(), types
            )
    if not text:
        return None
    function = onnx.FunctionProto()
    function.ParseFromString(text)
    return Body.of(function, opsets, defaults)


def _call(node: Node) -> onnx.NodeProto:
    """The node with the attributes that it has here, in place of references."""
    call: onnx.NodeProto = onnx_package().NodeProto()
    call.CopyFrom(node.proto)
    del call.attribute[:]
    for name, attribute in node.attributes.items():
        copy = call.attribute.add()
        copy.CopyFrom(attribute)
        copy.name = name
    return call


def _type(node: Node, position: int) -> bytes:
    """The type of an operand as ONNX writes it; empty for one that is left out."""
    onnx = onnx_package()
    type = onnx.TypeProto()
    item = node.operands[position]
    if item is None or isinstance(item, Listed):
        return bytes(type.SerializeToString())
    tensor = type.tensor_type
    if isinstance(item, Known) and not item.symbolic:
        tensor.elem_type = onnx.helper.np_dtype_to_tensor_dtype(item.array.dtype)
        shape: Sequence[Size] = item.array.shape
    else:
        found = item.type if isinstance(item, Stored) else node.type_of(position)
        tensor.elem_type = ELEMENTS[found.dtype]
        shape = found.shape
    tensor.shape.SetInParent()
    for size in shape:
        dim = tensor.shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        else:
            dim.dim_param = str(size)
    return bytes(type.SerializeToString())
