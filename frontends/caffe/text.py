"""Prototxt: protocol buffers' text format, read with the line of every message and field.

Nothing is looked up, evaluated or included. Size, depth and number of tokens are bounded, so
that a hostile file costs little more than reading it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import ImportModelError
from .message import Message, Scalar
from .schema import ENUMS, SCALARS, Field, enum_values, fields_of

__all__ = ["LARGEST_TEXT", "parse_text", "read_text"]

#: bytes of a file; the longest networks in use have a few hundred thousand
LARGEST_TEXT = 4 * 2**20
#: words, numbers and brackets of a text
_MOST_TOKENS = 400_000
#: messages within messages
_DEEPEST = 32

_TOKEN = re.compile(
    r"""
    [ \t\r\f\v]*+(?:
    (?P<newline>(?:\#[^\n]*+)?(?:\n[ \t\r\f\v]*+)++|\#[^\n]*+\Z|(?<=[ \t\r\f\v])\Z)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?)
    |(?P<string>"(?:[^"\\\n]|\\[^\n])*"|'(?:[^'\\\n]|\\[^\n])*')
    |(?P<mark>[{}<>:;,\[\]-])
    )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|(.))")
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def read_text(path: Path, kind: str) -> Message:
    """The message of that kind in a file. Raises ImportModelError with the line."""
    try:
        size = path.stat().st_size
        if size > LARGEST_TEXT:
            raise ImportModelError("the file is too large", where=path.name, got=f"{size} bytes",
                                   expected=f"at most {LARGEST_TEXT}")  # fmt: skip
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ImportModelError("cannot be read", where=path.name, got=error.strerror) from None
    except UnicodeDecodeError as error:
        raise ImportModelError(
            "not a text file", where=path.name, got=f"byte {error.start} is no UTF-8",
            expected="a network or solver in protocol buffers' text format",
        ) from None  # fmt: skip
    return parse_text(text, kind, path.name)


def parse_text(text: str, kind: str, file: str = "prototxt") -> Message:
    """The message of that kind in a text. Raises ImportModelError with the line."""
    if len(text) > LARGEST_TEXT:
        raise ImportModelError("the text is too long", where=file, expected=LARGEST_TEXT)
    return _Parser(text, file).message(kind)


def _tokens(text: str, file: str) -> Iterator[_Token]:
    line, position, count = 1, 0, 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ImportModelError(
                "not a token of the text format", where=f"{file}:{line}",
                got=repr(text[position : position + 20]),
            )  # fmt: skip
        position = found.end()
        kind = found.lastgroup or ""
        if kind == "newline":
            line += found.group(kind).count("\n")
            continue
        count += 1
        if count > _MOST_TOKENS:
            raise ImportModelError("the text is too long", where=f"{file}:{line}",
                                   expected=f"at most {_MOST_TOKENS} tokens")  # fmt: skip
        yield _Token(kind, found.group(kind), line)
    yield _Token("end", "", line)


class _Parser:
    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.rest = _tokens(text, file)
        self.token = next(self.rest)

    def message(self, kind: str) -> Message:
        result = Message(kind, self.token.line, self.file)
        self._fields(result, "", 0)
        return result

    # ── tokens ───────────────────────────────────────────────────────────────────────────

    def _next(self) -> _Token:
        token = self.token
        if token.kind != "end":
            self.token = next(self.rest)
        return token

    def _accept(self, *marks: str) -> str:
        if self.token.kind == "mark" and self.token.text in marks:
            return self._next().text
        return ""

    def _fail(self, what: str, expected: object = None) -> ImportModelError:
        got = repr(self.token.text)[:60] if self.token.kind != "end" else "the end of the file"
        return ImportModelError(
            what, where=f"{self.file}:{self.token.line}", got=got, expected=expected
        )

    # ── fields ───────────────────────────────────────────────────────────────────────────

    def _fields(self, message: Message | None, close: str, depth: int) -> None:
        """Fields up to the closing bracket; without a message they are read past."""
        if depth > _DEEPEST:
            raise self._fail("messages are nested too deeply", f"at most {_DEEPEST} levels")
        while True:
            if close and self._accept(close):
                return
            if self.token.kind == "end":
                if close:
                    raise self._fail(f"the file ends inside {message.kind if message else 'it'}",
                                     repr(close))  # fmt: skip
                return
            if self.token.kind != "name":
                raise self._fail("not a field", "a field's name")
            self._field(message, depth)
            self._accept(";", ",")

    def _field(self, message: Message | None, depth: int) -> None:
        name = self._next()
        declared = fields_of(message.kind).get(name.text) if message is not None else None
        if message is not None and declared is None:
            message.unknown.append((name.text, name.line))
        colon = self._accept(":")
        if self._accept("["):
            if declared is not None and not declared.repeated:
                raise self._fail(f"{name.text} takes one value, no list")
            while not self._accept("]"):
                self._value(message, declared, name, True, depth)
                if not self._accept(",") and not (self.token.text == "]"):
                    raise self._fail("not a list", "',' or ']'")
            return
        self._value(message, declared, name, bool(colon), depth)

    def _value(
        self,
        message: Message | None,
        declared: Field | None,
        name: _Token,
        colon: bool,
        depth: int,
    ) -> None:
        opened = self._accept("{", "<")
        if opened:
            close = "}" if opened == "{" else ">"
            if message is None or declared is None:
                self._fields(None, close, depth + 1)
                return
            if declared.type in SCALARS or declared.type in ENUMS:
                raise self._fail(f"{name.text} is no message", declared.type)
            inner = Message(declared.type, name.line, self.file)
            self._fields(inner, close, depth + 1)
            self._store(message, declared, inner, name)
            return
        if not colon:
            raise self._fail(f"{name.text} has no value", "':' or '{'")
        if message is None or declared is None:
            self._scalar(None)
            return
        if declared.type not in SCALARS and declared.type not in ENUMS:
            raise self._fail(f"{name.text} is a message", "'{'")
        self._store(message, declared, self._scalar(declared), name)

    def _store(
        self, message: Message, declared: Field, value: Scalar | Message, name: _Token
    ) -> None:
        if message.has(declared.name) and not declared.repeated:
            raise ImportModelError(
                f"{declared.name} is given twice", where=f"{self.file}:{name.line}",
                got=f"another one in line {message.lines[declared.name]}",
            )  # fmt: skip
        message.add(declared.name, value, name.line)

    # ── scalars ──────────────────────────────────────────────────────────────────────────

    def _scalar(self, declared: Field | None) -> Scalar:
        """A value of the declared type; of any, if the field is unknown."""
        negative = bool(self._accept("-"))
        kind = self.token.kind
        if kind not in ("string", "number", "name") or (negative and kind == "string"):
            raise self._fail("not a value", declared.type if declared else None)
        if kind == "string":
            if declared is not None and declared.type not in ("string", "bytes"):
                raise self._fail(f"{declared.name} is no text", declared.type)
            return self._string(declared)
        if declared is None:
            return self._next().text
        try:
            value = self._typed(declared, self.token.text, kind, negative)
        except ValueError:
            expected = declared.type
            if declared.type in ENUMS:
                expected = ", ".join(enum_values(declared.type))
            raise self._fail(f"{declared.name} cannot be this", expected) from None
        self._next()
        return value

    def _typed(self, declared: Field, text: str, kind: str, negative: bool) -> Scalar:
        type = declared.type
        if type in ENUMS:
            values = enum_values(type)
            if kind == "number" and not negative:
                return {v: k for k, v in values.items()}.get(_integer(text)) or _no()
            return text if text in values and not negative else _no()
        if type == "bool":
            known = {"true": True, "True": True, "t": True, "1": True,
                     "false": False, "False": False, "f": False, "0": False}  # fmt: skip
            return known[text] if text in known and not negative else _no()
        if kind != "number":
            return _no()
        if type in ("float", "double"):
            hexadecimal = text[:2] in ("0x", "0X")
            number = float(_integer(text)) if hexadecimal else float(text.rstrip("fF"))
            if not math.isfinite(number):
                return _no()
            return -number if negative else number
        if type in _RANGES:
            whole = -_integer(text) if negative else _integer(text)
            lo, hi = _RANGES[type]
            return whole if lo <= whole <= hi else _no()
        return _no()

    def _string(self, declared: Field | None) -> Scalar:
        """One string; neighbours are joined."""
        parts = []
        while self.token.kind == "string":
            body = self._next().text[1:-1]
            parts.append(_ESCAPE.sub(_unescape, body))
        text = "".join(parts)
        if declared is not None and declared.type == "bytes":
            return text.encode("latin-1", "replace")
        return text


def _no() -> Scalar:
    raise ValueError


def _integer(text: str) -> int:
    if len(text) > 40:
        raise ValueError
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    if len(text) > 1 and text[0] == "0" and text.isdigit():
        return int(text, 8)
    return int(text)


def _unescape(found: re.Match[str]) -> str:
    octal, hexadecimal, simple = found.groups()
    if octal:
        return chr(int(octal, 8) & 0xFF)
    if hexadecimal:
        return chr(int(hexadecimal, 16))
    return _SIMPLE.get(simple, simple)
