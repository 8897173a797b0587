"""The whole state of a run in a folder: weights, optimizer, and how far it has come."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from ..errors import ArtifactError
from .artifact import dump, new_folder

__all__ = ["has_checkpoint", "read_checkpoint", "write_checkpoint"]

Array = npt.NDArray[Any]


class HasState(Protocol):
    """A compiled program."""

    def state_dict(self) -> dict[str, Array]: ...
    def load_state_dict(self, values: Mapping[str, npt.ArrayLike], strict: bool = True) -> None: ...


def has_checkpoint(folder: Path) -> bool:
    return (folder / "manifest.json").exists()


def write_checkpoint(folder: Path, program: HasState, progress: Mapping[str, Any]) -> None:
    """Write the folder; it appears complete or not at all."""
    weights = dump(program.state_dict())
    state = {
        "format": 1,
        **progress,
        "files": {"state.safetensors": hashlib.sha256(weights).hexdigest()},
    }
    with new_folder(folder) as target:
        (target / "state.safetensors").write_bytes(weights)
        (target / "manifest.json").write_text(json.dumps(state, indent=2, sort_keys=True))


def read_checkpoint(folder: Path, program: HasState) -> dict[str, Any]:
    """Set the program's state; what was written about the progress.

    Raises ArtifactError if the folder is damaged, ShapeError if it belongs to another program.
    """
    try:
        state: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        data = (folder / "state.safetensors").read_bytes()
        if hashlib.sha256(data).hexdigest() != state["files"]["state.safetensors"]:
            raise ArtifactError(f"{folder}/state.safetensors is corrupt",
                                hint="delete the checkpoint to start over")  # fmt: skip
        values: dict[str, np.ndarray[Any, Any]] = load_safetensors(data)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ArtifactError(
            f"checkpoint {os.fspath(folder)} cannot be read", got=error,
            hint="delete it to start over",
        ) from None  # fmt: skip
    program.load_state_dict(values)
    return state
