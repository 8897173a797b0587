"""Identifiers for generated code.

Names from models are any text. What reaches source code is rebuilt from their ASCII letters,
digits and underscores, bounded in length and made unique; nothing else of them does.
"""

from __future__ import annotations

import keyword
import re

__all__ = ["Namer"]

_OTHER = re.compile(r"[^A-Za-z0-9_]+")


class Namer:
    """Hands out unique identifiers."""

    def __init__(self, reserved: frozenset[str] = frozenset()) -> None:
        self._taken: set[str] = set(reserved)

    def name(self, *hints: str) -> str:
        """An identifier that resembles the hints joined by underscores."""
        parts = [_OTHER.sub("_", h).strip("_") for h in hints]
        base = "_".join(p for p in parts if p)[:48].strip("_") or "value"
        if base[0].isdigit() or keyword.iskeyword(base) or keyword.issoftkeyword(base):
            base = f"v_{base}"
        candidate, number = base, 2
        while candidate in self._taken:
            candidate = f"{base}_{number}"
            number += 1
        self._taken.add(candidate)
        return candidate
