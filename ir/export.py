"""Graphs as JSON, which can be loaded back, and as DOT, to be looked at.

The JSON document (UTF-8, keys in this order)::

    {"format": "brickc-graph", "version": 1, "name": "lenet5",
     "dims": [{"name": "N", "lo": 1, "hi": 1024, "typical": 64}],
     "nodes": [{"id": 2, "brick": "convolution", "operands": [0, 1],
                "type": "f32[N,6,28,28]", "attributes": {"stride": [1, 1], …},
                "origin": {"file": "lenet.prototxt", "line": 41, "layer": "conv1", "note": ""}}],
     "outputs": [["logits", 9]], "updates": [["conv1.weight", 20]]}

A leaf's node (brick ``input``, ``parameter`` or ``state``) has a ``name`` and no operands.
Types, sizes, initializers and expressions are strings in the text form's spelling; infinite
and undefined floats are the strings ``inf``, ``-inf`` and ``nan``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import ImportModelError
from .assemble import Assembler
from .attributes import Plain, brick_to_plain
from .brick import Brick, Input, Leaf, Parameter, State
from .graph import Graph, Node
from .origin import Origin
from .printer import declared_dims

__all__ = ["from_json", "to_dot", "to_json"]

_FORMAT = "brickc-graph"
_VERSION = 1
_LONGEST_TEXT = 512 * 2**20


# ── JSON ─────────────────────────────────────────────────────────────────────────────────


def to_json(graph: Graph) -> str:
    """The graph as a JSON document, a node a line."""
    names = {id: n for n, id in (graph.parameters | graph.states).items()}
    dims = [
        {"name": d.name, "lo": d.lo, "hi": d.hi, "typical": d.typical}
        for d in declared_dims(graph).values()
    ]
    head = {"format": _FORMAT, "version": _VERSION, "name": graph.name, "dims": dims}
    tail = {
        "outputs": [[name, id] for name, id in graph.outputs.items()],
        "updates": [[names[leaf], id] for leaf, id in graph.updates.items()],
    }
    nodes = ",\n  ".join(_dumps(_node_record(node)) for node in graph.nodes())
    return f'{_dumps(head)[:-1]},\n "nodes": [\n  {nodes}\n ],\n {_dumps(tail)[1:]}\n'


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _node_record(node: Node) -> dict[str, Any]:
    record: dict[str, Any] = {"id": node.id, "brick": node.brick.mnemonic}
    plain = brick_to_plain(node.brick)
    if isinstance(node.brick, Leaf):
        record["name"] = node.brick.name
        plain = {k: v for k, v in plain.items() if k not in ("name", "type")}
    else:
        record["operands"] = list(node.operands)
    record["type"] = str(node.type)
    record["attributes"] = {k: _finite(v) for k, v in plain.items()}
    origin = node.origin
    if origin != Origin():
        record["origin"] = {
            "file": origin.file, "line": origin.line, "layer": origin.layer, "note": origin.note,
        }  # fmt: skip
    return record


def _finite(value: Plain) -> Plain:
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def from_json(text: str, catalogue: Mapping[str, type[Brick]], source: str = "IR as JSON") -> Graph:
    """The graph of a document that ``to_json`` wrote; ``source`` is its name, for messages.

    Raises as ``parse`` does.
    """
    if len(text) > _LONGEST_TEXT:
        raise ImportModelError("too long", where=source, got=len(text), expected=_LONGEST_TEXT)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImportModelError("not JSON", where=source, got=str(error)[:200]) from None
    top = _Record(document, source)
    if top.text("format") != _FORMAT or top.integer("version") != _VERSION:
        raise ImportModelError(
            "not a graph of this format", where=source,
            got=f"{document.get('format')!r} version {document.get('version')!r}"[:200],
            expected=f"{_FORMAT!r} version {_VERSION}",
        )  # fmt: skip
    assembler = Assembler(top.text("name"), catalogue, source)
    for dim in top.records("dims"):
        assembler.dim(
            dim.text("name"), dim.integer("lo"), dim.integer("hi"), dim.integer("typical"),
            dim.where,
        )  # fmt: skip
    for node in top.records("nodes"):
        _add_node(assembler, node)
    for key, add in (("outputs", assembler.output), ("updates", assembler.update)):
        _add_results(top, key, add)
    return assembler.graph


def _add_node(assembler: Assembler, node: _Record) -> None:
    origin = _Record(node.optional("origin", {}), f"{node.where}.origin")
    operands = node.optional("operands", [])
    attributes = node.optional("attributes", {})
    if not isinstance(operands, list) or not all(type(o) is int for o in operands):
        raise node.mistake("operands", "a list of integers")
    if not isinstance(attributes, dict):
        raise node.mistake("attributes", "an object")
    name = node.text("name") if "name" in node.data else None
    assembler.node(
        node.integer("id"), node.text("type"), node.text("brick"), name, operands, attributes,
        Origin(origin.text("file", ""), origin.integer("line", 0), origin.text("layer", ""),
               origin.text("note", "")),
        node.where,
    )  # fmt: skip


def _add_results(top: _Record, key: str, add: Callable[[str, int, str], None]) -> None:
    for k, pair in enumerate(top.items(key)):
        where = f"{top.where}: {key}[{k}]"
        match pair:
            case [str() as name, int() as id] if not isinstance(id, bool):
                add(name, id, where)
            case _:
                raise ImportModelError(
                    "not a result", where=where, got=repr(pair)[:200], expected='["name", id]'
                )


class _Record:
    """A JSON object whose fields are checked as they are read."""

    def __init__(self, data: object, where: str) -> None:
        if not isinstance(data, dict):
            raise ImportModelError(
                "another kind of value", where=where, got=repr(data)[:80], expected="an object"
            )
        self.data: dict[str, Any] = data
        self.where = where

    def mistake(self, key: str, expected: str) -> ImportModelError:
        got = repr(self.data[key])[:80] if key in self.data else "nothing"
        return ImportModelError(
            f"field {key!r} is wrong", where=self.where, got=got, expected=expected
        )

    def optional(self, key: str, default: Any) -> Any:
        return self.data.get(key, default)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str):
            raise self.mistake(key, "a string")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.data.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.mistake(key, "an integer")
        return value

    def items(self, key: str) -> list[Any]:
        value = self.data.get(key)
        if not isinstance(value, list):
            raise self.mistake(key, "a list")
        return value

    def records(self, key: str) -> Iterable[_Record]:
        for k, item in enumerate(self.items(key)):
            yield _Record(item, f"{self.where}: {key}[{k}]")


# ── DOT ──────────────────────────────────────────────────────────────────────────────────


def to_dot(graph: Graph, *, clusters: bool = False) -> str:
    """The graph for Graphviz: brick, type and layer of each node.

    ``clusters`` draws a box around the nodes of each layer.
    """
    lines = [
        f"digraph {_dot(graph.name)} {{",
        '  rankdir=TB; node [shape=box, fontname="Helvetica", fontsize=10];',
    ]
    layers: dict[str, list[Node]] = {}
    for node in graph.nodes():
        layers.setdefault(node.origin.layer if clusters else "", []).append(node)
    for k, (layer, members) in enumerate(layers.items()):
        inner = [_dot_node(node) for node in members]
        if layer:
            lines += [f"  subgraph cluster_{k} {{", f"    label={_dot(layer)}; color=gray;"]
            lines += [f"    {text}" for text in inner]
            lines.append("  }")
        else:
            lines += [f"  {text}" for text in inner]
    for node in graph.nodes():
        for position, operand in enumerate(node.operands):
            label = f' [label="{position}"]' if len(node.operands) > 1 else ""
            lines.append(f"  n{operand} -> n{node.id}{label};")
    for k, (name, id) in enumerate(graph.outputs.items()):
        lines.append(f"  out{k} [label={_dot(name)}, shape=plaintext];")
        lines.append(f"  n{id} -> out{k};")
    for leaf, id in graph.updates.items():
        lines.append(f"  n{id} -> n{leaf} [style=dashed, constraint=false];")
    return "\n".join([*lines, "}", ""])


def _dot_node(node: Node) -> str:
    brick = node.brick
    parts = [f"{node} {brick.mnemonic}", str(node.type)]
    if isinstance(brick, Leaf):
        parts[0] = f"{node} {brick.mnemonic} {brick.name}"
    if node.origin.layer:
        parts.append(node.origin.layer)
    colors = {Input: "lightblue", Parameter: "lightyellow", State: "lightgray"}
    color = colors.get(type(brick))
    fill = f", style=filled, fillcolor={color}" if color else ""
    return f"n{node.id} [label={_dot(chr(10).join(parts))}{fill}];"


def _dot(text: str) -> str:
    """A quoted DOT string: a line a line, odd characters as JSON would write them."""
    return '"' + "\\n".join(_dot_line(line) for line in text.split("\n")) + '"'


def _dot_line(line: str) -> str:
    plain = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)
    return plain.replace("\\", "\\\\").replace('"', '\\"')
