"""Halves between kernels: what the graph says, what is left in f32, and how much is moved."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from graph_tools import Net

import brickc as bc
from brickc.backends.triton import CAPABILITIES, TritonBackend
from brickc.compiler.differentiate import differentiate
from brickc.compiler.optimize.mixed_precision import PRODUCTS, keep_halves
from brickc.compiler.optimize.simplify import simplify
from brickc.driver import Function, compile_model
from brickc.errors import DtypeError
from brickc.ir.bricks import CATALOGUE
from brickc.ir.bricks.arithmetic import mul, square
from brickc.ir.bricks.contract import Contract, contract
from brickc.ir.bricks.convert import Cast
from brickc.ir.bricks.reduce import reduce_max, reduce_sum
from brickc.ir.dims import hint
from brickc.ir.dtypes import DType, round_to
from brickc.ir.export import from_json, to_json
from brickc.ir.interpret import interpret
from brickc.ir.kernel.memory import Space
from brickc.ir.parser import parse
from brickc.ir.printer import print_graph
from brickc.program import describe

HALVES = {"bf16": DType.BF16, "f16": DType.F16}


@cache
def compiled(name: str, precision: str, function: str = "train_step") -> Any:
    return compile_model(bc.zoo.model(name), f"triton:{precision},launches",
                         optimizer=bc.SGD(0.01, momentum=0.9), functions=[function])  # fmt: skip


def step(name: str, precision: str) -> Function:
    function: Function = compiled(name, precision).functions["train_step"]
    return function


@pytest.mark.parametrize("half", [DType.BF16, DType.F16])
def test_rounding_is_torchs(half: DType, rng: np.random.Generator) -> None:
    bits = rng.integers(0, 2**32, 20_000, np.uint32)
    bits[::2] = (bits[::2] & 0xFFFF0000) | 0x8000  # halfway between two of bf16
    x = np.concatenate([bits.view(np.float32), np.float32([0.0, -0.0, np.inf, 65520.0, 3.4e38])])
    dtype = torch.bfloat16 if half is DType.BF16 else torch.float16
    want = torch.from_numpy(x).to(dtype).float().numpy()
    np.testing.assert_array_equal(round_to(x, half).astype(np.float32), want)


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("name", ["mlp", "lenet5", "alexnet2012"])
def test_what_the_graph_says(name: str, precision: str) -> None:
    half, f = HALVES[precision], step(name, precision)
    graph = f.graph
    products = [n for n in graph.nodes() if isinstance(n.brick, PRODUCTS)]
    assert len(products) >= 8
    for node in products:
        assert [o.type.dtype for o in graph.operands(node)] == [half, half]
        assert node.type.dtype is DType.F32
    # the user's values, parameters and states, and all arithmetic but the products'
    leaves = graph.inputs | graph.parameters | graph.states
    for id in [*leaves.values(), *graph.outputs.values(), *graph.updates.values()]:
        assert not graph.node(id).type.dtype.is_half
    for node in graph.nodes():
        if node.type.dtype.is_half:
            assert node.brick.mnemonic in ("cast", "reshape", "transpose"), node
    assert f.stages["keep halves"] is graph


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("name", ["lenet5", "alexnet2012"])
def test_activations_lie_in_halves(name: str, precision: str) -> None:
    """Per example, f32 is what the loss is made of and random numbers: a twentieth at most."""
    wide = narrow = 0
    for buffer in step(name, precision).program.buffers.values():
        if buffer.space is Space.ARENA and not isinstance(buffer.size, int):
            wide += hint(buffer.nbytes) * (buffer.dtype is DType.F32)
            narrow += hint(buffer.nbytes) * (buffer.dtype is HALVES[precision])
    assert 0 < wide < narrow / 20


@pytest.mark.parametrize("name", ["mlp", "lenet5", "lenet"])
def test_fusion_is_that_of_f32(name: str) -> None:
    """Kernels: those of f32, and one for the half of x and of every matrix of parameters."""
    f = step(name, "bf16")
    rounded = [n for n in f.graph.nodes() if n.brick == Cast(DType.BF16)]
    leaves = {*f.graph.inputs.values(), *f.graph.parameters.values()}
    alone = [n for n in rounded if n.operands[0] in leaves]
    assert len(f.program.kernels) == len(step(name, "f32").program.kernels) + len(alone)


#: (network, precision): bytes that the kernels of a step move at N = 64, and what an example takes
#: of the arena; the rest is weights' halves and the scratch memory of strategies
BYTES = {
    ("lenet5", "f32"): (12865784, "38784*N"),
    ("lenet5", "bf16"): (7443808, "19392*N"),
    ("lenet5", "f16"): (8184335, "20224*N"),
    ("alexnet2012", "f32"): (3615313400, "9845056*N"),
    ("alexnet2012", "bf16"): (2480340984, "4926592*N"),
}


@pytest.mark.parametrize(("name", "precision"), BYTES)
def test_bytes(name: str, precision: str) -> None:
    f = step(name, precision)
    each, _, _ = str(f.plan.peak).partition("+")
    assert (f.program.bytes_moved, each) == BYTES[name, precision]


@pytest.mark.parametrize("precision", HALVES)
def test_text_and_json_hold_all_of_it(precision: str) -> None:
    graph = step("lenet5", precision).graph
    text = print_graph(graph)
    assert "sums=f32}" in text
    assert f": {precision}[N," in text
    again = parse(text, CATALOGUE)
    assert print_graph(again) == text
    assert print_graph(from_json(to_json(graph), CATALOGUE)) == text


def test_the_manifest_says_so() -> None:
    stated = {p: describe(compiled("mlp", p)) for p in ("f32", *HALVES)}
    assert [s["precision"] for s in stated.values()] == ["f32", "bf16", "f16"]
    assert [s["tolerances"] for s in stated.values()] == [
        {}, {"f32": 5e-2, "bf16": 5e-2}, {"f32": 1e-2, "f16": 1e-2},
    ]  # fmt: skip
    inputs = stated["bf16"]["functions"]["train_step"]["inputs"]
    assert {i["dtype"] for i in inputs.values()} == {"f32", "i32"}
    assert {leaf["dtype"] for leaf in stated["f16"]["leaves"].values()} == {"f32", "i64"}


def halved(net: Net, half: DType = DType.BF16) -> Any:
    return keep_halves(simplify(net.graph), replace(CAPABILITIES, half=half))


def test_an_element_stays_equal_to_its_maximum() -> None:
    """The slope of a maximum is found by comparing, so the elements are not rounded."""
    net = Net(DType.F32)
    x, w, v = net.input("x", (3, 4)), net.parameter("w", (4,)), net.parameter("v", (5, 4))
    y = mul(x, w)  # in the kernel of its maximum
    largest = contract("no,po->np", mul(reduce_max(y, (1,), keepdims=True), y), v)
    net.output("loss", reduce_sum(square(largest)))
    graph, gradients = differentiate(net.graph, "loss")
    graph.outputs = {f"d{k}": g for k, g in enumerate(gradients.values())}
    net.graph = graph
    mixed = halved(net)
    rng = np.random.default_rng(0)
    arrays = {n: rng.standard_normal(s).astype("f4") for n, s in
              (("x", (3, 4)), ("w", (4,)), ("v", (5, 4)))}  # fmt: skip
    want, got = interpret(graph, arrays), interpret(mixed, arrays)
    for name in want:
        scale = np.abs(want[name]).max()
        np.testing.assert_allclose(got[name], want[name], atol=0.03 * scale)


def test_mixed_products_have_derivatives() -> None:
    net = Net(DType.F32)
    x, w = net.input("x", (3, 4)), net.parameter("w", (5, 4))
    half = [v.apply(Cast(DType.F16), v) for v in (x, w)]
    y = half[0].apply(Contract("nk,ok->no", DType.F32), *half)
    net.output("loss", reduce_sum(square(y)))
    graph, gradients = differentiate(net.graph, "loss")
    graph.outputs = {"dw": gradients[w.id]}
    arrays = {"x": np.ones((3, 4), "f4"), "w": np.full((5, 4), 0.5, "f4")}
    np.testing.assert_array_equal(interpret(graph, arrays)["dw"], np.full((5, 4), 12.0))


def test_sums_are_those_of_halves() -> None:
    net = Net(DType.F32)
    x = net.input("x", (3, 4))
    with pytest.raises(DtypeError, match="f32 in f64"):
        x.apply(Contract("nk,ok->no", DType.F64), x, x)


def test_other_precisions_leave_the_graph_alone() -> None:
    for precision in ("", "tf32"):
        assert TritonBackend.of(precision).capabilities.half is None
    graph = step("mlp", "f32").graph
    assert keep_halves(graph, CAPABILITIES) is graph
