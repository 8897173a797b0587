"""What lies outside of brickc and fails: one clear error, an exit code, nothing half-written.

Tests run as root too, whom permissions do not stop: what cannot be written is a folder below a
file, a read-only file system, or a full one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import brickc as bc
from brickc.backends.c import cpu
from brickc.cli import app
from brickc.errors import UnsupportedError

SMALL = """
import brickc as bc
n = bc.Dim("N", 1, 16)
x, t = bc.input("x", (n, 6)), bc.input("t", (n, 3))
y = bc.Linear(3)(x)
net = bc.Model({"y": y}, bc.square_loss(y, t))
"""

COMPILERS = {
    "fails": (
        "echo 'model.c:1: error: disk on fire' >&2; exit 1",
        "exit 1: model.c:1: error: disk",
    ),
    "crashes": ("kill -SEGV $$", "a crash (SIGSEGV)"),
    "writes nothing": ("exit 0", "exit 0, but no model0.o"),
    "writes no library": (
        'while [ $# -gt 0 ]; do [ "$1" = -o ] && echo junk > "$2"; shift; done',
        "the library that was built cannot be loaded",
    ),
    "says no text": (r"printf 'model.c: \377\376' >&2; exit 3", "exit 3: model.c: "),
}


def call(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(SMALL)
    return f"{tmp_path / 'net.py'}:net"


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on PATH, no CC, no zig."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def one_error(done: Result, code: int, *words: str) -> None:
    """The command ended with one line of an error of brickc's own."""
    assert done.exit_code == code, done.output
    assert isinstance(done.exception, SystemExit)
    assert done.stderr.startswith("brickc: ")
    assert len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr


# ── the C compiler ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", COMPILERS)
def test_a_compiler_that(
    how: str, net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, said = COMPILERS[how]
    path = tmp_path / "cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    done = call("compile", net, "--target", "c", "-o", str(tmp_path / "out"))
    one_error(done, 1, "BuildError", said, "CC names another compiler")
    assert not (tmp_path / "out").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cc", "net.py"]


def test_a_compiler_that_is_no_program(
    net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cc"
    path.write_text("no script\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    done = call("compile", net, "--target", "c", "-o", str(tmp_path / "out"))
    one_error(done, 1, f"{path}: the C compiler does not run; got Exec format error")


@pytest.mark.parametrize(
    ("command", "said"),
    [("nowhere-cc -m64", "the C compiler that CC names is not there"),
     ('"gcc', "CC is no command; got \"gcc: No closing quotation")],
    ids=["is not there", "is no command"],
)  # fmt: skip
def test_cc_that(
    command: str, said: str, net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", command)
    done = call("compile", net, "--target", "c", "-o", str(tmp_path / "out"))
    one_error(done, 2, f"UsageError: CC: {said}")
    rows = json.loads(call("targets", "--json").stdout)["targets"]
    assert {r["target"]: r["compiles"] for r in rows} == {"c": False, "numpy": True, "triton": True}
    assert said in rows[0]["with"]


@pytest.mark.usefixtures("no_compiler")
def test_no_compiler(net: str, tmp_path: Path) -> None:
    done = call("compile", net, "--target", "c", "-o", str(tmp_path / "out"))
    one_error(done, 1, "no C compiler found; expected cc, gcc or clang, or $CC; install one, or: "
              "pip install 'brickc[c]'")  # fmt: skip
    assert not (tmp_path / "out").exists()
    assert "pip install 'brickc[c]'" in " ".join(call("targets").stdout.split())


@pytest.mark.usefixtures("no_compiler")
def test_auto_says_that_it_is_numpy(net: str, tmp_path: Path) -> None:
    said = "target auto: numpy; no C compiler; pip install 'brickc[c]'"
    done = call("compile", net, "--target", "auto", "-o", str(tmp_path / "out"), "--json")
    assert done.exit_code == 0, done.output
    assert done.stderr == f"brickc: {said}\n"
    report = json.loads(done.stdout)
    assert (report["target"], report["target_note"]) == ("numpy", said)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["target"] == "numpy"
    with pytest.warns(UserWarning, match="target auto: numpy; no C compiler"):
        bc.compile(bc.zoo.model("mlp"), "auto", functions=["infer"])


def test_auto_says_that_it_is_c(net: str, tmp_path: Path) -> None:
    done = call("compile", net, "--target", "auto", "-o", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("brickc: target auto: c; ")
    assert (tmp_path / "out" / "model.c").exists()


# ── places that cannot be written ────────────────────────────────────────────────────────


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A folder that nobody can make: its parent is a file."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "out"


@pytest.mark.parametrize("options", [(), ("--emit", "source")], ids=["artifact", "source"])
def test_an_output_folder_that_cannot_be_made(
    options: Sequence[str], net: str, blocked: Path
) -> None:
    done = call("compile", net, "--target", "c", "-o", str(blocked), *options)
    one_error(done, 7, f"ArtifactError: {blocked} cannot be written; got Not a directory")


def test_said_before_anything_is_compiled(
    net: str, blocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brickc.program.compile", lambda *args, **kwargs: pytest.fail("compiled"))
    one_error(call("compile", net, "-o", str(blocked)), 7, "cannot be written")
    one_error(call("train", net, "--save", str(blocked)), 7, "cannot be written")


def test_a_cache_that_cannot_be_written(
    net: str, blocked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the tuner, whose results would be lost, minds."""
    monkeypatch.setenv("BRICKC_CACHE", str(blocked))
    out = str(tmp_path / "out")
    with pytest.warns(UserWarning, match="results of tuning cannot be read; got NotADirectory"):
        done = call("compile", net, "--target", "c", "-o", out, "--tune", "5")
    one_error(done, 2, "results of tuning cannot be kept", "BRICKC_CACHE names another folder")
    assert not (tmp_path / "out").exists()
    assert call("compile", net, "--target", "c", "-o", out).exit_code == 0


def test_saving_what_was_trained(net: str, blocked: Path, tmp_path: Path) -> None:
    """An artifact that is written over stays whole when the new one cannot be written."""
    out = tmp_path / "out"
    assert call("compile", net, "-o", str(out)).exit_code == 0
    done = call("run", str(out), "--function", "train_step", "--input", "x=[[1,2,3,4,5,6]]",
                "--input", "t=[[1,2,3]]", "--save", str(blocked))  # fmt: skip
    one_error(done, 7, f"{blocked} cannot be written; got Not a directory")
    assert call("verify", str(out)).exit_code == 0


# ── file systems: a namespace of mounts of one's own, where the kernel allows one ────────

MOUNTED = """
mount -t tmpfs -o {options} tmpfs "$1" || exit 99
shift
exec "$@"
"""


def command(*args: str) -> list[str]:
    return [sys.executable, "-c", "from brickc.cli import main; main()", *args]


def mounted(
    folder: Path, options: str, args: Sequence[str], env: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """A command in a process for which ``folder`` is a file system of its own."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare to mount a file system with")
    script = MOUNTED.format(options=options)
    done = subprocess.run(
        [unshare, "-r", "-m", "sh", "-c", script, "sh", str(folder), *command(*args)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(bc.__file__).parents[1]), **env},
    )  # fmt: skip
    if done.returncode == 99 or "unshare failed" in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    return done


def fails(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode not in (0, 70), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("brickc: ")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("options", [(), ("--target", "c", "--emit", "source")],
                         ids=["artifact", "source"])  # fmt: skip
def test_a_read_only_file_system(options: Sequence[str], net: str, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    done = mounted(folder, "ro", ["compile", net, "-o", str(folder / "out"), *options])
    fails(done, f"{folder / 'out'} cannot be written; got Read-only file system")


#: kilobytes: room for a folder, not for what belongs into it
FULL = "size=16k"


@pytest.mark.parametrize("options", [(), ("--target", "c", "--emit", "source")],
                         ids=["artifact", "source"])  # fmt: skip
def test_a_full_disk(options: Sequence[str], net: str, tmp_path: Path) -> None:
    """What is left of the folder is listed from inside, where the disk is."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = mounted(folder, FULL, ["compile", net, "-o", str(folder / "out"), *options])
    fails(done, f"{folder / 'out'} cannot be written; got No space left on device")


def test_a_full_disk_for_temporary_files(net: str, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    args = ["compile", net, "--target", "c", "-o", str(tmp_path / "out")]
    done = mounted(folder, FULL, args, {"TMPDIR": str(folder)})
    fails(done, "got No space left on device", "TMPDIR names another folder")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [(), ("--target", "c", "--emit", "source")],
                         ids=["artifact", "source"])  # fmt: skip
def test_a_disk_that_fills_up_leaves_what_was_there(
    options: Sequence[str], net: str, tmp_path: Path
) -> None:
    """No file can grow beyond a kilobyte: the old files stay as they were, nothing is beside."""
    out = tmp_path / "out"
    assert call("compile", net, "-o", str(out), *options).exit_code == 0
    before = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)); "
        "import sys; sys.dont_write_bytecode = True; from brickc.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "compile", net, "-o", str(out), *options],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(bc.__file__).parents[1])},
    )  # fmt: skip
    fails(done, "File too large")
    after = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert after == before
    assert {p.name for p in tmp_path.iterdir()} <= {"net.py", "out", "__pycache__"}


# ── another processor ────────────────────────────────────────────────────────────────────


def test_an_artifact_for_a_better_processor(net: str, tmp_path: Path) -> None:
    """x86-64-v4 is built anywhere x86 is, and refused at load where AVX-512 is not."""
    if cpu.is_foreign(cpu.CPUS["x86-64-v4"]):
        pytest.skip("this machine is no x86-64")
    if not cpu.lacking(cpu.CPUS["x86-64-v4"]):
        pytest.skip("this processor is an x86-64-v4")
    out = tmp_path / "out"
    done = call("compile", net, "--target", "c", "--cpu", "x86-64-v4", "-o", str(out))
    assert done.exit_code == 0, done.output
    assert json.loads((out / "manifest.json").read_text())["self_test"]["tested"] is False
    done = call("run", str(out), "--input", "x=[[1,2,3,4,5,6]]")
    one_error(done, 6, f"UnsupportedError: {out}: this processor cannot run the program; got no avx512",
              "expected one with avx2", "compile for another one: target c:x86-64-v3")  # fmt: skip
    one_error(call("verify", str(out)), 6, "this processor cannot run the program")
    with pytest.raises(UnsupportedError, match="this processor cannot run the program"):
        bc.load(out)
    alone = subprocess.run([sys.executable, "-c", "import model"], cwd=out, capture_output=True,
                           text=True, check=False)  # fmt: skip
    assert alone.returncode != 0
    assert "this processor cannot run the program; got no avx512" in alone.stderr


def test_the_processor_is_an_option_of_c_alone(net: str, tmp_path: Path) -> None:
    done = call("compile", net, "--cpu", "x86-64-v3", "-o", str(tmp_path / "out"))
    one_error(done, 2, "--cpu is for target c; got target numpy")
    done = call("compile", net, "--target", "c", "--cpu", "pentium", "-o", str(tmp_path / "out"))
    one_error(done, 6, "unknown processor; got pentium")


def test_the_processor_and_other_options_go_together(net: str) -> None:
    report = json.loads(
        call("explain", net, "--target", "c:untested", "--cpu", "portable", "--json").stdout
    )
    assert report["kernels"] > 0
    assert np.isfinite(report["flops"])
