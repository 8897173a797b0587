"""The command line of the tuner: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from brickc.backends.c.build import compiler
from brickc.cli import app

runner = CliRunner()


def call(*args: str) -> Result:
    return runner.invoke(app, list(args))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("BRICKC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path) -> str:
    file = tmp_path / "net.py"
    file.write_text(
        "import brickc as bc\n"
        'x = bc.input("x", (bc.Dim("N", 1, 64), 200))\n'
        'net = bc.Model(outputs={"y": bc.Linear(24)(x)})\n'
    )
    return f"{file}:net"


@pytest.mark.skipif(compiler() is None, reason="no C compiler")
def test_compile_reports_what_was_tuned(model: str, tmp_path: Path, own_cache: Path) -> None:
    result = call(
        "compile", model, "-o", str(tmp_path / "a"), "--target", "c", "--tune", "1.5", "--json"
    )
    assert result.exit_code == 0, result.output
    tuning = json.loads(result.stdout)["tuning"]
    assert tuning["timed"] >= 2
    assert tuning["environment"]["target"] == "c"
    (file,) = (own_cache / "tune").iterdir()
    remembered = json.loads(file.read_text())["kernels"].values()
    measured = [k for k in tuning["kernels"] if k["seconds"] is not None]
    assert len(measured) == len(remembered) >= 1
    again = call("compile", model, "-o", str(tmp_path / "b"), "--target", "c", "--tune", "0")
    assert again.exit_code == 0, again.output
    assert f"0 candidates timed, {len(measured)} kernels from the cache" in again.output
    one, two = ((tmp_path / n / "model.c").read_text() for n in "ab")
    assert one == two


def test_explain_shows_choices(model: str) -> None:
    result = call("explain", model, "--target", "triton", "--choices", "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["choices"]
    assert row["by"] == "rules"
    assert row["choice"].startswith("swap=0 m=")
    costs = [r["cost"] for r in row["rejected"]]
    assert len(costs) == 3
    assert costs == sorted(costs)
    assert all(r["choice"] != row["choice"] for r in row["rejected"])
    text = call("explain", model, "--target", "triton", "--choices")
    assert "rejected" in text.output
    assert "nominal machine" in text.output


def test_dump_shows_choices(model: str) -> None:
    result = call("dump", model, "--stage", "kernels", "--target", "triton")
    assert result.exit_code == 0, result.output
    assert "\n  choice swap=0 m=" in result.output


def test_targets_that_cannot_be_tuned(model: str, tmp_path: Path) -> None:
    for target, words in (
        ("numpy", "target numpy has nothing to tune"),
        ("triton", "there is no device to time on"),
    ):
        result = call(
            "compile", model, "-o", str(tmp_path / "a"), "--target", target, "--tune", "1"
        )
        assert result.exit_code == 6
        assert words in result.output
        assert not (tmp_path / "a").exists()
    result = call("compile", model, "-o", str(tmp_path / "a"), "--target", "c", "--tune", "-1")
    assert result.exit_code == 2
    assert "tuning takes a number of seconds; got -1" in result.output
