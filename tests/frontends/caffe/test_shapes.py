"""Layers that move elements, with the shapes of Caffe's own tests."""

from __future__ import annotations

import numpy as np
import pytest
from caffe_nets import check_gradients, inputs_text, model_of, run_layer

from brickc.errors import BrickcError

RNG = np.random.default_rng(9)


def layer_of(type: str, parameters: str = "", bottoms: str = "x", tops: str = "y") -> str:
    names = "".join(f' bottom: "{b}"' for b in bottoms.split())
    made = "".join(f' top: "{t}"' for t in tops.split())
    return f'layer {{ name: "s" type: "{type}"{names}{made} {parameters} }}'


def one(type: str, parameters: str, x: object) -> np.ndarray:
    return run_layer(layer_of(type, parameters), {"x": x})["y"]  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("parameters", "shape"),
    [
        ("", (2, 90)),  # Caffe's tests of Flatten on [2, 3, 6, 5]
        ("flatten_param { axis: 2 end_axis: -1 }", (2, 3, 30)),
        ("flatten_param { axis: 0 end_axis: -2 }", (36, 5)),
        ("flatten_param { axis: 0 end_axis: 1 }", (6, 6, 5)),
    ],
)
def test_flatten(parameters: str, shape: tuple[int, ...]) -> None:
    x = RNG.standard_normal((2, 3, 6, 5)).astype(np.float32)
    np.testing.assert_array_equal(one("Flatten", parameters, x), x.reshape(shape))


@pytest.mark.parametrize(
    ("parameters", "shape"),
    [
        # Caffe's tests of Reshape, and the examples that caffe.proto documents for [2, 8]
        ("shape { dim: 0 dim: 0 dim: 2 dim: 2 }", (2, 8, 2, 2)),
        ("shape { dim: 0 dim: -1 dim: 4 }", (2, 8, 4)),
        ("shape { dim: -1 }", (64,)),
        ("shape { dim: 2 dim: 2 } axis: 2 num_axes: 2", (2, 8, 2, 2)),
        ("shape { dim: 4 dim: 2 } axis: 1 num_axes: 1", (2, 4, 2, 4, 1)),
        ("shape { dim: 1 } axis: 1 num_axes: 0", (2, 1, 8, 4, 1)),
        ("shape { dim: 1 } axis: -1 num_axes: 0", (2, 8, 4, 1, 1)),
    ],
)  # fmt: skip
def test_reshape(parameters: str, shape: tuple[int, ...]) -> None:
    x = RNG.standard_normal((2, 8, 4, 1)).astype(np.float32)
    np.testing.assert_array_equal(
        one("Reshape", f"reshape_param {{ {parameters} }}", x), x.reshape(shape)
    )


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_concat(axis: int) -> None:
    parts = [RNG.standard_normal((2, 3, 6, 5)).astype(np.float32) for _ in range(3)]
    y = run_layer(
        layer_of("Concat", f"concat_param {{ axis: {axis} }}", "a b c"),
        dict(zip("abc", parts, strict=True)),
    )
    np.testing.assert_array_equal(y["y"], np.concatenate(parts, axis))


def test_concat_of_old() -> None:
    parts = {n: RNG.standard_normal((2, 2)).astype(np.float32) for n in "ab"}
    y = run_layer(layer_of("Concat", "concat_param { concat_dim: 0 }", "a b"), parts)["y"]
    np.testing.assert_array_equal(y, np.concatenate([parts["a"], parts["b"]]))


def test_slice() -> None:
    x = RNG.standard_normal((6, 12, 2, 3)).astype(np.float32)
    # Caffe's TestSliceAcrossChannels: points 2 and 8
    y = run_layer(
        layer_of("Slice", "slice_param { slice_point: 2 slice_point: 8 }", tops="a b c"), {"x": x}
    )
    for name, (lo, hi) in {"a": (0, 2), "b": (2, 8), "c": (8, 12)}.items():
        np.testing.assert_array_equal(y[name], x[:, lo:hi])
    # TestSliceAcrossNum: the batch needs a fixed size
    y = run_layer(layer_of("Slice", "slice_param { axis: 0 }", tops="a b"), {"x": x})
    np.testing.assert_array_equal(y["b"], x[3:])
    y = run_layer(layer_of("Slice", "slice_param { slice_dim: 1 }", tops="a b"), {"x": x})
    np.testing.assert_array_equal(y["a"], x[:, :6])
    np.testing.assert_array_equal(one("Slice", "", x), x)


def test_crop() -> None:
    x = RNG.standard_normal((2, 4, 5, 4)).astype(np.float32)
    like = np.zeros((2, 3, 4, 2), np.float32)
    both = {"x": x, "like": like}
    # Caffe's TestCropAll, TestCropAllOffset and TestCropHW
    y = run_layer(layer_of("Crop", "crop_param { axis: 0 }", "x like"), both)["y"]
    np.testing.assert_array_equal(y, x[:2, :3, :4, :2])
    offsets = "offset: 0 offset: 1 offset: 1 offset: 2"
    y = run_layer(layer_of("Crop", f"crop_param {{ axis: 0 {offsets} }}", "x like"), both)["y"]
    np.testing.assert_array_equal(y, x[0:2, 1:4, 1:5, 2:4])
    y = run_layer(layer_of("Crop", "crop_param { offset: 1 offset: 2 }", "x like"), both)["y"]
    np.testing.assert_array_equal(y, x[:, :, 1:5, 2:4])
    with pytest.raises(BrickcError, match="out of bounds"):
        run_layer(layer_of("Crop", "crop_param { offset: 2 }", "x like"), both)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_tile(axis: int) -> None:
    # Caffe's TestForwardNum and TestForwardChannels: element i of the top is i % size
    x = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
    y = one("Tile", f"tile_param {{ axis: {axis} tiles: 3 }}", x)
    np.testing.assert_array_equal(y, np.concatenate([x] * 3, axis))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("operation", ["SUM", "ASUM", "SUMSQ", "MEAN"])
def test_reduction(operation: str, axis: int) -> None:
    x = RNG.standard_normal((2, 3, 4)).astype(np.float32)
    axes = tuple(range(axis, 3))
    expected = {
        "SUM": x.sum(axes),
        "ASUM": abs(x).sum(axes),
        "SUMSQ": (x**2).sum(axes),
        "MEAN": x.mean(axes),
    }
    y = one("Reduction", f"reduction_param {{ operation: {operation} axis: {axis} coeff: 2.3 }}", x)
    np.testing.assert_allclose(y, 2.3 * expected[operation], rtol=1e-5)


def test_argmax() -> None:
    x = np.array([[3.0, 9, 9, 1], [5, 2, 0, 5]], np.float32)
    # pairs of value and index are sorted downwards: of equal values the last comes first
    assert one("ArgMax", "", x).tolist() == [[[2]], [[3]]]
    assert one("ArgMax", "argmax_param { top_k: 3 }", x).tolist() == [[[2, 1, 0]], [[3, 0, 1]]]
    values = one("ArgMax", "argmax_param { top_k: 2 out_max_val: true }", x)
    assert values.tolist() == [[[2, 1], [9, 9]], [[3, 0], [5, 5]]]
    assert one("ArgMax", "argmax_param { axis: 1 top_k: 2 }", x).tolist() == [[2, 1], [3, 0]]
    assert one("ArgMax", "argmax_param { axis: 0 out_max_val: true }", x).tolist() == [[5, 9, 9, 5]]


def test_argmax_shapes() -> None:
    # Caffe's TestSetupAxis on [10, 10, 20, 20]: the axis becomes top_k
    x = RNG.standard_normal((3, 4, 5, 6)).astype(np.float32)
    assert one("ArgMax", "argmax_param { axis: -2 }", x).shape == (3, 4, 1, 6)
    assert one("ArgMax", "argmax_param { out_max_val: true }", x).shape == (3, 2, 1)


def test_embed() -> None:
    # Caffe's TestForwardWithBias
    text = layer_of("Embed", "embed_param { input_dim: 5 num_output: 10 }")
    w, b = RNG.standard_normal((5, 10)), RNG.standard_normal(10)
    t = np.array([[2, 2], [3, 1]])
    y = run_layer(text, {"x": t}, {"s.weight": w, "s.bias": b})["y"]
    np.testing.assert_allclose(y, w[t] + b, rtol=1e-5)
    model = model_of(inputs_text({"x": (2, 2)}) + text)
    assert str(model.inputs["x"]) == "i32[N,2]"
    assert model.label_limit("x") == 5


def test_batch_reindex() -> None:
    # Caffe's TestForward: examples picked by number, some twice
    x = RNG.standard_normal((5, 2)).astype(np.float32)
    picked = np.array([4, 4, 0, 2])
    y = run_layer(layer_of("BatchReindex", "", "x i"), {"x": x, "i": picked})["y"]
    np.testing.assert_array_equal(y, x[picked])


def test_split_and_silence() -> None:
    text = layer_of("Split", tops="a b") + layer_of("Silence", bottoms="b", tops="")
    assert list(run_layer(text, {"x": [[1.0]]})) == ["a"]


def test_permute_of_forks() -> None:
    x = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
    y = one("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", x)
    np.testing.assert_array_equal(y, x.transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    "layer",
    [
        layer_of("Flatten"),
        layer_of("Reshape", "reshape_param { shape { dim: 0 dim: -1 } }"),
        layer_of("Tile", "tile_param { tiles: 2 }"),
        layer_of("Reduction", "reduction_param { operation: ASUM axis: 1 }"),
        layer_of("Concat", "concat_param { axis: 2 }", "x x"),
        layer_of("Slice", "slice_param { slice_point: 1 }", tops="y z"),
        layer_of("Split", tops="y z"),
    ],
)
def test_gradients(layer: str) -> None:
    text = (
        'layer { name: "v" type: "Parameter" top: "x" parameter_param { shape { dim: 2 dim: 3 dim: 4 } } }'
        + layer
        + 'layer { name: "l" type: "Reduction" bottom: "y" top: "l" reduction_param { operation: SUMSQ } loss_weight: 1 }'
    )
    assert check_gradients(text) == []


@pytest.mark.parametrize(
    ("type", "parameters"),
    [
        ("Flatten", "flatten_param { axis: 3 end_axis: 1 }"),
        ("Flatten", "flatten_param { axis: 9 }"),
        ("Reshape", "reshape_param { shape { dim: -1 dim: -1 } }"),
        ("Reshape", "reshape_param { shape { dim: 7 } }"),
        ("Reshape", "reshape_param { shape { dim: -2 } }"),
        ("Reshape", "reshape_param { num_axes: 9 }"),
        ("Reshape", "reshape_param { shape { dim: 4 } axis: -2 num_axes: 1 }"),
        ("Slice", "slice_param { slice_point: 1 }"),
        ("Slice", "slice_param { axis: 1 slice_dim: 1 }"),
        ("Tile", "tile_param { tiles: 0 }"),
        ("Tile", "tile_param { tiles: 2147483647 }"),
        ("ArgMax", "argmax_param { top_k: 0 }"),
        ("ArgMax", "argmax_param { top_k: 61 }"),
        ("Embed", "embed_param { input_dim: 0 }"),
        ("Permute", "permute_param { order: 0 order: 0 }"),
    ],
)
def test_what_makes_no_sense(type: str, parameters: str) -> None:
    with pytest.raises(BrickcError, match=r'net\.prototxt:2 "s"'):
        one(type, parameters, np.ones((2, 3, 4, 5)))
