"""Names of a graph, a subgraph or a function's call, and where its nodes are said to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import ImportModelError
from ...ir.origin import Origin
from .reading import printable
from .values import Item

if TYPE_CHECKING:
    import onnx

__all__ = ["Place", "Scope"]


@dataclass(frozen=True)
class Place:
    """Where a node is: for the tensors it makes, and for messages."""

    origin: Origin
    where: str


class Scope:
    """Names and what they stand for; a subgraph also sees those of the graph around it."""

    def __init__(
        self,
        outer: Scope | None = None,
        attributes: Mapping[str, onnx.AttributeProto] | None = None,
        opsets: Mapping[str, int] | None = None,
        depth: int = 0,
        place: Place | None = None,
    ) -> None:
        self.items: dict[str, Item] = {}
        self.outer = outer
        #: of the function's call, for attributes that refer to them
        self.attributes = attributes if attributes is not None else {}
        self.opsets = opsets if opsets is not None else {}
        self.depth = depth
        #: where the nodes are said to be, if not in the model's graph itself
        self.place = place

    def find(self, name: str) -> Item | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.items:
                return scope.items[name]
            scope = scope.outer
        raise KeyError(name)

    def define(self, name: str, item: Item, where: str) -> None:
        if name in self.items:
            raise ImportModelError(f"{printable(name)!r} is defined twice", where=where)
        self.items[name] = item
