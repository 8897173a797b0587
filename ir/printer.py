"""Graphs as text, one line a node; ``ir/parser`` is the exact inverse.

::

    graph "lenet5.train_step" {
      dim N = 1..1024 typical 64
      %0: f32[N,1,32,32] = input "x" {limit=0}
      %1: f32[6,1,5,5] = parameter "conv1.weight" {init=uniform(-0.2,0.2), lr_scale=1.0, …}
      %2: f32[N,6,28,28] = convolution(%0, %1) {stride=[1,1], …}  # lenet.prototxt:41 "conv1"
      %9: f32[N,10] = map(%3, %4) {expr="x0*(1-x1^2)", operands=2}  # "tanh1" grad of %4
      output "logits" = %9
      update "conv1.weight" = %20
    }

Names are JSON strings, floats are written by ``repr``, expressions as in
``ir/expression_text``, bytes in base64. The comment is the node's origin and part of the
text: file and line, the layer's name in quotes, a note.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from ..errors import BrickcError, VerifyError
from .attributes import Plain, Word, brick_to_plain
from .brick import Brick, Leaf
from .dims import Dim, DimExpr
from .graph import Graph, Node
from .origin import Origin
from .types import TensorType

__all__ = ["declared_dims", "dims_in", "print_graph", "print_node", "print_origin", "quoted",
           "surroundings"]  # fmt: skip

#: file names that need no quotes
PLAIN_FILE = re.compile(r"[\w./\\+@~-]+", re.ASCII)
#: notes that need no quotes: nothing that could begin a file or a layer
PLAIN_NOTE = re.compile(r"(?!note\b)[\w%.,()+*/='-]+(?: [\w%.,()+*/='-]+)*", re.ASCII)


def print_graph(graph: Graph) -> str:
    """The graph's text: the same graph gives the same text, and parsing gives it back."""
    lines = [f"graph {quoted(graph.name)} {{"]
    for dim in declared_dims(graph).values():
        lines.append(f"  dim {dim.name} = {dim.lo}..{dim.hi} typical {dim.typical}")
    lines += [f"  {print_node(node)}" for node in graph.nodes()]
    lines += [f"  output {quoted(name)} = %{id}" for name, id in graph.outputs.items()]
    for leaf, id in graph.updates.items():
        brick = graph.node(leaf).brick
        name = quoted(brick.name) if isinstance(brick, Leaf) else f"%{leaf}"
        lines.append(f"  update {name} = %{id}")
    return "\n".join([*lines, "}", ""])


def print_node(node: Node) -> str:
    """The node's line, without indentation."""
    brick = node.brick
    if isinstance(brick, Leaf):
        use = f"{brick.mnemonic} {quoted(brick.name)}"
    else:
        use = f"{brick.mnemonic}({', '.join(f'%{o}' for o in node.operands)})"
    plain = brick_to_plain(brick)
    if isinstance(brick, Leaf):
        plain = {k: v for k, v in plain.items() if k not in ("name", "type")}
    attributes = ", ".join(f"{name}={_plain_text(value)}" for name, value in plain.items())
    origin = print_origin(node.origin)
    return (
        f"{node}: {node.type} = {use}"
        + (f" {{{attributes}}}" if attributes else "")
        + (f"  # {origin}" if origin else "")
    )


def print_origin(origin: Origin) -> str:
    """``lenet.prototxt:41 "conv1" grad of %4``; empty if nothing is known."""
    parts = []
    if origin.file or origin.line:
        file = origin.file if PLAIN_FILE.fullmatch(origin.file) else quoted(origin.file)
        parts.append(f"{file}:{origin.line}")
    if origin.layer:
        parts.append(quoted(origin.layer))
    if origin.note:
        bare = PLAIN_NOTE.fullmatch(origin.note)
        parts.append(origin.note if bare else f"note {quoted(origin.note)}")
    return " ".join(parts)


def quoted(text: str) -> str:
    """The text as a JSON string; whatever does not print is escaped."""
    return "".join(
        c if c.isprintable() else json.dumps(c)[1:-1] for c in json.dumps(text, ensure_ascii=False)
    )


def surroundings(graph: Graph, id: int, radius: int = 3) -> str:
    """The lines around a node, the node's own marked; for error messages."""
    nodes = _any_order(graph)
    place = next((k for k, node in enumerate(nodes) if node.id == id), len(nodes))
    lines = []
    for k in range(max(0, place - radius), min(len(nodes), place + radius + 1)):
        line = _line_or_class(nodes[k])
        if len(line) > 240:
            line = line[:239] + "…"
        lines.append(("> " if k == place else "  ") + line)
    return "\n".join(lines)


def _any_order(graph: Graph) -> list[Node]:
    try:
        return graph.nodes()
    except VerifyError:  # a cycle: by number, then
        return [graph.node(id) for id in range(graph.next_id) if id in graph]


def _line_or_class(node: Node) -> str:
    """The node's line, whatever its attributes hold."""
    try:
        return print_node(node)
    except BrickcError:
        return f"{node}: {node.type} = {node.brick!r}"


def _plain_text(value: Plain) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case list():
            return f"[{','.join(_plain_text(v) for v in value)}]"
        case Word():
            return str(value)
        case str():
            return quoted(value)
    return repr(value)


def declared_dims(graph: Graph) -> dict[str, Dim]:
    """Every named dim of types and attributes, by name; verify() makes sure they agree."""
    found: dict[str, Dim] = {}
    for node in graph.nodes():
        for dim in dims_in(node):
            found.setdefault(dim.name, dim)
    return dict(sorted(found.items()))


def dims_in(node: Node) -> Iterable[Dim]:
    """The named dims of a node's type and attributes, with repetition."""
    return _dims_in([node.type, node.brick])


def _dims_in(values: Iterable[object]) -> Iterable[Dim]:
    for value in values:
        match value:
            case Dim():
                yield value
            case DimExpr():
                yield from value.dims
            case TensorType():
                yield from _dims_in(value.shape)
            case tuple():
                yield from _dims_in(value)
            case Brick():
                yield from _dims_in(value.attributes().values())
