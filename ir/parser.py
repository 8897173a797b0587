"""The text form of graphs, read: the exact inverse of ``ir/printer``.

Nothing in the text is ever evaluated. The catalogue of bricks is an argument, as this
module lies below it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from ..errors import ImportModelError
from .assemble import Assembler
from .attributes import Plain, Word
from .brick import Brick
from .graph import Graph
from .origin import Origin

__all__ = ["parse"]

_LONGEST_TEXT = 256 * 2**20
_LONGEST_LINE = 128 * 2**20  # a literal is one line
_MOST_OPERANDS = 100_000
_DEEPEST_LIST = 8

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_WORD = re.compile(r"[^\s\"{},=\[\]()#]+(?:\[[^\[\]\"{}()#]*\]|\([^\[\]\"{}()#]*\))?")
_GRAPH = re.compile(r"graph (\"[^\"\\]*(?:\\.[^\"\\]*)*\") \{\Z")
_DIM = re.compile(r"dim ([A-Za-z0-9_]+) = ([0-9]{1,12})\.\.([0-9]{1,12}) typical ([0-9]{1,12})\Z")
_RESULT = re.compile(r"(output|update) (\"[^\"\\]*(?:\\.[^\"\\]*)*\") = %([0-9]{1,15})\Z")
_HEAD = re.compile(r"%([0-9]{1,15}): ([a-z0-9]+\[[^\[\]\"{}()#]*\]) = ([a-z_][a-z0-9_]*)")
_OPERAND = re.compile(r"%([0-9]{1,15})")
_FILE = re.compile(r"([\w./\\+@~-]+|\"[^\"\\]*(?:\\.[^\"\\]*)*\"):([0-9]{1,15})(?: |\Z)", re.ASCII)
_ATTRIBUTE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")


def parse(text: str, catalogue: Mapping[str, type[Brick]], source: str = "IR text") -> Graph:
    """The graph of a text. ``source`` is the file's name, for messages.

    ``catalogue`` maps mnemonics to bricks. Empty lines and lines of comment only are allowed.

    Raises ImportModelError for what is no IR text or names what does not exist, ShapeError,
    DtypeError or VerifyError for a program that breaks the rules; all with file:line.
    """
    if len(text) > _LONGEST_TEXT:
        raise ImportModelError(
            "IR text is too long", where=source, got=len(text), expected=_LONGEST_TEXT
        )
    reader = _Reader(catalogue, source)
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{source}:{number}"
        if len(line) > _LONGEST_LINE:
            raise ImportModelError("a line is too long", where=where, expected=_LONGEST_LINE)
        line = line.strip(" \t\r")
        if line and not line.startswith("#"):
            reader.line(line, where)
    return reader.finish()


class _Reader:
    """Line by line; each kind of line has one method."""

    def __init__(self, catalogue: Mapping[str, type[Brick]], source: str) -> None:
        self.catalogue = catalogue
        self.source = source
        self.assembler: Assembler | None = None
        self.closed = False

    def line(self, line: str, where: str) -> None:
        if self.closed:
            raise _mistake(where, "text after the end of the graph", line, "nothing")
        if self.assembler is None:
            match = _GRAPH.match(line)
            if match is None:
                raise _mistake(where, "not IR text", line, 'graph "name" {')
            self.assembler = Assembler(_unquoted(match[1], where), self.catalogue, where)
        elif line == "}":
            self.closed = True
        elif line.startswith("%"):
            _node(self.assembler, line, where)
        elif match := _DIM.match(line):
            lo, hi, typical = (int(match[k]) for k in (2, 3, 4))
            self.assembler.dim(match[1], lo, hi, typical, where)
        elif match := _RESULT.match(line):
            add = self.assembler.output if match[1] == "output" else self.assembler.update
            add(_unquoted(match[2], where), int(match[3]), where)
        else:
            raise _mistake(
                where, "not a line of IR text", line,
                "'%0: type = brick(…)', 'dim', 'output', 'update' or '}'",
            )  # fmt: skip

    def finish(self) -> Graph:
        if self.assembler is None:
            raise ImportModelError("no graph", where=self.source, expected='graph "name" {')
        if not self.closed:
            raise ImportModelError("the graph has no end", where=self.source, expected="'}'")
        return self.assembler.graph


def _mistake(where: str, what: str, got: str, expected: str) -> ImportModelError:
    short = got if len(got) <= 80 else got[:79] + "…"
    return ImportModelError(what, where=where, got=repr(short), expected=expected)


def _unquoted(text: str, where: str) -> str:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _mistake(where, f"not a JSON string ({error})", text, "a string in quotes") from None
    assert isinstance(found, str)
    return found


class _Cursor:
    """A place in a line."""

    def __init__(self, line: str, where: str) -> None:
        self.line = line
        self.where = where
        self.at = 0

    def accept(self, text: str) -> bool:
        if self.line.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def match(self, pattern: re.Pattern[str], expected: str) -> re.Match[str]:
        found = pattern.match(self.line, self.at)
        if found is None:
            raise self.mistake(expected)
        self.at = found.end()
        return found

    def mistake(self, expected: str) -> ImportModelError:
        rest = self.line[self.at : self.at + 40]
        return ImportModelError(
            "a node's line is wrong", where=f"{self.where}, character {self.at + 1}",
            got=repr(rest) if rest else "the end of the line", expected=expected,
        )  # fmt: skip


def _node(assembler: Assembler, line: str, where: str) -> None:
    cursor = _Cursor(line, where)
    head = cursor.match(_HEAD, "%0: f32[…] = brick(…)")
    leaf: str | None = None
    operands: list[int] = []
    if cursor.accept(" "):
        leaf = _unquoted(cursor.match(_STRING, "the leaf's name in quotes")[0], where)
    else:
        operands = _operands(cursor)
    attributes: dict[str, Plain] = {}
    if cursor.accept(" {"):
        attributes = _attributes(cursor)
    origin = Origin()
    if cursor.accept("  # "):
        origin = _origin(cursor)
    if cursor.at != len(line):
        raise cursor.mistake("attributes in { }, '  # origin' or the end of the line")
    assembler.node(int(head[1]), head[2], head[3], leaf, operands, attributes, origin, where)


def _operands(cursor: _Cursor) -> list[int]:
    if not cursor.accept("("):
        raise cursor.mistake("'(' and the operands, or a leaf's name")
    operands: list[int] = []
    while not cursor.accept(")"):
        if operands and not cursor.accept(", "):
            raise cursor.mistake("', ' or ')'")
        operands.append(int(cursor.match(_OPERAND, "an operand such as %3")[1]))
        if len(operands) > _MOST_OPERANDS:
            raise cursor.mistake(f"at most {_MOST_OPERANDS} operands")
    return operands


def _attributes(cursor: _Cursor) -> dict[str, Plain]:
    found: dict[str, Plain] = {}
    while True:
        name = cursor.match(_ATTRIBUTE, "name=value")[1]
        if name in found:
            raise cursor.mistake(f"{name[:40]} only once")
        found[name] = _value(cursor, 0)
        if cursor.accept("}"):
            return found
        if not cursor.accept(", "):
            raise cursor.mistake("', ' or '}'")


def _value(cursor: _Cursor, depth: int) -> Plain:
    if depth > _DEEPEST_LIST:
        raise cursor.mistake(f"lists within lists, {_DEEPEST_LIST} at most")
    if cursor.accept("["):
        items: list[Plain] = []
        while not cursor.accept("]"):
            if items and not cursor.accept(","):
                raise cursor.mistake("',' or ']'")
            items.append(_value(cursor, depth + 1))
        return items
    if cursor.line.startswith('"', cursor.at):
        return _unquoted(cursor.match(_STRING, "a string in quotes")[0], cursor.where)
    return Word(cursor.match(_WORD, 'a value: a number, a word, "text" or [a list]')[0])


def _origin(cursor: _Cursor) -> Origin:
    """``file:line "layer" note``; each part may be missing."""
    file, number, layer, note = "", 0, "", ""
    found = _FILE.match(cursor.line, cursor.at)
    if found is not None:
        cursor.at = found.end()
        quoted = found[1].startswith('"')
        file = _unquoted(found[1], cursor.where) if quoted else found[1]
        number = int(found[2])
    if cursor.line.startswith('"', cursor.at):
        layer = _unquoted(cursor.match(_STRING, "a layer in quotes")[0], cursor.where)
        if cursor.at != len(cursor.line) and not cursor.accept(" "):
            raise cursor.mistake("a space or the end of the line")
    if cursor.accept("note "):
        note = _unquoted(cursor.match(_STRING, "a note in quotes")[0], cursor.where)
    else:
        note = cursor.line[cursor.at :]
        cursor.at = len(cursor.line)
    return Origin(file, number, layer, note)
