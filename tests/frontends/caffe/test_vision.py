"""Windows and products. Numbers marked "Caffe's test" are those of its published layer tests."""

from __future__ import annotations

import numpy as np
import pytest
from caffe_nets import check_gradients, inputs_text, model_of, run_layer

from brickc.errors import ImportModelError, UnsupportedError

MAGIC = np.array(
    [
        [35, 1, 6, 26, 19, 24],
        [3, 32, 7, 21, 23, 25],
        [31, 9, 2, 22, 27, 20],
        [8, 28, 33, 17, 10, 15],
        [30, 5, 34, 12, 14, 16],
        [4, 36, 29, 13, 18, 11],
    ],
    np.float32,
)


def pool(parameters: str, x: object, tops: str = 'top: "y"') -> dict[str, np.ndarray]:
    layer = (
        f'layer {{ name: "p" type: "Pooling" bottom: "x" {tops} pooling_param {{ {parameters} }} }}'
    )
    return run_layer(layer, {"x": x})


def shape_of(layer: str, **inputs: tuple[int, ...]) -> tuple[object, ...]:
    """The shape of y."""
    model = model_of(inputs_text(inputs) + layer)
    return (
        model.graph()
        .node(model.graph().outputs["y"])
        .type.concrete({"N": next(iter(inputs.values()))[0]})
    )


# ── pooling ──────────────────────────────────────────────────────────────────────────────


def test_max_pooling_square() -> None:
    # Caffe's test: TestForwardSquare, with the places of the maxima
    x = np.array([[1, 2, 5, 2, 3], [9, 4, 1, 4, 8], [1, 2, 5, 2, 3]], np.float32)
    y = pool("kernel_size: 2 pool: MAX", np.broadcast_to(x, (2, 2, 3, 5)), 'top: "y" top: "mask"')
    for n in range(2):
        for c in range(2):
            assert y["y"][n, c].tolist() == [[9, 5, 5, 8], [9, 5, 5, 8]]
            assert y["mask"][n, c].tolist() == [[5, 2, 2, 9], [5, 12, 12, 9]]


def test_max_pooling_high() -> None:
    # Caffe's test: TestForwardRectHigh, a 3×2 window over magic(6)
    y = pool("kernel_h: 3 kernel_w: 2", MAGIC[None, None], 'top: "y" top: "mask"')
    assert y["y"][0, 0].tolist() == [
        [35, 32, 26, 27, 27], [32, 33, 33, 27, 27], [31, 34, 34, 27, 27], [36, 36, 34, 18, 18],
    ]  # fmt: skip
    assert y["mask"][0, 0].tolist() == [
        [0, 7, 3, 16, 16], [7, 20, 20, 16, 16], [12, 26, 26, 16, 16], [31, 31, 26, 34, 34],
    ]  # fmt: skip


def test_max_pooling_wide() -> None:
    # Caffe's test: TestForwardRectWide, a 2×3 window over magic(6)
    assert pool("kernel_h: 2 kernel_w: 3", MAGIC[None, None])["y"][0, 0].tolist() == [
        [35, 32, 26, 26], [32, 32, 27, 27], [33, 33, 33, 27], [34, 34, 34, 17], [36, 36, 34, 18],
    ]  # fmt: skip


def test_max_pooling_padded() -> None:
    # Caffe's test: TestForwardMaxPadded
    x = np.array([[1, 2, 4], [2, 3, 2], [4, 2, 1]], np.float32)
    y = pool("kernel_size: 3 stride: 2 pad: 2 pool: MAX", x[None, None])["y"]
    assert y[0, 0].tolist() == [[1, 4, 4], [4, 4, 4], [4, 4, 1]]


def test_mean_pooling_padded() -> None:
    # Caffe's test: TestForwardAve; zeros of the padding count
    y = pool("kernel_size: 3 stride: 1 pad: 1 pool: AVE", np.full((1, 1, 3, 3), 2.0))["y"]
    np.testing.assert_allclose(
        y[0, 0], [[8 / 9, 4 / 3, 8 / 9], [4 / 3, 2, 4 / 3], [8 / 9, 4 / 3, 8 / 9]], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        # Caffe's tests of shapes on [2, 3, 6, 5]
        ("kernel_size: 3 stride: 2", (2, 3, 3, 2)),
        ("kernel_size: 3 stride: 2 pad: 1 pool: AVE", (2, 3, 4, 3)),
        ("global_pooling: true pool: AVE", (2, 3, 1, 1)),
        ("global_pooling: true", (2, 3, 1, 1)),
        # floor mode, which later versions have
        ("kernel_size: 3 stride: 2 round_mode: FLOOR", (2, 3, 2, 2)),
        # the same by a field of forks
        ("kernel_size: 3 stride: 2 ceil_mode: false", (2, 3, 2, 2)),
        # a window larger than the image is cut to it
        ("kernel_size: 6 stride: 3", (2, 3, 1, 1)),
    ],
)  # fmt: skip
def test_pooling_shapes(parameters: str, expected: tuple[int, ...]) -> None:
    x = np.arange(180, dtype=np.float32).reshape(2, 3, 6, 5)
    assert pool(parameters, x)["y"].shape == expected


def test_the_last_window_hangs_over_the_edge() -> None:
    x = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    y = pool("kernel_size: 2 stride: 2 pool: AVE", x)["y"][0, 0]
    # without padding the window is cut at the image: 4 | 9, 14, 19 | 20, 21 … | 24
    np.testing.assert_allclose(y, [[3, 5, 6.5], [13, 15, 16.5], [20.5, 22.5, 24]])


def test_the_clipping_rule_of_padded_pooling() -> None:
    # the formula of PoolingLayer::Reshape: a last window that would begin in the padding after
    # the image is dropped. H 4, k 2, s 2, p 1: ceil((4+2-2)/2)+1 = 3, and 2·2 < 4+1 stays;
    # H 3, k 2, s 3, p 1: ceil((3+2-2)/3)+1 = 2, and 1·3 < 3+1 stays; H 2, k 2, s 3, p 1:
    # ceil(2/3)+1 = 2, and 1·3 >= 2+1 is dropped.
    for size, stride, count in ((4, 2, 3), (3, 3, 2), (2, 3, 1)):
        y = pool(f"kernel_size: 2 stride: {stride} pad: 1", np.ones((1, 1, size, size)))["y"]
        assert y.shape[2:] == (count, count)


def test_stochastic_pooling() -> None:
    # in inference each element counts by its share: (1+4+9+16)/(1+2+3+4)
    x = np.array([[1, 2], [3, 4]], np.float32)[None, None]
    layer = 'layer { name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param { kernel_size: 2 pool: STOCHASTIC } }'
    assert run_layer(layer, {"x": x})["y"].item() == pytest.approx(3.0)
    loss = 'layer { name: "r" type: "Reduction" bottom: "y" top: "r" loss_weight: 1 }'
    seen = set()
    for seed in range(20):
        values = {"random.seed": seed, "random.counter": 0}
        seen.add(run_layer(layer + loss, {"x": x}, values, training=True)["loss"].item())
    assert seen <= {1.0, 2.0, 3.0, 4.0}
    assert len(seen) > 1


@pytest.mark.parametrize(
    "parameters",
    ["", "kernel_size: 3 pad: 3", "kernel_size: 3 kernel_h: 3", "kernel_h: 2",
     "kernel_size: 2 global_pooling: true", "kernel_size: 2 stride: 0"],
)  # fmt: skip
def test_pooling_that_makes_no_sense(parameters: str) -> None:
    with pytest.raises(ImportModelError, match="Pooling"):
        pool(parameters, np.ones((1, 1, 5, 5)))


@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_pyramid(method: str) -> None:
    # Caffe's tests: on [2, 3, 9, 8] a pyramid of height 3 makes 1 + 4 + 16 bins of 3 channels
    layer = f'layer {{ name: "s" type: "SPP" bottom: "x" top: "y" spp_param {{ pyramid_height: 3 pool: {method} }} }}'
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 8)).astype(np.float32)
    y = run_layer(layer, {"x": x})["y"]
    assert y.shape == (2, 63)
    np.testing.assert_allclose(
        y[:, :3], x.max((2, 3)) if method == "MAX" else x.mean((2, 3)), rtol=1e-5
    )
    one = layer.replace("pyramid_height: 3", "pyramid_height: 1")
    assert run_layer(one, {"x": x})["y"].shape == (2, 3, 1, 1)
    # Caffe's TestEqualOutputDims: a 9×8 image of three levels without a loss of rows
    assert run_layer(layer.replace("height: 3", "height: 2"), {"x": x})["y"].shape == (2, 15)


# ── convolution ──────────────────────────────────────────────────────────────────────────

CONV = 'layer {{ name: "c" type: "{}" bottom: "x" top: "y" convolution_param {{ {} }} }}'


def test_convolution_finds_edges() -> None:
    # Caffe's test: TestSobelConvolution, separable and at once
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 4)).astype(np.float32)
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
    layer = CONV.format("Convolution", "num_output: 1 kernel_size: 3 stride: 2 bias_term: false")
    whole = run_layer(layer, {"x": x}, {"c.weight": np.broadcast_to(kernel, (1, 3, 3, 3))})["y"]
    column = CONV.format(
        "Convolution",
        "num_output: 1 kernel_h: 3 kernel_w: 1 stride_h: 2 stride_w: 1 bias_term: false",
    )
    first = run_layer(
        column,
        {"x": x},
        {"c.weight": np.broadcast_to(np.array([1, 2, 1.0]).reshape(1, 1, 3, 1), (1, 3, 3, 1))},
    )["y"]
    row = CONV.format(
        "Convolution",
        "num_output: 1 kernel_h: 1 kernel_w: 3 stride_h: 1 stride_w: 2 bias_term: false",
    )
    second = run_layer(row, {"x": first}, {"c.weight": np.array([-1, 0, 1.0]).reshape(1, 1, 1, 3)})[
        "y"
    ]
    np.testing.assert_allclose(whole, second, atol=1e-4)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("num_output: 4 kernel_size: 3 stride: 2", (2, 4, 2, 1)),  # Caffe's TestSetup
        ("num_output: 3 kernel_size: 3 stride: 2 group: 3", (2, 3, 2, 1)),
        ("num_output: 4 kernel_size: 3 pad: 1 dilation: 2", (2, 4, 4, 2)),
        ("num_output: 4 kernel_size: 3 kernel_size: 1", (2, 4, 4, 4)),
    ],
)
def test_convolution_shapes(parameters: str, expected: tuple[int, ...]) -> None:
    assert shape_of(CONV.format("Convolution", parameters), x=(2, 3, 6, 4)) == expected


def test_convolution_of_more_axes_and_of_a_later_axis() -> None:
    cube = CONV.format("Convolution", "num_output: 4 kernel_size: 3 stride: 2")
    assert shape_of(cube, x=(2, 3, 5, 6, 4)) == (2, 4, 2, 2, 1)
    late = CONV.format("Convolution", "num_output: 4 kernel_size: 3 axis: 2")
    assert shape_of(late, x=(2, 5, 3, 6, 4)) == (2, 5, 4, 4, 2)


def test_bottoms_share_a_convolution() -> None:
    layer = (
        'layer { name: "c" type: "Convolution" bottom: "a" bottom: "b" top: "ya" top: "yb" '
        'convolution_param { num_output: 1 kernel_size: 1 weight_filler { type: "constant" value: 2 } } }'
    )
    a, b = np.ones((1, 1, 2, 2)), np.full((1, 1, 3, 3), 3.0)
    y = run_layer(layer, {"a": a, "b": b})
    assert (y["ya"] == 2).all()
    assert (y["yb"] == 6).all()


def test_deconvolution() -> None:
    # Caffe's tests: [2, 3, 6, 4] with a 3×3 kernel and stride 2 becomes 13×9; TestSimple
    # Deconvolution: ones over three channels and a bias of 0.1, overlaps add up
    setting = (
        'num_output: 4 kernel_size: 3 stride: 2 weight_filler { type: "constant" value: 1 } '
        'bias_filler { type: "constant" value: 0.1 }'
    )
    y = run_layer(CONV.format("Deconvolution", setting), {"x": np.ones((2, 3, 6, 4))})["y"]
    assert y.shape == (2, 4, 13, 9)
    expected = np.full((13, 9), 3.1)
    rows = np.array([h % 2 == 0 and 0 < h < 12 for h in range(13)])
    columns = np.array([w % 2 == 0 and 0 < w < 8 for w in range(9)])
    expected[rows] += 3
    expected[:, columns] += 3
    expected[np.ix_(rows, columns)] += 3
    np.testing.assert_allclose(y, np.broadcast_to(expected, y.shape), atol=1e-4)


def test_upsampling_by_a_bilinear_filler() -> None:
    # kernel 2·factor - factor % 2, pad ceil((factor-1)/2): the inside of a ramp stays a ramp
    setting = 'num_output: 1 group: 1 kernel_size: 4 stride: 2 pad: 1 bias_term: false weight_filler { type: "bilinear" }'
    x = np.arange(5, dtype=np.float32) * np.ones((1, 1, 5, 1), np.float32)
    y = run_layer(CONV.format("Deconvolution", setting), {"x": x})["y"][0, 0]
    assert y.shape == (10, 10)
    np.testing.assert_allclose(np.diff(y[5, 1:9]), 0.5, atol=1e-6)


def test_depthwise_of_forks() -> None:
    text = CONV.format("DepthwiseConvolution", "num_output: 4 kernel_size: 3")
    assert model_of(inputs_text({"x": (1, 4, 5, 5)}) + text).parameters["c.weight"].shape == (
        4,
        1,
        3,
        3,
    )


def test_patches() -> None:
    # Caffe's test of Im2col: [1·2, 3, 6, 5], kernel 3, stride 2 -> 27 channels of 2×2
    layer = CONV.format("Im2col", "kernel_size: 3 stride: 2")
    x = np.random.default_rng(2).standard_normal((2, 3, 6, 5)).astype(np.float32)
    y = run_layer(layer, {"x": x})["y"]
    assert y.shape == (2, 27, 2, 2)
    for c in range(27):
        assert y[0, c, 0, 0] == x[0, c // 9, (c // 3) % 3, c % 3]


@pytest.mark.parametrize(
    "setting",
    ["kernel_size: 3", "num_output: 4", "num_output: 4 kernel_size: 3 group: 2",
     "num_output: 4 kernel_size: 9", "num_output: 4 kernel_h: 3",
     "num_output: 2147483647 kernel_size: 3"],
)  # fmt: skip
def test_convolution_that_makes_no_sense(setting: str) -> None:
    from brickc.errors import BrickcError

    with pytest.raises(BrickcError, match=r'net\.prototxt:2 "c"'):
        model_of(inputs_text({"x": (1, 3, 5, 5)}) + CONV.format("Convolution", setting))


def test_too_many_axes() -> None:
    with pytest.raises(UnsupportedError, match="4 spatial axes"):
        model_of(
            inputs_text({"x": (1, 3, 5, 5, 5, 5)})
            + CONV.format("Convolution", "num_output: 1 kernel_size: 1")
        )


# ── inner product ────────────────────────────────────────────────────────────────────────

IP = 'layer {{ name: "f" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {{ {} }} }}'


def test_inner_product() -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    w = np.arange(24, dtype=np.float32).reshape(4, 6)
    y = run_layer(IP.format("num_output: 4"), {"x": x}, {"f.weight": w, "f.bias": [1, 2, 3, 4]})[
        "y"
    ]
    np.testing.assert_allclose(y, x.reshape(2, 6) @ w.T + [1, 2, 3, 4])
    # Caffe's TestForwardTranspose: the same numbers from the transposed matrix
    turned = run_layer(
        IP.format("num_output: 4 transpose: true"),
        {"x": x},
        {"f.weight": w.T, "f.bias": [1, 2, 3, 4]},
    )["y"]
    np.testing.assert_allclose(turned, y)


def test_inner_product_of_a_later_axis() -> None:
    layer = IP.format("num_output: 5 axis: 2")
    assert shape_of(layer, x=(2, 3, 4, 2)) == (2, 3, 5)
    assert shape_of(IP.format("num_output: 5 axis: -1"), x=(2, 3, 4)) == (2, 3, 5)
    assert shape_of(IP.format("num_output: 5 axis: 0"), x=(2, 3)) == (5,)


@pytest.mark.parametrize(
    "layer",
    [
        CONV.format("Convolution", 'num_output: 4 group: 2 kernel_size: 3 stride: 2 pad: 1 weight_filler { type: "xavier" }'),
        CONV.format("Deconvolution", 'num_output: 2 group: 2 kernel_size: 3 stride: 2 pad: 1 weight_filler { type: "msra" }'),
        CONV.format("Im2col", "kernel_size: 2 stride: 2"),
        IP.format('num_output: 3 weight_filler { type: "gaussian" }'),
        'layer { name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param { kernel_size: 3 stride: 2 pad: 1 pool: AVE } }',
        'layer { name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param { kernel_size: 3 stride: 2 pool: MAX } }',
        'layer { name: "s" type: "SPP" bottom: "x" top: "y" spp_param { pyramid_height: 2 } }',
    ],
)  # fmt: skip
def test_gradients(layer: str) -> None:
    text = (
        'layer { name: "v" type: "Parameter" top: "x" parameter_param { shape { dim: 2 dim: 2 dim: 5 dim: 6 } } }'
        + layer
        + 'layer { name: "l" type: "Reduction" bottom: "y" top: "l" reduction_param { operation: SUMSQ } loss_weight: 0.5 }'
    )
    assert check_gradients(text) == []
