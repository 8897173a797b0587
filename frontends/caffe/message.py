"""Messages as they were read: the values that are there, the schema's defaults elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import ImportModelError
from .schema import SCALARS, Field, enum_values, fields_of

__all__ = ["Message", "Scalar"]

#: enumerations are held by name
Scalar = int | float | bool | str | bytes


class Message:
    """A message with the line it begins on. Accessors name the type that the schema gives."""

    __slots__ = ("file", "kind", "line", "lines", "unknown", "values")

    def __init__(self, kind: str, line: int = 0, file: str = "") -> None:
        self.kind = kind
        self.line = line
        self.file = file
        #: field -> its values, one unless it is repeated
        self.values: dict[str, list[Scalar | Message]] = {}
        #: field -> the line of its first value
        self.lines: dict[str, int] = {}
        #: fields that the schema does not have: name, line
        self.unknown: list[tuple[str, int]] = []

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    def place_of(self, field: str) -> str:
        """Where a field is, or the message if it is not there."""
        return f"{self.file}:{self.lines.get(field, self.line)}"

    def has(self, field: str) -> bool:
        """True if the field is there, be it with its default."""
        self._field(field)
        return bool(self.values.get(field))

    def add(self, field: str, value: Scalar | Message, line: int = 0) -> None:
        self.values.setdefault(field, []).append(value)
        self.lines.setdefault(field, line or self.line)

    def put(self, field: str, value: Scalar | Message) -> None:
        """Set a field to one value."""
        self.values[field] = [value]
        self.lines.setdefault(field, self.line)

    def drop(self, field: str) -> None:
        self.values.pop(field, None)

    def copy(self) -> Message:
        """A message of its own with the same fields; submessages are shared."""
        new = Message(self.kind, self.line, self.file)
        new.values = {name: list(values) for name, values in self.values.items()}
        new.lines = dict(self.lines)
        new.unknown = list(self.unknown)
        return new

    # ── one value ────────────────────────────────────────────────────────────────────────

    def integer(self, field: str) -> int:
        value = self._scalar(field)
        assert isinstance(value, int)
        return value

    def real(self, field: str) -> float:
        value = self._scalar(field)
        assert isinstance(value, int | float)
        return float(value)

    def flag(self, field: str) -> bool:
        return bool(self._scalar(field))

    def text(self, field: str) -> str:
        value = self._scalar(field)
        assert isinstance(value, str)
        return value

    def sub(self, field: str) -> Message:
        """The message in the field; an empty one, all defaults, if there is none."""
        declared = self._field(field)
        values = self.values.get(field)
        if not values:
            return Message(declared.type, self.line, self.file)
        value = values[0]
        assert isinstance(value, Message)
        return value

    # ── many values ──────────────────────────────────────────────────────────────────────

    def integers(self, field: str) -> list[int]:
        self._field(field)
        return [v for v in self.values.get(field, ()) if isinstance(v, int)]

    def reals(self, field: str) -> list[float]:
        self._field(field)
        return [float(v) for v in self.values.get(field, ()) if isinstance(v, int | float)]

    def texts(self, field: str) -> list[str]:
        self._field(field)
        return [v for v in self.values.get(field, ()) if isinstance(v, str)]

    def subs(self, field: str) -> list[Message]:
        self._field(field)
        return [v for v in self.values.get(field, ()) if isinstance(v, Message)]

    # ── everything ───────────────────────────────────────────────────────────────────────

    def strangers(self) -> Iterator[tuple[str, int]]:
        """The fields in here, at any depth, that Caffe does not have."""
        yield from self.unknown
        for values in self.values.values():
            for value in values:
                if isinstance(value, Message):
                    yield from value.strangers()

    def key(self, without: frozenset[str] = frozenset()) -> object:
        """What the message says, to be compared: the same for equal messages on other lines."""
        return (self.kind, tuple(
            (name, tuple(v.key() if isinstance(v, Message) else v for v in self.values[name]))
            for name in sorted(self.values) if name not in without and self.values[name]
        ))  # fmt: skip

    def _field(self, name: str) -> Field:
        return fields_of(self.kind)[name]

    def _scalar(self, field: str) -> Scalar:
        declared = self._field(field)
        values = self.values.get(field)
        if values:
            value = values[0]
            assert not isinstance(value, Message)
            return value
        return _default(declared)

    def fail(self, what: str, field: str = "", **parts: object) -> ImportModelError:
        """An error about this message, or a field of it."""
        where = self.place_of(field) if field else self.where
        got, expected = parts.get("got"), parts.get("expected")
        return ImportModelError(what, where=where, got=got, expected=expected)


def _default(field: Field) -> Scalar:
    """The declared default, or protocol buffers' own: zero, empty, the first of an enumeration."""
    text = field.default
    match field.type:
        case "bool":
            return text == "true"
        case "float" | "double":
            return float(text or 0)
        case "string":
            return text or ""
        case "bytes":
            return b""
        case type if type in SCALARS:
            return int(text or 0)
        case type:
            return text if text is not None else next(iter(enum_values(type)))
