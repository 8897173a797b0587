"""Artifacts: folders that run without brickc.

    manifest.json          functions, types, ranges, peak bytes, tolerances, SHA-256 of every file
    model.py               the generated module: kernels and host program
    weights.safetensors    parameters and states, axes in the model's order
    golden.safetensors     inputs and outputs of every function for one small size
    ir/FUNCTION.STAGE.txt  the graph after every pass, in text form
    kernels/FUNCTION.txt   kernels, buffers and memory plan

The same input gives the same bytes: nothing here depends on time, place or order of files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ArtifactError, NumericsError
from .executable import Executable, import_source

__all__ = ["FORMAT", "TOLERANCES", "Golden", "check_place", "load", "new_folder", "verify",
           "write"]  # fmt: skip

FORMAT = 1

#: relative error that a backend may make against the reference interpreter, by dtype
TOLERANCES = {"f32": 1e-4, "f64": 1e-9}

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Golden:
    """Inputs of every function, and what it returned when the artifact was made."""

    inputs: Mapping[str, Mapping[str, Array]]
    outputs: Mapping[str, Mapping[str, Array]]


def check_place(target: Path) -> None:
    """Raise ArtifactError, before any work is done, if no artifact could be written there."""
    target = _free(target)
    there = next(p for p in target.parents if os.path.lexists(p))
    try:
        os.rmdir(tempfile.mkdtemp(prefix=f".{target.name}-", dir=there))
    except OSError as error:
        raise _unwritable(target, error) from None


def _free(target: Path) -> Path:
    """The absolute path, where there must be nothing, an empty folder or an artifact."""
    target = Path(os.path.abspath(target))
    if target.exists() and not target.is_dir():
        raise ArtifactError(f"{target} is a file", expected="a folder, or nothing")
    if target.is_dir() and any(target.iterdir()) and not (target / "manifest.json").exists():
        raise ArtifactError(f"{target} is not empty and no artifact", hint="choose another folder")
    return target


def _unwritable(target: Path, error: OSError) -> ArtifactError:
    return ArtifactError(
        f"{target} cannot be written", got=error.strerror, expected="a place with room",
        hint="choose another folder",
    )  # fmt: skip


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder that appears at ``target`` complete, or not at all.

    What was there before is replaced only if it was an artifact or empty. Raises
    ArtifactError if the place cannot be written.
    """
    target = _free(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise _unwritable(target, error) from None
    try:
        yield scratch
        scratch.chmod(0o755)
        old = None
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
            os.rename(target, old / "artifact")
        os.rename(scratch, target)
        if old is not None:
            shutil.rmtree(old)
    except OSError as error:
        raise _unwritable(target, error) from None
    finally:
        if scratch.exists():
            shutil.rmtree(scratch, ignore_errors=True)


def write(
    folder: Path,
    *,
    sources: Mapping[str, str | bytes],
    texts: Mapping[str, str],
    weights: Mapping[str, Array],
    golden: Golden,
    description: Mapping[str, Any],
) -> None:
    """Write an artifact. ``description`` becomes the manifest, with the files' hashes added."""
    data: dict[str, bytes] = {
        n: t.encode() if isinstance(t, str) else t for n, t in {**sources, **texts}.items()
    }
    data["weights.safetensors"] = dump(weights)
    flat: dict[str, Array] = {}
    for kind, part in (("inputs", golden.inputs), ("outputs", golden.outputs)):
        for function, arrays in part.items():
            flat.update({f"{function}/{kind}/{n}": a for n, a in arrays.items()})
    data["golden.safetensors"] = dump(flat)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
    tolerances = {**TOLERANCES, **description.get("tolerances", {})}
    manifest = {"format": FORMAT, **description, "tolerances": tolerances, "files": hashes}
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    with new_folder(folder) as scratch:
        for name, content in data.items():
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (scratch / "manifest.json").write_bytes(text.encode())


def dump(arrays: Mapping[str, Array]) -> bytes:
    """One safetensors file; equal arrays give equal bytes."""
    # here, since compiling and running need no files: a GPU's machine may lack the package
    from safetensors.numpy import save as save_safetensors

    # asarray, since ascontiguousarray gives a scalar an axis
    ordered = {n: np.asarray(arrays[n], order="C") for n in sorted(arrays)}
    return save_safetensors(ordered)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest. Raises ArtifactError if it is missing, corrupt or of another format."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(
            f"{folder} is no artifact", got=error.strerror, expected="a folder with manifest.json"
        ) from None
    except ValueError as error:
        raise ArtifactError(f"{path} is corrupt", got=error) from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ArtifactError(f"{path} is corrupt", expected="an object with 'files'")
    if manifest.get("format") != FORMAT:
        raise ArtifactError(
            f"{path} has another format", got=manifest.get("format"), expected=FORMAT,
            hint="compile the model again with this version of brickc",
        )  # fmt: skip
    return manifest


def check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise ArtifactError unless every listed file is there with its hash."""
    for name, expected in manifest["files"].items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ArtifactError(f"{folder}: the manifest lists a path outside it", got=name)
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read", got=error.strerror) from None
        if found != expected:
            raise ArtifactError(
                f"{path} is corrupt", got=f"SHA-256 {found[:16]}…",
                expected=f"{str(expected)[:16]}…", hint="the file was changed or cut off",
            )  # fmt: skip


def load(folder: str | os.PathLike[str]) -> Executable:
    """An artifact as a program. All hashes are checked before any of its code runs."""
    path = Path(folder)
    manifest = read_manifest(path)
    check_files(path, manifest)
    if "model.py" not in manifest["files"]:
        raise ArtifactError(f"{path}: the manifest lists no model.py")
    module = import_source(path / "model.py")
    try:
        return Executable(module, module.load(str(path)))
    except module.ModelError as error:
        raise ArtifactError(str(error)) from None


def verify(folder: str | os.PathLike[str]) -> dict[str, float]:
    """Run the golden vectors; gives the largest relative error by function and output.

    Raises NumericsError if one is over the tolerance, ArtifactError as ``load`` does.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_safetensors

    path = Path(folder)
    program = load(path)
    manifest = read_manifest(path)
    try:
        flat = load_safetensors((path / "golden.safetensors").read_bytes())
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path}/golden.safetensors cannot be read", got=error) from None
    inputs: dict[str, dict[str, Array]] = {}
    expected: dict[str, dict[str, Array]] = {}
    for key, array in flat.items():
        function, kind, name = key.split("/", 2)
        (inputs if kind == "inputs" else expected).setdefault(function, {})[name] = array
    tolerance = float(manifest["tolerances"].get(manifest.get("dtype", "f32"), 1e-4))
    errors: dict[str, float] = {}
    before = program.state_dict()
    for function, outputs in expected.items():
        found = program.call(function, inputs.get(function, {}))
        program.load_state_dict(before)  # a training step has changed it
        for name, array in outputs.items():
            scale = float(np.max(np.abs(array), initial=1e-30))
            worst = float(np.max(np.abs(found[name] - array), initial=0.0)) / scale
            errors[f"{function}/{name}"] = worst
            if not worst <= tolerance:
                raise NumericsError(
                    f"{path}: {function} gives another {name} than when it was made",
                    got=f"relative error {worst:.2e}", expected=f"at most {tolerance:.0e}",
                )  # fmt: skip
    return errors
