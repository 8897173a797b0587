"""Where in the user's program we are: the line, and the layer.

Both live for the duration of a call, are put back when it ends, and are apart in every
thread. They only name things; no value depends on them.
"""

from __future__ import annotations

import os.path
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from ..ir.origin import Origin

__all__ = ["Scope", "at", "current_scope", "here", "inside"]


@dataclass(frozen=True, eq=False)
class Scope:
    """A layer as the trace sees it: what the nodes and parameters inside are named after.

    Layers without a name of their own are numbered by ``Model``: ``kind`` is the stem
    ("conv"), and ``label`` is what a message calls the layer until then ("Conv2d(6, 5)").
    """

    kind: str
    name: str | None
    label: str
    parent: Scope | None

    def __str__(self) -> str:
        own = self.name or self.label
        return f"{self.parent}.{own}" if self.parent else own


#: the layer whose ``forward`` is running, and a place that stands in for the caller's line
_SCOPE: ContextVar[Scope | None] = ContextVar("brickc layer", default=None)
_PLACE: ContextVar[Origin | None] = ContextVar("brickc place", default=None)


@contextmanager
def at(place: Origin) -> Iterator[None]:
    """Inside, tensors come from ``place`` instead of the line that calls.

    For importers: ``with at(Origin("lenet.prototxt", 41, "sig1")): …``.
    """
    token = _PLACE.set(place)
    try:
        yield
    finally:
        _PLACE.reset(token)


@contextmanager
def inside(scope: Scope) -> Iterator[None]:
    """Inside, tensors and parameters belong to that layer."""
    token = _SCOPE.set(scope)
    try:
        yield
    finally:
        _SCOPE.reset(token)


def current_scope() -> Scope | None:
    """The layer whose ``forward`` is running."""
    return _SCOPE.get()


def here() -> Origin:
    """The line that the user wrote: the first frame outside the package's machinery.

    The zoo's networks are written as a user writes them, so their frames count. Files are
    named without their folder: the same program gives the same bytes in any folder.
    """
    place = _PLACE.get()
    if place is None:
        package = __name__.rpartition(".frontends.")[0]
        hidden = tuple(f"{package}.{part}." for part in ("ir", "compiler", "frontends"))
        zoo = f"{package}.frontends.zoo."
        frame = sys._getframe(1)
        while frame.f_back is not None:
            module = frame.f_globals.get("__name__", "") + "."
            code = frame.f_code
            # a dataclass's __init__ belongs to the user's module, but to no line of it
            generated = code.co_filename == "<string>" and code.co_name == "__init__"
            ours = module.startswith((*hidden, "contextlib.")) and not module.startswith(zoo)
            if not ours and not generated:
                break
            frame = frame.f_back
        place = Origin(os.path.basename(frame.f_code.co_filename), frame.f_lineno)
    scope = _SCOPE.get()
    return place if scope is None else replace(place, layer=str(scope))
