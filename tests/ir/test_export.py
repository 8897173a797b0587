"""JSON, which loads back, and DOT, which Graphviz reads."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from brick_modules import catalogue
from hypothesis import given
from hypothesis import strategies as st
from random_graphs import graphs

from brickc.errors import BrickcError, ImportModelError
from brickc.ir.brick import Input, Parameter
from brickc.ir.bricks.arithmetic import Mul
from brickc.ir.bricks.normalization import LRNAcross
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.export import from_json, to_dot, to_json
from brickc.ir.graph import Graph
from brickc.ir.initializers import uniform
from brickc.ir.origin import Origin
from brickc.ir.printer import print_graph
from brickc.ir.types import TensorType

CATALOGUE = catalogue()


def example() -> Graph:
    graph = Graph("example")
    graph.add(Input("x", TensorType(DType.F32, (Dim("N"), 4))), [], Origin())
    graph.add(Parameter("w", TensorType(DType.F32, (4,)), uniform(-1, 1)), [], Origin(layer="l1"))
    graph.add(Mul(), [0, 1], Origin("net.py", 3, "l1"))
    graph.add(LRNAcross(3, float("inf"), 0.75, 1.0), [2], Origin("net.py", 4, 'l"2\\'))
    graph.outputs["y"] = 3
    graph.updates[1] = 1
    return graph


@given(graphs())
def test_json_round_trip(graph: Graph) -> None:
    text = to_json(graph)
    again = from_json(text, CATALOGUE)
    assert print_graph(again) == print_graph(graph)
    assert to_json(again) == text


def test_json_is_the_documented_schema() -> None:
    document = json.loads(to_json(example()))
    assert list(document) == ["format", "version", "name", "dims", "nodes", "outputs", "updates"]
    assert document["dims"] == [{"name": "N", "lo": 1, "hi": 1024, "typical": 64}]
    assert document["nodes"][1] == {
        "id": 1,
        "brick": "parameter",
        "name": "w",
        "type": "f32[4]",
        "attributes": {"init": "uniform(-1.0,1.0)", "lr_scale": 1.0, "decay_scale": 1.0},
        "origin": {"file": "", "line": 0, "layer": "l1", "note": ""},
    }
    assert document["nodes"][3]["attributes"] == {"size": 3, "alpha": "inf", "beta": 0.75, "k": 1.0}
    assert document["outputs"] == [["y", 3]]
    assert document["updates"] == [["w", 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "g.json: not a graph of this format; got 'other' version 1"),
        ({"version": 2}, "not a graph of this format"),
        ({"name": 5}, "g.json: field 'name' is wrong; got 5; expected a string"),
        ({"nodes": {}}, "field 'nodes' is wrong"),
        ({"nodes": [3]}, r"g.json: nodes\[0\]: another kind of value"),
        ({"dims": []}, r"g.json: nodes\[0\]: dim N is not declared"),
        ({"outputs": [["y", 99]]}, r"g.json: outputs\[0\]: %99 does not exist"),
        ({"outputs": {"y": 3}}, "field 'outputs' is wrong"),
        ({"updates": [["w", "1"]]}, r"updates\[0\]: not a result"),
        ({"updates": [["w", 3]]}, r"updates\[0\]: the update of 'w' has another type"),
    ],
)
def test_bad_documents(change: dict[str, Any], message: str) -> None:
    document = json.loads(to_json(example())) | change
    with pytest.raises(BrickcError, match=message):
        from_json(json.dumps(document), CATALOGUE, "g.json")


@pytest.mark.parametrize("text", ["", "[]", "{", "3", "[" * 100_000, '{"format": "brickc-graph"}'])
def test_no_documents(text: str) -> None:
    with pytest.raises(ImportModelError, match=r"^g\.json"):
        from_json(text, CATALOGUE, "g.json")


@given(st.data())
def test_damaged_documents(data: st.DataObject) -> None:
    document = json.loads(to_json(example()))
    place: Any = document
    for _ in range(data.draw(st.integers(1, 4))):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and data.draw(st.booleans()):
            place = place[key]
            continue
        odd: list[object] = [None, True, -1, 2**80, 1e308, "", "N", [], [[]], {}, {"a": 1}]
        place[key] = data.draw(st.sampled_from(odd))
    try:
        graph = from_json(json.dumps(document), CATALOGUE, "g.json")
    except BrickcError as error:
        assert str(error).startswith("g.json")
    else:
        assert to_json(from_json(to_json(graph), CATALOGUE)) == to_json(graph)


def test_dot() -> None:
    text = to_dot(example())
    assert r'n2 [label="%2 mul\nf32[N,4]\nl1"];' in text
    assert r'n3 [label="%3 lrn_across\nf32[N,4]\nl\"2\\"];' in text
    assert 'n0 -> n2 [label="0"];' in text
    assert "n2 -> n3;" in text
    assert "n1 -> n1 [style=dashed" in text
    assert "subgraph" not in text
    clustered = to_dot(example(), clusters=True)
    assert clustered.count("subgraph cluster_") == 2


@given(graphs())
def test_dot_is_well_formed(graph: Graph) -> None:
    for clusters in (False, True):
        text = to_dot(graph, clusters=clusters)
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
        assert '"' not in bare
        assert bare.count("{") == bare.count("}")
