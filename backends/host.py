"""The run-time half of a generated module: memory, checks, weights, calls.

The text of this file from the marker on becomes part of every generated ``model.py``,
so it imports the standard library and NumPy alone and refers to the tables that the
printer writes above it: FORMAT, FUNCTIONS, SINGLES, LEAVES, MEMORY_BYTES, STEPS_PER_LAUNCH.
It stays one file over 500 lines: what it is made into is one file, too.
"""

# ruff: noqa: E402
from __future__ import annotations

FORMAT: int = 1
FUNCTIONS: dict[str, dict[str, Any]] = {}
SINGLES: dict[str, dict[str, Any]] = {}
LEAVES: dict[str, dict[str, Any]] = {}
MEMORY_BYTES: int = 0
STEPS_PER_LAUNCH: int = 1

# --- from here on: part of every generated module -------------------------------------------

import hashlib
import json
import math
import os
import shutil
import tempfile
import zlib
from typing import Any

import numpy as np

Arrays = dict[str, Any]


def view(
    memory: Any, dtype: str, offset: int, shape: Any, strides: Any = None
) -> np.ndarray[Any, Any]:
    """Elements of ``memory`` from byte ``offset`` on; strides count elements, C order if None."""
    if 0 in shape:
        return np.empty(shape, dtype)  # it shares nothing, and may lie behind the last byte
    size = np.dtype(dtype).itemsize
    steps = None if strides is None else tuple(s * size for s in strides)
    return np.ndarray(shape, dtype, memory, offset, steps)


class ModelError(Exception):
    """A call or a file that does not fit: where, what, got, expected, hint."""


def _error(what: str, got: Any = None, expected: Any = None, hint: Any = None) -> ModelError:
    parts = [what]
    if got is not None:
        parts.append(f"got {got}")
    if expected is not None:
        parts.append(f"expected {expected}")
    if hint is not None:
        parts.append(hint)
    return ModelError("; ".join(parts))


def sample(name: str, leaf: dict[str, Any], seed: int) -> np.ndarray[Any, Any]:
    """First value of a leaf: each name has its own stream of the seed."""
    kind, a, b = leaf["init"]
    shape, dtype = leaf["shape"], np.dtype(leaf["dtype"])
    if kind in ("constant", "external"):
        return np.full(shape, a, dtype)
    if kind == "seed":  # as 64 bits, whatever their sign
        return np.full(shape, np.array(seed & 0xFFFFFFFFFFFFFFFF, np.uint64).view(np.int64), dtype)
    key = np.array([seed & 0xFFFFFFFFFFFFFFFF, zlib.crc32(name.encode())], np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key))
    if kind == "uniform":
        return np.asarray(rng.random(shape) * (b - a) + a, dtype)
    return np.asarray(rng.standard_normal(shape) * b + a, dtype)


class Program:
    """Compiled functions over one set of parameters and states.

    ``infer(**inputs)``, ``evaluate(**inputs)`` and ``train_step(**inputs)`` take arrays by
    name and give a dict of new arrays. The arena is shared by all of them and grows to what
    the largest call so far needs.
    """

    def __init__(self, seed: int | None = 0) -> None:
        """Parameters and states drawn by the seed; all zeros for None, until they are loaded."""
        self.memory = _aligned(MEMORY_BYTES)
        self._arena = _aligned(0)
        self._bound: dict[Any, Any] = {}
        #: function -> what it was last bound to: calls mostly come again as they were
        self._latest: dict[str, Any] = {}
        self._leaves = {
            name: view(self.memory, leaf["dtype"], leaf["offset"], leaf["shape"], leaf["strides"])
            for name, leaf in LEAVES.items()
        }
        if seed is not None:
            self.init(seed)

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the compiled functions."""
        return tuple(FUNCTIONS)

    def init(self, seed: int = 0) -> None:
        """Set every parameter and state to its first value; dropout draws from ``seed``, too."""
        for name, leaf in LEAVES.items():
            self._leaves[name][...] = sample(name, leaf, seed)

    def call(self, function: str, inputs: Arrays) -> Arrays:
        """Run a function by name."""
        latest = self._latest.get(function)
        if latest is not None and len(inputs) == len(latest[1]):
            run, staged, outputs = latest
            values = []
            for name, shape, dtype, limit in staged:
                value = inputs.get(name)
                if value.__class__ is not np.ndarray or value.dtype is not dtype:
                    break
                if value.shape != shape or (limit and not _below(value, limit)):
                    break
                values.append(value)
            else:
                run(*values)
                return {name: value.copy() for name, value in outputs}
        return self._call(function, inputs, 0)

    def _call(self, function: str, inputs: Arrays, steps: int) -> Arrays:
        """The same for any inputs, or for so many steps at once on stacked inputs.

        Binds what is new, converts, says what does not fit.
        """
        shapes = (v.shape for v in map(np.asarray, inputs.values()))
        bound = self._bound.get((function, steps, *shapes))
        if bound is None:
            bound = self._bind(function, inputs, steps)
        if not steps:
            self._latest[function] = bound
        run, staged, outputs = bound
        values = []
        for name, shape, dtype, limit in staged:
            try:
                value = inputs[name]
            except KeyError:
                raise self._unfit(function, inputs) from None
            if value.__class__ is not np.ndarray or value.dtype != dtype:
                value = _convert(name, value, dtype)
            if value.shape != shape:
                raise self._unfit(function, inputs)
            if limit and not _below(value, limit):
                raise _error(
                    f"input {name!r} has an element out of range",
                    got=f"{value.min()}..{value.max()}",
                    expected=f"0..{limit - 1}",
                )
            values.append(value)
        run(*values)
        return {name: value.copy() for name, value in outputs}

    def _unfit(self, function: str, inputs: Arrays) -> ModelError:
        try:
            _sizes(function, inputs)
        except ModelError as error:
            return error
        return _error(f"{function}: the inputs do not fit")

    def _bind(self, function: str, inputs: Arrays, steps: int) -> Any:
        one = {n: np.asarray(v)[0] for n, v in inputs.items()} if steps else inputs
        dims = _sizes(function, one)
        spec = FUNCTIONS[function]
        need = self.peak_bytes(function, **dims)
        if function in SINGLES and all(size == 1 for size in dims.values()):
            spec, dims = SINGLES[function], {}
        if need > self._arena.nbytes:
            self._arena, self._bound, self._latest = _aligned(need), {}, {}
        several = {"steps": steps} if steps else {}
        run, staged, outputs = spec["bind"](self._arena, self.memory, **dims, **several)
        bound = (
            run,
            [
                (n, staged[n].shape, staged[n].dtype, spec["inputs"][n]["limit"])
                for n in spec["inputs"]
            ],
            list(outputs.items()),
        )
        shapes = (np.asarray(v).shape for v in inputs.values())
        self._bound[function, steps, *shapes] = bound
        return bound

    def infer(self, **inputs: Any) -> Arrays:
        """The model's outputs."""
        return self.call("infer", inputs)

    def evaluate(self, **inputs: Any) -> Arrays:
        """Outputs, loss and metrics, as in inference."""
        return self.call("evaluate", inputs)

    def train_step(self, **inputs: Any) -> Arrays:
        """Forward, loss, backward, update. Raises ModelError if the loss is not finite."""
        result = self.call("train_step", inputs)
        _check_loss(result.get("loss"))
        return result

    def train_steps(self, **inputs: Any) -> Arrays:
        """Training steps on inputs stacked along a new first axis; results are stacked, too.

        The same as ``train_step`` on each of them in order. Where the target starts several
        steps at once, STEPS_PER_LAUNCH of them are; what is left over runs step by step.
        Raises ModelError if a loss is not finite, which is only seen when its launch has ended.
        """
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        counts = {value.shape[0] if value.ndim else 0 for value in arrays.values()}
        if len(counts) != 1 or not min(counts):
            raise _error(
                "train_steps: the inputs are not stacked",
                got=", ".join(f"{n} {list(v.shape)}" for n, v in arrays.items()) or "none",
                expected="the same number of steps, 1 or more, as first axis of every input",
            )
        (count,) = counts
        at_once = FUNCTIONS.get("train_step", {}).get("at_once", 0)
        parts: dict[str, list[Any]] = {}
        step = 0
        while step < count:
            size = at_once if at_once and count - step >= at_once else 1
            if size > 1:
                part = {name: value[step : step + size] for name, value in arrays.items()}
                found = self._call("train_step", part, size)
            else:
                one = {name: value[step] for name, value in arrays.items()}
                found = {n: v[None] for n, v in self.call("train_step", one).items()}
            _check_loss(found.get("loss"), step)
            for name, value in found.items():
                parts.setdefault(name, []).append(value)
            step += size
        return {name: np.concatenate(values) for name, values in parts.items()}

    @property
    def arena_bytes(self) -> int:
        """Bytes of the arena as allocated now."""
        return self._arena.nbytes

    def peak_bytes(self, function: str, **dims: int) -> int:
        """Bytes of arena that a call with these sizes needs."""
        need = int(FUNCTIONS[function]["arena"](**dims))
        if function in SINGLES and all(size == 1 for size in dims.values()):
            need = max(need, int(SINGLES[function]["arena"]()))
        return need

    def state_dict(self) -> Arrays:
        """Copies of all parameters and states by name."""
        return {name: value.copy() for name, value in self._leaves.items()}

    def parameters(self) -> Arrays:
        """Copies of the trained parameters by name."""
        return {n: v.copy() for n, v in self._leaves.items() if LEAVES[n]["role"] == "parameter"}

    def load_state_dict(self, values: Arrays, strict: bool = True) -> None:
        """Set parameters and states; with ``strict`` all of them must be there."""
        unknown = sorted(set(values) - set(LEAVES))
        missing = sorted(set(LEAVES) - set(values))
        if unknown or (strict and missing):
            raise _error(
                "the names do not match", got=f"unknown {unknown[:5]}, missing {missing[:5]}"
            )
        checked = {}
        for name, value in values.items():
            value = np.asarray(value)
            leaf = LEAVES[name]
            if value.shape != tuple(leaf["shape"]) or value.dtype != np.dtype(leaf["dtype"]):
                raise _error(
                    f"{name!r} does not fit",
                    got=f"{value.dtype}{list(value.shape)}",
                    expected=f"{leaf['dtype']}{list(leaf['shape'])}",
                )
            checked[name] = value
        for name, value in checked.items():
            self._leaves[name][...] = value

    def save(self, folder: str) -> None:
        """A copy of this module's artifact with the present weights, written whole or not at all.

        Raises ModelError if the folder cannot be written.
        """
        source = os.path.dirname(os.path.abspath(__file__))
        manifest = _manifest(source)
        files = {}
        fresh = {
            "weights.safetensors": dump_weights(self.state_dict()),
            "golden.safetensors": self._golden(os.path.join(source, "golden.safetensors")),
        }
        for name in manifest["files"]:
            data = fresh.get(name)
            if data is None:
                with open(os.path.join(source, name), "rb") as file:
                    data = file.read()
            else:
                manifest["files"][name] = hashlib.sha256(data).hexdigest()
            files[name] = data
        text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
        write_files(folder, {**files, "manifest.json": text.encode()})

    def _golden(self, path: str) -> bytes:
        """The golden inputs with what the present weights make of them."""
        with open(path, "rb") as file:
            values = parse_weights(file.read())
        before = self.state_dict()
        inputs: dict[str, Arrays] = {}
        for key, value in values.items():
            function, kind, name = key.split("/", 2)
            if kind == "inputs":
                inputs.setdefault(function, {})[name] = value
        for function in FUNCTIONS:
            for name, value in self.call(function, inputs.get(function, {})).items():
                values[f"{function}/outputs/{name}"] = value
            self.load_state_dict(before)
        return dump_weights(values)


def _check_loss(loss: Any, step: int | None = None) -> None:
    """Raise ModelError if a loss is not finite; of several, the first step's is ``step``."""
    if loss is None or np.isfinite(loss).all():
        return
    at = int(np.argmin(np.isfinite(loss))) if step is not None else 0
    raise _error(
        "the loss is not finite",
        got=float(loss if step is None else loss[at]),
        expected=None if step is None else f"a finite one in step {step + at} of the call",
        hint="lower the learning rate, or look for inputs that are not finite",
    )


def _aligned(count: int) -> np.ndarray[Any, Any]:
    """Zeroed bytes that start on a cache line."""
    raw = np.zeros(count + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count]


def _below(value: np.ndarray[Any, Any], limit: int) -> bool:
    """True if all elements are in 0..limit-1. Without their sign, negative ones are large."""
    unsigned = value.view(f"u{value.itemsize}")
    return not value.size or bool(unsigned.max() < limit)


def _convert(name: str, value: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Integers of any width pass if they fit; anything else must have the dtype already."""
    array = np.asarray(value)
    if array.dtype.kind in "iu" and dtype.kind == "i":
        info = np.iinfo(dtype)
        if array.size and (array.min() < info.min or array.max() > info.max):
            raise _error(
                f"input {name!r} does not fit {dtype}", got=f"{array.min()}..{array.max()}"
            )
        return array.astype(dtype)
    if array.dtype == dtype:
        return array
    raise _error(
        f"input {name!r} has the wrong dtype",
        got=array.dtype,
        expected=dtype,
        hint=f"convert it: {name}.astype(np.{dtype})",
    )


def _sizes(function: str, inputs: Arrays) -> dict[str, int]:
    """Sizes of the dims, from the inputs' shapes; raises ModelError where they do not fit."""
    try:
        spec = FUNCTIONS[function]
    except KeyError:
        raise _error(f"no function {function!r}", expected=", ".join(FUNCTIONS)) from None
    missing = [n for n in spec["inputs"] if n not in inputs]
    unknown = [n for n in inputs if n not in spec["inputs"]]
    if missing or unknown:
        raise _error(
            f"{function}: wrong inputs",
            got=", ".join(inputs) or "none",
            expected=", ".join(spec["inputs"]),
        )
    dims: dict[str, int] = {}
    later: list[Any] = []
    for name, wanted in spec["inputs"].items():
        shape = np.asarray(inputs[name]).shape
        if len(shape) != len(wanted["shape"]):
            raise _error(
                f"{function}: input {name!r} has the wrong rank",
                got=list(shape),
                expected=f"[{', '.join(map(str, wanted['shape']))}]",
            )
        for axis, (size, want) in enumerate(zip(shape, wanted["shape"], strict=True)):
            if isinstance(want, str) and want.isidentifier():
                lo, hi = spec["dims"][want]
                if dims.setdefault(want, size) != size:
                    raise _error(
                        f"{function}: inputs disagree on {want}", got=f"{dims[want]} and {size}"
                    )
                if not lo <= size <= hi:
                    raise _error(
                        f"{function}: {want} is out of its range",
                        got=size,
                        expected=f"{lo}..{hi}",
                        hint="compile with a wider range",
                    )
            else:
                later.append((name, axis, size, want))
    for name, axis, size, want in later:
        expected = want if isinstance(want, int) else _polynomial(want, dims)
        if size != expected:
            raise _error(
                f"{function}: input {name!r} has the wrong size on axis {axis}",
                got=size,
                expected=expected,
            )
    for name in spec["dims"]:
        if name not in dims:
            raise _error(f"{function}: nothing tells the size of {name}")
    return dims


def _polynomial(terms: Any, dims: dict[str, int]) -> int:
    """A size given as [(coefficient, [dim, …]), …]."""
    return sum(c * math.prod(dims[d] for d in names) for c, names in terms)


# -- files ---------------------------------------------------------------------------------------


def write_files(folder: str, files: dict[str, bytes]) -> None:
    """Write all files beside what is there, then rename them: on a full disk nothing has changed.

    Raises ModelError if the folder cannot be written; one that was not there is not there then.
    """
    new = not os.path.lexists(folder)
    written = []
    try:
        for name, data in files.items():
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".writing-")
            written.append((temporary, path))
            with os.fdopen(handle, "wb") as file:
                file.write(data)
        while written:
            os.replace(*written[0])
            del written[0]
    except BaseException as error:
        for temporary, _ in written:
            os.unlink(temporary)
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise _error(
                f"{folder} cannot be written",
                error.strerror,
                "a folder with room",
                "choose another",
            ) from None
        raise


_SAFETENSORS = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64",
                "int32": "I32", "bool": "BOOL"}  # fmt: skip


def dump_weights(values: Arrays) -> bytes:
    """The arrays as one safetensors file."""
    header: dict[str, Any] = {}
    chunks: list[bytes] = []
    offset = 0
    for name in sorted(values):
        value = np.asarray(values[name], order="C")
        header[name] = {"dtype": _SAFETENSORS[str(value.dtype)], "shape": list(value.shape),
                        "data_offsets": [offset, offset + value.nbytes]}  # fmt: skip
        chunks.append(value.tobytes())
        offset += value.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(chunks)


def parse_weights(data: bytes) -> Arrays:
    """The arrays of a safetensors file; every offset is checked before anything is read."""
    if len(data) < 8 or (size := int.from_bytes(data[:8], "little")) > len(data) - 8:
        raise _error("weights.safetensors is truncated", got=f"{len(data)} bytes")
    try:
        header = json.loads(data[8 : 8 + size])
    except ValueError:
        raise _error("weights.safetensors has a corrupt header") from None
    dtypes = {theirs: ours for ours, theirs in _SAFETENSORS.items()}
    values = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = np.dtype(dtypes[entry["dtype"]]), tuple(map(int, entry["shape"]))
            lo, hi = map(int, entry["data_offsets"])
        except (KeyError, TypeError, ValueError):
            raise _error(f"weights.safetensors: the entry of {name!r} is corrupt") from None
        if (
            not 0 <= lo <= hi <= len(data) - 8 - size
            or hi - lo != math.prod(shape) * dtype.itemsize
        ):
            raise _error(f"weights.safetensors: {name!r} lies outside the file")
        values[name] = np.frombuffer(data, dtype, math.prod(shape), 8 + size + lo).reshape(shape)
    return values


def _manifest(folder: str) -> dict[str, Any]:
    path = os.path.join(folder, "manifest.json")
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        files = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _error(f"{path} cannot be read", got=error) from None
    if manifest.get("format") != FORMAT:
        raise _error(f"{path} has another format", got=manifest.get("format"), expected=FORMAT)
    if not isinstance(manifest, dict) or not isinstance(files, dict):
        raise _error(f"{path} lists no files")
    return manifest


def load(folder: str | None = None) -> Program:
    """The program with the weights of an artifact (default: the one this module lies in)."""
    folder = folder or os.path.dirname(os.path.abspath(__file__))
    manifest = _manifest(folder)
    path = os.path.join(folder, "weights.safetensors")
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise _error(f"{path} cannot be read", got=error) from None
    found = hashlib.sha256(data).hexdigest()
    if found != manifest["files"].get("weights.safetensors"):
        raise _error(
            f"{path} is corrupt",
            got=f"SHA-256 {found[:12]}…",
            expected=f"{str(manifest['files'].get('weights.safetensors'))[:12]}…",
        )
    program = Program(None)  # every value comes from the file: drawing them takes longer
    program.load_state_dict(parse_weights(data))
    return program


def describe() -> str:
    """Functions, types, ranges and peak bytes, as text."""
    lines = []
    for name, spec in FUNCTIONS.items():
        arguments = ", ".join(
            f"{n}: {i['dtype']}[{', '.join(map(str, i['shape']))}]"
            for n, i in spec["inputs"].items()
        )
        results = ", ".join(
            f"{n}: {o['dtype']}[{', '.join(map(str, o['shape']))}]"
            for n, o in spec["outputs"].items()
        )
        lines.append(f"{name}({arguments}) -> {results}")
        for dim, (lo, hi) in spec["dims"].items():
            lines.append(f"    {dim} = {lo}..{hi}")
        lowest = {d: lo for d, (lo, hi) in spec["dims"].items()}
        highest = {d: hi for d, (lo, hi) in spec["dims"].items()}
        lines.append(
            f"    arena: {spec['arena'](**lowest):,} to {spec['arena'](**highest):,} bytes"
        )
    count = sum(math.prod(v["shape"]) for v in LEAVES.values() if v["role"] == "parameter")
    lines.append(f"{count:,} parameters; {MEMORY_BYTES:,} bytes of parameters and states")
    return "\n".join(lines)
