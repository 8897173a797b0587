"""Checked construction of a graph that somebody else wrote down: as text, as JSON.

What is read is bounded before anything is allocated, and every error names its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import BrickcError, ImportModelError, VerifyError
from .attributes import Plain, brick_from_plain, parse_type
from .brick import Brick, Input, Leaf, Parameter, State, check_arity
from .dims import Dim
from .graph import Graph
from .origin import Origin
from .types import TensorType

__all__ = ["Assembler"]

_LEAVES: dict[str, type[Leaf]] = {"input": Input, "parameter": Parameter, "state": State}
_MOST_DIMS = 256
_MOST_NODES = 1_000_000
_LARGEST_ID = 2**40
_LONGEST_NAME = 4096


class Assembler:
    """Builds one graph; ``where`` in each call is the place for error messages."""

    def __init__(self, name: str, catalogue: Mapping[str, type[Brick]], where: str) -> None:
        self.graph = Graph(_name(name, where))
        self.catalogue = catalogue
        self.dims: dict[str, Dim] = {}

    def dim(self, name: str, lo: int, hi: int, typical: int, where: str) -> None:
        if name in self.dims:
            raise ImportModelError(f"dim {name} is declared twice"[:200], where=where)
        if len(self.dims) >= _MOST_DIMS:
            raise ImportModelError("too many dims", where=where, expected=_MOST_DIMS)
        if typical == 0:
            raise ImportModelError(f"dim {name} has no typical size"[:200], where=where)
        try:
            self.dims[name] = Dim(name, lo, hi, typical)
        except BrickcError as error:
            raise error.at(where) from None

    def node(
        self,
        id: int,
        type_text: str,
        mnemonic: str,
        leaf: str | None,
        operands: Sequence[int],
        attributes: Mapping[str, Plain],
        origin: Origin,
        where: str,
    ) -> None:
        """Add a node; its stated type must be the one that its brick infers."""
        if not 0 <= id < _LARGEST_ID:
            raise ImportModelError("an impossible number", where=where, got=f"%{id}"[:80])
        if len(self.graph) >= _MOST_NODES:
            raise ImportModelError("too many nodes", where=where, expected=_MOST_NODES)
        try:
            stated = parse_type(type_text, self.dims)
            brick = self._brick(mnemonic, leaf, stated, attributes)
            self._check(brick, operands, stated)
            self.graph.add(brick, operands, origin, id=id, type=stated)
        except BrickcError as error:
            raise _placed(error, where) from None
        except Exception as error:
            # bricks trust their attributes; text does not deserve it
            raise VerifyError(
                f"%{id}: the attributes of {mnemonic} make no sense"[:200], where=where,
                got=f"{error.__class__.__name__}: {error}"[:200],
            ) from error  # fmt: skip

    def _brick(
        self, mnemonic: str, leaf: str | None, stated: TensorType, attributes: Mapping[str, Plain]
    ) -> Brick:
        extra: dict[str, Any] = {}
        kind: type[Brick] | None
        if leaf is not None:
            kind = _LEAVES.get(mnemonic)
            extra = {"name": _name(leaf, ""), "type": stated}
        else:
            kind = self.catalogue.get(mnemonic)
        if kind is None or (leaf is None) == issubclass(kind, Leaf):
            raise ImportModelError(
                "no such brick" if leaf is None else "no such kind of leaf",
                got=repr(mnemonic)[:80],
                expected="a mnemonic of the catalogue" if leaf is None else ", ".join(_LEAVES),
            )
        return brick_from_plain(kind, attributes, self.dims, extra)

    def _check(self, brick: Brick, operands: Sequence[int], stated: TensorType) -> None:
        for operand in operands:
            if operand not in self.graph:
                raise VerifyError(f"%{operand} is used before it is defined"[:200])
        check_arity(brick, len(operands))
        inferred = brick.infer_type([self.graph.node(o).type for o in operands])
        if inferred != stated:
            raise VerifyError(
                f"{brick.mnemonic} makes a value of another type", got=stated, expected=inferred
            )

    def output(self, name: str, id: int, where: str) -> None:
        if _name(name, where) in self.graph.outputs:
            raise ImportModelError("two outputs have one name", where=where, got=repr(name)[:200])
        self._exists(id, where)
        self.graph.outputs[name] = id

    def update(self, name: str, id: int, where: str) -> None:
        leaf = self.graph.parameters.get(name, self.graph.states.get(name))
        if leaf is None:
            raise VerifyError(
                "an update of what is neither parameter nor state", where=where,
                got=repr(name)[:200],
            )  # fmt: skip
        if leaf in self.graph.updates:
            raise ImportModelError("two updates of one leaf", where=where, got=repr(name)[:200])
        self._exists(id, where)
        expected, got = self.graph.node(leaf).type, self.graph.node(id).type
        if expected != got:
            raise VerifyError(
                f"the update of {name!r} has another type"[:200], where=where, got=got,
                expected=expected,
            )  # fmt: skip
        self.graph.updates[leaf] = id

    def _exists(self, id: int, where: str) -> None:
        if id not in self.graph:
            raise VerifyError(f"%{id} does not exist"[:80], where=where)


def _name(name: str, where: str) -> str:
    if len(name) > _LONGEST_NAME:
        raise ImportModelError(
            "a name is too long", where=where, got=f"{len(name)} characters",
            expected=_LONGEST_NAME,
        )  # fmt: skip
    return name


def _placed(error: BrickcError, where: str) -> BrickcError:
    """The error at a place in the file; where it already names an inner one, both."""
    return type(error)(
        f"{error.where}: {error.what}" if error.where else error.what, where=where,
        got=error.got, expected=error.expected, hint=error.hint,
    )  # fmt: skip
