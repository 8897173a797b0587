"""The exceptions that brickc raises, all of one form: where · what · got · expected · hint.

The first family is the user's to mend (or names a gap of ours); the second is our own bug.
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "BrickcError",
    "BuildError",
    "DataError",
    "DtypeError",
    "ImportModelError",
    "InternalError",
    "MemoryLimitError",
    "NumericsError",
    "ShapeError",
    "UnsupportedError",
    "UsageError",
    "VerifyError",
]


class BrickcError(Exception):
    """Base of every error brickc raises on purpose.

    The message reads ``where: what; got …; expected …; hint``. Each part is kept as an
    attribute, so that the command line's ``--json`` can print them apart.
    """

    #: exit status of the command line when this error ends it
    exit_code: int = 1

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        got: object = None,
        expected: object = None,
        hint: str = "",
    ) -> None:
        self.what = what
        self.where = where
        self.got = None if got is None else str(got)
        self.expected = None if expected is None else str(expected)
        self.hint = hint
        super().__init__(self._message())

    def _message(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        parts = [head]
        if self.got is not None:
            parts.append(f"got {self.got}")
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.hint:
            parts.append(self.hint)
        return "; ".join(parts)

    def at(self, where: str) -> BrickcError:
        """The same error with its place filled in, if it had none."""
        if self.where:
            return self
        return type(self)(
            self.what, where=where, got=self.got, expected=self.expected, hint=self.hint
        )

    def as_dict(self) -> dict[str, str | None]:
        """The parts of the message, for machine-readable output."""
        return {
            "error": type(self).__name__,
            "where": self.where or None,
            "what": self.what,
            "got": self.got,
            "expected": self.expected,
            "hint": self.hint or None,
        }


class BuildError(BrickcError):
    """The tool that builds generated code is missing, or refuses it."""


class UsageError(BrickcError):
    """A command or call was given arguments that do not go together."""

    exit_code = 2


class ImportModelError(BrickcError):
    """A model file cannot be read, or says something that makes no sense."""

    exit_code = 3


class ShapeError(BrickcError):
    """Shapes do not fit, or a dim lies outside its declared range."""

    exit_code = 4


class DtypeError(BrickcError):
    """Dtypes do not fit."""

    exit_code = 5


class UnsupportedError(BrickcError):
    """A well-formed request for something brickc does not have."""

    exit_code = 6


class ArtifactError(BrickcError):
    """An artifact is missing, truncated, corrupt, of another version, or not writable."""

    exit_code = 7


class DataError(BrickcError):
    """Input data cannot be read or holds values it must not (a label out of range)."""

    exit_code = 8


class NumericsError(BrickcError):
    """A value that must be finite is not, or a gradient check failed."""

    exit_code = 9


class MemoryLimitError(BrickcError):
    """The planned peak of memory is over the limit that the user set."""

    exit_code = 10


class VerifyError(BrickcError):
    """A graph breaks a rule of the IR: our bug, or a hand-written IR file."""

    exit_code = 20


class InternalError(BrickcError):
    """A bug of brickc's own."""

    exit_code = 70
