"""Weights of Caffe: .caffemodel files, Caffe's and Mocha's HDF5 snapshots; read and written.

Parameters are called ``layer.weight``, ``layer.bias`` and so on; a file has a layer's blobs in
order. Layers that the other side does not have are left alone, as Caffe does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import ArtifactError, BrickcError, ImportModelError
from .binary import StoredLayer, encode_net, read_net
from .records import hdf5_array, hdf5_members, open_hdf5

__all__ = ["ROLES", "load_caffemodel", "save_caffemodel", "stored_layers", "weights_for"]

Array = npt.NDArray[Any]

#: the last part of a parameter's name, in the order in which layers have them
ROLES = ("weight", "slope", "mean", "variance", "factor", "bias", "weight_static", "weight_h",
         "weight_o", "bias_o")  # fmt: skip


#: groups of an HDF5 file
_MOST_GROUPS = 100_000


class HasState(Protocol):
    """A compiled program."""

    def state_dict(self) -> dict[str, Array]: ...
    def load_state_dict(self, values: Mapping[str, npt.ArrayLike], strict: bool = True) -> None: ...


def read_weights(path: Path) -> list[StoredLayer]:
    """The layers of a weights file, by what is in it: HDF5 or protocol buffers."""
    try:
        with path.open("rb") as file:
            hdf5 = file.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError as error:
        raise ImportModelError("cannot be read", where=path.name, got=error.strerror) from None
    return _read_hdf5(path) if hdf5 else read_net(path)


def weights_for(
    path: Path, blobs: Mapping[str, Sequence[str]], shapes: Mapping[str, Sequence[Any]]
) -> dict[str, Array]:
    """The arrays of a weights file by parameter name.

    ``blobs`` are the network's layers with their parameters' names, ``shapes`` theirs.
    Raises ImportModelError that lists everything that does not fit, or if no layer is known.
    """
    found: dict[str, Array] = {}
    problems: list[str] = []
    stored = read_weights(path)
    for layer in stored:
        names = blobs.get(layer.name)
        if names is None:
            continue
        if len(layer.blobs) != len(names):
            problems.append(f"{layer.name}: {len(layer.blobs)} blobs, expected {len(names)}")
            continue
        for name, array in zip(names, layer.blobs, strict=True):
            if name not in shapes:
                continue  # a layer that nothing needs
            wanted = tuple(shapes[name])
            # files of old have four axes for everything
            if _core(array.shape) != _core(wanted):
                problems.append(f"{name}: {list(array.shape)}, expected {list(wanted)}")
                continue
            found[name] = array.reshape(wanted)
    if problems:
        raise ImportModelError("the weights do not fit:\n  " + "\n  ".join(problems[:200]),
                               where=path.name)  # fmt: skip
    if not found:
        raise ImportModelError(
            "no layer of the file is one of the network's", where=path.name,
            got=", ".join(x.name for x in stored[:10]), expected=", ".join(list(blobs)[:10]),
        )  # fmt: skip
    return found


def _core(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _read_hdf5(path: Path) -> list[StoredLayer]:
    """``data/LAYER/NUMBER`` as Caffe writes, or ``LAYER___PARAMETER`` as Mocha does."""
    with open_hdf5(path) as file:
        try:
            top = dict(hdf5_members(file))
            data = top.get("data")
            if data is not None and not hasattr(data, "shape"):
                layers = list(_caffe_layers(data, path))
            else:
                layers = _mocha_layers(top, path)
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise ImportModelError("cannot be read", where=path.name, got=error) from None
    layers = [layer for layer in layers if layer.blobs]
    if not layers:
        raise ImportModelError(
            "no weights", where=path.name, expected="data/LAYER/0 …, or LAYER___weight"
        )
    return layers


def _caffe_layers(data: Any, path: Path) -> Iterator[StoredLayer]:
    """Groups that hold numbered data sets; layers' names may have slashes, which are groups."""
    todo: list[tuple[str, Any]] = [("", data)]
    seen: set[Any] = set()
    while todo:
        name, group = todo.pop()
        if group.id in seen or len(seen) > _MOST_GROUPS:
            raise ValueError("groups within themselves, or too many")
        seen.add(group.id)
        sets: dict[str, Any] = {}
        for key, member in hdf5_members(group):
            if hasattr(member, "shape"):
                sets[key] = member
            else:
                todo.append((f"{name}/{key}" if name else key, member))
        order = sorted(sets, key=lambda key: (len(key), key))
        arrays = tuple(hdf5_array(sets[key], path).astype(np.float32) for key in order)
        yield StoredLayer(name, "", arrays)


def _mocha_layers(top: Mapping[str, Any], path: Path) -> list[StoredLayer]:
    """Mocha.jl's parameters: its axes are reversed in the file, which makes them Caffe's."""
    layers: dict[str, dict[str, Array]] = {}
    for key, item in top.items():
        layer, mark, role = key.rpartition("___")
        if mark and hasattr(item, "shape"):
            array = hdf5_array(item, path).astype(np.float32)
            layers.setdefault(layer, {})[role] = array
    order = {"weight": 0, "filter": 0, "bias": 1}
    found = []
    for name, blobs in layers.items():
        roles = sorted(blobs, key=lambda role: (order.get(role, 2), role))
        found.append(StoredLayer(name, "", tuple(blobs[r] for r in roles)))
    return found


# ── writing ──────────────────────────────────────────────────────────────────────────────


def stored_layers(values: Mapping[str, Array]) -> list[StoredLayer]:
    """Parameters and statistics by name as layers with their blobs in order."""
    layers: dict[str, dict[str, Array]] = {}
    for name, array in values.items():
        layer, dot, role = name.rpartition(".")
        if dot and layer and role in ROLES:
            layers.setdefault(layer, {})[role] = array
    return [
        StoredLayer(name, "", tuple(blobs[r] for r in ROLES if r in blobs))
        for name, blobs in layers.items()
    ]


def save_caffemodel(program: HasState, path: str | os.PathLike[str], name: str = "model") -> None:
    """Write a program's weights as a .caffemodel file that Caffe reads.

    A layer's blobs are in Caffe's order; a blob that layers share is written for the first of
    them. Raises ArtifactError if the file cannot be written or there is nothing to write.
    """
    layers = stored_layers(program.state_dict())
    target = Path(path)
    if not layers:
        raise ArtifactError(
            "the program has no weights that Caffe has names for", where=str(target),
            expected="parameters called layer.weight",
        )  # fmt: skip
    data = encode_net(name, layers)
    temporary = target.with_name(f".{target.name}.writing")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, target)
    except OSError as error:
        raise ArtifactError(f"{target} cannot be written", got=error.strerror) from None


def load_caffemodel(program: HasState, path: str | os.PathLike[str]) -> list[str]:
    """Set a program's weights from a file; the names of what was set.

    Raises ImportModelError if blobs do not fit or no layer is known.
    """
    state = program.state_dict()
    blobs: dict[str, list[str]] = {}
    for role in ROLES:
        for name in state:
            layer, dot, last = name.rpartition(".")
            if dot and last == role:
                blobs.setdefault(layer, []).append(name)
    found = weights_for(Path(path), blobs, {n: a.shape for n, a in state.items()})
    try:
        program.load_state_dict(found, strict=False)
    except BrickcError as error:
        raise error.at(str(path)) from None
    return list(found)
