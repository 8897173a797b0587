"""Names of the file as names of ours: printable, short, each one once.

A name that is fine stays as it is. Anything else keeps what can be printed, so that a file's
author recognises it; names are data everywhere and never become part of generated source.
"""

from __future__ import annotations

from .reading import printable

__all__ = ["Names"]

_LONGEST = 120
#: what models call their random state
_RESERVED = frozenset({"random.seed", "random.counter"})


class Names:
    """The names that are taken in one space."""

    def __init__(self) -> None:
        self._taken: set[str] = set(_RESERVED)

    def clean(self, name: str, otherwise: str) -> str:
        """The name with what cannot be printed replaced; ``otherwise`` if nothing is left."""
        return printable(name, _LONGEST) or otherwise

    def unique(self, name: str, otherwise: str) -> str:
        """A clean name that no other has got."""
        stem = unique = self.clean(name, otherwise)
        number = 1
        while unique in self._taken:
            number += 1
            unique = f"{stem}_{number}"
        self._taken.add(unique)
        return unique
