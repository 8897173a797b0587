"""Pools in the kernels of convolutions, and gradients made of the winners of max pools alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from conformance import check
from graph_tools import Net

import brickc as bc
from brickc.backends.base import Backend
from brickc.driver import Compiled, Function, compile_model
from brickc.ir.bricks.activation import ReLU, Tanh
from brickc.ir.bricks.arithmetic import add, mul
from brickc.ir.bricks.convolution import Convolution, ConvolutionInputGrad, ConvolutionWeightGrad
from brickc.ir.bricks.window import WindowMax, WindowMaxScatter, WindowSum
from brickc.ir.dims import Dim, Size
from brickc.ir.dtypes import DType
from brickc.ir.kernel import anchors
from brickc.ir.kernel.choices import Choice, kernel_key
from brickc.ir.kernel.loops import LoopKernel

NONE = ((0, 0),) * 4


@dataclass(frozen=True)
class Case:
    channels: int
    rows: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    window: tuple[int, int]

    @property
    def geometry(self) -> Any:
        return self.stride, self.padding, (1, 1), 1


CASES = {
    # rows that fill a tile and vectors that do not, one window after the other
    "one channel": Case(1, 20, (10, 12), (5, 5), (1, 1), ((0, 0), (0, 0)), (2, 2)),
    # a row and a column that no window holds; padding
    "rests": Case(3, 7, (9, 8), (3, 4), (1, 1), ((1, 2), (2, 0)), (2, 2)),
    "strides": Case(5, 4, (12, 13), (3, 3), (2, 1), ((0, 1), (1, 1)), (2, 3)),
    # taps of a row that are more than registers can hold
    "many channels": Case(31, 9, (7, 9), (3, 5), (1, 1), ((0, 0), (0, 0)), (2, 2)),
    "tall windows": Case(2, 3, (9, 5), (1, 2), (1, 2), ((0, 0), (0, 1)), (3, 1)),
    "an image larger than a cache": Case(40, 3, (30, 20), (5, 5), (1, 1), ((2, 2), (2, 2)), (2, 2)),
}


def _gradients(case: Case, batch: Size, dtype: DType) -> Net:
    """The convolution's pooled result, and the gradients of image and weights."""
    net = Net(dtype)
    x = net.input("x", (batch, case.channels, *case.size))
    w = net.input("w", (case.rows, case.channels, *case.kernel))
    image = x.apply(ReLU(), x.apply(Convolution(*case.geometry), x, w))
    pool = WindowMax((1, 1, *case.window), (1, 1, *case.window), NONE)
    y = x.apply(pool, image)
    net.output("y", y)
    v = net.input("v", y.shape)
    dy = x.apply(WindowMaxScatter(pool.window, pool.stride, pool.padding), image, y, v)
    weights = ConvolutionWeightGrad(*case.geometry, case.kernel)
    net.output("dw", x.apply(weights, x, dy))
    net.output("dx", x.apply(ConvolutionInputGrad(*case.geometry, case.size), dy, w))
    return net


def _feed(net: Net, batch: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    found = {}
    for name, id in net.graph.inputs.items():
        type = net.graph.node(id).type
        shape = tuple(n if isinstance(n, int) else batch for n in type.shape)
        found[name] = rng.standard_normal(shape).astype(type.dtype.numpy)
    return found


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients_of_winners(case: Case, dtype: DType) -> None:
    """Vectors, what is left of them, and one example."""
    net = _gradients(case, Dim("N", 1, 40), dtype)
    check(net.graph, *(_feed(net, n) for n in (21, 8, 1)), target="c")


@pytest.mark.parametrize("batch", [1, 3, 12, 16, 20])
def test_batches_that_are_known(batch: int) -> None:
    """One example has its places in the lanes, and three are flattened: the pool comes after."""
    net = _gradients(CASES["rests"], batch, DType.F32)
    check(net.graph, _feed(net, batch), target="c")


@pytest.mark.parametrize("mean", [False, True])
def test_what_is_read_elsewhere_is_stored(mean: bool) -> None:
    """The result before the pool, and what follows the pool in the same kernel."""
    net = Net(DType.F32)
    x, w = net.input("x", (Dim("N", 1, 40), 3, 9, 10)), net.input("w", (5, 3, 2, 2))
    b = net.input("b", (5, 1, 1))
    sums = x.apply(Convolution((1, 1), ((0, 0),) * 2, (1, 1), 1), x, w)
    image = x.apply(Tanh(), add(sums, b))
    window = (1, 1, 2, 3)
    y = x.apply((WindowSum if mean else WindowMax)(window, window, NONE), image)
    net.output("image", image)
    net.output("y", y)
    net.output("after", x.apply(ReLU(), add(mul(y, 0.25), b)))
    check(net.graph, *(_feed(net, n) for n in (19, 3)), target="c")


def test_the_first_maximum_wins() -> None:
    """Ties, signed zeros, infinities and NaNs: the gradient goes where the interpreter's goes."""
    case = Case(1, 1, (7, 8), (1, 1), (1, 1), ((0, 0), (0, 0)), (2, 2))
    net = _gradients(case, Dim("N", 1, 40), DType.F32)
    del net.graph.outputs["dw"]  # NaN from end to end
    rng = np.random.default_rng(5)
    kinds = np.array([0.0, -0.0, 1.0, 1.0, 2.0, np.inf, np.nan, np.nan], np.float32)
    feeds = []
    for batch in (17, 40):
        feed = _feed(net, batch) | {"w": np.ones((1, 1, 1, 1), np.float32)}
        feed["x"] = rng.choice(kinds, feed["x"].shape)
        feed["x"][0] = np.nan
        feed["x"][-1] = 3.0
        feeds.append(feed)
    check(net.graph, *feeds, target="c", tolerance=0.0)


def _model() -> bc.Model:
    batch = Dim("N", 1, 64, typical=64)
    x = bc.input("x", (batch, 1, 20, 20))
    net = bc.Sequential(
        bc.Conv2d(20, 5, name="one"), bc.MaxPool(2), bc.Conv2d(30, 5, name="two"), bc.ReLU(),
        bc.MaxPool(2), bc.Flatten(), bc.Linear(10),
    )  # fmt: skip
    loss = bc.softmax_loss(net(x), bc.input("t", (batch,), "i64", limit=10))
    return bc.Model(outputs={}, loss=loss)


def test_a_training_step_keeps_no_image_before_a_pool() -> None:
    compiled = compile_model(_model(), "c", functions=["train_step"], optimizer=bc.SGD(0.1))
    function = compiled.functions["train_step"]
    kernels = function.program.kernels
    pooled = [k for k in kernels if k.pool is not None]
    assert [k.pool.numbered for k in pooled if k.pool] == [True, True]
    assert all(isinstance(k.anchor, anchors.Convolution) and not k.after.stores for k in pooled)
    kinds = [k.kind for k in kernels]
    assert kinds.count("pooledweightgrad") == 2
    assert kinds.count("pooledinputgrad") == 1
    assert not [k for k in kinds if k.startswith("window")]
    assert len(kernels) == KERNELS
    shapes = {b.shape for b in function.program.buffers.values()}
    assert not [s for s in shapes if s[-2:] in ((16, 16), (4, 4))]


#: forward 2 convolutions and a product, the loss and its gradient, backward 2 + 3 and biases
KERNELS = 16


@pytest.mark.parametrize(("cpu", "wanted"), [("x86-64-v3", [1, 1]), ("x86-64-v4", [0, 0])])
def test_images_are_copied_where_vectors_are_far_apart(cpu: str, wanted: list[int]) -> None:
    """A tile of 32 examples leaves gaps in a batch of 64, one of 64 does not."""
    found: list[int] = []

    class Seen(Exception):  # noqa: N818 (not an error)
        """Ends the compilation before the C compiler is called: any processor will do."""

    def look(_: Backend, functions: Mapping[str, Function]) -> dict[str, Choice]:
        for k in functions["train_step"].kernels:
            if isinstance(k, LoopKernel) and k.kernel.pool:
                near = k.choice.as_dict()["near"]
                assert isinstance(near, int)
                found.append(near)
        raise Seen

    with pytest.raises(Seen):
        compile_model(
            _model(), f"c:{cpu}", functions=["train_step"], optimizer=bc.SGD(0.1), tune=look
        )
    assert found == wanted


def test_numpy_keeps_its_kernels() -> None:
    compiled = compile_model(_model(), "numpy", functions=["train_step"], optimizer=bc.SGD(0.1))
    kernels = compiled.functions["train_step"].program.kernels
    assert not [k for k in kernels if k.pool is not None or k.kind.startswith("pooled")]
    assert [k.kind for k in kernels].count("windowmaxscatter") == 2


def test_reasons_for_what_is_not_fused() -> None:
    def reasons(*layers: Any) -> list[str]:
        x = bc.input("x", (Dim("N", 1, 64), 8, 20, 20))
        model = bc.Model(outputs={"y": bc.Sequential(*layers)(x)})
        fusion = compile_model(model, "c", functions=["infer"]).functions["infer"].fusion
        return [d.reason for d in fusion.decisions if not d.fused]

    assert "windows that overlap, are apart or have padding" in reasons(
        bc.Conv2d(4, 5), bc.MaxPool(3, stride=2)
    )
    assert "Winograd's transforms make tiles of places" in reasons(bc.Conv2d(4, 3), bc.MaxPool(2))
    assert "window_max reads its operand from memory" in reasons(bc.Tanh(), bc.MaxPool(2))
    assert reasons(bc.Conv2d(4, 5), bc.MaxPool(2)) == []


def test_steps_repeat_bit_by_bit() -> None:
    rng = np.random.default_rng(1)
    feed = {"x": rng.standard_normal((37, 1, 20, 20)).astype(np.float32),
            "t": rng.integers(0, 10, 37)}  # fmt: skip
    states = []
    for _ in range(2):
        program = bc.compile(_model(), target="c:native", optimizer=bc.SGD(0.1), seed=3, threads=2)
        for _ in range(3):
            program.train_step(**feed)
        states.append(program.state_dict())
    for name, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][name])


def _compare(compiled: Compiled, model: bc.Model, image: tuple[int, ...]) -> None:
    """Three steps of target c and of target numpy."""
    rng = np.random.default_rng(2)
    ours = bc.Program.of(compiled, seed=3)
    wanted = bc.compile(model, target="numpy", optimizer=bc.SGD(0.1), seed=3)
    for batch in (37, 3, 16):
        feed = {"x": rng.standard_normal((batch, *image)).astype(np.float32),
                "t": rng.integers(0, 10, batch)}  # fmt: skip
        np.testing.assert_allclose(
            ours.train_step(**feed)["loss"], wanted.train_step(**feed)["loss"], rtol=1e-5
        )
    after = wanted.state_dict()
    for name, value in ours.state_dict().items():
        np.testing.assert_allclose(value, after[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("lanes", ["taps", "examples"])
def test_lanes_of_a_weight_gradient(lanes: str) -> None:
    """Either taps and channels lie side by side in a vector, or examples do."""
    chosen: dict[str, str] = {}

    def forced(backend: Backend, functions: Mapping[str, Function]) -> dict[str, Choice]:
        found = {}
        f = functions["train_step"]
        for k, made in enumerate(f.kernels):
            if made.kernel.kind == "pooledweightgrad":
                ways = backend.candidates(f.program, k)
                way = next(w for w in ways if w.choice.as_dict()["lanes"] == lanes)
                found[kernel_key(made.kernel)] = way.choice
                chosen[made.kernel.name] = way.strategy
        return found

    model = _model()
    compiled = compile_model(
        model, "c", functions=["train_step"], optimizer=bc.SGD(0.1), tune=forced
    )
    strategy = "sums over windows" if lanes == "taps" else "masks per place of a window"
    assert list(chosen.values()) == [strategy] * 2
    _compare(compiled, model, (1, 20, 20))


def test_which_lanes_a_weight_gradient_has() -> None:
    """A row of taps of one channel fills few lanes, one of many channels fills them."""
    compiled = compile_model(_model(), "c", functions=["train_step"], optimizer=bc.SGD(0.1))
    lanes = {
        k.kernel.operands[0].shape[1]: k.choice.as_dict()["lanes"]
        for k in compiled.functions["train_step"].kernels
        if isinstance(k, LoopKernel) and k.kernel.kind == "pooledweightgrad"
    }
    assert lanes == {1: "examples", 20: "taps"}


def test_an_odd_line_of_windows_is_shared() -> None:
    """Five lines of windows keep one of two threads waiting; ten halves do not."""
    batch = bc.Dim("N", 1, 64)
    x, t = bc.input("x", (batch, 6, 14, 14)), bc.input("t", (batch,), "i32")
    net = bc.Sequential(bc.Conv2d(16, 5), bc.Tanh(), bc.MeanPool(2), bc.Flatten(), bc.Linear(10))
    model = bc.Model(outputs={}, loss=bc.softmax_loss(net(x), t))
    compiled = compile_model(model, "c", functions=["train_step"], optimizer=bc.SGD(0.1))
    (made,) = (k for k in compiled.functions["train_step"].kernels
               if isinstance(k, LoopKernel) and k.kernel.pool)  # fmt: skip
    assert made.choice.as_dict()["pieces"] == 2
    _compare(compiled, model, (6, 14, 14))
