"""Branches, loops and sequences: they are gone when the model has been imported."""

from __future__ import annotations

import numpy as np

from ....errors import UnsupportedError
from ....ir.bricks.arithmetic import where
from ....ir.bricks.shape import concat, reshape, slice_
from ....ir.value import Eager, Value
from ...trace import Tensor
from ..node import Node
from ..values import Failed, Item, Known, Listed
from .kind import Table
from .movement import cut, fixed
from .shapes import squeezed, unsqueezed

__all__ = ["TABLE"]

_MOST_STEPS = 4096


def branch(node: Node) -> list[object]:
    """A known condition takes its branch; otherwise both are computed and one is chosen."""
    run = node.importer.subgraph
    if node.is_known(0):
        name = "then_branch" if bool(node.known(0).reshape(()).item()) else "else_branch"
        return list(run(node.graph_of(name), node, []))
    condition = reshape(node.tensor(0), ())
    first = run(node.graph_of("then_branch"), node, [])
    second = run(node.graph_of("else_branch"), node, [])
    if len(first) != len(second):
        raise node.wrong("the branches have different numbers of outputs")
    results: list[object] = []
    for a, b in zip(first, second, strict=True):
        if isinstance(a, Failed) or isinstance(b, Failed):
            results.append(Failed())
            continue
        x, y = node.value(a), node.value(b)
        if x.type != y.type:
            raise node.unsupported("branches of different types", f"{x.type} and {y.type}")
        results.append(where(condition, x, y))
    return results


def loop(node: Node) -> list[object]:
    """Written out: the number of steps must be known."""
    body = node.graph_of("body")
    most = int(node.scalar(0)) if node.has(0) else _MOST_STEPS + 1
    going = bool(node.known(1).reshape(()).item()) if node.has(1) else True
    state: list[Item] = list(node.operands[2:])
    count = len(state)
    scans: list[list[Item]] = [[] for _ in range(len(body.output) - 1 - count)]
    step = 0
    while going and step < most:
        if step >= _MOST_STEPS:
            raise node.unsupported("so many steps", most)
        known = Known(np.asarray(step, np.int64))
        outputs = node.importer.subgraph(body, node, [known, Known(np.asarray(True)), *state])
        if any(isinstance(o, Failed) for o in outputs):
            return [Failed()] * (count + len(scans))
        if not isinstance(outputs[0], Known):
            raise node.unsupported("a condition that is only known when the program runs")
        going = bool(outputs[0].array.reshape(()).item())
        state = outputs[1 : 1 + count]
        for scan, item in zip(scans, outputs[1 + count :], strict=True):
            scan.append(item)
        step += 1
    return [*state, *(_stacked(node, scan, 0) for scan in scans)]


def _stacked(node: Node, items: list[Item], axis: int) -> Value:
    if not items:
        raise node.unsupported("the outputs of a loop of no steps")
    values = [node.value(i) for i in items]
    spread = [unsqueezed(v, (axis,)) for v in values]
    return spread[0] if len(spread) == 1 else concat(spread, axis)


def scan_8(node: Node) -> list[object]:
    """The first form: with a batch axis in front, and lengths that are not supported."""
    if node.has(0):
        raise node.unsupported("sequences of different lengths")
    count = node.get_int("num_scan_inputs")
    inputs = [node.tensor(k) for k in range(1, node.count)]
    batch = fixed(node, inputs[0].shape[0], "a batch that is written out")
    directions = node.get_ints("directions", (0,) * count)
    found: list[list[Value]] = []
    for n in range(batch):
        rows = [squeezed(cut(x, 0, n, n + 1), (0,)) for x in inputs]
        axes = (0,) * count
        body = node.graph_of("body")
        outs = (0,) * (len(body.output) - (len(rows) - count))
        results = _scan(node, rows, count, axes, outs, directions, (0,) * len(outs))
        found.append([v for v in results if isinstance(v, Value)])
    return [_stacked_values([row[k] for row in found]) for k in range(len(found[0]))]


def _stacked_values(values: list[Value]) -> Value:
    spread = [unsqueezed(v, (0,)) for v in values]
    return spread[0] if len(spread) == 1 else concat(spread, 0)


def scan(node: Node) -> list[object]:
    count = node.get_int("num_scan_inputs")
    body = node.graph_of("body")
    values = [node.tensor(k) for k in range(node.count)]
    outs = len(body.output) - (len(values) - count)
    return _scan(
        node, values, count,
        node.get_ints("scan_input_axes", (0,) * count),
        node.get_ints("scan_output_axes", (0,) * outs),
        node.get_ints("scan_input_directions", (0,) * count),
        node.get_ints("scan_output_directions", (0,) * outs),
    )  # fmt: skip


def _scan(
    node: Node,
    values: list[Value],
    count: int,
    axes: tuple[int, ...],
    out_axes: tuple[int, ...],
    directions: tuple[int, ...],
    out_directions: tuple[int, ...],
) -> list[object]:
    body = node.graph_of("body")
    states: list[Item] = [_as_item(v) for v in values[: len(values) - count]]
    inputs = values[len(values) - count :]
    places = [node.axis(k, x.rank) for k, x in zip(axes, inputs, strict=True)]
    lengths = {fixed(node, x.shape[k], "a scan") for k, x in zip(places, inputs, strict=True)}
    if len(lengths) != 1:
        raise node.wrong("the scanned inputs have different lengths", sorted(lengths))
    (length,) = lengths
    if length > _MOST_STEPS:
        raise node.unsupported("so many steps", length)
    collected: list[list[Item]] = [[] for _ in out_axes]
    for step in range(length):
        parts: list[Item] = []
        for x, k, backwards in zip(inputs, places, directions, strict=True):
            t = length - 1 - step if backwards else step
            parts.append(_as_item(squeezed(cut(x, k, t, t + 1), (k,))))
        outputs = node.importer.subgraph(body, node, [*states, *parts])
        if any(isinstance(o, Failed) for o in outputs):
            return [Failed()] * len(outputs)
        states = outputs[: len(states)]
        for many, item in zip(collected, outputs[len(states) :], strict=True):
            many.append(item)
    results: list[object] = [node.value(s) for s in states]
    for many, k, backwards in zip(collected, out_axes, out_directions, strict=True):
        if not many:
            raise node.unsupported("a scan over nothing")
        rank = node.value(many[0]).rank + 1
        ordered = many[::-1] if backwards else many
        results.append(_stacked(node, ordered, node.axis(k, rank)))
    return results


def _as_item(value: Value) -> Item:
    if isinstance(value, Eager):
        return Known(value.array)
    assert isinstance(value, Tensor)
    return value


# ── sequences ────────────────────────────────────────────────────────────────────────────


def _items(node: Node, position: int) -> tuple[Item, ...]:
    item = node.item(position)
    if not isinstance(item, Listed):
        raise UnsupportedError("a sequence that comes from outside", where=node.where)
    return item.items


def _position(node: Node, position: int, count: int, default: int) -> int:
    if not node.has(position):
        return default
    given = int(node.scalar(position))
    if not -count <= given <= count:
        raise node.wrong("no such element", given, count)
    return given + count if given < 0 else given


def sequence_at(node: Node) -> Item:
    items = _items(node, 0)
    place = _position(node, 1, len(items), 0)
    if place >= len(items):
        raise node.wrong("no such element", place, len(items))
    return items[place]


def sequence_insert(node: Node) -> Listed:
    items = list(_items(node, 0))
    items.insert(_position(node, 2, len(items), len(items)), node.item(1))
    return Listed(tuple(items))


def sequence_erase(node: Node) -> Listed:
    items = list(_items(node, 0))
    place = _position(node, 1, len(items), len(items) - 1)
    if not 0 <= place < len(items):
        raise node.wrong("no such element", place, len(items))
    del items[place]
    return Listed(tuple(items))


def concat_from_sequence(node: Node) -> Value:
    values = [node.value(i) for i in _items(node, 0)]
    if not values:
        raise node.wrong("a sequence of nothing")
    new = node.get_flag("new_axis")
    axis = node.axis(node.get_int("axis"), values[0].rank + (1 if new else 0))
    if new:
        values = [unsqueezed(v, (axis,)) for v in values]
    return values[0] if len(values) == 1 else concat(values, axis)


def split_to_sequence(node: Node) -> Listed:
    x = node.tensor(0)
    axis = node.axis(node.get_int("axis", 0), x.rank)
    size = fixed(node, x.shape[axis], "the axis that is split")
    keep = node.get_flag("keepdims", True)
    if not node.has(1):
        sizes = [1] * size
    elif node.known(1).ndim == 0:
        each = int(node.scalar(1))
        if each < 1:
            raise node.wrong("parts of impossible size", each)
        sizes = [min(each, size - k) for k in range(0, size, each)]
        keep = True
    else:
        sizes, keep = list(node.integers(1)), True
    if sum(sizes) != size or len(sizes) > _MOST_STEPS:
        raise node.wrong("the parts do not fill the axis", len(sizes), size)
    parts: list[Item] = []
    start = 0
    for n in sizes:
        first, last = [0] * x.rank, list(x.shape)
        first[axis], last[axis] = start, start + n
        part = slice_(x, first, last)
        parts.append(_as_item(part if keep else squeezed(part, (axis,))))
        start += n
    return Listed(tuple(parts))


def sequence_length(node: Node) -> Known:
    return Known(np.asarray(len(_items(node, 0)), np.int64))


def optional(node: Node) -> Item:
    """The value itself; None where it is left out."""
    return node.item(0) if node.has(0) else None


def optional_has_element(node: Node) -> Known:
    return Known(np.asarray(node.has(0)))


TABLE: Table = {
    "If": branch,
    "Loop": loop,
    "Scan": {8: scan_8, 9: scan},
    "SequenceConstruct": lambda node: Listed(tuple(node.operands)),
    "SequenceEmpty": lambda node: Listed(()),
    "SequenceAt": sequence_at,
    "SequenceInsert": sequence_insert,
    "SequenceErase": sequence_erase,
    "SequenceLength": sequence_length,
    "ConcatFromSequence": concat_from_sequence,
    "SplitToSequence": split_to_sequence,
    "Optional": optional,
    "OptionalGetElement": optional,
    "OptionalHasElement": optional_has_element,
}
