"""Products and convolutions by torch, on the host's memory: right, chosen, refused where they must be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import brickc as bc
from brickc.backends.base import Backend, Trial
from brickc.backends.triton import TritonBackend
from brickc.backends.triton.bench import TritonBench
from brickc.backends.triton.launches import TritonKernel
from brickc.backends.triton.strategies import vendor
from brickc.cli import app
from brickc.driver import Compiled, Function, compile_model
from brickc.errors import UnsupportedError, UsageError
from brickc.ir.interpret import interpret
from brickc.ir.kernel.choices import Choice, kernel_key

pytest.importorskip("triton")
pytest.importorskip("torch")


def small_model(dtype: str = "f32") -> bc.Model:
    """Padding, stride, dilation, groups; products with and without something after them."""
    N = bc.Dim("N", 1, 8, 4)
    x, t = bc.input("x", (N, 4, 7, 9), dtype), bc.input("t", (N,), "i32")
    y = bc.Sequential(
        bc.Conv2d(6, 3, padding=1, groups=2), bc.ReLU(), bc.Conv2d(5, 3, stride=2, dilation=2),
        bc.Tanh(), bc.Flatten(), bc.Linear(10),
    )(x)  # fmt: skip
    return bc.Model(outputs={"logits": y}, loss=bc.softmax_loss(y, t))


def by_torch(model: bc.Model, target: str = "triton:vendor") -> Compiled:
    """Everything that torch can do is done by it."""

    def choose(chosen: Backend, functions: Mapping[str, Function]) -> dict[str, Choice]:
        return {
            kernel_key(made.kernel): Choice((("library", "torch"),))
            for f in functions.values()
            for made in f.kernels
            if "library" in made.choice.as_dict()
        }

    return compile_model(model, target, functions=["train_step"], tune=choose)


def libraries(f: Function) -> list[TritonKernel]:
    return [k for k in f.kernels if isinstance(k, TritonKernel) and k.library is not None]


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_torch_agrees_with_the_interpreter(dtype: str) -> None:
    compiled = by_torch(small_model(dtype))
    f = compiled.functions["train_step"]
    calls = [k.library.function for k in libraries(f) if k.library is not None]
    assert sorted(set(calls)) == ["convolution", "input_grad", "matmul", "weight_grad"]
    assert len(calls) == 8
    assert compiled.sources["model.py"].count('        ("torch.') == 8  # type: ignore[arg-type]
    program = bc.Program.of(compiled, seed=1)
    rng = np.random.default_rng(0)
    feed: dict[str, Any] = {
        "x": rng.standard_normal((3, 4, 7, 9)).astype(np.float32 if dtype == "f32" else np.float64),
        "t": rng.integers(0, 10, 3).astype(np.int32),
    }
    tolerance = 1e-4 if dtype == "f32" else 1e-10
    for _ in range(2):
        wanted = interpret(f.graph, {**feed, **program.state_dict()})
        np.testing.assert_allclose(
            program.train_step(**feed)["loss"], wanted.outputs["loss"], rtol=tolerance
        )
        after = program.state_dict()
        for name, value in wanted.updates.items():
            np.testing.assert_allclose(after[name], value, rtol=tolerance, atol=tolerance / 10)


def test_batched_products() -> None:
    N = bc.Dim("N", 1, 8, 4)
    a, b = bc.input("a", (N, 5, 6)), bc.input("b", (N, 6, 3))
    model = bc.Model(outputs={"y": bc.matmul(a, b), "z": bc.tanh(bc.matmul(a, b) * 0.5)})
    program = bc.compile(model, "triton", vendor_libraries=True)
    assert program.compiled.target == "triton:vendor"

    def choose(chosen: Backend, functions: Mapping[str, Function]) -> dict[str, Choice]:
        return {kernel_key(m.kernel): Choice((("library", "torch"),))
                for m in functions["infer"].kernels if m.options}  # fmt: skip

    compiled = compile_model(model, "triton:vendor", functions=["infer"], tune=choose)
    assert libraries(compiled.functions["infer"])
    rng = np.random.default_rng(0)
    feed = {"a": rng.standard_normal((3, 5, 6)).astype(np.float32),
            "b": rng.standard_normal((3, 6, 3)).astype(np.float32)}  # fmt: skip
    right = feed["a"] @ feed["b"]
    found = bc.Program.of(compiled).infer(**feed)
    np.testing.assert_allclose(found["y"], right, rtol=1e-5)
    np.testing.assert_allclose(found["z"], np.tanh(right / 2), rtol=1e-5)


def test_the_rule_without_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    f = compile_model(small_model(), "triton:vendor", functions=["train_step"]).functions[
        "train_step"
    ]
    assert libraries(f) == []
    flops = sorted(k.kernel.flops for k in f.kernels if "library" in k.choice.as_dict())
    monkeypatch.setattr(vendor, "LIBRARY_FLOPS", flops[3])
    chosen = TritonBackend.of("vendor")
    kernels, _ = chosen.select(f.program)
    big = [k for k in kernels if k.choice.as_dict().get("library") == "torch"]
    assert sorted(k.kernel.flops for k in big) == flops[3:]


def test_the_tuner_compares_both(tmp_path: Path) -> None:
    f = compile_model(small_model(), "triton:vendor", functions=["train_step"]).functions[
        "train_step"
    ]
    chosen = TritonBackend.of("vendor")
    for function in ("matmul", "weight_grad"):
        number, ways = next(
            (k, found)
            for k, made in enumerate(f.kernels)
            if "library" in made.choice.as_dict()
            for found in [chosen.candidates(f.program, k)]
            if any(w.library is not None and w.library.function == function for w in found)
        )
        (other,) = (w for w in ways if w.library is not None)
        assert [n for n, _ in other.options] == ["library"]
        assert chosen.estimate(f.program, other) > 0

        def timer(start: Any) -> float:
            start()
            return 1.0

        bench = TritonBench(chosen.options, "cpu", "interpreter", timer)
        (timed,) = bench.build([Trial(f.program, number, [ways[0], other])])
        assert timed.seconds(1) == 1.0
        assert timed.error(1)["f32"] < 1e-5


def test_where_no_library_can_be_called() -> None:
    model = small_model()
    with pytest.raises(UnsupportedError, match="compiled ahead of time have no vendor libraries"):
        bc.compile(model, "triton:sm_90", vendor_libraries=True)
    with pytest.raises(UnsupportedError, match="persistent kernel cannot call vendor libraries"):
        bc.compile(model, "triton:persistent", vendor_libraries=True)
    with pytest.raises(UsageError, match="only target triton calls vendor libraries; got numpy"):
        bc.compile(model, "numpy", vendor_libraries=True)
    # operands rounded to bf16 would be summed with less than f32
    f = compile_model(model, "triton:vendor,bf16", functions=["train_step"]).functions["train_step"]
    assert not any("library" in k.choice.as_dict() for k in f.kernels)
    assert "TF32 = True" in str(
        compile_model(model, "triton:vendor,tf32", functions=["infer"]).sources["model.py"]
    )


def test_the_command_line_says_the_rule(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "import brickc as bc\n"
        'net = bc.Model(outputs={"y": bc.Linear(4)(bc.input("x", (bc.Dim("N", 1, 8), 6)))})\n'
    )
    call = ["compile", f"{file}:net", "-o", str(tmp_path / "a"), "--target", "triton"]
    result = CliRunner().invoke(app, [*call, "--vendor-libraries", "on"])
    assert result.exit_code == 0, result.output
    assert "vendor libraries: 0 of 1 products and convolutions; by the rule:" in result.output
    result = CliRunner().invoke(app, [*call, "--vendor-libraries", "maybe"])
    assert result.exit_code == 2
    assert "unknown --vendor-libraries; got maybe; expected on or off" in result.output
