"""Attributes of bricks as plain data and back, by the types that the brick's class declares.

Plain data is None, bool, int, float, str, lists of these, and ``Word``: a string that the
text form prints without quotes. The text form and JSON are two spellings of plain data.
"""

from __future__ import annotations

import base64
import re
import types as python_types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import sympy as sp

from ..errors import BrickcError, ImportModelError, InternalError
from . import dims as sizes
from .brick import Brick
from .dims import Dim, DimExpr, Size
from .dtypes import DType
from .expression_text import parse_expression, print_expression
from .initializers import Initializer
from .types import TensorType

__all__ = ["Plain", "Word", "brick_from_plain", "brick_to_plain", "parse_dtype", "parse_size",
           "parse_type"]  # fmt: skip

#: None, bool, int, float, str, Word, list of Plain
Plain = Any

_LONGEST_SIZE = 1000
_LONGEST_LIST = 1_000_000
_LARGEST_COUNT = 2**60
_HIGHEST_RANK = 64
_INTEGER = re.compile(r"-?[0-9]{1,40}\Z")
_FLOAT = re.compile(r"-?(?:[0-9]+\.?[0-9]*(?:e[+-]?[0-9]{1,5})?|inf|nan)\Z")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_TYPE = re.compile(r"([a-z0-9]+)\[([^\[\]]*)\]\Z")
_CALL = re.compile(r"([a-z]+)\(([^()]*)\)\Z")


class Word(str):
    """A string that needs no quotes in the text form."""

    __slots__ = ()


def brick_to_plain(brick: Brick) -> dict[str, Plain]:
    """The attributes by name, in declaration order; the type of a leaf is left to its node.

    What is None, and is None by default, says nothing and is left out.
    """
    hints = _hints(type(brick))
    silent = {f.name for f in fields(brick) if f.default is None}  # type: ignore[arg-type]
    return {
        name: _encode(value, hints[name])
        for name, value in brick.attributes().items()
        if name in hints and not (value is None and name in silent)
    }


def brick_from_plain(
    kind: type[Brick], plain: Mapping[str, Plain], dims: Mapping[str, Dim], extra: Mapping[str, Any]
) -> Brick:
    """The brick; ``extra`` are attributes that are not in ``plain`` (a leaf's name and type).

    Raises ImportModelError for attributes that are unknown, missing or of another type.
    """
    hints = _hints(kind)
    declared = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    allowed = [name for name in hints if name not in extra]
    values: dict[str, Any] = dict(extra)
    for name, value in plain.items():
        if name not in allowed:
            raise ImportModelError(
                f"{kind.mnemonic} has no attribute {name!r}"[:200],
                expected=", ".join(allowed) or "no attributes",
            )
        try:
            values[name] = _decode(value, hints[name], dims)
        except BrickcError as error:
            raise error.at(f"{kind.mnemonic}, attribute {name}") from None
    for name in allowed:
        field = declared[name]
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ImportModelError(f"{kind.mnemonic} lacks the attribute {name!r}")
    return kind(**values)


@lru_cache(maxsize=1024)
def _hints(kind: type[Brick]) -> dict[str, Any]:
    """The declared types of a brick's attributes."""
    found = get_type_hints(kind)
    return {f.name: found[f.name] for f in fields(kind) if f.init}  # type: ignore[arg-type]


# ── to plain data ────────────────────────────────────────────────────────────────────────


def _encode(value: Any, hint: Any) -> Plain:
    """``hint`` only decides between int and float; everything else follows from the value."""
    match value:
        case None | bool():
            return value
        case DType() | TensorType() | Dim() | DimExpr():
            return Word(value)
        case Initializer():
            return Word(f"{value.kind}({_float(value.a)},{_float(value.b)})")
        case sp.Basic():
            return print_expression(value)
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case str():
            return str(value)
        case tuple():
            return [_encode(v, _item(hint, k)) for k, v in enumerate(value)]
        case int() | float():
            choices = _choices(hint)
            if float in choices and (isinstance(value, float) or int not in choices):
                return float(value)
            return int(value)
    raise InternalError("an attribute cannot be written as text", got=f"{type(value)} {value!r}")


def _float(value: float) -> str:
    return repr(float(value))


def _choices(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, python_types.UnionType) else (hint,)


def _item(hint: Any, k: int) -> Any:
    """The declared type of a tuple's item."""
    for choice in _choices(hint):
        if get_origin(choice) is tuple:
            args = get_args(choice)
            if len(args) == 2 and args[1] is Ellipsis:
                return args[0]
            return args[k] if k < len(args) else Any
    return Any


# ── from plain data ──────────────────────────────────────────────────────────────────────


def _decode(plain: Plain, hint: Any, dims: Mapping[str, Dim]) -> Any:
    choices = _choices(hint)
    if plain is None or (isinstance(plain, Word) and plain == "none"):
        if type(None) in choices:
            return None
        raise _unexpected(plain, hint)
    if Dim in choices:  # a Size; None is dealt with
        if isinstance(plain, int) and not isinstance(plain, bool):
            return plain
        if isinstance(plain, str):
            return parse_size(plain, dims)
        raise _unexpected(plain, hint)
    for choice in sorted(choices, key=lambda c: _ORDER.get(c, 9)):
        if choice is type(None):
            continue
        found = _decode_as(plain, choice, dims)
        if found is not None:
            return found
    raise _unexpected(plain, hint)


#: bool before int before float: what a word looks like decides
_ORDER = {bool: 0, int: 1, float: 2}


def _decode_as(plain: Plain, kind: Any, dims: Mapping[str, Dim]) -> Any:
    """The value, or None if ``plain`` is no ``kind``."""
    if get_origin(kind) is tuple:
        return _decode_tuple(plain, kind, dims)
    if get_origin(kind) is typing.Literal:
        return str(plain) if isinstance(plain, str) and plain in get_args(kind) else None
    if kind is bool:
        if isinstance(plain, bool):
            return plain
        return {"true": True, "false": False}.get(plain) if isinstance(plain, Word) else None
    if kind is int:
        if isinstance(plain, Word) and _INTEGER.match(plain):
            return int(plain)
        return plain if isinstance(plain, int) and not isinstance(plain, bool) else None
    if kind is float:
        if isinstance(plain, str) and _FLOAT.match(plain):
            return float(plain)
        if isinstance(plain, int | float) and not isinstance(plain, bool):
            return _as_float(plain)
        return None
    if not isinstance(plain, str):
        return None
    if kind is str:
        return None if isinstance(plain, Word) else plain
    if kind is DType:
        return parse_dtype(plain)
    if kind is TensorType:
        return parse_type(plain, dims)
    if kind is Initializer:
        return _initializer(plain)
    if kind is bytes:
        try:
            return base64.b64decode(plain, validate=True)
        except ValueError:
            raise ImportModelError("not base64", got=repr(plain[:40])) from None
    if isinstance(kind, type) and issubclass(kind, sp.Basic):
        return parse_expression(plain)
    raise InternalError("attributes of this type cannot be read", got=kind)


def _decode_tuple(plain: Plain, kind: Any, dims: Mapping[str, Dim]) -> Any:
    if not isinstance(plain, list):
        return None
    if len(plain) > _LONGEST_LIST:
        raise ImportModelError("a list is too long", got=len(plain), expected=_LONGEST_LIST)
    args = get_args(kind)
    if not (len(args) == 2 and args[1] is Ellipsis) and len(args) != len(plain):
        raise ImportModelError("a list of another length", got=len(plain), expected=len(args))
    return tuple(_decode(p, _item(kind, k), dims) for k, p in enumerate(plain))


def _as_float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        raise ImportModelError("a number is too large", got=f"{str(number)[:40]}…") from None


def _unexpected(plain: Plain, hint: Any) -> ImportModelError:
    name = getattr(hint, "__name__", None) if not get_args(hint) else None
    return ImportModelError(
        "an attribute of another type", got=repr(plain)[:200], expected=name or str(hint)
    )


def parse_dtype(text: str) -> DType:
    """The dtype of that name. Raises ImportModelError."""
    for dtype in DType:
        if dtype.value == text:
            return dtype
    raise ImportModelError(
        "unknown dtype", got=repr(text)[:80], expected=", ".join(d.value for d in DType)
    )


def parse_type(text: str, dims: Mapping[str, Dim]) -> TensorType:
    """``f32[N,10]``: the inverse of ``str``. Raises ImportModelError or ShapeError."""
    match = _TYPE.match(text)
    if match is None:
        raise ImportModelError("not a type", got=repr(text)[:200], expected="such as f32[N,10]")
    parts = match[2].split(",") if match[2] else []
    if len(parts) > _HIGHEST_RANK:
        raise ImportModelError("too many axes", got=len(parts), expected=_HIGHEST_RANK)
    found = TensorType.of(parse_dtype(match[1]), [parse_size(p, dims) for p in parts])
    if sizes.minimum(found.size) < 0 or sizes.maximum(found.size) > _LARGEST_COUNT:
        raise ImportModelError("an impossible number of elements", got=text[:200])
    return found


def parse_size(text: str, dims: Mapping[str, Dim]) -> Size:
    """A polynomial in the dims: ``2*N*T-1``. Raises ImportModelError."""
    if len(text) > _LONGEST_SIZE:
        raise ImportModelError("a size is too long", got=f"{len(text)} characters")
    total: Size = 0
    for sign, term in re.findall(r"([+-]?)([^+-]*)", text.strip())[:-1]:
        value: Size = -1 if sign == "-" else 1
        for factor in term.split("*"):
            factor = factor.strip()
            if _INTEGER.match(factor) and len(factor) <= 20:
                value = value * int(factor)
            elif factor in dims:
                value = value * dims[factor]
            elif _NAME.match(factor):
                raise ImportModelError(
                    f"dim {factor[:64]} is not declared", got=repr(text)[:200],
                    expected=", ".join(dims) or "a number",
                )  # fmt: skip
            else:
                raise ImportModelError(
                    "not a size", got=repr(text)[:200], expected="such as 10, N or 2*N+1"
                )
        total = total + value
    if not text.strip():
        raise ImportModelError("not a size", got=repr(text), expected="such as 10, N or 2*N+1")
    return total


def _initializer(text: str) -> Initializer:
    match = _CALL.match(text)
    numbers = match[2].split(",") if match else []
    if match is None or len(numbers) != 2 or not all(_FLOAT.match(n) for n in numbers):
        raise ImportModelError(
            "not an initializer", got=repr(text)[:200], expected="such as uniform(-0.1,0.1)"
        )
    return Initializer(match[1], float(numbers[0]), float(numbers[1]))
