"""From the layers of a network to a Model: blobs, phases, loss, metrics.

Both phases become one model. What they share, down to the same layer on the same blobs, is
traced once; where they differ a value is chosen by mode. The importer goes over a file more than
once: what labels mean, and whether the batch size must be a number, is only known at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ...errors import BrickcError, ImportModelError, UnsupportedError, UsageError
from ...ir.brick import Input
from ...ir.bricks.mode import by_mode
from ...ir.dims import Dim
from ...ir.origin import Origin
from .. import functional as fn
from .. import place, trace
from ..model import Model
from ..place import Scope
from ..trace import Tensor
from .call import Call, Facts, Net, check_size, has_dim
from .data import DATA_LAYERS, foreign_problem
from .message import Message
from .table import (
    BY_EXAMPLE,
    BY_EXAMPLE_BESIDE_AXIS_0,
    CONVERTERS,
    INDEX_BOTTOMS,
    LOSSES,
    REASONS,
    TRANSPARENT,
)

__all__ = ["Imported", "Settings", "build"]

Array = npt.NDArray[Any]

#: fields of a layer that do not change what it computes
_ASIDE = frozenset(("include", "exclude", "phase", "loss_weight", "blobs"))
#: where blobs behind a Filter may end, beside losses
_ENDS = ("Accuracy", "Silence", "HDF5Output")
#: layers of a problem list that are shown
_MOST_PROBLEMS = 200
_PHASES = ("TRAIN", "TEST")
#: N ends here even if a file says more
_WIDEST_BATCH = 65_536


@dataclass(frozen=True)
class Settings:
    """What is said about a network from outside its file."""

    #: a file that the network names, if it may be read
    find: Callable[[str], Path | None] | None = None
    #: input -> sizes after the batch
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    #: shape of the examples to train on, for data layers that do not tell theirs
    example: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Imported:
    """A network as a Model, and what a Model has no place for."""

    model: Model
    #: layer -> full names of its blobs in Caffe's order
    blobs: Mapping[str, tuple[str, ...]]
    #: phase -> its layers
    layers: Mapping[str, tuple[Message, ...]]


def build(
    file: str, name: str, phases: Mapping[str, Sequence[Message]], settings: Settings
) -> Imported:
    """The model of a network whose layers are given by phase, TRAIN and TEST.

    Raises UnsupportedError that lists everything brickc has not, ImportModelError for a
    network that makes no sense.
    """
    prepared = {p: [_prepared(layer, k) for k, layer in enumerate(phases.get(p, ()))]
                for p in _PHASES}  # fmt: skip
    _refuse_unknown([x for layers in prepared.values() for x in layers], settings.shapes)
    try:
        return _settled(file, name, prepared, settings, Facts())
    except BrickcError as error:
        if not isinstance(error, UsageError) and _has_batch(prepared):
            # a size that is not known until later may be all that is wrong
            return _settled(file, name, prepared, settings, Facts(fixed_batch=True))
        raise


def _has_batch(prepared: Mapping[str, list[Message]]) -> bool:
    types = {layer.text("type") for layers in prepared.values() for layer in layers}
    return bool(types & {"Input", "Data", "ImageData", "MemoryData", "HDF5Data"})


def _settled(
    file: str,
    name: str,
    phases: Mapping[str, list[Message]],
    settings: Settings,
    facts: Facts,
) -> Imported:
    """Traced until a pass learns nothing new."""
    integers = frozenset().union(*(_integers(layers) for layers in phases.values()))
    dim = Dim("N", 1, _largest_batch(phases))
    while True:
        net = Net(
            file, facts, find=settings.find, hints=settings.shapes, example=settings.example,
            dim=dim,
        )  # fmt: skip
        model = _Trace(net, integers).model(name, phases)
        learnt = net.learnt
        after = Facts(facts.fixed_batch, learnt.limits, learnt.unlimited)
        if after == facts:
            break
        facts = after
    blobs = {layer: tuple(names) for layer, names in net.blobs.items()}
    return Imported(model, blobs, {p: tuple(layers) for p, layers in phases.items()})


def _largest_batch(phases: Mapping[str, list[Message]]) -> int:
    """Upper end of N's range: 1024, or what the file asks for."""
    sizes = [trace.BATCH.hi]
    for layer in (layer for layers in phases.values() for layer in layers):
        if layer.text("type") in DATA_LAYERS:
            sizes.append(layer.sub(DATA_LAYERS[layer.text("type")]).integer("batch_size"))
    return min(max(sizes), _WIDEST_BATCH)


# ── before anything is traced ────────────────────────────────────────────────────────────


def _prepared(layer: Message, number: int) -> Message:
    """The layer with names that can be printed; a loss without a top gets one."""
    layer = layer.copy()
    if not layer.text("name"):
        layer.put("name", f"layer{number + 1}")
    if layer.text("type") in LOSSES and not layer.texts("top"):
        layer.put("top", layer.text("name"))
    for name in (layer.text("name"), *layer.texts("top")):
        try:
            trace.checked_name(name)
        except UsageError as error:
            raise layer.fail(
                "not a name for a layer or blob", got=error.got, expected=error.expected
            ) from None
    return layer


def _refuse_unknown(layers: Sequence[Message], shapes: Mapping[str, tuple[int, ...]]) -> None:
    problems: dict[tuple[int, str], str] = {}
    for layer in layers:
        type = layer.text("type")
        if not type:
            raise layer.fail("a layer without a type")
        where = f'{layer.where} "{layer.text("name")}"'
        why = foreign_problem(layer, shapes) if type == "Python" else ""
        if type not in CONVERTERS or why:
            why = why or REASONS.get(type, "is none of Caffe's layer types that brickc has")
            problems[layer.line, type] = f"{where}: {type!r:.80} {why}"
            continue
        for name, line in layer.strangers():
            if name == "engine":
                continue  # which library computes, in layers where only forks have a choice
            place = f'{layer.file}:{line} "{layer.text("name")}"'
            problems[line, name] = f"{place}: {type} has no field {name!r:.80}"
    _refuse(list(problems.values()))


def _refuse(problems: Sequence[str]) -> None:
    if not problems:
        return
    shown = [*problems[:_MOST_PROBLEMS]]
    if len(problems) > _MOST_PROBLEMS:
        shown.append(f"and {len(problems) - _MOST_PROBLEMS} more")
    what = "one thing is" if len(problems) == 1 else f"{len(problems)} things are"
    raise UnsupportedError(f"{what} not supported:\n  " + "\n  ".join(shown))


def _integers(layers: Sequence[Message]) -> frozenset[str]:
    """Tops of data layers that only count something: class numbers, indices."""
    uses: dict[str, set[bool]] = {}
    ends: dict[str, set[str]] = {}
    seconds: set[str] = set()
    for layer in reversed(layers):
        type, bottoms, tops = layer.text("type"), layer.texts("bottom"), layer.texts("top")
        if type in ("Data", "ImageData", "MemoryData"):
            seconds.update(tops[1:2])
        for k, bottom in enumerate(bottoms):
            if type == "Filter":
                if k < len(tops):  # the selector, which comes last, may be anything
                    uses.setdefault(bottom, set()).update(uses.get(tops[k], set()))
            elif type in TRANSPARENT:
                for top in tops:
                    uses.setdefault(bottom, set()).update(uses.get(top, set()))
                    ends.setdefault(bottom, set()).add(top)
            else:
                uses.setdefault(bottom, set()).add(k in INDEX_BOTTOMS.get(type, frozenset()))
    found = {name for name, kinds in uses.items() if kinds == {True}}
    return frozenset(found | {name for name in seconds if not uses.get(name)})


# ── tracing ──────────────────────────────────────────────────────────────────────────────


@dataclass
class _Phase:
    """Blobs of one phase while its layers are traced."""

    blobs: dict[str, Tensor | None] = field(default_factory=dict)
    #: blobs that no layer has read yet
    unread: dict[str, Tensor] = field(default_factory=dict)
    terms: list[Tensor] = field(default_factory=list)
    #: what losses and accuracies look at
    judged: dict[str, dict[str, Tensor]] = field(
        default_factory=lambda: {"Accuracy": {}, "Loss": {}}
    )


class _Trace:
    """One pass over the file."""

    def __init__(self, net: Net, integers: frozenset[str]) -> None:
        self.net = net
        self.integers = integers
        #: a layer on certain bottoms -> its tops
        self.memory: dict[object, list[Tensor]] = {}
        self.scopes: dict[str, Scope] = {}
        #: what is not supported, each once
        self.problems: dict[str, None] = {}

    def model(self, name: str, phases: Mapping[str, list[Message]]) -> Model:
        done: dict[str, _Phase] = {}
        errors: dict[str, ImportModelError] = {}
        for phase, layers in phases.items():
            try:
                if layers:
                    done[phase] = self._phase(layers, phase == "TRAIN")
            except ImportModelError as error:
                errors[phase] = error
        for phase, failed in errors.items():
            # a file for one phase alone is fine if the other one lacks its data
            reads = any(CONVERTERS[x.text("type")].__module__.endswith(".data")
                        for x in phases[phase])  # fmt: skip
            if reads or not done:
                raise failed
        _refuse(list(self.problems))
        if not done:
            raise ImportModelError("the network has no layers", where=self.net.file)
        with place.at(Origin(self.net.file, 1)):
            return self._assembled(name, done)

    def _phase(self, layers: Sequence[Message], training: bool) -> _Phase:
        phase = _Phase()
        for layer in layers:
            self._layer(layer, phase, training)
        return phase

    def _layer(self, layer: Message, phase: _Phase, training: bool) -> None:
        name, tops = layer.text("name"), layer.texts("top")
        names = layer.texts("bottom")
        for bottom in names:
            if bottom not in phase.blobs:
                raise layer.fail(f"layer {name!r} reads a blob that no layer makes before it",
                                 "bottom", got=repr(bottom)[:100])  # fmt: skip
        for top in tops:
            if top in phase.blobs and top not in names:
                raise layer.fail(f"layer {name!r} makes a blob that is there already", "top",
                                 got=repr(top)[:100])  # fmt: skip
        if len(set(tops)) != len(tops):
            raise layer.fail(f"layer {name!r} has two tops of one name", "top")
        for bottom in names:
            phase.unread.pop(bottom, None)
        bottoms = [b for n in names if (b := phase.blobs[n]) is not None]
        made: Sequence[Tensor] | None = None
        if len(bottoms) == len(names):
            made = self._traced(layer, bottoms, training)
        if made is None:
            phase.blobs.update(dict.fromkeys(tops))  # unsupported, or behind what is
            return
        if len(made) < len(tops):
            raise layer.fail(f"layer {name!r} has too many tops", "top", got=len(tops),
                             expected=len(made))  # fmt: skip
        self._losses(layer, made, phase)
        if layer.text("type") in ("Accuracy", *LOSSES):
            kind = "Accuracy" if layer.text("type") == "Accuracy" else "Loss"
            phase.judged[kind].setdefault(names[0], bottoms[0])
        for top, tensor in zip(tops, made, strict=False):
            phase.blobs[top] = tensor
            phase.unread[top] = tensor

    def _traced(self, layer: Message, bottoms: list[Tensor], training: bool) -> list[Tensor] | None:
        """The layer's tops; None if it is not supported, which is remembered."""
        name = layer.text("name")
        key = (layer.key(_ASIDE), tuple(id(b) for b in bottoms))
        if bottoms and key in self.memory:
            return self.memory[key]
        origin = Origin(layer.file, layer.line, name)
        scope = self.scopes.setdefault(name, Scope("layer", name, name, None))
        with place.at(origin), place.inside(scope):
            down = layer.values.get("propagate_down", [])
            if down and len(down) != len(bottoms):
                raise layer.fail("propagate_down for each bottom", "propagate_down",
                                 got=len(down), expected=len(bottoms))  # fmt: skip
            read = [b if k >= len(down) or down[k] or not b.dtype.is_float else fn.stop_gradient(b)
                    for k, b in enumerate(bottoms)]  # fmt: skip
            call = Call(layer, name, read, self.net, training, self.integers)
            try:
                call.mask = self._mask(call, bottoms)
                tops = CONVERTERS[layer.text("type")](call)
                if call.mask is not None and layer.text("type") not in (*LOSSES, *_ENDS):
                    for top in tops:
                        self.net.masks.setdefault(top, call.mask)
                for top in tops:
                    check_size(call, top)
            except UnsupportedError as error:
                if not self.net.facts.fixed_batch and any(has_dim(b.shape) for b in bottoms):
                    raise  # a fixed batch may be enough
                self.problems[str(error.at(call.where))] = None
                return None
            except BrickcError as error:
                raise error.at(call.where) from None
        self.memory[key] = tops
        return tops

    def _mask(self, call: Call, bottoms: Sequence[Tensor]) -> Tensor | None:
        """The examples that a Filter before this layer lets through; None if there is none."""
        masks = [self.net.masks.get(b) for b in bottoms]
        found = next((m for m in masks if m is not None), None)
        if found is None:
            return None
        type = call.layer.text("type")
        many = masks[:-1] if type == "Filter" else masks[:2] if type == "InfogainLoss" else masks
        if any(m is not found for m in many):
            raise call.unsupported("some of its bottoms are behind a Filter, others are not")
        if type in BY_EXAMPLE or type in LOSSES or type in _ENDS:
            return found
        # the axis is 1 unless the layer says otherwise
        settings = [
            v for f in call.layer.values if f.endswith("_param") for v in call.layer.subs(f)
        ]
        first = any("axis" in given.values and given.integer("axis") <= 0 for given in settings)
        if type in BY_EXAMPLE_BESIDE_AXIS_0 and not first:
            return found
        raise call.unsupported("behind a Filter, which leaves a number of examples that only the "
                               "data tell")  # fmt: skip

    def _losses(self, layer: Message, made: Sequence[Tensor], phase: _Phase) -> None:
        weights = layer.reals("loss_weight")
        if len(weights) > len(layer.texts("top")):
            raise layer.fail("loss_weight for each top", "loss_weight", got=len(weights))
        if not weights and layer.text("type") in LOSSES:
            weights = [1.0]
        with place.at(Origin(layer.file, layer.line, layer.text("name"))):
            for tensor, weight in zip(made, weights, strict=False):
                if weight != 0:
                    whole = fn.reduce_sum(tensor, tuple(range(tensor.rank)))
                    total = whole if tensor.rank else tensor
                    phase.terms.append(total if weight == 1 else total * weight)

    # ── the model ────────────────────────────────────────────────────────────────────────

    def _assembled(self, name: str, done: Mapping[str, _Phase]) -> Model:
        train, test = done.get("TRAIN"), done.get("TEST")
        shown = test or train
        assert shown is not None
        total = _chosen(_total(train), _total(test))
        rest = {n: t for n, t in shown.unread.items() if t is not self.net.inputs.get(n)}
        hidden = [n for n, t in rest.items() if t in self.net.masks]
        if hidden:
            raise UnsupportedError(
                "how many examples a Filter lets through depends on the data, and sizes are fixed "
                "when the program is compiled: only losses and accuracies may be behind it",
                where=self.net.file, got=f"output {hidden[0]!r}",
            )  # fmt: skip
        outputs: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        tested: set[str] = set()
        read = _inputs([total] if total is not None else [])
        if total is None:
            outputs = {_apart(n): t for n, t in rest.items()}
        else:
            own = train.unread if train is not None else {}
            parts = [t for p in (train, test) if p is not None for t in p.terms]
            for blob, tensor in rest.items():
                scalar = tensor.rank == 0 and tensor.dtype.is_float
                if not scalar:
                    outputs[_apart(blob)] = tensor
                elif not (len(parts) <= 2 and any(tensor is part for part in parts)):
                    other = own.get(blob, tensor)
                    fits = other.type == tensor.type
                    metrics[_apart(blob)] = trace.call(by_mode, other if fits else tensor, tensor)
                    # its layer takes no part in phase TRAIN; training data are read whole, so
                    # inputs that nothing else reads must stay
                    if train is not None and blob not in own and _inputs([tensor]) <= read:
                        tested.add(_apart(blob))
            for blob, tensor in (shown.judged["Accuracy"] or shown.judged["Loss"]).items():
                if not isinstance(tensor.brick, Input) and tensor not in self.net.masks:
                    outputs.setdefault(_apart(blob), tensor)
        if total is None and not outputs:
            raise ImportModelError("the network computes nothing", where=self.net.file)
        for key in metrics:
            outputs.pop(key, None)
        return Model(
            outputs, total, metrics,
            updates=self.net.updates if total is not None else None,
            name=_model_name(name, self.net.file), weights=self._weights(total, outputs, metrics),
            evaluation_only=tested,
        )  # fmt: skip

    def _weights(
        self, total: Tensor | None, outputs: Mapping[str, Tensor], metrics: Mapping[str, Tensor]
    ) -> Mapping[str, Array] | None:
        """First values of what the model has: a layer that nothing needs is no part of it."""
        if not self.net.weights:
            return None
        last = [total] if total is not None else []
        reached = _reached([*outputs.values(), *metrics.values(), *last])
        names = {full for tensor, full in self.net.leaves.values() if tensor in reached}
        return {n: a for n, a in self.net.weights.items() if n in names}


def _reached(roots: Iterable[Tensor]) -> set[Tensor]:
    """The tensors and all that they depend on."""
    reached: set[Tensor] = set()
    todo = list(roots)
    while todo:
        tensor = todo.pop()
        if tensor not in reached:
            reached.add(tensor)
            todo.extend(tensor.operands)
    return reached


def _inputs(roots: Iterable[Tensor]) -> set[Tensor]:
    return {tensor for tensor in _reached(roots) if isinstance(tensor.brick, Input)}


def _apart(name: str) -> str:
    """A blob's name as an output's; ``loss`` is what training makes small."""
    return "loss_blob" if name == "loss" else name


def _total(phase: _Phase | None) -> Tensor | None:
    if phase is None or not phase.terms:
        return None
    total = phase.terms[0]
    for term in phase.terms[1:]:
        total = total + term
    return total


def _chosen(train: Tensor | None, test: Tensor | None) -> Tensor | None:
    """The loss of each phase in its mode."""
    if train is None or test is None:
        return train if test is None else test
    same = train is test or (train.brick == test.brick and train.operands == test.operands)
    return train if same else trace.call(by_mode, train, test)


def _model_name(name: str, file: str) -> str:
    for candidate in (name, Path(file).stem):
        try:
            return trace.checked_name(candidate)
        except UsageError:
            continue
    return "net"
