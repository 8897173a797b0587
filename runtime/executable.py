"""Compiled programs as objects that can be called, inspected and saved."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..errors import (
    ArtifactError,
    BrickcError,
    DataError,
    DtypeError,
    NumericsError,
    ShapeError,
    UnsupportedError,
    UsageError,
)

__all__ = ["Executable", "import_source"]

Array = npt.NDArray[Any]


def import_source(path: Path) -> ModuleType:
    """Import a generated ``model.py`` under a name of its own, without touching sys.path."""
    name = f"brickc_generated_{abs(hash(str(path.resolve()))):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ArtifactError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        theirs = getattr(module, "ModelError", None)
        if isinstance(theirs, type) and isinstance(error, Exception) and isinstance(error, theirs):
            raise _translated(error).at(str(path.parent)) from None
        raise ArtifactError(f"{path} cannot be imported", got=error) from error
    return module


class Executable:
    """A generated module's program behind brickc's errors.

    Arrays go in and come out by name. Results are new arrays, never views of the arena.
    """

    def __init__(self, module: ModuleType, program: Any) -> None:
        self._module = module
        self._program = program

    @classmethod
    def from_sources(cls, sources: Mapping[str, str | bytes], seed: int = 0) -> Self:
        """Write generated sources to a temporary folder and import them from there.

        The folder lives as long as the executable, so that tracebacks show their lines.
        """
        try:
            folder = tempfile.TemporaryDirectory(prefix="brickc-")
            for name, data in sources.items():
                encoded = data.encode() if isinstance(data, str) else data
                path = Path(folder.name) / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(encoded)
        except OSError as error:
            raise ArtifactError(
                "the program cannot be written to a temporary folder",
                where=str(error.filename or ""), got=error.strerror,
                hint="TMPDIR names another folder",
            ) from None  # fmt: skip
        try:
            module = import_source(Path(folder.name) / "model.py")
            executable = cls(module, module.Program(seed))
        except BaseException:
            folder.cleanup()
            raise
        weakref.finalize(executable, folder.cleanup)
        return executable

    # -- calls -----------------------------------------------------------------------------

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the compiled functions."""
        return tuple(self._module.FUNCTIONS)

    def call(self, function: str, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        """Run a function on inputs by name.

        Raises ShapeError if a shape does not fit or a dim is out of its range, DataError if
        an element is (a label), DtypeError if a dtype differs.
        """
        try:
            found: dict[str, Array] = self._program.call(function, dict(inputs))
        except self._module.ModelError as error:
            raise _translated(error) from None
        return found

    def infer(self, **inputs: npt.ArrayLike) -> dict[str, Array]:
        """The model's outputs."""
        try:
            found: dict[str, Array] = self._program.infer(**inputs)
        except self._module.ModelError as error:
            raise _translated(error) from None
        return found

    def evaluate(self, **inputs: npt.ArrayLike) -> dict[str, Array]:
        """Outputs, loss and metrics, as in inference."""
        try:
            found: dict[str, Array] = self._program.evaluate(**inputs)
        except self._module.ModelError as error:
            raise _translated(error) from None
        return found

    def train_step(self, **inputs: npt.ArrayLike) -> dict[str, Array]:
        """One training step; gives the loss and the metrics before the update.

        Raises NumericsError if the loss is not finite.
        """
        try:
            found: dict[str, Array] = self._program.train_step(**inputs)
        except self._module.ModelError as error:
            raise _translated(error) from None
        return found

    def train_steps(self, **inputs: npt.ArrayLike) -> dict[str, Array]:
        """Training steps on inputs stacked along a new first axis; gives stacked results.

        The same numbers as ``train_step`` on each in order. On a GPU ``steps_per_launch`` of them
        are started at once, and what is left over one by one. Raises ShapeError if the inputs
        are not stacked alike, NumericsError if a loss is not finite: steps of the same launch
        have then been carried out too.
        """
        with self._errors():
            return dict(self._program.train_steps(**inputs))

    @property
    def steps_per_launch(self) -> int:
        """Training steps that ``train_steps`` carries out at a time, as compiled."""
        return int(getattr(self._module, "STEPS_PER_LAUNCH", 1))  # none in older artifacts

    @property
    def cannot_run(self) -> str:
        """Why functions cannot be called here (no GPU); empty if they can."""
        return str(getattr(getattr(self._module, "DEVICE", None), "reason", ""))

    def input_dtype(self, function: str, name: str) -> np.dtype[Any]:
        """Dtype of a function's input. Raises UsageError if there is none of that name."""
        functions = self._module.FUNCTIONS
        if function not in functions:
            raise UsageError("no such function", got=function, expected=", ".join(functions))
        inputs = functions[function]["inputs"]
        if name not in inputs:
            raise UsageError("no such input", got=name, expected=", ".join(inputs))
        dtype: np.dtype[Any] = np.dtype(inputs[name]["dtype"])
        return dtype

    def save_copy(self, folder: Path) -> None:
        """The artifact that this program was loaded from, with the present weights."""
        with self._errors():
            self._program.save(str(folder))

    def _errors(self) -> _Translated:
        return _Translated(self._module.ModelError)

    def set_threads(self, count: int | None) -> None:
        """Threads of every call from now on; None for the default.

        Raises UsageError if the target has no threads of its own.
        """
        if not hasattr(self._module, "set_threads"):
            raise UsageError(
                "this target has no threads of its own",
                hint="NumPy's BLAS reads OMP_NUM_THREADS when Python starts",
            )
        with self._errors():
            self._module.set_threads(count)

    # -- parameters --------------------------------------------------------------------------

    def init(self, seed: int = 0) -> None:
        """Set every parameter and state to its first value."""
        self._program.init(seed)

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and states by name, axes in the model's order."""
        return dict(self._program.state_dict())

    def parameters(self) -> dict[str, Array]:
        """Copies of the trained parameters by name."""
        return dict(self._program.parameters())

    def load_state_dict(self, values: Mapping[str, npt.ArrayLike], strict: bool = True) -> None:
        """Set parameters and states. Raises ShapeError if names, shapes or dtypes differ."""
        with self._errors():
            self._program.load_state_dict(values, strict)

    @property
    def learning_rate(self) -> float:
        """The optimizer's learning rate, a state that can be set at any time."""
        return float(self.state_dict()["optimizer.lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        dtype = self._module.LEAVES["optimizer.lr"]["dtype"]
        self.load_state_dict({"optimizer.lr": np.asarray(value, dtype)}, strict=False)

    # -- what is known before running -----------------------------------------------------------

    def peak_bytes(self, function: str, **dims: int) -> int:
        """Bytes of arena that a call with these sizes needs: known at compile time."""
        return int(self._program.peak_bytes(function, **dims))

    @property
    def arena_bytes(self) -> int:
        """Bytes of the arena as allocated now."""
        return int(self._program.arena_bytes)

    def describe(self) -> str:
        """Functions, types, ranges and peak bytes, as text."""
        return str(self._module.describe())

    @property
    def source(self) -> str:
        """Text of the generated module."""
        path = self._module.__file__
        assert path is not None
        return Path(path).read_text(encoding="utf-8")


class _Translated:
    """Turns the generated module's errors into brickc's."""

    def __init__(self, theirs: type[Exception]) -> None:
        self.theirs = theirs

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, self.theirs):
            raise _translated(error) from None


def _translated(error: Exception) -> BrickcError:
    """brickc's error for one of the generated module's."""
    text = str(error)
    found: type[BrickcError] = ShapeError
    if "cannot run here" in text or "cannot run the program" in text:
        found = UnsupportedError
    elif "not finite" in text:
        found = NumericsError
    elif "out of range" in text and "element" in text:
        found = DataError
    elif "dtype" in text:
        found = DtypeError
    elif any(w in text for w in ("corrupt", "truncated", "cannot be read", "cannot be written")):
        found = ArtifactError
    return found(text)
