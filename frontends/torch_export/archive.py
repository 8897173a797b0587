"""Files of ``torch.export.save``: a zip archive of JSON and raw tensors.

``torch.export.load`` is not used, on purpose: where the archive says so it unpickles tensors
and objects (``weights_only=False``), and it evaluates sizes as Python (``sympify``). Here the
JSON is read as data, tensors as bytes, and an archive that needs a pickle is refused.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BrickcError, ImportModelError, UnsupportedError
from ...ir.dims import Dim, Size, product
from ...ir.dtypes import DType
from ...ir.types import TensorType
from .exported import (
    Argument,
    Array,
    Call,
    Exported,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    Ref,
    Unused,
    plain,
    source_of,
)
from .sizes import dim_of, size_of

__all__ = ["read"]

#: bytes of JSON; parsed it takes about ten times as much
_LARGEST_JSON = 32 * 2**20
#: bytes of a tensor that shows the same memory in several places
_LARGEST_REPEATED = 64 * 2**20
_MOST_ENTRIES = 100_000

_HINT = "save it anew: torch.export.save(torch.export.export(module, example_inputs), path)"
_ENTRY = re.compile(r"[A-Za-z0-9_]{1,200}\Z")
_OPERATOR = re.compile(r"[A-Za-z0-9_]{1,100}\Z")

#: codes of dtypes in the file
_DTYPES = {
    4: DType.I32, 5: DType.I64, 6: DType.F16, 7: DType.F32, 8: DType.F64, 12: DType.BOOL,
}  # fmt: skip


def read(path: Path) -> Exported:
    """The program in the file. Raises ImportModelError or UnsupportedError."""
    with _Archive(path) as archive:
        return _Reader(archive, path.name).run()


# ── the zip file ─────────────────────────────────────────────────────────────────────────


class _Archive:
    """Entries of the file by their name below its one root folder."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        try:
            self.zip = zipfile.ZipFile(path)
        except _BROKEN as error:
            raise self.broken(error) from None
        infos = self.zip.infolist()
        roots = {i.filename.partition("/")[0] for i in infos}
        if len(infos) > _MOST_ENTRIES or len(roots) != 1:
            self.zip.close()
            raise ImportModelError("not a file of torch.export.save", where=self.name, hint=_HINT)
        (self.root,) = roots
        self.entries = {i.filename[len(self.root) + 1 :]: i for i in infos}

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.zip.close()

    def broken(self, error: object) -> ImportModelError:
        return ImportModelError("the archive is damaged, or none", where=self.name,
                                got=str(error)[:200], hint=_HINT)  # fmt: skip

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def bytes(self, name: str, most: int | None = None) -> bytes:
        """An entry's content. torch stores entries as they are, so none is larger than the file."""
        info = self.entries.get(name)
        if info is None:
            raise ImportModelError(f"{name[:120]} is missing", where=self.name, hint=_HINT)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ImportModelError(f"{name[:120]} is compressed", where=self.name, hint=_HINT)
        if most is not None and info.file_size > most:
            raise ImportModelError(f"{name[:120]} is too large", where=self.name,
                                   got=f"{info.file_size} bytes", expected=most)  # fmt: skip
        try:
            return self.zip.read(info)
        except _BROKEN as error:
            raise self.broken(error) from None

    def json(self, name: str) -> Any:
        data = self.bytes(name, _LARGEST_JSON)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ImportModelError(f"{name[:120]} is no JSON", where=self.name,
                                   got=str(error)[:200]) from None  # fmt: skip


#: what Python's zip reader raises on damaged files
_BROKEN = (
    zipfile.BadZipFile, OSError, ValueError, EOFError, struct.error, zlib.error,
    NotImplementedError, RuntimeError, IndexError, OverflowError,
)  # fmt: skip


# ── JSON of a known form ─────────────────────────────────────────────────────────────────


class _Reader:
    def __init__(self, archive: _Archive, name: str) -> None:
        self.archive = archive
        self.name = name
        self.dims: dict[str, Dim] = {}
        self.types: dict[str, TensorType | None] = {}
        #: where an array lies -> its first name; and the other names
        self.first: dict[tuple[Any, ...], str] = {}
        self.aliases: dict[str, str] = {}

    def run(self) -> Exported:
        if "serialized_exported_program.json" in {n.rpartition("/")[2] for n in (
            *self.archive.entries, self.archive.root,
        )}:  # fmt: skip
            raise UnsupportedError("a file of an old torch, whose weights are pickles",
                                   where=self.name, hint=_HINT)  # fmt: skip
        if self.archive.bytes("byteorder", 16) != b"little":
            raise UnsupportedError("a file of a big-endian machine", where=self.name)
        model = self._model()
        document = self.archive.json(f"models/{model}.json")
        version = self._get(self._get(document, "schema_version", dict), "major", int)
        if version != 8:
            raise UnsupportedError("another version of the format", where=self.name, got=version,
                                   expected=8, hint=_HINT)  # fmt: skip
        module = self._get(document, "graph_module", dict)
        graph = self._get(module, "graph", dict)
        self._read_dims(self._get(document, "range_constraints", dict))
        for key, meta in self._get(graph, "tensor_values", dict).items():
            self.types[key] = self._tensor_type(meta)
        signature = self._get(module, "signature", dict)
        inputs = [self._input(s) for s in self._get(signature, "input_specs", list)]
        calls = [self._call(n) for n in self._get(graph, "nodes", list)]
        outputs = [self._output(s) for s in self._get(signature, "output_specs", list)]
        arrays = {**self._arrays(model, "weights"), **self._arrays(model, "constants")}
        title = plain(Path(self.name).stem).strip() or "model"
        return Exported(title, inputs, calls, outputs, arrays, self.aliases)

    def _model(self) -> str:
        """The model's name in the archive, which may hold several."""
        found = [n[len("models/") : -len(".json")] for n in self.archive.entries
                 if n.startswith("models/") and n.endswith(".json")]  # fmt: skip
        if len(found) != 1 or not _ENTRY.match(found[0]):
            raise ImportModelError(
                "not a file of torch.export.save", where=self.name,
                got=f"{len(found)} models", expected="one", hint=_HINT,
            )  # fmt: skip
        return found[0]

    def _bad(self, what: str, got: object) -> ImportModelError:
        return ImportModelError(what, where=self.name, got=repr(got)[:120])

    def _get(self, record: Any, key: str, kind: type) -> Any:
        """A field of a record, of the right kind."""
        if not isinstance(record, dict) or key not in record:
            raise self._bad(f"the program lacks {key!r}", record)
        value = record[key]
        right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        if not right:
            raise self._bad(f"{key!r} is no {kind.__name__}", value)
        return value

    def _union(self, record: Any) -> tuple[str, Any]:
        """The one field of a record that is one of several kinds."""
        if not isinstance(record, dict) or len(record) != 1:
            raise self._bad("not a value of the format", record)
        ((key, value),) = record.items()
        return key, value

    # ── types ────────────────────────────────────────────────────────────────────────────

    def _read_dims(self, ranges: Mapping[str, Any]) -> None:
        if len(ranges) > 100:
            raise self._bad("too many named dims", len(ranges))
        for name, bounds in ranges.items():
            if not isinstance(bounds, dict):
                raise self._bad("not a range", bounds)
            lo, hi = bounds.get("min_val"), bounds.get("max_val")
            good = all(v is None or (isinstance(v, int) and abs(v) < 2**64) for v in (lo, hi))
            if not good:
                raise self._bad("not a range", bounds)
            # the file keeps torch's symbols, not the user's names; a single one is the batch
            self.dims[name] = dim_of("N" if len(ranges) == 1 else name, lo, hi)

    def _size(self, record: Any) -> Size:
        key, value = self._union(record)
        if key == "as_int" and isinstance(value, int) and not isinstance(value, bool):
            return value
        if key == "as_expr":
            return size_of(self._get(value, "expr_str", str), self.dims)
        raise self._bad("not a size", record)

    def _sizes(self, records: Any) -> list[Size]:
        if not isinstance(records, list) or len(records) > 64:
            raise self._bad("not a shape", records)
        return [self._size(r) for r in records]

    def _tensor_type(self, meta: Any) -> TensorType | None:
        """The type that the file states; None if brickc has none such."""
        dtype = _DTYPES.get(self._get(meta, "dtype", int))
        try:
            shape = self._sizes(self._get(meta, "sizes", list))
        except UnsupportedError:
            return None
        if dtype is None:
            return None
        try:
            return TensorType.of(dtype, shape)
        except BrickcError as error:
            raise self._bad(error.what, shape) from None

    # ── the graph ────────────────────────────────────────────────────────────────────────

    def _name(self, record: Any) -> str:
        name = self._get(record, "name", str)
        if not 0 < len(name) <= 1000:
            raise self._bad("not a name", name)
        return str(name)

    def _input(self, spec: Any) -> InputSpec:
        kind, value = self._union(spec)
        match kind:
            case "user_input":
                what, of = self._union(self._get(value, "arg", dict))
                if what == "as_tensor":
                    name = self._name(of)
                    return InputSpec(InputKind.USER, name, type=self.types.get(name))
                raise UnsupportedError("an input that is no tensor", where=self.name, got=what,
                                       hint="make it part of the module")  # fmt: skip
            case "parameter":
                return self._stored(value, InputKind.PARAMETER, "parameter_name")
            case "buffer":
                return self._stored(value, InputKind.BUFFER, "buffer_name")
            case "tensor_constant":
                return self._stored(value, InputKind.CONSTANT, "tensor_constant_name")
            case "constant_input":
                _, fixed = self._union(self._get(value, "value", dict))
                return InputSpec(InputKind.FIXED, self._name(value), value=fixed)
        raise UnsupportedError(f"an input of kind {plain(kind)}", where=self.name)

    def _stored(self, value: Any, kind: InputKind, key: str) -> InputSpec:
        name = self._name(self._get(value, "arg", dict))
        persistent = value.get("persistent") is not False
        return InputSpec(kind, name, self._get(value, key, str), self.types.get(name), persistent)

    def _output(self, spec: Any) -> OutputSpec:
        kind, value = self._union(spec)
        if kind == "user_output":
            return OutputSpec(OutputKind.USER, self._argument(self._get(value, "arg", dict)))
        if kind == "loss_output":
            return OutputSpec(OutputKind.USER, Ref(self._name(self._get(value, "arg", dict))))
        if kind == "buffer_mutation":
            source = Ref(self._name(self._get(value, "arg", dict)))
            return OutputSpec(OutputKind.BUFFER, source, self._get(value, "buffer_name", str))
        raise UnsupportedError(f"a program with a result of kind {plain(kind)}", where=self.name)

    def _call(self, node: Any) -> Call:
        metadata = self._get(node, "metadata", dict)
        trace, stack = metadata.get("stack_trace"), metadata.get("nn_module_stack")
        path = stack.rpartition(";")[2].split(",") if isinstance(stack, str) else []
        args: list[Argument] = []
        kwargs: dict[str, Argument] = {}
        for record in self._get(node, "inputs", list):
            value = self._argument(self._get(record, "arg", dict))
            if record.get("kind") == 2:
                kwargs[self._name(record)] = value
            else:
                args.append(value)
        names: list[str] = []
        for output in self._get(node, "outputs", list):
            names += self._results(output)
        return Call(
            self._target(self._get(node, "target", str)), tuple(args), kwargs, tuple(names),
            tuple(self.types.get(n) for n in names), False,
            source_of(trace if isinstance(trace, str) else "",
                      path[1] if len(path) > 1 else "", self.name),
        )  # fmt: skip

    def _target(self, text: str) -> str:
        """``torch.ops.aten.add.Tensor`` as ``aten.add.Tensor``. It is only ever compared."""
        parts = text.split(".")
        if len(parts) > 8 or not all(_OPERATOR.match(p) for p in parts):
            raise self._bad("not an operator", text)
        if parts[:2] == ["torch", "ops"]:
            return ".".join(parts[2:])
        if parts[0] in ("_operator", "operator"):
            return f"operator.{parts[-1]}"
        return text

    def _results(self, record: Any) -> list[str]:
        kind, value = self._union(record)
        match kind:
            case "as_tensor":
                return [self._name(value)]
            case "as_tensors":
                if isinstance(value, list):
                    return [self._name(v) for v in value]
            case "as_sym_int" | "as_sym_bool" | "as_sym_float":
                return [self._get(value, "as_name", str)]
            case "as_none":
                return []
        raise UnsupportedError(f"a call with a result of kind {plain(kind)}", where=self.name)

    def _argument(self, record: Any) -> Argument:
        kind, value = self._union(record)
        match kind:
            case "as_none" | "as_memory_format" | "as_layout" | "as_device":
                return None
            case "as_tensor":
                return Ref(self._name(value))
            case "as_optional_tensor":
                return self._argument(value)
            case "as_tensors" if isinstance(value, list):
                return [Ref(self._name(v)) for v in value]
            case "as_optional_tensors" if isinstance(value, list):
                return [self._argument(v) for v in value]
            case "as_sym_int" | "as_sym_bool" | "as_sym_float":
                return self._symbol(value)
            case "as_sym_ints" | "as_sym_bools" | "as_sym_floats" if isinstance(value, list):
                return [self._symbol(v) for v in value]
            case "as_int" | "as_bool" | "as_string":
                if isinstance(value, int | str):
                    return value
            case "as_float":
                return self._float(value)
            case "as_ints" | "as_bools" | "as_strings" if isinstance(value, list):
                if all(isinstance(v, int | str) for v in value):
                    return list(value)
            case "as_floats" if isinstance(value, list):
                return [self._float(v) for v in value]
            case "as_scalar_type":
                dtype = _DTYPES.get(value) if isinstance(value, int) else None
                return dtype or Unused("a dtype that brickc has not")
            case _ if kind.startswith("as_"):
                return Unused(f"an argument of kind {plain(kind)}")
        raise self._bad("not an argument", record)

    def _float(self, value: Any) -> float:
        """JSON has no infinities: torch writes them as text."""
        special = {"Infinity": float("inf"), "-Infinity": -float("inf"), "NaN": float("nan")}
        if isinstance(value, str) and value in special:
            return special[value]
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e308:
            raise self._bad("not a number", value)
        return float(value)

    def _symbol(self, record: Any) -> Argument:
        kind, value = self._union(record)
        if kind == "as_name" and isinstance(value, str):
            return Ref(value)
        if kind in ("as_int", "as_bool", "as_float") and isinstance(value, int | float):
            return value
        raise self._bad("not a size", record)

    # ── tensors ──────────────────────────────────────────────────────────────────────────

    def _arrays(self, model: str, what: str) -> dict[str, Array]:
        entry = f"data/{what}/{model}_{what}_config.json"
        if f"data/{what}/{model}.pt" in self.archive:
            raise UnsupportedError(f"a file whose {what} are a pickle", where=self.name,
                                   hint=_HINT)  # fmt: skip
        config = self._get(self.archive.json(entry), "config", dict)
        stored: dict[str, bytes] = {}
        return {name: self._array(name, meta, what, stored) for name, meta in config.items()}

    def _array(self, name: str, meta: Any, what: str, stored: dict[str, bytes]) -> Array:
        shown = plain(name)
        if self._get(meta, "use_pickle", bool):
            raise UnsupportedError(f"{shown!r} is stored as a pickle", where=self.name,
                                   hint="brickc reads plain tensors only")  # fmt: skip
        path = self._get(meta, "path_name", str)
        if not _ENTRY.match(path):
            raise self._bad(f"{shown!r} lies in an impossible place", path)
        layout = self._get(meta, "tensor_meta", dict)
        code = self._get(layout, "dtype", int)
        dtype = _DTYPES.get(code)
        if dtype is None:
            raise UnsupportedError(f"{shown!r} has a dtype that brickc has not", where=self.name,
                                   got=f"code {code}")  # fmt: skip
        if path not in stored:
            stored[path] = self.archive.bytes(f"data/{what}/{path}")
        shape = self._numbers(self._sizes(self._get(layout, "sizes", list)), name)
        strides = self._numbers(self._sizes(self._get(layout, "strides", list)), name)
        (offset,) = self._numbers([self._size(self._get(layout, "storage_offset", dict))], name)
        place = (what, path, dtype, shape, strides, offset)
        if self.first.setdefault(place, name) != name:
            self.aliases[name] = self.first[place]
        return self._strided(stored[path], dtype, shape, strides, offset, shown)

    def _numbers(self, sizes: Sequence[Size], name: str) -> tuple[int, ...]:
        numbers = tuple(n for n in sizes if isinstance(n, int) and 0 <= n < 2**40)
        if len(numbers) != len(sizes):
            raise self._bad(f"{plain(name)!r} has an impossible size", list(sizes))
        return numbers

    def _strided(
        self, data: bytes, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...],
        offset: int, name: str,
    ) -> Array:  # fmt: skip
        """The array that sizes, strides and offset (in elements) cut out of the bytes."""
        width = dtype.itemsize
        count = product(shape)
        assert isinstance(count, int)
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=False))
        fits = len(shape) == len(strides) and (count == 0 or (last + 1) * width <= len(data))
        if not fits or count * width > max(len(data), _LARGEST_REPEATED):
            raise ImportModelError(
                f"{name!r} does not fit its bytes", where=self.name,
                got=f"{len(data)} bytes", expected=f"{dtype}{list(shape)}",
            )  # fmt: skip
        if count == 0:
            return np.zeros(shape, dtype.numpy)
        flat = np.frombuffer(data, dtype.numpy.newbyteorder("<"), len(data) // width)
        steps = tuple(s * width for s in strides)
        view = np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)
        return np.array(view, dtype.numpy, order="C")
