"""Solvers: what a solver prototxt says about training.

Source: caffe/solver.cpp and caffe/solvers/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...compiler.optimizers import SGD, AdaDelta, AdaGrad, Adam, Optimizer, RMSProp
from ...errors import BrickcError, ImportModelError, UnsupportedError, UsageError
from .data import DATA_LAYERS
from .files import finder, read_solver_or_net, with_weights
from .message import Message
from .net import Imported, Settings, build
from .phases import NetState, selected
from .text import read_text
from .upgrade import layers_of

__all__ = ["Plan", "Solver", "learning_rate", "read_solver", "solver_of"]

_TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
_BY_ENUM = {"SGD": "SGD", "NESTEROV": "Nesterov", "ADAGRAD": "AdaGrad", "RMSPROP": "RMSProp",
            "ADADELTA": "AdaDelta", "ADAM": "Adam"}  # fmt: skip
_POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")


@dataclass(frozen=True)
class Plan:
    """How often what is done, in iterations."""

    max_iter: int
    iter_size: int = 1
    #: batches of each test net; 0 is all there are
    test_iter: tuple[int, ...] = ()
    test_interval: int = 0
    test_initialization: bool = True
    display: int = 0
    average_loss: int = 1
    snapshot: int = 0
    snapshot_after_train: bool = True
    #: the last part of snapshot_prefix: folders that a file names are not written to
    prefix: str = "snapshot"


@dataclass(frozen=True)
class Solver:
    """A solver: its optimizer, its learning rate by iteration, its plan and its network."""

    optimizer: Optimizer
    rate: Callable[[int], float]
    plan: Plan
    #: None if the file leaves it to chance
    seed: int | None
    net: Callable[[tuple[int, ...] | None, Mapping[str, tuple[int, ...]]], Imported]
    file: str


def read_solver(
    path: Path, *, net: Path | None = None, root: Path | None = None, weights: Path | None = None
) -> Solver:
    """The solver of a prototxt file.

    ``net`` goes before the network that the file names. ``root`` is where files lie that solver
    and network name, beside the solver's own folder.
    Raises ImportModelError, UnsupportedError, UsageError.
    """
    message = read_solver_or_net(path)
    if message.kind != "SolverParameter":
        raise UsageError(f"{path.name} is a network, not a solver")
    return solver_of(message, path, net=net, root=root, weights=weights)


def solver_of(
    message: Message,
    path: Path,
    *,
    net: Path | None = None,
    root: Path | None = None,
    weights: Path | None = None,
) -> Solver:
    """The solver of a message that was read from ``path``."""
    for name, line in message.strangers():
        raise ImportModelError(f"no field {name!r:.80} in a solver", where=f"{path.name}:{line}")
    find = finder(*([root] if root else []), path.parent)
    for given in message.texts("weights"):
        if weights is None:
            weights = find(given)
            if weights is None:
                raise message.fail("the weights are not there", "weights", got=repr(given)[:100])

    def load(example: tuple[int, ...] | None, shapes: Mapping[str, tuple[int, ...]]) -> Imported:
        settings = Settings(find, shapes, example)
        file, name, phases, more = _phases(message, path, net, find)
        found = with_weights(build(file, name, phases, settings), weights)
        return replace(found, layers={**found.layers, **more})

    plan = _plan(message, path)
    try:
        optimizer = _optimizer(message)
    except BrickcError as error:
        raise error.at(path.name) from None
    seed = message.integer("random_seed")
    rate = learning_rate(message)
    return Solver(optimizer, rate, plan, seed if seed >= 0 else None, load, path.name)


# ── numbers ──────────────────────────────────────────────────────────────────────────────


def _plan(message: Message, path: Path) -> Plan:
    for field in ("max_iter", "test_interval", "display", "snapshot"):
        if message.integer(field) < 0:
            raise message.fail(f"{field} is negative", field, got=message.integer(field))
    for field in ("iter_size", "average_loss"):
        if not 1 <= message.integer(field) <= 1_000_000:
            raise message.fail(f"impossible {field}", field, got=message.integer(field))
    tests = tuple(message.integers("test_iter"))
    if any(t < 0 for t in tests) or len(tests) > 100:
        raise message.fail("impossible test_iter", "test_iter", got=list(tests)[:10])
    prefix = Path(message.text("snapshot_prefix")).name or path.stem
    return Plan(
        max_iter=message.integer("max_iter"),
        iter_size=message.integer("iter_size"),
        test_iter=tests,
        test_interval=message.integer("test_interval"),
        test_initialization=message.flag("test_initialization"),
        display=message.integer("display"),
        average_loss=message.integer("average_loss"),
        snapshot=message.integer("snapshot"),
        snapshot_after_train=message.flag("snapshot_after_train"),
        prefix=prefix if prefix.isprintable() and len(prefix) < 100 else "snapshot",
    )


def _optimizer(message: Message) -> Optimizer:
    if message.has("type") and message.has("solver_type"):
        raise message.fail("both type and solver_type are given", "solver_type")
    type = message.text("type")
    if message.has("solver_type"):
        type = _BY_ENUM[message.text("solver_type")]
    if type not in _TYPES:
        raise message.fail("unknown type of solver", "type", got=repr(type)[:60],
                           expected=", ".join(_TYPES))  # fmt: skip
    rate, momentum, eps = (message.real(f) for f in ("base_lr", "momentum", "delta"))
    if type in ("AdaGrad", "RMSProp") and momentum != 0:
        raise message.fail(f"{type} has no momentum", "momentum", got=momentum, expected=0)
    kind = message.text("regularization_type").lower()
    if kind not in ("l1", "l2"):
        raise message.fail("unknown regularization_type", "regularization_type",
                           got=repr(kind)[:60], expected="L1 or L2")  # fmt: skip
    clip = message.real("clip_gradients")
    weight_decay, accumulate = message.real("weight_decay"), message.integer("iter_size")
    clip_norm = clip if clip > 0 else None
    match type:
        case "SGD" | "Nesterov":
            # Nesterov's method without momentum is plain descent
            return SGD(
                rate, momentum, type == "Nesterov" and momentum != 0, style="caffe",
                weight_decay=weight_decay, clip_norm=clip_norm, clip_style="caffe",
                regularization=kind, accumulate=accumulate,
            )  # fmt: skip
        case "AdaGrad":
            return AdaGrad(
                rate, eps, weight_decay=weight_decay, clip_norm=clip_norm, clip_style="caffe",
                regularization=kind, accumulate=accumulate,
            )  # fmt: skip
        case "RMSProp":
            return RMSProp(
                rate, message.real("rms_decay"), eps, weight_decay=weight_decay,
                clip_norm=clip_norm, clip_style="caffe", regularization=kind,
                accumulate=accumulate,
            )  # fmt: skip
        case "AdaDelta":
            return AdaDelta(
                rate, momentum, eps, weight_decay=weight_decay, clip_norm=clip_norm,
                clip_style="caffe", regularization=kind, accumulate=accumulate,
            )  # fmt: skip
        case _:
            return Adam(
                rate, (momentum, message.real("momentum2")), eps, "caffe",
                weight_decay=weight_decay, clip_norm=clip_norm, clip_style="caffe",
                regularization=kind, accumulate=accumulate,
            )  # fmt: skip


def learning_rate(message: Message) -> Callable[[int], float]:
    """The learning rate by iteration, from 0. Raises ImportModelError for an unknown policy."""
    policy = message.text("lr_policy") or "fixed"
    base, gamma, power = (message.real(f) for f in ("base_lr", "gamma", "power"))
    step, limit = message.integer("stepsize"), message.integer("max_iter")
    steps = message.integers("stepvalue")
    if policy not in _POLICIES:
        raise message.fail("unknown lr_policy", "lr_policy", got=repr(policy)[:60],
                           expected=", ".join(_POLICIES))  # fmt: skip
    if policy == "step" and step < 1:
        raise message.fail("lr_policy step needs a stepsize", "stepsize", got=step)
    if policy == "poly" and limit < 1:
        raise message.fail("lr_policy poly needs max_iter", "max_iter", got=limit)

    def rate(iteration: int) -> Any:
        match policy:
            case "step":
                return base * gamma ** (iteration // step)
            case "exp":
                return base * gamma**iteration
            case "inv":
                return base * (1 + gamma * iteration) ** -power
            case "multistep":
                return base * gamma ** sum(iteration >= value for value in steps)
            case "poly":
                return base * max(0.0, 1 - iteration / limit) ** power
            case "sigmoid":
                return base / (1 + math.exp(min(700.0, -gamma * (iteration - step))))
            case _:
                return base

    def checked(iteration: int) -> float:
        try:
            value = rate(iteration)  # complex where a negative number has a fractional power
        except (OverflowError, ZeroDivisionError):
            value = math.nan
        if isinstance(value, complex) or not math.isfinite(value) or value < 0:
            raise message.fail(
                f"there is no learning rate for iteration {iteration}", "lr_policy",
                got=f"{policy}, base_lr {base}, gamma {gamma}, power {power}",
            )  # fmt: skip
        return float(value)

    return checked


# ── the network ──────────────────────────────────────────────────────────────────────────


def _phases(
    message: Message, path: Path, given: Path | None, find: Callable[[str], Path | None]
) -> tuple[str, str, dict[str, list[Message]], dict[str, tuple[Message, ...]]]:
    """File, name and layers by phase of the network that is trained and tested; at last the
    layers of further test nets, which differ from the first in what they read alone."""
    train_fields = ("net", "net_param", "train_net", "train_net_param")
    there = [f for f in train_fields if message.has(f)]
    if given is None and len(there) != 1:
        raise message.fail("a solver names one network to train", got=", ".join(there) or "none",
                           expected=", ".join(train_fields))  # fmt: skip
    train = _file(given) if given is not None else _net(message, path, there[0], find)
    phases = {"TRAIN": _selected(train, "TRAIN", message.sub("train_state"))}
    tests: list[Message] = []
    if given is None:
        tests = message.subs("test_net_param")
        for name in message.texts("test_net"):
            tests.append(_named(name, message, path, "test_net", find))
    states = message.subs("test_state")
    if given is not None or there[0] in ("net", "net_param"):
        # the network itself is tested as often as there are states or test_iter left for it
        wanted = max(len(states), len(message.integers("test_iter")), 1)
        tests += [train] * max(0, min(wanted, 100) - len(tests))
    if states and len(states) != len(tests):
        raise message.fail("a test_state for each test net", "test_state", got=len(states),
                           expected=len(tests))  # fmt: skip
    more: dict[str, tuple[Message, ...]] = {}
    for k, net in enumerate(tests):
        state = states[k] if states else message.sub("test_state")
        layers = _selected(net, "TEST", state)
        if k == 0:
            phases["TEST"] = layers
        elif _computed(layers) != _computed(phases["TEST"]):
            raise UnsupportedError(
                "test nets that differ in more than the data they read",
                where=message.place_of("test_state" if states else "test_net"),
            )
        else:
            more[f"TEST#{k + 1}"] = tuple(layers)
    return train.file, train.text("name"), phases, more


def _selected(net: Message, phase: str, state: Message) -> list[Message]:
    found = NetState.of(phase, net.sub("state"), state)
    return selected(layers_of(net), NetState(phase, found.level, found.stages))


def _computed(layers: Sequence[Message]) -> list[object]:
    """What the layers compute, without what they read."""
    aside = frozenset(("include", "exclude"))
    return [x.key(aside) for x in layers if x.text("type") not in DATA_LAYERS]


def _file(path: Path) -> Message:
    message = read_text(path, "NetParameter")
    if message.unknown:
        name, line = message.unknown[0]
        raise ImportModelError(f"no field {name!r:.80} in a network", where=f"{path.name}:{line}")
    return message


def _net(message: Message, path: Path, field: str, find: Callable[[str], Path | None]) -> Message:
    """A network by the name in a field, or written in the solver."""
    if field.endswith("_param"):
        return message.sub(field)
    return _named(message.text(field), message, path, field, find)


def _named(
    name: str, message: Message, path: Path, field: str, find: Callable[[str], Path | None]
) -> Message:
    found = find(name) or next(filter(None, map(find, _siblings(name, path))), None)
    if found is None:
        raise ImportModelError(
            f"the network is not in {path.parent.name or '.'}/", where=message.place_of(field),
            got=repr(name)[:200], hint="say where it is: --net FILE, or --root FOLDER",
        )  # fmt: skip
    return _file(found)


def _siblings(name: str, path: Path) -> Sequence[str]:
    """The network's file where files of several networks share a folder, under one prefix:
    ``alexnet_solver.prototxt`` has ``train_val.prototxt`` as ``alexnet_train_val.prototxt``."""
    prefix, mark, _ = path.stem.rpartition("solver")
    return [f"{prefix}{Path(name).name}"] if mark and prefix else []
