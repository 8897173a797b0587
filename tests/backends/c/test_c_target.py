"""The C target as a user meets it: compilers, processors, threads, source alone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import brickc as bc
from brickc.backends.c import build, cpu
from brickc.driver import backend
from brickc.errors import BuildError, UnsupportedError, UsageError
from brickc.frontends import zoo

EXAMPLE = Path(__file__).parents[3] / "examples" / "lenet5_in_c" / "build.py"


def batch(model: bc.Model, n: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for name, type in model.inputs.items():
        shape = [n if not isinstance(d, int) else d for d in type.shape]
        if type.dtype.is_float:
            found[name] = rng.standard_normal(shape).astype(np.float32)
        else:
            found[name] = rng.integers(0, 10, shape).astype(np.int32)
    return found


@pytest.fixture(scope="module")
def programs() -> tuple[bc.Program, bc.Program]:
    """LeNet-5 for C and for NumPy, from the same first parameters."""
    model = zoo.model("lenet5")
    rule = bc.SGD(0.05, momentum=0.9)
    return bc.compile(model, "c", optimizer=rule), bc.compile(model, "numpy", optimizer=rule)


@pytest.mark.parametrize("n", [1, 5, 16, 33, 64, 100])
def test_any_batch_agrees_with_numpy(programs: tuple[bc.Program, bc.Program], n: int) -> None:
    """Tails of vectors included; losses and parameters after a step."""
    ours, theirs = programs
    inputs = batch(zoo.model("lenet5"), n)
    ours.init(3)
    theirs.init(3)
    for name in ("loss", "accuracy"):
        a, b = ours.train_step(**inputs), theirs.train_step(**inputs)
        np.testing.assert_allclose(a[name], b[name], rtol=2e-5, err_msg=name)
    for name, value in theirs.state_dict().items():
        scale = float(np.abs(value).max()) or 1.0
        np.testing.assert_allclose(ours.state_dict()[name], value, atol=2e-5 * scale, rtol=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_bits_from_run_to_run(
    programs: tuple[bc.Program, bc.Program], threads: int
) -> None:
    ours, _ = programs
    ours.set_threads(threads)
    inputs = batch(zoo.model("lenet5"), 64)
    runs = []
    for _ in range(2):
        ours.init(1)
        for _ in range(5):
            ours.train_step(**inputs)
        runs.append(ours.state_dict())
    ours.set_threads(None)
    for name, value in runs[0].items():
        np.testing.assert_array_equal(value, runs[1][name], name)


def test_threads_are_checked(programs: tuple[bc.Program, bc.Program]) -> None:
    ours, theirs = programs
    with pytest.raises(bc.errors.BrickcError, match="1 to 64"):
        ours.set_threads(0)
    with pytest.raises(UsageError, match="no threads of its own"):
        theirs.set_threads(2)


def test_auto_takes_c_where_a_compiler_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend("auto").name == "c"
    monkeypatch.setattr(build, "compiler", lambda: None)
    monkeypatch.setattr("brickc.backends.c.compiler", lambda: None)
    assert backend("auto").name == "numpy"


def test_no_compiler_and_a_failing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.model("mlp")
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises(UsageError, match="CC"):
        bc.compile(model, "c", functions=["infer"])
    monkeypatch.setenv("CC", "false")
    with pytest.raises(BuildError, match="failed"):
        bc.compile(model, "c", functions=["infer"])
    monkeypatch.setattr(build, "compiler", lambda: None)
    with pytest.raises(BuildError, match="no C compiler"):
        bc.compile(model, "c", functions=["infer"])


def test_unknown_processor() -> None:
    with pytest.raises(UnsupportedError, match="x86-64-v3"):
        backend("c:pentium")


@pytest.mark.parametrize("option", ["portable", "x86-64-v2", "x86-64-v3"])
def test_other_processors_compute_the_same(option: str) -> None:
    """Every instruction set that this machine has, with its own lanes and tiles."""
    if not cpu.abilities().issuperset(cpu.CPUS[option].needs):
        pytest.skip(f"this processor is no {option}")
    model = zoo.model("lenet5")
    inputs = batch(model, 20)
    program = bc.compile(model, f"c:{option}", functions=["train_step"])
    other = bc.compile(model, "numpy", functions=["train_step"])
    for _ in range(2):
        np.testing.assert_allclose(
            program.train_step(**inputs)["loss"], other.train_step(**inputs)["loss"], rtol=1e-5
        )


def test_a_processor_that_lacks_something_is_refused(tmp_path: Path) -> None:
    program = bc.compile(zoo.model("mlp"), "c", functions=["infer"])
    program.save(tmp_path / "mlp")
    path = tmp_path / "mlp" / "model.py"
    text = path.read_text(encoding="utf-8")
    start = text.index("NEEDS = ")
    end = text.index("\n", start)
    path.write_text(text[:start] + "NEEDS = ('avx1024',)" + text[end:], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", "import model"], cwd=tmp_path / "mlp", capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "this processor cannot run the program; got no avx1024" in done.stderr


@pytest.mark.parametrize("command", [("python", "-m", "ziglang", "cc"), ("/opt/zig/zig", "cc")])
def test_zig_spells_processors_otherwise(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a minus in it zig refuses the name: it reads what follows as a feature to leave out."""
    monkeypatch.setattr(build, "_is_gcc", lambda command: False)
    for name, own in cpu.CPUS.items():
        flags = build.compiler_flags(command, own)
        chosen = [f for f in flags if f.startswith(("-march=", "-mcpu="))]
        assert len(chosen) == (name != "portable")
        assert all("-" not in f.partition("=")[2] for f in chosen), chosen
        assert set(own.flags) <= set(build.compiler_flags(("cc",), own))


def test_hostile_names() -> None:
    """Names are data: in comments they end nothing, as identifiers they hide nothing."""
    n = bc.Dim("L", 1, 64)
    x = bc.input("*/ int main(", (n, 7))
    y = bc.Linear(3, name="double")(x)
    model = bc.Model({"??/ out": bc.Tanh(name="for")(y)})
    program = bc.compile(model, "c")
    values = np.ones((5, 7), np.float32)
    expected = bc.compile(model, "numpy").call("infer", {"*/ int main(": values})
    found = program.call("infer", {"*/ int main(": values})
    np.testing.assert_allclose(found["??/ out"], expected["??/ out"], rtol=1e-5)


def example() -> Any:
    spec = importlib.util.spec_from_file_location("lenet5_in_c", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_training_from_c_alone(tmp_path: Path) -> None:
    said = example().main(tmp_path, epochs=6)
    assert float(said.rsplit("held out: ", 1)[1].split(" ", 1)[0]) >= 97.0


@pytest.mark.slow
def test_training_under_sanitizers(tmp_path: Path) -> None:
    """No read or write outside a buffer, nothing undefined: the program stops if there is."""
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    said = example().main(tmp_path, epochs=1, extra=flags)
    assert "held out:" in said
