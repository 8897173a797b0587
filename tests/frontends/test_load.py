"""Models by name: the zoo, Python files, IR text; clear messages for everything else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from brickc.errors import BrickcError, ImportModelError, UsageError
from brickc.frontends import zoo
from brickc.frontends.load import load_model
from brickc.ir.printer import print_graph

SOURCE = """
from dataclasses import dataclass
from brickc.frontends.model import Model
from brickc.frontends.trace import input
import beside

@dataclass
class Settings:
    width: "int" = beside.WIDTH

def make():
    x = input("x", (2, Settings().width))
    return Model(x * 2.0)

ready = make()
number = 3

def broken():
    x = input("x", (2, 3))
    return Model(x + input("y", (2, 4)))

def fails():
    return 1 / 0

def other():
    return "no model"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("WIDTH = 5\n")
    path = tmp_path / "network.py"
    path.write_text(SOURCE)
    return path


def test_zoo() -> None:
    assert load_model("zoo:lenet5").parameter_count() == 61_706
    with pytest.raises(UsageError, match="no such network in the zoo"):
        load_model("zoo:nothing")


@pytest.mark.parametrize("name", ["make", "ready"])
def test_python_files(file: Path, name: str) -> None:
    before = (list(sys.path), set(sys.modules))
    model = load_model(f"{file}:{name}")
    assert model.inputs["x"].shape == (2, 5)
    assert sys.path == before[0]
    assert not any(m.startswith("brickc_model") for m in sys.modules)
    node = next(n for n in model.graph().nodes() if n.origin.line)
    assert node.origin.file == "network.py"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("missing", r"has no 'missing'; expected make, ready, broken, fails, other"),
        ("number", "number is no model; got int"),
        ("other", "other is no model; got str"),
        ("fails", r"network.py:23: the file raised ZeroDivisionError: division by zero"),
        ("broken", r"network.py:20: add: shapes do not broadcast"),
        ("", "has no ''"),
    ],
)
def test_python_files_without_a_model(file: Path, name: str, text: str) -> None:
    with pytest.raises(BrickcError, match=text):
        load_model(f"{file}:{name}")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("x = 1\ny = 1 / 0\n", r"bad.py:2: the file raised ZeroDivisionError"),
        ("x = (\n", r"bad.py:1: the file raised SyntaxError"),
        ("import sys\nsys.exit(3)\n", r"bad.py:2: the file raised SystemExit"),
        ("import no_such_module_anywhere\n", r"bad.py:1: the file raised ModuleNotFoundError"),
    ],
)
def test_python_files_that_fail(tmp_path: Path, source: str, text: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(source)
    with pytest.raises(ImportModelError, match=text):
        load_model(f"{path}:model")


@pytest.mark.parametrize("suffix", [".ir", ".brickc"])
def test_ir_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"saved{suffix}"
    model = zoo.lenet5()
    path.write_text(print_graph(model.graph()), encoding="utf-8")
    again = load_model(str(path))
    assert print_graph(again.training()) == print_graph(model.training())
    assert again.parameter_count() == 61_706


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file; got .*gone\.py"):
        load_model(f"{tmp_path}/gone.py:make")
    with pytest.raises(UsageError, match="no such file"):
        load_model(f"{tmp_path}/gone.ir")
    with pytest.raises(UsageError, match=r"which model .*; got a.py; expected a.py:NAME"):
        load_model("a.py")
    with pytest.raises(UsageError, match=r"not a model; got 'lenet5'.*the zoo has mlp"):
        load_model("lenet5")
    binary = tmp_path / "binary.ir"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImportModelError, match="not IR text"):
        load_model(str(binary))
    garbage = tmp_path / "garbage.ir"
    garbage.write_text("this is not a graph\n")
    with pytest.raises(BrickcError):
        load_model(str(garbage))
