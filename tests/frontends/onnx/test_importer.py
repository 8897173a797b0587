"""What an ONNX file becomes: parameters, states, constants, dims, places in the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import brickc as bc
from brickc.errors import ImportModelError, ShapeError, UnsupportedError, UsageError
from brickc.frontends.onnx.backend import Prepared
from brickc.ir.bricks.normalization import BatchNorm
from brickc.ir.bricks.random import Dropout

F = TensorProto.FLOAT


def array(name: str, values: Any, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def model(
    nodes: list[Any],
    inputs: dict[str, tuple[Any, ...] | None],
    outputs: tuple[str, ...] = ("y",),
    initializers: tuple[Any, ...] = (),
    *,
    opset: int = 18,
    types: dict[str, int] | None = None,
    functions: tuple[Any, ...] = (),
) -> onnx.ModelProto:
    kinds = types or {}
    declared = [helper.make_tensor_value_info(n, kinds.get(n, F), s) for n, s in inputs.items()]
    results = [helper.make_tensor_value_info(n, kinds.get(n, F), None) for n in outputs]
    graph = helper.make_graph(nodes, "net", declared, results, list(initializers))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


def infer(found: bc.Model, **inputs: Any) -> dict[str, Any]:
    return bc.interpret(found.inference(), inputs, found.weights).outputs


# ── initializers ─────────────────────────────────────────────────────────────────────────────


def linear(**kwargs: Any) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "fc.weight"], ["h"], name="product"),
        helper.make_node("Add", ["h", "fc.bias"], ["b"], name="bias"),
        helper.make_node("Mul", ["b", "scale"], ["y"], name="scaled"),
    ]
    weights = (array("fc.weight", np.ones((3, 2))), array("fc.bias", [1, 2]), array("scale", 0.5))
    return model(nodes, {"x": ("batch", 3)}, ("y",), weights, **kwargs)


def test_floats_are_parameters() -> None:
    found = bc.from_onnx(linear())
    assert set(found.parameters) == {"fc.weight", "fc.bias"}  # a number alone is a constant
    assert str(found.inputs["x"]) == "f32[batch,3]"
    assert found.name == "net"
    y = infer(found, x=np.ones((2, 3), np.float32))["y"]
    np.testing.assert_array_equal(y, [[2, 2.5], [2, 2.5]])


def test_frozen_are_constants() -> None:
    found = bc.from_onnx(linear(), frozen=["fc.bias"])
    assert set(found.parameters) == {"fc.weight"}


def test_input_with_initializer_is_a_parameter() -> None:
    proto = linear()
    proto.graph.input.append(helper.make_tensor_value_info("scale", F, ()))
    found = bc.from_onnx(proto)
    assert "scale" in found.parameters
    assert list(found.inputs) == ["x"]


def test_unused_initializers_are_left_out() -> None:
    proto = linear()
    proto.graph.initializer.append(array("nobody", np.ones(4)))
    assert "nobody" not in bc.from_onnx(proto).parameters


def test_integers_are_constants() -> None:
    nodes = [helper.make_node("Gather", ["x", "rows"], ["y"])]
    found = bc.from_onnx(model(nodes, {"x": (4, 2)}, ("y",), (array("rows", [-1, 0], np.int64),)))
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.testing.assert_array_equal(infer(found, x=x)["y"], x[[-1, 0]])
    assert not found.parameters


def test_places() -> None:
    graph = bc.from_onnx(linear()).graph()
    places = {str(n.origin) for n in graph.nodes()}
    assert 'model.onnx:1 "bias"' in places
    proto = linear()
    proto.graph.initializer[1].CopyFrom(array("fc.bias", [1, 2, 3]))
    with pytest.raises(ShapeError, match=r'model\.onnx:1 "bias"'):
        bc.from_onnx(proto)


def test_batch_norm_trains() -> None:
    """Stored mean and variance are states: training updates them, inference reads them."""
    names = ["scale", "bias", "mean", "var"]
    node = helper.make_node("BatchNormalization", ["x", *names], ["y"], epsilon=1e-3, momentum=0.8)
    stats = tuple(array(n, v) for n, v in zip(names, ([1, 2], [0, 1], [3, 4], [5, 6]), strict=True))
    found = bc.from_onnx(model([node], {"x": ("N", 2, 3)}, ("y",), stats))
    assert set(found.parameters) == {"scale", "bias"}
    assert set(found.states) == {"mean", "var"}
    (brick,) = (n.brick for n in found.graph().nodes() if isinstance(n.brick, BatchNorm))
    assert brick.momentum == pytest.approx(0.2)  # ours is the share of what is new
    x = np.ones((2, 2, 3), np.float32)
    want = (x[:, 1] - 4) / np.sqrt(6 + 1e-3) * 2 + 1
    np.testing.assert_allclose(infer(found, x=x)["y"][:, 1], want, rtol=1e-5)


def test_dropout_is_on_in_training() -> None:
    node = helper.make_node("Dropout", ["x", "ratio"], ["y"])
    found = bc.from_onnx(model([node], {"x": ("N", 4)}, ("y",), (array("ratio", 0.25),)))
    assert any(isinstance(n.brick, Dropout) for n in found.graph().nodes())
    x = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(infer(found, x=x)["y"], x)


# ── shapes ───────────────────────────────────────────────────────────────────────────────────


def test_arithmetic_on_shapes_is_folded() -> None:
    """x.reshape(x.shape[0], x.shape[1] * x.shape[2]), as exporters write it."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Slice", ["s", "one", "three"], ["rest"]),
        helper.make_node("ReduceProd", ["rest"], ["many"], keepdims=1),
        helper.make_node("Unsqueeze", ["n", "axes"], ["first"]),
        helper.make_node("Concat", ["first", "many"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    numbers = (
        array("zero", 0, np.int64), array("one", [1], np.int64), array("three", [3], np.int64),
        array("axes", [0], np.int64),
    )  # fmt: skip
    found = bc.from_onnx(model(nodes, {"x": ("batch", 4, 5)}, ("y",), numbers))
    graph = found.graph()
    assert str(graph.node(graph.outputs["y"]).type) == "f32[batch,20]"
    assert len(graph) == 2  # the input and the reshape


def test_sizes_can_be_values() -> None:
    """A size that is not known stays one: it is read off when the program runs."""
    nodes = [
        helper.make_node("Size", ["x"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=F),
        helper.make_node("Div", ["x", "f"], ["y"]),
    ]
    found = bc.from_onnx(model(nodes, {"x": ("N", 2)}))
    x = np.ones((3, 2), np.float32)
    np.testing.assert_allclose(infer(found, x=x)["y"], x / 6)


def test_shapes_can_be_replaced() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    fixed = model([node], {"x": (1, 3)})
    assert str(bc.from_onnx(fixed).inputs["x"]) == "f32[1,3]"
    found = bc.from_onnx(fixed, shapes={"x": ("N", 3)})
    assert str(found.inputs["x"]) == "f32[N,3]"
    wide = bc.from_onnx(fixed, shapes={"x": (bc.Dim("B", 2, 5000), 3)})
    assert wide.graph().dims["B"].hi == 5000
    with pytest.raises(ImportModelError, match="has no shape"):
        bc.from_onnx(model([node], {"x": None}))
    assert bc.from_onnx(model([node], {"x": None}), shapes={"x": (2, 2)}).inputs


def test_values_fix_inputs() -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    proto = model([node], {"x": (2, 6), "shape": (2,)}, types={"shape": TensorProto.INT64})
    with pytest.raises(UnsupportedError, match="must be known when the model is imported"):
        bc.from_onnx(proto)
    found = bc.from_onnx(proto, values={"shape": np.array([3, 4])})
    assert list(found.inputs) == ["x"]
    prepared = Prepared(proto)
    assert prepared.run([np.zeros((2, 6), np.float32), np.array([4, 3])])[0].shape == (4, 3)
    assert prepared.fixed == {"shape"}


# ── functions, branches, loops ───────────────────────────────────────────────────────────────


def test_local_function() -> None:
    """Attributes of the call stand where the body refers to them."""
    body = [
        helper.make_node("LeakyRelu", ["a"], ["h"]),
        helper.make_node("Add", ["h", "a"], ["b"]),
    ]
    reference = onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=1)
    body[0].attribute.append(reference)
    function = helper.make_function(
        "own", "leak", ["a"], ["b"], body, [helper.make_opsetid("", 18)], ["slope"]
    )
    call = helper.make_node("leak", ["x"], ["y"], domain="own", slope=0.5, name="call")
    found = bc.from_onnx(model([call], {"x": (2,)}, functions=(function,)))
    np.testing.assert_array_equal(infer(found, x=np.float32([-2, 2]))["y"], [-3, 4])
    assert {n.origin.layer for n in found.graph().nodes() if n.operands} == {"call"}


def branches() -> onnx.NodeProto:
    def graph(op: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info("r", F, None)
        return helper.make_graph([helper.make_node(op, ["x"], ["r"])], op, [], [out])

    return helper.make_node("If", ["c"], ["y"], then_branch=graph("Neg"), else_branch=graph("Exp"))


@pytest.mark.parametrize("flag", [True, False])
def test_branch(flag: bool) -> None:
    x = np.float32([1, 2])
    want = -x if flag else np.exp(x)
    known = bc.from_onnx(model([branches()], {"x": (2,)}, ("y",), (array("c", flag, np.bool_),)))
    assert len(known.graph()) == 2
    np.testing.assert_allclose(infer(known, x=x)["y"], want, rtol=1e-6)
    types = {"c": TensorProto.BOOL}
    runtime = bc.from_onnx(model([branches()], {"x": (2,), "c": ()}, types=types))
    np.testing.assert_allclose(infer(runtime, x=x, c=np.asarray(flag))["y"], want, rtol=1e-6)


def test_loop_is_written_out() -> None:
    i64, boolean = TensorProto.INT64, TensorProto.BOOL
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["v", "x"], ["w"]),
            helper.make_node("Identity", ["w"], ["each"]),
            helper.make_node("Identity", ["on"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", i64, ()),
            helper.make_tensor_value_info("on", boolean, ()),
            helper.make_tensor_value_info("v", F, (2,)),
        ],
        [helper.make_tensor_value_info(n, k, None) for n, k in
         (("still", boolean), ("w", F), ("each", F))],
    )  # fmt: skip
    node = helper.make_node("Loop", ["n", "", "x"], ["last", "all"], body=body)
    found = bc.from_onnx(
        model([node], {"x": (2,)}, ("last", "all"), (array("n", 3, np.int64),))
    )  # fmt: skip
    got = infer(found, x=np.float32([2, 3]))
    np.testing.assert_array_equal(got["last"], [16, 81])
    np.testing.assert_array_equal(got["all"], [[4, 9], [8, 27], [16, 81]])


# ── versions ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("opset", "axes"), [(12, (1, 2)), (13, (2,))])
def test_softmax_changed(opset: int, axes: tuple[int, ...], rng: np.random.Generator) -> None:
    """Until opset 12 the axes from 1 on are normalised together."""
    proto = model([helper.make_node("Softmax", ["x"], ["y"])], {"x": (2, 3, 4)}, opset=opset)
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    want = np.exp(x) / np.exp(x).sum(axes, keepdims=True)
    np.testing.assert_allclose(infer(bc.from_onnx(proto), x=x)["y"], want, rtol=1e-5)


# ── gradients and losses ─────────────────────────────────────────────────────────────────────


def test_gradient_operator(rng: np.random.Generator) -> None:
    """Through a composite brick (a layer normalisation) too."""
    nodes = [
        helper.make_node("LayerNormalization", ["x", "w"], ["h"], axis=-1),
        helper.make_node("Mul", ["h", "x"], ["m"]),
        helper.make_node("ReduceSum", ["m"], ["s"], keepdims=0),
        helper.make_node("Gradient", ["x"], ["g"], domain="ai.onnx.preview.training",
                         xs=["x"], y="s"),
    ]  # fmt: skip
    proto = model(nodes, {"x": (2, 5)}, ("s", "g"), (array("w", np.ones(5)),))
    proto.opset_import.append(helper.make_opsetid("ai.onnx.preview.training", 1))
    found = bc.from_onnx(proto)
    x = rng.standard_normal((2, 5)).astype(np.float32)
    got = infer(found, x=x)
    for place in ((0, 0), (1, 3)):
        step = np.zeros_like(x)
        step[place] = 1e-2
        slope = (infer(found, x=x + step)["s"] - infer(found, x=x - step)["s"]) / 2e-2
        assert got["g"][place] == pytest.approx(float(slope), rel=2e-2, abs=2e-2)


# ── external data ────────────────────────────────────────────────────────────────────────────


def external(folder: Path, location: str, *, offset: int = 0, length: int | None = None) -> Path:
    """A model with the weights of ``linear`` in another file."""
    proto = linear()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": str(offset)}
    if length is not None:
        entries["length"] = str(length)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    folder.mkdir(exist_ok=True)
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


WEIGHTS = np.arange(6, dtype=np.float32)


def test_external_data(tmp_path: Path) -> None:
    path = external(tmp_path / "m", "parts/w.bin", offset=8, length=24)
    (tmp_path / "m" / "parts").mkdir()
    (tmp_path / "m" / "parts" / "w.bin").write_bytes(b"\0" * 8 + WEIGHTS.tobytes() + b"\0")
    found = bc.from_onnx(path)
    assert found.weights is not None
    np.testing.assert_array_equal(found.weights["fc.weight"], WEIGHTS.reshape(3, 2))
    with pytest.raises(ImportModelError, match="lie in another file"):
        bc.from_onnx(onnx.load(path, load_external_data=False))


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "", "..", "a\\..\\w.bin", "c:w.bin"]
)
def test_external_data_outside(location: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    with pytest.raises(ImportModelError, match="outside of the model's folder"):
        bc.from_onnx(external(tmp_path / "m", location))


@pytest.mark.parametrize("what", ["file", "folder"])
def test_external_data_by_a_link(what: str, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "w.bin").write_bytes(WEIGHTS.tobytes())
    path = external(tmp_path / "m", "w.bin" if what == "file" else "in/w.bin")
    if what == "file":
        os.symlink(tmp_path / "away" / "w.bin", tmp_path / "m" / "w.bin")
    else:
        os.symlink(tmp_path / "away", tmp_path / "m" / "in")
    with pytest.raises(ImportModelError, match="outside of the model's folder"):
        bc.from_onnx(path)


@pytest.mark.parametrize(
    ("offset", "length"), [(4, None), (2**62, 24), (-8, 24), (0, 23), (0, 2**62)]
)
def test_external_data_out_of_bounds(offset: int, length: int | None, tmp_path: Path) -> None:
    path = external(tmp_path / "m", "w.bin", offset=offset, length=length)
    (tmp_path / "m" / "w.bin").write_bytes(WEIGHTS.tobytes())
    with pytest.raises(ImportModelError, match="do not fill its shape"):
        bc.from_onnx(path)


def test_external_data_missing(tmp_path: Path) -> None:
    with pytest.raises(ImportModelError, match="cannot be read"):
        bc.from_onnx(external(tmp_path / "m", "w.bin"))
    (tmp_path / "m" / "w.bin").mkdir()
    with pytest.raises(ImportModelError):
        bc.from_onnx(tmp_path / "m" / "net.onnx")


def test_no_file() -> None:
    with pytest.raises(UsageError, match="no such file"):
        bc.from_onnx("nowhere.onnx")


def test_size_of_an_input_that_nobody_reads() -> None:
    proto = model([helper.make_node("Shape", ["x"], ["y"])], {"x": ("N", 3)})
    with pytest.raises(UnsupportedError, match="depends on dim N"):
        bc.from_onnx(proto)
    known = bc.from_onnx(proto, shapes={"x": (2, 3)})
    np.testing.assert_array_equal(infer(known)["y"], [2, 3])


def test_indices_are_integers() -> None:
    proto = model([helper.make_node("Gather", ["x", "i"], ["y"])], {"x": (4, 3), "i": (2,)})
    with pytest.raises(ImportModelError, match="indices are no integers"):
        bc.from_onnx(proto)


def test_folded_constants_are_not_trained() -> None:
    """Exporters note what a folded value was made of; a mask with infinities needs no note."""
    nodes = [
        helper.make_node("MatMul", ["x", "turned"], ["h"]),
        helper.make_node("Mul", ["h", "scale"], ["s"]),
        helper.make_node("Add", ["s", "mask"], ["y"]),
    ]
    weights = (
        array("turned", np.ones((3, 2))), array("scale", [0.5]), array("mask", [0, -np.inf]),
    )  # fmt: skip
    proto = model(nodes, {"x": (2, 3)}, ("y",), weights)
    assert set(bc.from_onnx(proto).parameters) == {"turned", "scale"}
    note = "pkg.torch.export.ExportedProgram.graph_signature"
    proto.graph.metadata_props.add(key=note, value="p_w: PARAMETER target='w'\n")
    for name, made_of in (("turned", "['w']"), ("scale", "['val_1', 'val_2']")):
        value = proto.graph.value_info.add(name=name)
        value.metadata_props.add(key="pkg.onnxscript.optimizer.folded_from", value=made_of)
    assert set(bc.from_onnx(proto).parameters) == {"turned"}


def test_weights_that_nothing_needs() -> None:
    """A batch norm in training mode whose new statistics are not asked for."""
    names = ["scale", "bias", "mean", "var"]
    node = helper.make_node(
        "BatchNormalization", ["x", *names], ["y", "m", "v"], training_mode=1
    )  # fmt: skip
    stats = tuple(array(n, [1, 1]) for n in names)
    found = bc.from_onnx(model([node], {"x": (4, 2, 3)}, ("y",), stats))
    assert set(found.weights or ()) == {"scale", "bias"}
