"""Operators that are put together from several bricks: derivatives by central differences.

Their values are checked by the public suite; here the same operators stand in float64, their
floating-point operands are parameters, and the compiled training step must move those as the
derivative along a random direction says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import brickc as bc


@dataclass(frozen=True)
class Op:
    """An operator, shapes of its floating-point operands, and operands that are fixed."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    #: position -> array
    fixed: dict[int, Any] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 20
    positive: bool = False

    def __str__(self) -> str:
        return f"{self.op} {self.attributes.get('mode', '')}".strip()


I64 = np.int64
OPS = [
    Op("Asinh", ((3, 4),)),
    Op("Atanh", ((3, 4),)),
    Op("Celu", ((3, 4),), {"alpha": 0.7}),
    Op("ReduceProd", ((2, 5, 3),), {"keepdims": 0}, {1: np.array([1])}),
    Op("ReduceLogSumExp", ((2, 5, 3),), {}, {1: np.array([0, 2])}),
    Op("CumSum", ((3, 5),), {"reverse": 1, "exclusive": 1}, {1: np.array(1)}),
    Op("CumProd", ((3, 5),), {}, {1: np.array(1)}, opset=26),
    Op("TopK", ((3, 7),), {"axis": 1}, {1: np.array([3])}, outputs=2),
    Op("GatherElements", ((3, 4),), {"axis": 1}, {1: np.array([[0, -1], [2, 2], [1, 3]])}),
    Op("GatherND", ((3, 4, 2),), {}, {1: np.array([[0, 1], [2, -1]])}),
    Op("ScatterElements", ((3, 4), (2, 4)), {"axis": 0},
       {1: np.array([[0, 1, 2, 0], [2, 0, 1, 1]])}),
    Op("ScatterND", ((4, 3), (2, 3)), {"reduction": "add"}, {1: np.array([[3], [3]])}),
    Op("ScatterND", ((4, 3), (2, 3)), {"reduction": "max"}, {1: np.array([[3], [0]])}),
    Op("Einsum", ((3, 4), (4, 5), (5,)), {"equation": "ij,jk,k->i"}),
    Op("Einsum", ((3, 3, 2),), {"equation": "iij->ij"}),
    Op("Pad", ((3, 4),), {"mode": "reflect"}, {1: np.array([1, 2, 1, 0])}),
    Op("Pad", ((3, 4),), {"mode": "wrap"}, {1: np.array([0, 2, 1, 1])}),
    Op("DepthToSpace", ((1, 8, 2, 3),), {"blocksize": 2, "mode": "CRD"}),
    Op("Resize", ((1, 2, 4, 5),), {"mode": "linear"}, {2: np.array([1, 1, 1.7, 0.6], np.float32)}),
    Op("Resize", ((1, 1, 4, 4),), {"mode": "cubic", "antialias": 1}, {3: np.array([1, 1, 7, 3])}),
    Op("Resize", ((1, 1, 4, 4),), {"mode": "nearest"}, {3: np.array([1, 1, 7, 3])}),
    Op("Conv", ((2, 4, 7), (6, 2, 3), (6,)),
       {"group": 2, "dilations": [2], "strides": [2], "auto_pad": "SAME_LOWER"}),
    Op("ConvTranspose", ((1, 3, 3, 3), (3, 2, 3, 3), (2,)),
       {"strides": [3, 2], "output_padding": [1, 1], "pads": [1, 0, 1, 1]}),
    Op("MaxPool", ((1, 2, 9, 9),), {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [1] * 4}),
    Op("AveragePool", ((1, 2, 7, 7),),
       {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1}),
    Op("LpPool", ((1, 2, 6, 6),), {"kernel_shape": [2, 2], "p": 3}),
    Op("LayerNormalization", ((3, 4, 5), (4, 5), (4, 5)), {"axis": 1}, outputs=3),
    Op("GroupNormalization", ((2, 6, 4), (6,), (6,)), {"num_groups": 3}, opset=21),
    Op("InstanceNormalization", ((2, 3, 5), (3,), (3,))),
    Op("LpNormalization", ((3, 4),), {"p": 2}),
    Op("LRN", ((2, 6, 3, 3),), {"size": 4, "alpha": 0.5}),
    Op("SoftmaxCrossEntropyLoss", ((4, 5), (5,)), {"ignore_index": 2},
       {1: np.array([0, 2, 4, 1])}, positive=True),
    Op("GridSample", ((1, 2, 4, 5), (1, 3, 3, 2)), {"mode": "linear", "padding_mode": "reflection"}),
    Op("GridSample", ((1, 2, 4, 5), (1, 3, 3, 2)), {"mode": "cubic", "padding_mode": "border"}),
    Op("RoiAlign", ((1, 2, 6, 6), (2, 4)), {"sampling_ratio": 2, "output_height": 2},
       {2: np.array([0, 0])}, positive=True),
    Op("Col2Im", ((1, 8, 9),), {"strides": [1, 1]}, {1: np.array([4, 4]), 2: np.array([2, 2])}),
    Op("DFT", ((2, 6, 2),), {"onesided": 0, "inverse": 1}),
    Op("RNN", ((3, 2, 4), (1, 5, 4), (1, 5, 5), (1, 10)), {"hidden_size": 5}, outputs=2),
    Op("GRU", ((3, 2, 4), (2, 15, 4), (2, 15, 5), (2, 30)),
       {"hidden_size": 5, "direction": "bidirectional", "linear_before_reset": 1}, outputs=2),
    Op("LSTM", ((3, 2, 4), (1, 20, 4), (1, 20, 5), (1, 40)),
       {"hidden_size": 5, "direction": "reverse", "clip": 3.0}, {4: np.array([3, 2], np.int32)},
       outputs=3),
    Op("DeformConv", ((1, 2, 4, 4), (2, 1, 2, 2), (1, 8, 3, 3)), {"group": 2}),
]  # fmt: skip


def network(op: Op, rng: np.random.Generator) -> bc.Model:
    """The operator on initializers, and the sum of its outputs times random weights."""
    names: list[str] = []
    stored = []
    shapes = iter(op.shapes)
    count = len(op.shapes) + len(op.fixed)
    for k in range(max([count, *(p + 1 for p in op.fixed)])):
        if k in op.fixed:
            array = np.asarray(op.fixed[k])
        else:
            shape = next(shapes, None)
            if shape is None:
                names.append("")
                continue
            # far enough apart that no step of a difference quotient crosses a kink
            array = rng.permutation(int(np.prod(shape))).reshape(shape) + 0.37
            array = array / (0.6 * array.size) - (0 if op.positive else 0.8)
        names.append(f"p{k}")
        stored.append(numpy_helper.from_array(array, f"p{k}"))
    # operands that are left out stand between those that are not
    optional = {"Resize": [""], "LSTM": []}.get(op.op, [])
    if op.op == "Resize":
        names = ["p0", *optional, *(n for n in names[1:] if n)]
        if 3 in op.fixed:
            names.insert(2, "")
    results = [f"y{k}" for k in range(op.outputs)]
    node = helper.make_node(op.op, names, results, name="node", **op.attributes)
    graph = helper.make_graph(
        [node], "net", [],
        [helper.make_tensor_value_info(n, TensorProto.DOUBLE, None) for n in results], stored,
    )  # fmt: skip
    proto: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", op.opset)]
    )
    plain = bc.from_onnx(proto)
    total = None
    for tensor in bc.tensors(plain).values():
        if tensor.dtype.is_float:
            weights = rng.standard_normal([int(n) for n in tensor.shape])
            part = bc.reduce_sum(tensor * bc.literal(weights)) if tensor.rank else tensor * 1.0
            total = part if total is None else total + part
    assert total is not None
    return bc.Model({}, loss=total, weights=plain.weights)


@pytest.mark.parametrize("op", OPS, ids=str)
def test_derivative(op: Op, rng: np.random.Generator) -> None:
    model = network(op, rng)
    program = bc.compile(model, optimizer=bc.SGD(1.0), functions=["train_step"])
    assert model.parameters
    before = {n: program.state_dict()[n] for n in model.parameters}
    program.train_step()
    after = program.state_dict()
    graph = model.evaluation()
    for name, value in before.items():
        slope = float(
            np.sum((value - after[name]) * (direction := rng.standard_normal(value.shape)))
        )
        step = 1e-6
        up = bc.interpret(graph, {}, {**before, name: value + step * direction})["loss"]
        down = bc.interpret(graph, {}, {**before, name: value - step * direction})["loss"]
        assert slope == pytest.approx(float(up - down) / (2 * step), rel=1e-5, abs=1e-6), name
