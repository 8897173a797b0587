"""Files that are damaged, malicious or nonsense: a clear error or a correct import, soon."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tokenize
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import brickc as bc
from brickc.errors import BrickcError, ImportModelError, ShapeError, UnsupportedError

DATA = Path(onnx.backend.test.__file__).parent / "data"
REAL = sorted((DATA / "pytorch-converted").glob("*/model.onnx"))[::3] + sorted(
    (DATA / "simple").glob("*/model.onnx")
)

HOSTILE = ['x"; import os #', "../../etc/passwd", "", "a" * 10_240, "\n\t", "\\", "%s%n", "x\x00y"]


def model(
    nodes: list[Any],
    inputs: dict[str, Any] | None = None,
    outputs: tuple[str, ...] = ("y",),
    initializers: tuple[Any, ...] = (),
    functions: tuple[Any, ...] = (),
    opset: int = 18,
) -> onnx.ModelProto:
    """A model of float inputs with these shapes."""
    inputs = {"x": (2, 3)} if inputs is None else inputs
    declared = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    graph = helper.make_graph(nodes, "g", declared, results, list(initializers))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


def attempt(run: Callable[[], bc.Model]) -> bc.Model | BrickcError:
    """What comes of it: a model that can be looked at, or an error of ours; within 5 s."""
    started = time.perf_counter()
    try:
        result: bc.Model | BrickcError = run()
        assert isinstance(result, bc.Model)
        assert bc.print_graph(result.graph())
    except BrickcError as error:
        result = error
        assert str(error)
        assert len(str(error)) < 100_000
    assert time.perf_counter() - started < 5
    return result


# ── damaged files ────────────────────────────────────────────────────────────────────────────


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real file, cut short, with bits flipped, bytes put in, left out or repeated."""
    data = bytearray(draw(st.sampled_from(REAL)).read_bytes())
    for _ in range(draw(st.integers(1, 4))):
        # headers and names are in front; most of the rest is weights
        place = draw(st.integers(0, min(len(data), 4000) - 1)) if data else 0
        match draw(st.sampled_from(["cut", "flip", "put", "drop", "repeat"])):
            case "cut":
                del data[place:]
            case "flip" if data:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "put":
                data[place:place] = draw(st.binary(min_size=1, max_size=6))
            case "drop":
                del data[place : place + draw(st.integers(1, 12))]
            case "repeat":
                data[place:place] = data[place : place + 10]
    return bytes(data)


@given(data=damaged())
@settings(max_examples=150)
def test_damaged_bytes(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("damaged") / "model.onnx"
    path.write_bytes(data)
    attempt(lambda: bc.from_onnx(path))


@pytest.mark.parametrize("path", REAL[:6], ids=lambda p: p.parent.name)
def test_truncated(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    for part in range(20):
        short = tmp_path / "short.onnx"
        short.write_bytes(data[: len(data) * part // 20])
        found = attempt(lambda: bc.from_onnx(short))  # noqa: B023
        assert isinstance(found, ImportModelError | UnsupportedError)


_SIZES = st.sampled_from([0, 1, -1, 2, 7, 2**31 - 1, 2**31, -(2**31), 2**62, -(2**63), 65_536])


@given(data=st.data())
@settings(max_examples=150)
def test_damaged_messages(data: st.DataObject) -> None:
    """Well-formed messages that say something else: sizes, names, operators, versions."""
    proto = onnx.ModelProto()
    proto.ParseFromString(data.draw(st.sampled_from(REAL)).read_bytes())
    nodes = list(proto.graph.node)
    for _ in range(data.draw(st.integers(1, 3))):
        node = data.draw(st.sampled_from(nodes))
        name = data.draw(st.sampled_from([*HOSTILE[:4], *(n for m in nodes for n in m.input)]))
        match data.draw(
            st.sampled_from(["attribute", "operator", "input", "output", "version", "dim", "data"])
        ):
            case "attribute" if node.attribute:
                attribute = data.draw(st.sampled_from(list(node.attribute)))
                attribute.i = data.draw(_SIZES)
                if attribute.ints:
                    attribute.ints[0] = data.draw(_SIZES)
            case "operator":
                node.op_type = data.draw(st.sampled_from([*(n.op_type for n in nodes), "Loop"]))
            case "input" if node.input:
                node.input[0] = name
            case "output" if node.output:
                node.output[0] = name
            case "version":
                proto.opset_import[0].version = data.draw(st.sampled_from([0, 6, 11, 21, 99]))
            case "dim" if proto.graph.input[0].type.tensor_type.shape.dim:
                dims = proto.graph.input[0].type.tensor_type.shape.dim
                dims[0].dim_value = data.draw(_SIZES)
            case "data" if proto.graph.initializer:
                proto.graph.initializer[0].dims[:] = [data.draw(_SIZES)]
    attempt(lambda: bc.from_onnx(proto))


# ── names ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", HOSTILE, ids=lambda n: repr(n)[:20])
def test_hostile_names(name: str, tmp_path: Path) -> None:
    """Names of everything; the model still compiles, runs, and is saved."""
    weight = onnx.numpy_helper.from_array(np.ones((3, 2), np.float32), f"w{name}")
    nodes = [
        helper.make_node("MatMul", [f"i{name}", f"w{name}"], [f"h{name}"], name=name),
        helper.make_node("Relu", [f"h{name}"], [f"o{name}"], name=name),
    ]
    proto = model(nodes, {f"i{name}": (f"n{name}", 3)}, (f"o{name}",), (weight,))
    proto.graph.name = name
    found = bc.from_onnx(proto)
    assert found.parameter_count() == 6
    (input_name,) = found.inputs
    (output,) = found.outputs
    program = bc.compile(found)
    program.save(tmp_path / "artifact")
    x = np.ones((5, 3), np.float32)
    want = np.full((5, 2), 3, np.float32)
    np.testing.assert_allclose(program.infer(**{input_name: x})[output], want)
    again = bc.load(tmp_path / "artifact")
    np.testing.assert_allclose(again.infer(**{input_name: x})[output], want)
    assert words(tmp_path / "artifact" / "model.py") == words_of_plain_names(tmp_path)


def words(path: Path) -> Counter[str]:
    """The words of generated source outside of strings and comments that import or call."""
    with path.open("rb") as file:
        names = [t.string for t in tokenize.tokenize(file.readline) if t.type == tokenize.NAME]
    return Counter(n for n in names if n in {"import", "os", "exec", "eval", "open", "passwd"})


def words_of_plain_names(folder: Path) -> Counter[str]:
    weight = onnx.numpy_helper.from_array(np.ones((3, 2), np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["i", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["o"]),
    ]
    bc.compile(bc.from_onnx(model(nodes, {"i": ("n", 3)}, ("o",), (weight,)))).save(
        folder / "plain"
    )
    return words(folder / "plain" / "model.py")


def test_names_that_become_equal() -> None:
    proto = model(
        [helper.make_node("Add", ['a"', "a'"], ["y"])], {'a"': (2,), "a'": (2,)}
    )  # fmt: skip
    assert list(bc.from_onnx(proto).inputs) == ["a_", "a__2"]


def test_duplicate_names() -> None:
    twice = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Tanh", ["x"], ["y"])]
    with pytest.raises(ImportModelError, match="'y' is defined twice"):
        bc.from_onnx(model(twice))
    weights = tuple(onnx.numpy_helper.from_array(np.ones(3, np.float32), "w") for _ in range(2))
    with pytest.raises(ImportModelError, match="'w' is defined twice"):
        bc.from_onnx(model([helper.make_node("Add", ["x", "w"], ["y"])], None, ("y",), weights))
    same = model([helper.make_node("Relu", ["x"], ["y"])])
    same.graph.input.append(same.graph.input[0])
    with pytest.raises(ImportModelError, match="two inputs"):
        bc.from_onnx(same)


# ── shapes of graphs ─────────────────────────────────────────────────────────────────────────


def test_cycle() -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    with pytest.raises(ImportModelError, match="no cycle"):
        bc.from_onnx(model(nodes, None, ("b",)))


def test_function_calls_itself() -> None:
    body = [helper.make_node("f", ["a"], ["b"], domain="local")]
    function = helper.make_function("local", "f", ["a"], ["b"], body, [])
    call = helper.make_node("f", ["x"], ["y"], domain="local")
    with pytest.raises(ImportModelError, match="nested too deeply"):
        bc.from_onnx(model([call], functions=(function,)))


def test_functions_that_double() -> None:
    """Twenty functions, each calling the next one twice: a million nodes."""
    functions = []
    for k in range(20):
        inner = f"f{k + 1}" if k < 19 else "Relu"
        domain = "local" if k < 19 else ""
        body = [
            helper.make_node(inner, ["a"], ["h"], domain=domain),
            helper.make_node(inner, ["h"], ["b"], domain=domain),
        ]
        opsets = [helper.make_opsetid("", 18)]
        functions.append(helper.make_function("local", f"f{k}", ["a"], ["b"], body, opsets))
    call = helper.make_node("f0", ["x"], ["y"], domain="local")
    found = attempt(lambda: bc.from_onnx(model([call], functions=tuple(functions))))
    assert isinstance(found, ImportModelError)
    assert "too many nodes" in str(found)


def nested(depth: int) -> onnx.ModelProto:
    """A condition in a condition in a condition."""
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "g", [], [out])
    true = onnx.numpy_helper.from_array(np.asarray(True), "c")
    for _ in range(depth):
        node = helper.make_node("If", ["c"], ["b"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], [out])
    top = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)
    return model([top], initializers=(true,))


def test_deep_nesting(tmp_path: Path) -> None:
    assert isinstance(attempt(lambda: bc.from_onnx(nested(5))), bc.Model)
    # a tag and a length for each level, more than any parser would follow
    level = b""
    for _ in range(4000):
        level = b"\x0a" + _varint(len(level)) + level  # NodeProto within …
        level = b"\x32" + _varint(len(level)) + level  # GraphProto.node's attribute's graph
    path = tmp_path / "deep.onnx"
    path.write_bytes(b"\x08\x08\x3a" + _varint(len(level)) + level)
    assert isinstance(attempt(lambda: bc.from_onnx(path)), ImportModelError)


def _varint(number: int) -> bytes:
    out = bytearray()
    while True:
        number, low = number >> 7, number & 127
        out.append(low | (128 if number else 0))
        if not number:
            return bytes(out)


def test_endless_loop() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still"]),
            helper.make_node("Add", ["v", "v"], ["w"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, ()),
            helper.make_tensor_value_info("on", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, (2, 3)),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, (2, 3)),
        ],
    )
    loop = helper.make_node("Loop", ["", "", "x"], ["y"], body=body)
    found = attempt(lambda: bc.from_onnx(model([loop])))
    assert isinstance(found, UnsupportedError)
    assert "so many steps" in str(found)


# ── sizes ────────────────────────────────────────────────────────────────────────────────────


def huge() -> dict[str, onnx.ModelProto]:
    """Small files that ask for much memory."""
    big = TensorProto(name="w", data_type=1, dims=[2**31 - 1], raw_data=b"")
    claimed = TensorProto(name="w", data_type=1, dims=[2**40, 2**40], raw_data=b"\0" * 16)
    sizes = onnx.numpy_helper.from_array(np.asarray([2**31 - 1] * 3), "s")
    many = onnx.numpy_helper.from_array(np.asarray([30_000, 30_000, 4]), "s")
    one = onnx.numpy_helper.from_array(np.asarray([1] * 3), "s")
    steps = [onnx.numpy_helper.from_array(np.asarray(v), n) for v, n in
             ((0, "a"), (2**40, "b"), (1, "d"))]  # fmt: skip
    add = helper.make_node("Add", ["x", "w"], ["y"])
    image = {"x": (1, 1, 60_000, 60_000)}
    pool = {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}
    return {
        "no data": model([add], initializers=(big,)),
        "too few data": model([add], initializers=(claimed,)),
        "input": model([add], {"x": (2**31, 2), "w": (2,)}),
        "expand": model([helper.make_node("Expand", ["x", "s"], ["y"])], {"x": (1,)}, ("y",), (sizes,)),
        "fill": model([helper.make_node("ConstantOfShape", ["s"], ["y"])], None, ("y",), (many,)),
        "fill, then use": model(
            [helper.make_node("ConstantOfShape", ["s"], ["h"]), helper.make_node("Exp", ["h"], ["y"])],
            None, ("y",), (many,),
        ),
        "tile": model([helper.make_node("Tile", ["s", "s"], ["y"])], None, ("y",), (one,)),
        "range": model([helper.make_node("Range", ["a", "b", "d"], ["y"])], None, ("y",), tuple(steps)),
        "pool": model([helper.make_node("MaxPool", ["x"], ["y", "i"], **pool)], image),
        "mean": model([helper.make_node("AveragePool", ["x"], ["y"], **pool)], image),
        "kernel": model([helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2**31 - 1] * 2)], image),
        "split": model([helper.make_node("Split", ["x"], ["y"], num_outputs=2**31 - 1)]),
        "one hot": model([helper.make_node("OneHot", ["a", "b", "s"], ["y"])], None, ("y",), (*steps, one)),
    }  # fmt: skip


@pytest.mark.parametrize("name", huge())
def test_huge_sizes(name: str) -> None:
    attempt(lambda: bc.from_onnx(huge()[name]))


def test_huge_sizes_take_no_memory() -> None:
    """All of them together, in a process of their own, below 1 GiB."""
    program = (
        "import re, test_bad_input as t\n"
        "for name, proto in t.huge().items(): t.attempt(lambda: t.bc.from_onnx(proto))\n"
        # not getrusage: its maximum counts what the process was before it became Python
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])"
    )
    root = str(Path(bc.__file__).resolve().parent.parent)
    path = os.pathsep.join([str(Path(__file__).parent), root])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert int(done.stdout) < 2**20  # kilobytes


def test_impossible_size() -> None:
    with pytest.raises(ShapeError, match="impossible size"):
        bc.from_onnx(huge()["input"])


# ── what is missing ──────────────────────────────────────────────────────────────────────────


def test_everything_unsupported_is_listed() -> None:
    nodes = [
        helper.make_node("NonMaxSuppression", ["x", "x"], ["a"], name="boxes"),
        helper.make_node("Relu", ["x"], ["b"], name="fine"),
        helper.make_node("StringNormalizer", ["b"], ["c"], name="words"),
        helper.make_node("Relu", ["c"], ["y"], name="follows"),
        helper.make_node("Mystery", ["b"], ["d"], domain="some.where"),
    ]
    with pytest.raises(UnsupportedError) as caught:
        bc.from_onnx(model(nodes, None, ("y", "a", "d")))
    text = str(caught.value)
    for part in ('node 0 "boxes"', 'node 2 "words"', 'node 4 "Mystery_4"', "some.where.Mystery"):
        assert part in text
    assert "follows" not in text
    assert "3 nodes are not supported" in text


def test_no_graph_no_opset() -> None:
    with pytest.raises(ImportModelError, match="no graph"):
        bc.from_onnx(onnx.ModelProto(opset_import=[helper.make_opsetid("", 18)]))
    proto = model([helper.make_node("Relu", ["x"], ["y"])])
    del proto.opset_import[:]
    with pytest.raises(ImportModelError, match="names no operator set"):
        bc.from_onnx(proto)
    with pytest.raises(UnsupportedError, match="too old"):
        bc.from_onnx(model([helper.make_node("Relu", ["x"], ["y"])], opset=5))
