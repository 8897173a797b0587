"""A module in this process, through ``torch.export`` and its core ATen decompositions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import BrickcError, ImportModelError, UnsupportedError, UsageError
from ...ir.dims import Dim, Size
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
    source_of,
)
from .sizes import dim_of, size_of
from .table import CONVERTERS

if TYPE_CHECKING:
    import torch

__all__ = ["GraphReader", "decomposed", "export", "import_torch", "read"]


def import_torch() -> Any:
    """torch, or an error that says how to get it."""
    try:
        import torch
    except ImportError as error:
        raise UsageError("PyTorch is not installed", got=error,
                         hint="pip install 'brickc[torch]'") from None  # fmt: skip
    return torch


def export(
    module: torch.nn.Module,
    example_inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
    train: bool | None,
) -> Any:
    """The module's ``torch.export.ExportedProgram``, decomposed as far as converters need it.

    ``train`` sets every submodule's mode for the export and puts it back afterwards; None
    leaves the modes as they are.
    """
    torch = import_torch()
    if not isinstance(module, torch.nn.Module):
        raise UsageError("from_torch takes a torch.nn.Module", got=type(module).__name__)
    with _modes(module, train):
        try:
            with _quiet():
                program = torch.export.export(
                    module,
                    tuple(example_inputs),
                    dict(kwargs or {}),
                    dynamic_shapes=dynamic_shapes,
                )
                return decomposed(program)
        except BrickcError:
            raise
        except Exception as error:  # whatever the user's forward and torch's tracer raise
            raise ImportModelError(
                f"torch.export failed: {type(error).__name__}: {str(error)[:600]}",
                where=type(module).__name__,
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter warns of what it uses itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        # recurrent layers keep a list of their parameters beside the parameters
        warnings.filterwarnings("ignore", r"The tensor attributes? self\..*_flat_weights")
        yield


@contextmanager
def _modes(module: Any, train: bool | None) -> Iterator[None]:
    before = [(m, m.training) for m in module.modules()]
    if train is not None:
        module.train(train)
    try:
        yield
    finally:
        for m, mode in before:
            m.training = mode


def decomposed(program: Any) -> Any:
    """The program in core ATen, save for the operators that have a converter of their own."""
    torch = import_torch()
    table = torch.export.default_decompositions()
    for op in list(table):
        if _target(op) in CONVERTERS:
            table.pop(op)
    return program.run_decompositions(table)


def _target(op: object) -> str:
    """torch's name of an operator, ``aten.conv2d.default``."""
    if getattr(op, "__module__", "") in ("_operator", "operator", "math"):
        return f"operator.{getattr(op, '__name__', '')}"
    return str(op)


# ── reading the graph ────────────────────────────────────────────────────────────────────


def read(program: Any, name: str, names: Mapping[str, str] | None = None) -> Exported:
    """The exported program as calls on names. ``names`` are symbols' names for dims."""
    torch = import_torch()
    dims: dict[str, Dim] = {}
    for symbol, bounds in program.range_constraints.items():
        label = (names or {}).get(str(symbol), str(symbol))
        dims[str(symbol)] = dim_of(label, _bound(bounds.lower), _bound(bounds.upper))
    reader = GraphReader(name, dims)
    signature = program.graph_signature
    specs = {s.arg.name: s for s in signature.input_specs}
    inputs: list[InputSpec] = []
    calls: list[Call] = []
    results: Sequence[Any] = ()
    for node in program.graph.nodes:
        match node.op:
            case "placeholder":
                inputs.append(reader.input(node, specs[node.name]))
            case "call_function":
                calls.append(reader.call(node))
            case "output":
                results = node.args[0]
            case _:
                raise UnsupportedError(f"a node of kind {node.op}", where=name)
    outputs = [
        OutputSpec(_output_kind(spec, name), reader.argument(value), spec.target or "")
        for spec, value in zip(signature.output_specs, results, strict=True)
    ]
    arrays = {k: reader.array(v) for k, v in program.state_dict.items()}
    for k, v in program.constants.items():
        if isinstance(v, torch.Tensor):
            arrays[k] = reader.array(v)
    aliases = _tied(program.state_dict)
    return Exported(name, inputs, calls, outputs, arrays, aliases, _output_names(program))


def _tied(tensors: Mapping[str, Any]) -> dict[str, str]:
    """Name -> the first name of the same elements in memory."""
    first: dict[tuple[Any, ...], str] = {}
    aliases: dict[str, str] = {}
    for name, t in tensors.items():
        key = (t.data_ptr(), tuple(t.shape), t.stride(), t.dtype)
        if t.numel() and first.setdefault(key, name) != name:
            aliases[name] = first[key]
    return aliases


class GraphReader:
    """An FX graph's nodes as inputs and calls."""

    def __init__(self, name: str, dims: Mapping[str, Dim]) -> None:
        self.torch = import_torch()
        self.name = name
        self.dims = dims

    def input(self, node: Any, spec: Any) -> InputSpec:
        kinds = {"USER_INPUT": InputKind.USER, "PARAMETER": InputKind.PARAMETER,
                 "BUFFER": InputKind.BUFFER, "CONSTANT_TENSOR": InputKind.CONSTANT}  # fmt: skip
        kind = kinds.get(spec.kind.name)
        if kind is None:
            raise UnsupportedError(f"an input of kind {spec.kind.name}", where=self.name,
                                   got=node.name)  # fmt: skip
        value = node.meta.get("val")
        if kind is InputKind.USER and not isinstance(value, self.torch.Tensor):
            return InputSpec(InputKind.FIXED, node.name, value=value)
        persistent = spec.persistent is not False
        return InputSpec(kind, node.name, spec.target or "", self.type(value), persistent)

    def call(self, node: Any) -> Call:
        value = node.meta.get("val")
        many = value if isinstance(value, tuple | list) else (value,)
        return Call(
            _target(node.target),
            tuple(self.argument(a) for a in node.args),
            {k: self.argument(a) for k, a in node.kwargs.items()},
            (node.name,),
            tuple(self.type(v) for v in many),
            True,
            source_of(node.meta.get("stack_trace") or "", _module_path(node), self.name),
        )

    def argument(self, value: Any) -> Argument:
        torch = self.torch
        match value:
            case torch.fx.Node():
                return Ref(value.name)
            case list() | tuple():
                return [self.argument(v) for v in value]
            case torch.dtype():
                return _DTYPES.get(_plain_name(value), Unused(f"{value}, which brickc has not"))
            case torch.device() | torch.memory_format() | torch.layout():
                return None
            case None | bool() | int() | float() | str():
                return value
            case torch.SymInt():
                return self._size(value)
        return value

    def type(self, value: Any) -> TensorType | None:
        if not isinstance(value, self.torch.Tensor):
            return None
        try:
            shape = tuple(self._size(n) for n in value.shape)
            return TensorType.of(_dtype(value.dtype), shape)
        except UnsupportedError:
            return None

    def _size(self, size: Any) -> Size:
        return size if isinstance(size, int) else size_of(str(size), self.dims)

    def array(self, tensor: Any) -> Array:
        data = tensor.detach().cpu()
        if data.dtype is self.torch.bfloat16:
            raise UnsupportedError("bfloat16, which NumPy has not", where=self.name,
                                   hint="module.float() first")  # fmt: skip
        return np.array(data.contiguous().numpy())


def _output_kind(spec: Any, name: str) -> OutputKind:
    kinds = {"USER_OUTPUT": OutputKind.USER, "LOSS_OUTPUT": OutputKind.USER,
             "BUFFER_MUTATION": OutputKind.BUFFER}  # fmt: skip
    kind = kinds.get(spec.kind.name)
    if kind is None:
        raise UnsupportedError(
            f"a program with a result of kind {spec.kind.name}", where=name, got=spec.target,
            hint="forward must not write into its inputs or parameters",
        )  # fmt: skip
    return kind


def _output_names(program: Any) -> tuple[str, ...]:
    """Keys of what ``forward`` returns, if that is a dict."""
    from torch.utils import _pytree

    kinds = [s.kind.name for s in program.graph_signature.output_specs]
    count = sum(k in ("USER_OUTPUT", "LOSS_OUTPUT") for k in kinds)
    tree = _pytree.tree_unflatten(list(range(count)), program.call_spec.out_spec)
    if isinstance(tree, dict) and all(isinstance(v, int) for v in tree.values()):
        return tuple(str(k) for k in sorted(tree, key=lambda k: tree[k]))
    return ()


def _bound(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None


def _dtype(dtype: Any) -> DType:
    name = _plain_name(dtype)
    found = _DTYPES.get(name)
    if found is None:
        raise UnsupportedError("a dtype that brickc has not", got=name,
                               expected=", ".join(_DTYPES))  # fmt: skip
    return found


def _plain_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


_DTYPES = {
    "float64": DType.F64, "float32": DType.F32, "float16": DType.F16, "int64": DType.I64,
    "int32": DType.I32, "bool": DType.BOOL,
}  # fmt: skip


# ── places ───────────────────────────────────────────────────────────────────────────────


def _module_path(node: Any) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values() if not str(path).startswith("_empty")]
    return paths[-1] if paths else ""
