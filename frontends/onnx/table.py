"""The one table: operator -> the opset from which a converter holds -> the converter.

A converter is a function of a node; it returns the node's outputs. Operators that are not here
are written out by their function bodies, if ONNX's schemas have any.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from .operators import (
    activations,
    arithmetic,
    control,
    convolution,
    indexing,
    losses,
    movement,
    normalization,
    pooling,
    products,
    recurrent,
    reductions,
    resizing,
    sampling,
    shapes,
    sorting,
    spectral,
    training,
)
from .operators.kind import Convert, Table
from .package import onnx_package

if TYPE_CHECKING:
    from .node import Node

__all__ = ["TABLES", "find", "supported", "takes"]

#: (domain, table) in the order of the families
TABLES: tuple[tuple[str, Table], ...] = (
    ("", arithmetic.TABLE),
    ("", activations.TABLE),
    ("", reductions.TABLE),
    ("", shapes.TABLE),
    ("", movement.TABLE),
    ("", indexing.TABLE),
    ("", sorting.TABLE),
    ("", products.TABLE),
    ("", convolution.TABLE),
    ("", pooling.TABLE),
    ("", normalization.TABLE),
    ("", losses.TABLE),
    ("", resizing.TABLE),
    ("", sampling.TABLE),
    ("", spectral.TABLE),
    ("", recurrent.TABLE),
    ("", control.TABLE),
    ("ai.onnx.preview.training", training.TABLE),
)


@cache
def supported() -> dict[tuple[str, str], tuple[tuple[int, Convert], ...]]:
    """(domain, operator) -> (first opset, converter), ascending."""
    found: dict[tuple[str, str], dict[int, Convert]] = {}
    for domain, table in TABLES:
        for operator, entry in table.items():
            versions = entry if isinstance(entry, dict) else {1: entry}
            found.setdefault((domain, operator), {}).update(versions)
    return {key: tuple(sorted(v.items(), key=lambda t: t[0])) for key, v in found.items()}


def find(domain: str, operator: str, opset: int) -> Convert | None:
    """The converter that holds in that opset; None if there is none."""
    chosen = None
    for since, convert in supported().get((domain, operator), ()):
        if since <= opset:
            chosen = convert
    return chosen


def takes(node: Node, domain: str) -> None:
    """Check the number of operands against ONNX's schema. Raises ImportModelError."""
    onnx = onnx_package()
    try:
        schema = onnx.defs.get_schema(node.op, node.opset, domain)
    except onnx.defs.SchemaError:
        return
    # an optional input that is left out has an empty name
    count = len(node.proto.input)
    if not schema.min_input <= count <= schema.max_input:
        most = schema.max_input if schema.max_input < 2**31 - 1 else "any number"
        raise node.wrong("wrong number of inputs", count, f"{schema.min_input} to {most}")
