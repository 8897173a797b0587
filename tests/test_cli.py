"""The command line: what it prints, writes and exits with."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from brickc.cli import app

runner = CliRunner()


def call(*args: str) -> Result:
    return runner.invoke(app, list(args))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "lenet5"
    result = call("compile", "zoo:lenet5", "-o", str(folder), "--optimizer", "sgd:lr=0.1")
    assert result.exit_code == 0, result.output
    return folder


def test_compile_writes_a_whole_artifact(artifact: Path) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert manifest["parameters"] == 61_706
    assert set(manifest["functions"]) == {"infer", "evaluate", "train_step"}
    listed = set(manifest["files"]) | {"manifest.json"}
    there = {str(p.relative_to(artifact)) for p in artifact.rglob("*") if p.is_file()}
    assert there == listed
    assert call("verify", str(artifact)).exit_code == 0


def test_run_reads_and_writes_arrays(artifact: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((3, 1, 32, 32)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "y.npy"
    result = call("run", str(artifact), "--input", f"x=@{tmp_path / 'x.npy'}",
                  "--output", f"logits=@{out}")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert np.load(out).shape == (3, 10)


def test_train_step_can_be_saved(artifact: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 32, 32), np.float32))
    result = call("run", str(artifact), "--function", "train_step", "--input",
                  f"x=@{tmp_path / 'x.npy'}", "--input", "t=[1,2]", "--save",
                  str(tmp_path / "next"), "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert np.isfinite(json.loads(result.stdout)["outputs"]["loss"])
    assert call("verify", str(tmp_path / "next")).exit_code == 0


@pytest.mark.parametrize(
    "stage", ["graph", "backward", "optimized", "fused", "schedule", "kernels"]
)
def test_dump_every_stage(stage: str) -> None:
    result = call("dump", "zoo:mlp", "--stage", stage)
    assert result.exit_code == 0, result.output
    assert "fc1" in result.stdout


@pytest.mark.parametrize("form", ["json", "dot"])
def test_dump_other_forms(form: str) -> None:
    result = call("dump", "zoo:mlp", "--format", form)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("{" if form == "json" else "digraph")


def test_explain_counts_kernels() -> None:
    report = json.loads(call("explain", "zoo:lenet5", "--json").stdout)
    assert report["kernels"] < report["kernels_before_fusion"]
    assert report["peak_bytes"] < report["intermediate_bytes"]
    assert all(edge["reason"] for edge in report["edges"])


def test_explain_says_what_the_self_test_found() -> None:
    args = ("explain", "zoo:mlp", "--function", "infer", "--target")
    report = json.loads(call(*args, "c", "--json").stdout)
    assert report["self_test"]["tested"]
    assert all(row["error"] < 1e-4 and row["elements"] > 0 for row in report["table"])
    said = call(*args, "c").stdout
    assert "self-test: each kernel agreed with its definition when it was built, at N=" in said
    said = call(*args, "c:native,untested").stdout
    assert "self-test: not tested here: it was not asked for" in said


def test_shapes_and_ranges() -> None:
    fixed = json.loads(
        call("explain", "zoo:lenet5", "--function", "infer", "--shape", "x=1,1,32,32",
             "--json").stdout
    )  # fmt: skip
    assert fixed["dims"] == {}
    ranged = call("compile", "zoo:lenet5", "--range", "N=1:8", "-o", "/dev/null/x")
    assert ranged.exit_code == 7  # the range is fine, the folder is not


def test_check_proves_a_small_model() -> None:
    report = json.loads(call("check", "zoo:mlp", "--json").stdout)
    assert report["passed"]
    assert any(row["what"] == "whole loss" for row in report["rows"])


def test_train_and_resume(tmp_path: Path) -> None:
    args = ["train", "zoo:mlp", "--data", "digits", "--json", "--optimizer", "sgd:lr=0.05"]
    whole = json.loads(call(*args, "--epochs", "2").stdout)["history"]
    first = call(*args, "--epochs", "1", "--checkpoint", str(tmp_path / "c"))
    assert first.exit_code == 0, first.output
    resumed = json.loads(call(*args, "--epochs", "2", "--checkpoint", str(tmp_path / "c")).stdout)
    assert resumed["history"] == whole


BAD = [
    (["compile", "zoo:nothing", "-o", "x"], 2, "no such network"),
    (["compile", "zoo:mlp", "-o", "x", "--target", "abacus"], 6, "unknown target"),
    (["compile", "zoo:mlp", "-o", "x", "--optimizer", "sgd:lr=fast"], 2, "lr"),
    (["compile", "zoo:mlp", "-o", "x", "--shape", "x=N,783"], 4, "fixed by the model"),
    (["compile", "zoo:mlp", "-o", "x", "--range", "N=9:1"], 4, "range"),
    (["compile", "zoo:lenet5", "-o", "x", "--memory-limit", "1M"], 10, "would fit"),
    (["compile", "nothing.ir", "-o", "x"], 2, "no such file"),
    (["run", "nowhere"], 7, "no artifact"),
    (["dump", "zoo:mlp", "--stage", "nonsense"], 2, "unknown stage"),
    (["train", "zoo:mlp", "--data", "mnist:nowhere"], 8, "nowhere"),
    (["train", "zoo:googlenet", "--data", "npz:nowhere"], 8, "nowhere"),
]


@pytest.mark.parametrize(("args", "code", "words"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_bad_input_is_one_clear_line(
    args: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*args)
    assert result.exit_code == code, result.output
    assert words in result.output
    assert "Traceback" not in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())  # nothing half-written


SMALL = """
import brickc as bc
n = bc.Dim("N", 1, 16)
x, t = bc.input("x", (n, 6)), bc.input("t", (n,), "i32")
y = bc.Sequential(bc.Linear(5), bc.Tanh(), bc.Linear(3))(x)
model = bc.Model({"logits": y}, bc.softmax_loss(y, t))
"""


def test_without_a_gpu_compile_works_and_run_names_what_does(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU")
    (tmp_path / "small.py").write_text(SMALL)
    folder = tmp_path / "out"
    done = call("compile", f"{tmp_path / 'small.py'}:model", "--target", "triton:sm_90",
                "--function", "infer", "-o", str(folder))  # fmt: skip
    assert done.exit_code == 0, done.output
    assert list((folder / "kernels").glob("*.cubin"))
    # before the arguments are read: no arguments can help
    for arguments in ([], ["--input", "x=[[0, 0, 0, 0, 0, 0]]"], ["--input", "x=@nowhere.npy"]):
        done = call("run", str(folder), *arguments)
        assert done.exit_code == 6
        (line,) = done.output.strip().splitlines()
        assert "cannot run here; got no driver of a GPU" in line
        here = line.split("targets that run here: ")[1].split(", ")
        assert "numpy" in here
        known = json.loads(call("targets", "--json").stdout)["targets"]
        assert here == [t["target"] for t in known if t["runs"]]
    as_json = json.loads(call("run", str(folder), "--json").stdout)
    assert as_json["error"] == "UnsupportedError"
    assert "numpy" in as_json["hint"]


def test_explain_shows_what_gpu_kernels_take(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    (tmp_path / "small.py").write_text(SMALL)
    command = ["explain", f"{tmp_path / 'small.py'}:model", "--target", "triton:sm_90,tf32",
               "--function", "infer"]  # fmt: skip
    kernels = json.loads(call(*command, "--json").stdout)["gpu_kernels"]
    assert kernels
    products = [k for name, k in kernels.items() if name.startswith("contract_")]
    for k in kernels.values():
        assert 0 < k["registers"] <= 255
        assert k["spilled"] == 0
        assert k["shared"] >= 0
        assert set(k["loads"]) == set(k["loop_loads"]) == {"32", "64", "128"}
        assert all(k["loop_loads"][w] <= k["loads"][w] for w in k["loads"])
    assert products
    assert all(sum(k["tensor"].values()) > 0 and sum(k["loads"].values()) > 0 for k in products)
    text = call(*command).output
    head = next(line for line in text.splitlines() if "GPU kernel" in line)
    for word in ("registers", "spilled", "shared", "tensor cores", "loads", "in loops"):
        assert word in head
    for name, k in kernels.items():
        row = next(line for line in text.splitlines() if f" {name} " in line)
        assert f" {k['registers']} " in row
        for kind, count in k["tensor"].items():
            assert f"{count}x{kind}" in row


def test_errors_as_json() -> None:
    result = call("compile", "zoo:nothing", "-o", "x", "--json")
    assert json.loads(result.stdout)["error"] == "UsageError"


def test_a_corrupt_artifact_is_refused(artifact: Path, tmp_path: Path) -> None:
    import shutil

    for name in ("model.py", "weights.safetensors", "manifest.json"):
        copy = tmp_path / name.replace(".", "_")
        shutil.copytree(artifact, copy)
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[: len(data) // 2])
        result = call("run", str(copy), "--input", "x=[[1]]")
        assert result.exit_code == 7, (name, result.output)
        assert "corrupt" in result.output
        shutil.rmtree(copy)


def test_the_installed_command_has_no_traceback() -> None:
    command = Path(sys.executable).parent / "brickc"
    done = subprocess.run(
        [command, "compile", "zoo:x", "-o", "y"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("brickc: UsageError")


def test_compile_a_torch_program(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's exporter, of itself
        program = torch.export.export(torch.nn.Linear(3, 2), (torch.zeros(4, 3),))
        torch.export.save(program, tmp_path / "linear.pt2")
    result = call("compile", str(tmp_path / "linear.pt2"), "-o", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert call("verify", str(tmp_path / "out")).exit_code == 0
    torch.save({}, tmp_path / "linear.pt")
    result = call("compile", str(tmp_path / "linear.pt"), "-o", str(tmp_path / "no"))
    assert result.exit_code == 2
    assert "torch.export.save" in " ".join(result.output.split())


def test_onnx_in_and_out(tmp_path: Path) -> None:
    """Export, import with another batch size, train with a loss, export what was trained."""
    import onnx

    file, step = tmp_path / "lenet5.onnx", tmp_path / "step.onnx"
    result = call("export", "zoo:lenet5", str(file), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["opset"] == 18
    onnx.checker.check_model(str(file), full_check=True)
    fixed = onnx.load(file)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, file)
    folder = tmp_path / "trained"
    options = ["--loss", "softmax:logits", "--epochs", "1", "--save", str(folder)]
    assert call("train", str(file), *options, "--batch", "64").exit_code == 2  # fixed at 1
    result = call("train", str(file), *options, "--shape", "x=N,1,32,32", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["history"][0]["accuracy"] > 0.7
    result = call("export", str(file), str(step), "--function", "train_step", "--loss", "softmax",
                  "--shape", "x=N,1,32,32", "--weights", str(folder))  # fmt: skip
    assert result.exit_code == 0, result.output
    onnx.checker.check_model(str(step), full_check=True)
    assert call("export", "zoo:lenet5", str(tmp_path / "no" / "x.onnx")).exit_code == 2
    assert call("compile", str(file), "-o", str(folder), "--loss", "hinge").exit_code == 2


# ── Caffe ────────────────────────────────────────────────────────────────────────────────

CAFFE = Path(__file__).parent / "frontends" / "caffe" / "nets"


def ok(*args: str) -> str:
    result = call(*args)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_network_of_caffe(tmp_path: Path) -> None:
    net = str(CAFFE / "lenet_train_test.prototxt")
    ok("compile", net, "-o", str(tmp_path / "a"), "--shape", "data=N,1,28,28")
    text = ok("dump", net, "--shape", "data=N,1,28,28", "--stage", "graph")
    assert '# lenet_train_test.prototxt:15 "conv1"' in text
    report = json.loads(
        ok("train", net, "--data", "digits", "--shape", "data=N,1,28,28", "--epochs", "1", "--json")
    )
    assert report["history"][0]["accuracy"] > 0.5


def test_a_solver_of_caffe(tmp_path: Path) -> None:
    solver = str(CAFFE / "lenet_solver.prototxt")
    folder = str(tmp_path / "run")
    text = ok(
        "train", solver, "--data", "digits", "--shape", "data=N,1,28,28", "--checkpoint", folder
    )
    assert "iteration 10: loss" in text
    assert "iteration 12, test: loss" in text
    weights = tmp_path / "run" / "lenet_iter_12.caffemodel"
    net = f"{CAFFE / 'lenet_train_test.prototxt'}:{weights}"
    ok("compile", net, "-o", str(tmp_path / "a"), "--shape", "data=N,1,28,28")
    report = json.loads(ok("train", solver, "--data", "digits", "--shape", "data=N,1,28,28",
                           "--max-iter", "2", "--weights", str(weights), "--json"))  # fmt: skip
    assert len(report["losses"]) == 2
    assert report["tests"][-1]["iteration"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--epochs", "3"], 2, "--epochs: a solver says this itself"),
        (["--net", "none.prototxt"], 3, "cannot be read"),
        ([], 3, "nothing tells the shape of 'data'"),
    ],
)
def test_a_solver_that_makes_no_sense(arguments: list[str], code: int, message: str) -> None:
    done = call("train", str(CAFFE / "lenet_solver.prototxt"), *arguments)
    assert done.exit_code == code
    assert message in done.output


def test_a_solver_compiles_its_network(tmp_path: Path) -> None:
    solver = str(CAFFE / "lenet_solver.prototxt")
    shape = ("--shape", "data=N,1,28,28")
    ok("compile", solver, "-o", str(tmp_path / "a"), *shape)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert "ip2.weight/momentum" in manifest["leaves"]
    ok("compile", solver, "-o", str(tmp_path / "b"), *shape, "--optimizer", "sgd:lr=0.1")
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert "ip2.weight/momentum" not in manifest["leaves"]


def test_options_of_solvers_alone() -> None:
    done = call("train", "zoo:mlp", "--max-iter", "3")
    assert done.exit_code == 2
    assert "only a solver has this" in done.output
