"""Products: where parameters lie, and how threads share them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

import brickc as bc
from brickc.driver import compile_model
from brickc.ir.kernel.loops import For, LoopKernel, Prefetch, Statement, When


def _model(batch: bc.Dim | int, dtype: str = "f32") -> bc.Model:
    x = bc.input("x", (batch, 300), dtype)
    h = bc.Linear(512, name="wide")(x)
    y = bc.Linear(270, name="odd")(bc.tanh(h))
    z = bc.Linear(3, name="small")(y)
    target = bc.input("t", (batch, 3), dtype)
    return bc.Model(outputs={"y": y, "z": z}, loss=bc.square_loss(z, target))


def _feed(batch: int, dtype: str = "f32") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((batch, 300)).astype(bc.DType(dtype).numpy),
        "t": rng.standard_normal((batch, 3)).astype(bc.DType(dtype).numpy),
    }


@pytest.mark.parametrize("threads", [1, 3])
def test_one_example_agrees_with_numpy(threads: int) -> None:
    """Large matrices are cut along the sum, in as many parts whatever the threads."""
    model = _model(1, "f64")
    feed = _feed(1, "f64")
    ours, theirs = (
        bc.compile(model, target, seed=2, functions=["infer"]) for target in ("c", "numpy")
    )
    ours.set_threads(threads)
    found, wanted = ours.infer(x=feed["x"]), theirs.infer(x=feed["x"])
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12)
    kernels = ours.compiled.functions["infer"].kernels
    products = [k for k in kernels if isinstance(k, LoopKernel) and k.kernel.kind == "contract"]
    assert [len(k.phases) for k in products] == [2, 2, 1]


def test_rows_of_large_parameters_are_apart() -> None:
    """Rows of a power of two get a cache line between them; others lie as they did."""
    model = _model(bc.Dim("N", 1, 64))
    strides = {}
    for target in ("c", "numpy"):
        compiled = compile_model(model, target, optimizer=bc.SGD(0.1, momentum=0.9))
        buffers = compiled.functions["train_step"].program.buffers.values()
        strides[target] = {b.label: b.strides for b in buffers if len(b.strides) == 2 and b.label}
        sizes = {b.label: b.size for b in buffers if b.label}
    assert strides["c"]["wide.weight"] == (1, 528)
    assert strides["numpy"]["wide.weight"] == (1, 512)
    assert strides["c"]["odd.weight"] == strides["numpy"]["odd.weight"] == (1, 270)
    assert sizes["wide.weight"] == 300 * 512


def test_training_with_rows_apart_agrees_with_numpy() -> None:
    model = _model(bc.Dim("N", 1, 64))
    feed = _feed(20)
    programs = [
        bc.compile(model, target, optimizer=bc.SGD(0.01, momentum=0.9), seed=1)
        for target in ("c", "numpy")
    ]
    losses = [[p.train_step(**feed)["loss"] for _ in range(4)] for p in programs]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    ours, theirs = (p.state_dict() for p in programs)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-3, atol=1e-5)
    # what is read is what was written, and gaps stay out of it
    programs[1].load_state_dict(ours)
    programs[0].load_state_dict(programs[1].state_dict())
    for name, value in ours.items():
        np.testing.assert_array_equal(programs[0].state_dict()[name], value)


def _prefetched(body: Sequence[Statement]) -> Iterator[str]:
    for s in body:
        if isinstance(s, Prefetch):
            yield s.buffer
        elif isinstance(s, For | When):
            yield from _prefetched(s.body)


def test_large_matrices_are_fetched_ahead() -> None:
    """The parameter that a tile updates or reads next, if it cannot have stayed in a cache."""
    model = _model(bc.Dim("N", 1, 64))
    compiled = compile_model(model, "c", functions=["train_step"], optimizer=bc.SGD(0.1))
    function = compiled.functions["train_step"]
    labels = {name: b.label for name, b in function.program.buffers.items()}
    found = {}
    for made in function.kernels:
        assert isinstance(made, LoopKernel)
        if made.kernel.kind == "contract":
            buffers = {b for p in made.phases for b in _prefetched(p.work.body)}
            actual = dict(made.arguments)
            found[made.kernel.name] = {labels[actual.get(b, b)] for b in buffers}
    wide, odd = {"wide.weight"}, {"odd.weight"}
    assert found == {
        "wide": wide, "odd": odd, "small": set(),
        "d_small": set(), "d_small_2": set(), "d_odd": odd, "d_odd_2": odd, "d_wide": wide,
    }  # fmt: skip
