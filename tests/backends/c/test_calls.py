"""Calls that come again: what was checked once is not assumed of other arguments."""

from __future__ import annotations

import re

import numpy as np
import pytest

import brickc as bc
from brickc.backends.c.profile import measured_limits
from brickc.driver import backend, compile_model
from brickc.errors import DataError, DtypeError, ShapeError


@pytest.mark.parametrize("target", ["c", "numpy"])
def test_repeated_calls_are_checked(target: str) -> None:
    n = bc.Dim("N", 1, 64)
    x, t = bc.input("x", (n, 600)), bc.input("t", (n,), "i32", limit=5)
    y = bc.Linear(5)(x)
    model = bc.Model(outputs={"y": y}, loss=bc.softmax_loss(y, t))
    program = bc.compile(model, target)
    rng = np.random.default_rng(0)
    for size in (3, 40, 3):  # below and above what is copied on the way in
        given = rng.standard_normal((size, 600)).astype(np.float32)
        labels = np.arange(size, dtype=np.int32) % 5
        first = program.evaluate(x=given, t=labels)
        twice = np.repeat(given, 2, 0)[::2]  # the same values, one row in two
        assert not twice.flags.c_contiguous
        again = program.evaluate(x=twice, t=labels.astype(np.int64))
        for name, value in first.items():
            np.testing.assert_array_equal(again[name], value)
        with pytest.raises(DataError, match="out of range"):
            program.evaluate(x=given, t=labels - 1)
        with pytest.raises(DataError, match="out of range"):
            program.evaluate(x=given, t=labels + 5)
        with pytest.raises(DtypeError):
            program.evaluate(x=given.astype(np.float64), t=labels)
        with pytest.raises(ShapeError):
            program.evaluate(x=given[:, 1:], t=labels)
        with pytest.raises(ShapeError, match="wrong inputs"):
            program.evaluate(x=given)
        changed = program.evaluate(x=given + 1, t=labels)["y"]
        assert np.abs(changed - first["y"]).max() > 0


def test_small_phases_follow_each_other_on_one_thread() -> None:
    """LeNet-5's loss and what is around it: few meetings of the threads, whatever N is."""
    compiled = compile_model(bc.zoo.model("lenet5"), "c", optimizer=bc.SGD(0.1))
    source = compiled.sources["model.c"]
    assert isinstance(source, str)
    body = source[source.index("static void train_step_body") :]
    body = body[: body.index("\n}")]
    sections = re.findall(r"if \(1 \* N <= (\d+)\) \{(.*?)\} else", body, re.DOTALL)
    together = [text.count("(&own, 0, ") for _, text in sections]
    assert sum(together) >= 20
    assert max(together) >= 10
    # beyond so many examples all threads share those phases, too
    assert all(64 <= int(most) < 10**6 for most, _ in sections)
    phases = len(re.findall(r"\(r, thread, ", body))
    assert phases - sum(together) + len(sections) <= 30


def test_limits_of_the_machine_are_measured() -> None:
    """The program that measures them runs on the threads of every other."""
    limits = measured_limits(backend("c").cpu, 2)
    assert limits.flops > 0
    assert limits.bytes > 0
