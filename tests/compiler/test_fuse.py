"""Which nodes make one kernel."""

from __future__ import annotations

import numpy as np
import pytest

import brickc as bc
from brickc.driver import compile_model
from brickc.ir.brick import Parameter


def _flattened() -> bc.Model:
    n = bc.Dim("N", 1, 64)
    x = bc.input("x", (n, 3, 4, 4))
    y = bc.Sequential(bc.Conv2d(5, 4), bc.Tanh(), bc.Flatten(), bc.Linear(2))(x)
    return bc.Model(outputs={"y": y}, loss=bc.square_loss(y, bc.input("t", (n, 2))))


@pytest.mark.parametrize("target", ["numpy", "c"])
def test_updates_and_slopes_join_products_through_a_reshape(target: str) -> None:
    """The convolution over the whole image is a product there; its parts are still one kernel."""
    optimizer = bc.SGD(0.1, momentum=0.9)
    f = compile_model(_flattened(), "c", optimizer=optimizer).functions["train_step"]
    graph = f.graph
    (weight,) = [n.id for n in graph.nodes()
                 if isinstance(n.brick, Parameter) and len(n.type.shape) == 4]  # fmt: skip
    home = {m: g for g in f.fusion.groups for m in g.members}
    update = graph.updates[weight]
    assert home[update].anchor is not None
    assert graph.node(home[update].anchor or 0).brick.mnemonic == "contract"
    assert home[update].views
    # the same numbers as before fusion
    rng = np.random.default_rng(0)
    feed = {"x": rng.standard_normal((7, 3, 4, 4)).astype("f4"),
            "t": rng.standard_normal((7, 2)).astype("f4")}  # fmt: skip
    program = bc.compile(_flattened(), target, optimizer=optimizer, seed=3)
    other = bc.compile(_flattened(), "numpy", optimizer=optimizer, seed=3)
    for _ in range(3):
        np.testing.assert_allclose(
            program.train_step(**feed)["loss"], other.train_step(**feed)["loss"], rtol=1e-5
        )


def test_a_value_that_another_kernel_reads_is_stored() -> None:
    """A reshape inside a kernel does not hide the value from readers outside."""
    n = bc.Dim("N", 1, 64)
    x = bc.input("x", (n, 6))
    y = bc.Linear(8)(x)
    z = bc.tanh(bc.reshape(y, (n, 2, 4)))
    model = bc.Model(outputs={"y": y, "z": z, "sum": bc.reduce_sum(bc.reshape(y, (n, 4, 2)), (1,))})
    program = bc.compile(model, "numpy", seed=1)
    feed = np.random.default_rng(1).standard_normal((5, 6)).astype("f4")
    got = program.infer(x=feed)
    np.testing.assert_allclose(got["z"], np.tanh(got["y"].reshape(5, 2, 4)), rtol=1e-5)
    np.testing.assert_allclose(got["sum"], got["y"].reshape(5, 4, 2).sum(1), rtol=1e-5)


def test_what_strides_cannot_walk_stays_apart() -> None:
    """A bias along an axis that a reshape cuts across is no walk over the kernel's space."""
    n = bc.Dim("N", 1, 64)
    x = bc.input("x", (n, 6))
    y = bc.reshape(bc.Linear(8)(x), (n, 4, 2))
    bias = bc.parameter("bias", (4, 1))
    model = bc.Model(outputs={"z": bc.tanh(y + bias)})
    f = compile_model(model, "numpy").functions["infer"]
    reasons = [d.reason for d in f.fusion.decisions if not d.fused]
    assert any("cannot be walked" in r for r in reasons)
