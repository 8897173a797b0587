"""One layer at work: what a converter is given, and where its parameters go.

A converter is a function from a ``Call`` to the layer's tops. Parameters, states and inputs
belong to the ``Net``, which both phases of a file share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ...errors import ImportModelError, UnsupportedError
from ...ir.brick import Input
from ...ir.dims import Dim, Size, minimum, product
from ...ir.initializers import Initializer
from .. import trace
from ..trace import Tensor
from .fillers import fill
from .message import Message

__all__ = ["LARGEST_BLOB", "Call", "Facts", "Net", "axis_of", "fixed"]

Array = npt.NDArray[Any]

#: elements of a blob, with one example in the batch; Caffe's own limit for whole blobs
LARGEST_BLOB = 2**31 - 1
#: elements of what is computed for one example: a gigabyte of floats
_LARGEST_EXAMPLE = 2**28


@dataclass
class Facts:
    """What one pass over a file learns for the next: the import repeats until nothing changes."""

    #: True if some layer needs the batch size as a number
    fixed_batch: bool = False
    #: input of integers -> what they must stay below
    limits: dict[str, int] = field(default_factory=dict)
    #: inputs whose integers may be anything: some layer ignores a label
    unlimited: set[str] = field(default_factory=set)

    def limit(self, name: str) -> int:
        return 0 if name in self.unlimited else self.limits.get(name, 0)


@dataclass
class Net:
    """What the phases of a file share."""

    file: str
    facts: Facts
    #: learnt on the way, for the next pass
    learnt: Facts = field(default_factory=Facts)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    #: (layer, role) or name that a file gives -> the tensor and its full name
    leaves: dict[tuple[str, str], tuple[Tensor, str]] = field(default_factory=dict)
    shared: dict[str, tuple[Tensor, str]] = field(default_factory=dict)
    #: layer -> full names of its blobs, as a .caffemodel has them in order
    blobs: dict[str, list[str]] = field(default_factory=dict)
    #: (phase, layer) -> the line of the layer that has blobs under this name
    owners: dict[tuple[bool, str], int] = field(default_factory=dict)
    #: first values that no distribution describes
    weights: dict[str, Array] = field(default_factory=dict)
    #: what a Filter lets through: blob -> [N], true where an example counts
    masks: dict[Tensor, Tensor] = field(default_factory=dict)
    #: state -> what it becomes in a training step
    updates: dict[Tensor, Tensor] = field(default_factory=dict)
    #: size of axis 0 that becomes N, and N
    batch: int | None = None
    dim: Dim = trace.BATCH
    #: a file that the network names, if it lies in its folder
    find: Callable[[str], Path | None] | None = None
    #: what the user says about shapes: top -> sizes after the batch
    hints: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    #: shape of the examples that will be trained on, where nothing else tells it
    example: tuple[int, ...] | None = None

    def size(self, batch: int, *, reads: bool = False) -> Size:
        """The batch axis: N, unless something needs the number.

        Sources of both phases have batches of their own, which are all N; inputs of a network
        are as large as the first one, or stay as they are.
        """
        if self.facts.fixed_batch:
            return batch
        if self.batch is None:
            self.batch = batch
        return self.dim if reads or batch == self.batch else batch

    def input(self, name: str, shape: Sequence[Size], integer: bool) -> Tensor:
        """An input by its top's name; both phases read the same one."""
        known = self.inputs.get(name)
        if known is not None:
            return known  # the other phase's, with its size if that differs
        limit = self.facts.limit(name) if integer else 0
        made = trace.input(name, shape, "i32" if integer else "f32", limit)
        self.inputs[name] = made
        return made


@dataclass
class Call:
    """A layer with its bottoms."""

    layer: Message
    name: str
    bottoms: list[Tensor]
    net: Net
    #: the phase is TRAIN
    training: bool
    #: tops whose values are to be integers
    integer_tops: frozenset[str] = frozenset()
    #: true where an example counts; None if all do
    mask: Tensor | None = None
    #: blobs made so far
    _made: int = 0

    @property
    def tops(self) -> list[str]:
        return self.layer.texts("top")

    def x(self, k: int = 0) -> Tensor:
        """A bottom as floats."""
        if k >= len(self.bottoms):
            raise self.fail(f"bottom {k} is missing", got=f"{len(self.bottoms)} bottoms")
        bottom = self.bottoms[k]
        return bottom if bottom.dtype.is_float else bottom.astype("f32")

    def expect(self, least: int, most: int | None = None) -> None:
        """Raise ImportModelError unless the layer has that many bottoms."""
        most = least if most is None else most
        if not least <= len(self.bottoms) <= most:
            expected = str(least) if least == most else f"{least} to {most}"
            raise self.fail("a wrong number of bottoms", got=len(self.bottoms), expected=expected)

    def sub(self, field: str) -> Message:
        return self.layer.sub(field)

    def fail(self, what: str, got: object = None, expected: object = None) -> ImportModelError:
        return ImportModelError(
            f"{self.layer.text('type')}: {what}", where=self.where, got=got, expected=expected
        )

    def unsupported(self, why: str) -> UnsupportedError:
        return UnsupportedError(f"{self.layer.text('type')}: {why}", where=self.where)

    @property
    def where(self) -> str:
        return f'{self.layer.where} "{self.name}"'

    # ── parameters ───────────────────────────────────────────────────────────────────────

    def parameter(
        self, role: str, shape: Sequence[int], filler: Message, first: Initializer | None = None
    ) -> Tensor:
        """The layer's next blob. ``first`` goes before the filler."""
        sizes = tuple(shape)
        if any(n < 1 for n in sizes) or product(sizes) > LARGEST_BLOB:  # type: ignore[operator]
            raise self.fail(f"impossible shape of the {role}", got=list(sizes))
        specs = self.layer.subs("param")
        spec = specs[self._made] if self._made < len(specs) else Message("ParamSpec")
        self._made += 1
        shared = spec.text("name")
        known = self.net.leaves.get((self.name, role)) or self.net.shared.get(shared)
        if known is None:
            full = f"{self.name}.{role}"
            init, array = (first, None) if first is not None else fill(filler, sizes, full)
            made = trace.parameter(
                role, sizes, init, "f32", spec.real("lr_mult"), spec.real("decay_mult")
            )
            known = (made, full)
            if array is not None:
                self.net.weights[full] = array
        tensor, full = known
        self.net.leaves[self.name, role] = known
        if shared:
            self.net.shared.setdefault(shared, known)
        self._record(full)
        if tensor.shape == sizes:
            return tensor
        if spec.text("share_mode") == "PERMISSIVE" and product(tensor.shape) == product(sizes):
            return tensor.reshape(*sizes)
        raise self.fail(
            f"the {role} is shared with a layer that has another shape of it",
            got=list(sizes), expected=f"{list(tensor.shape)} of {full}",
        )  # fmt: skip

    def state(self, role: str, shape: Sequence[int], first: Initializer) -> Tensor:
        """The layer's next blob, which no gradient trains."""
        specs = self.layer.subs("param")
        spec = specs[self._made] if self._made < len(specs) else Message("ParamSpec")
        self._made += 1
        shared = spec.text("name")
        known = self.net.leaves.get((self.name, role)) or self.net.shared.get(shared)
        if known is None:
            known = (trace.state(role, tuple(shape), first), f"{self.name}.{role}")
        tensor, full = known
        self.net.leaves[self.name, role] = known
        if shared:
            self.net.shared.setdefault(shared, known)
        if tensor.shape != tuple(shape):
            raise self.fail(f"the {role} is shared with another shape", got=list(shape),
                            expected=list(tensor.shape))  # fmt: skip
        self._record(full)
        return tensor

    def _record(self, full: str) -> None:
        line = self.net.owners.setdefault((self.training, self.name), self.layer.line)
        if line != self.layer.line:
            raise self.fail("another layer with weights has this name", got=f"line {line}")
        names = self.net.blobs.setdefault(self.name, [])
        if full not in names:
            names.append(full)

    # ── integers ─────────────────────────────────────────────────────────────────────────

    def indices(self, k: int, limit: int, *, anything: bool = False) -> Tensor:
        """A bottom as integers below ``limit``; with ``anything`` others may occur."""
        bottom = self.bottoms[k] if k < len(self.bottoms) else self.x(k)
        source: Tensor = bottom
        while source.operands and len(source.operands) == 1:
            source = source.operands[0]
        if isinstance(source.brick, Input) and bottom.dtype.is_integer:
            name, learnt = source.brick.name, self.net.learnt
            if anything:
                learnt.unlimited.add(name)
            known = learnt.limits.get(name, limit)
            learnt.limits[name] = min(known, limit)
        return bottom if bottom.dtype.is_integer else bottom.astype("i32")


def fixed(call: Call, size: Size, what: str) -> int:
    """The size as a number. Raises ImportModelError where it is a named dim."""
    if not isinstance(size, int):
        raise call.fail(f"{what} must have a fixed size", got=size)
    return size


def axis_of(call: Call, axis: int, rank: int, *, end: bool = False) -> int:
    """An axis that may count from the end. ``end``: the place after the last one is fine."""
    places = rank + 1 if end else rank
    found = axis + places if axis < 0 else axis
    if not 0 <= found < places:
        raise call.fail("no such axis", got=axis, expected=f"an axis of {rank}")
    return found


def check_size(call: Call, tensor: Tensor) -> None:
    """Raise ImportModelError for a blob that no machine could hold."""
    each = minimum(product(tensor.shape))
    if each > _LARGEST_EXAMPLE:
        raise call.fail("the blob is too large", got=tensor.type,
                        expected=f"at most {_LARGEST_EXAMPLE} elements for an example")  # fmt: skip


def has_dim(shape: Sequence[Size]) -> bool:
    return any(isinstance(s, Dim) or not isinstance(s, int) for s in shape)
