"""Weight gradients of convolutions whose rows do not merge into one product."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

import brickc as bc
from brickc.driver import compile_model
from brickc.ir.interpret import interpret


@pytest.mark.parametrize("rows", [1, 2])
def test_products_are_added_up_within_the_scratch(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time the first needs no zeros to be added to, and the others no sum of their own."""
    nbytes = 6 * 4 * 9 * 8  # of the gradient
    strategy = "brickc.backends.numpy.strategies.contract"
    monkeypatch.setattr(sys.modules[strategy], "PARTIAL_BYTES", rows * nbytes)
    x = bc.input("x", (3, 4, 7, 5), "f64")
    y = bc.Conv2d(6, 3, padding=1)(x)
    model = bc.Model(outputs={}, loss=bc.square_loss(y, bc.input("t", y.shape, "f64")))
    program = bc.compile(model, "numpy", optimizer=bc.SGD(0.1), seed=4)
    source = program.source[program.source.index("def bind_train_step") :]
    (body,) = [p for p in source.split("\n\n") if re.search(r"subtract\(conv\w*_weight", p)]
    calls = re.findall(r"^ *np\.([\w.]+)\(", body, re.MULTILINE)
    update = ["multiply", "subtract"]
    if rows == 1:
        assert calls == ["matmul", "matmul", "add", *update]
    else:
        assert calls == ["copyto", "matmul", "add.reduce", "add", *update]

    rng = np.random.default_rng(1)
    feed = {name: rng.standard_normal(kind.concrete({})) for name, kind in model.inputs.items()}
    compiled = compile_model(model, "numpy", optimizer=bc.SGD(0.1), functions=["train_step"])
    expected = interpret(
        compiled.functions["train_step"].stages["join optimizer"], feed, program.state_dict()
    )
    program.train_step(**feed)
    after = program.state_dict()
    for name, value in expected.updates.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-12, err_msg=name)
