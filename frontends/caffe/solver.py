"""Solvers: what a solver prototxt says about training.

Source: caffe/solver.cpp and caffe/solvers/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...compiler.optimizers import SGD, AdaDelta, AdaGrad, Adam, Optimizer, RMSProp
from ...errors import BrickcError, ImportModelError, UnsupportedError, UsageError
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
    test_iter: int = 0
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
    and network name (default: the solver's folder).
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
    find = finder(root or path.parent)
    for given in message.texts("weights"):
        if weights is None:
            weights = find(given)
            if weights is None:
                raise message.fail("the weights are not there", "weights", got=repr(given)[:100])

    def load(example: tuple[int, ...] | None, shapes: Mapping[str, tuple[int, ...]]) -> Imported:
        settings = Settings(find, shapes, example)
        file, name, phases = _phases(message, path, net, find)
        return with_weights(build(file, name, phases, settings), weights)

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
    tests = message.integers("test_iter")
    if len(tests) > 1:
        raise UnsupportedError("a solver with more than one test net", where=message.place_of(
            "test_iter"), got=f"{len(tests)} test_iter")  # fmt: skip
    if tests and tests[0] < 0:
        raise message.fail("test_iter is negative", "test_iter", got=tests[0])
    prefix = Path(message.text("snapshot_prefix")).name or path.stem
    return Plan(
        max_iter=message.integer("max_iter"),
        iter_size=message.integer("iter_size"),
        test_iter=tests[0] if tests else 0,
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
) -> tuple[str, str, dict[str, list[Message]]]:
    """File, name and layers by phase of the network that is trained and tested."""
    train_fields = ("net", "net_param", "train_net", "train_net_param")
    there = [f for f in train_fields if message.has(f)]
    if given is None and len(there) != 1:
        raise message.fail("a solver names one network to train", got=", ".join(there) or "none",
                           expected=", ".join(train_fields))  # fmt: skip
    for field in ("test_net", "test_net_param", "test_state"):
        if len(message.values.get(field, ())) > 1:
            raise UnsupportedError("a solver with more than one test net",
                                   where=message.place_of(field))  # fmt: skip
    states = {"TRAIN": message.sub("train_state"), "TEST": message.sub("test_state")}
    train = _file(given) if given is not None else _net(message, path, there[0], find)
    test = train
    if given is None:
        for field in ("test_net_param", "test_net"):
            if message.has(field):
                test = _net(message, path, field, find)
        if there[0].startswith("train_net") and test is train:
            states.pop("TEST")
    phases = {}
    for phase, state in states.items():
        whole = train if phase == "TRAIN" else test
        own = whole.sub("state")
        found = NetState.of(phase, own, state)
        phases[phase] = selected(layers_of(whole), NetState(phase, found.level, found.stages))
    return train.file, train.text("name"), phases


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
    name = message.text(field)
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
