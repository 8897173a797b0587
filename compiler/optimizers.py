"""Optimizers as data: their numbers, the states they keep, and the formula of one update.

To add one, write a frozen dataclass with ``states`` and ``update`` and put it in OPTIMIZERS.
The formulas are torch.optim's, term by term, unless a docstring says otherwise. Each new
value is one elementwise node, so that an update becomes one kernel.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import lru_cache

import sympy as sp

from ..errors import BrickcError, UsageError
from ..ir.brick import Parameter
from ..ir.bricks.arithmetic import div, equal, expm1, mul, neg, number, sqrt, where
from ..ir.bricks.elementwise import Map
from ..ir.bricks.source import constant as constant_value
from ..ir.expression import operand
from ..ir.initializers import Initializer, constant
from ..ir.value import Value
from .loss_scaling import LossScale

__all__ = ["OPTIMIZERS", "SGD", "AdaDelta", "AdaGrad", "Adam", "AdamW", "Optimizer", "RMSProp",
           "formula", "parse_optimizer"]  # fmt: skip

Values = Mapping[str, Value]

#: where a formula is known in two forms
_STYLES = ("torch", "caffe")

#: the letters of the formulas: parameter, gradient, old and new states, and ``hyper``'s scalars
W, G, M, V, A, N = sp.symbols("w g m v a n", real=True)
LR, STEP, RATE, ROOT, SHARE = sp.symbols("lr step rate root share", real=True)


def formula(expr: sp.Expr, **values: Value) -> Value:
    """An expression as one elementwise node; its symbols are the names of the values."""
    positional, used = _positional(expr, tuple(values))
    return values[used[0]].apply(Map(positional, len(used)), *(values[name] for name in used))


@lru_cache(maxsize=1024)
def _positional(expr: sp.Expr, names: tuple[str, ...]) -> tuple[sp.Expr, tuple[str, ...]]:
    """The expression in x0, x1, …, and the names that they stand for."""
    free = {symbol.name: symbol for symbol in expr.free_symbols}
    used = tuple(name for name in names if name in free)
    return expr.xreplace({free[name]: operand(k) for k, name in enumerate(used)}), used


@dataclass(frozen=True)
class Optimizer(ABC):
    """What all have in common.

    ``lr`` is where the learning rate starts; programs keep it in the state ``optimizer.lr``,
    which schedules set between steps. ``weight_decay`` is multiplied by a parameter's
    ``decay_scale``, the learning rate by its ``lr_scale``. ``clip_norm`` bounds the norm of
    all gradients together before anything else: g · min(1, clip_norm/(‖g‖ + 1e-6)), as
    torch.nn.utils.clip_grad_norm_ does; with ``clip_style="caffe"`` g · min(1, clip_norm/‖g‖).
    ``regularization`` is "l2", which adds λ·w to the gradient, or "l1", which adds λ·sign(w).
    ``accumulate`` makes a step out of that many calls: gradients are added up, clipped, divided
    by their number, and parameters move in the last call alone (Caffe's ``iter_size``).
    ``loss_scale`` multiplies the loss before it is differentiated, and leaves out steps whose
    gradients are not finite; targets that keep halves of f16 scale with or without it.

    Raises:  UsageError for numbers that make no sense
    """

    lr: float
    weight_decay: float = field(default=0.0, kw_only=True)
    clip_norm: float | None = field(default=None, kw_only=True)
    clip_style: str = field(default="torch", kw_only=True)
    regularization: str = field(default="l2", kw_only=True)
    accumulate: int = field(default=1, kw_only=True)
    loss_scale: LossScale | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _require(self.lr >= 0, "lr", self.lr, ">= 0")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, ">= 0")
        if self.clip_norm is not None:
            _require(self.clip_norm > 0, "clip_norm", self.clip_norm, "> 0")
        _require(self.clip_style in _STYLES, "clip_style", self.clip_style, "torch or caffe")
        known = self.regularization in ("l1", "l2")
        _require(known, "regularization", self.regularization, "l1 or l2")
        _require(self.accumulate >= 1, "accumulate", self.accumulate, ">= 1")

    @property
    def counts_steps(self) -> bool:
        """True if ``hyper`` must hold ``step``: 1 in the first step, 2 in the second …"""
        return False

    def states(self, leaf: Parameter) -> dict[str, Initializer]:
        """The states kept for a parameter, each of its shape: name -> first value."""
        return {}

    def prepare(self, hyper: Values) -> Values:
        """Scalars that are computed once a step and serve all parameters.

        ``hyper`` holds ``lr`` and, if ``counts_steps``, ``step``, in the parameters' dtype.
        """
        return hyper

    @abstractmethod
    def update(
        self, parameter: Value, gradient: Value, states: Values, hyper: Values, leaf: Parameter
    ) -> tuple[Value, Values]:
        """The parameter's and its states' new values; ``hyper`` is what ``prepare`` made."""

    def gradient(self, leaf: Parameter) -> sp.Expr:
        """The gradient with regularisation: g + λ·w, or g + λ·sign(w)."""
        share = number(self.weight_decay * leaf.decay_scale)
        if self.regularization == "l1":
            return G + share * sp.Piecewise((1, W > 0), (-1, W < 0), (0, True))
        return G + share * W


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    ``style="torch"``: v ← μ·v + (1-dampening)·g, w ← w - lr·v; in the first step v ← g.
    With nesterov w ← w - lr·(g + μ·v).
    ``style="caffe"``: v ← μ·v + lr·g, w ← w - v; with nesterov w ← w - ((1+μ)·v - μ·v_old).
    The two differ when the learning rate changes between steps: Caffe's v remembers the old
    rate, torch's does not.

    Source:  torch.optim.SGD; caffe/solvers/sgd_solver.cpp and nesterov_solver.cpp
    """

    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0
    style: str = "torch"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "0 <= momentum < 1")
        _require(0 <= self.dampening <= 1, "dampening", self.dampening, "0 <= dampening <= 1")
        _require(self.style in ("torch", "caffe"), "style", self.style, "torch or caffe")
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise UsageError(
                "nesterov needs a momentum and no dampening",
                got=f"momentum={self.momentum}, dampening={self.dampening}",
            )
        if self.style == "caffe" and self.dampening != 0:
            raise UsageError("Caffe's SGD has no dampening", got=self.dampening, expected=0)

    @property
    def counts_steps(self) -> bool:
        return self.dampening != 0 and self.momentum != 0

    def states(self, leaf: Parameter) -> dict[str, Initializer]:
        return {"momentum": constant(0.0)} if self.momentum else {}

    def prepare(self, hyper: Values) -> Values:
        if not self.counts_steps:
            return hyper
        step = hyper["step"]
        first = constant_value(step, 1.0, step.dtype)
        later = constant_value(step, 1.0 - self.dampening, step.dtype)
        return {**hyper, "share": where(equal(step, 1.0), first, later)}

    def update(
        self, parameter: Value, gradient: Value, states: Values, hyper: Values, leaf: Parameter
    ) -> tuple[Value, Values]:
        g, mu, lr = self.gradient(leaf), number(self.momentum), LR * number(leaf.lr_scale)
        known = {"w": parameter, "g": gradient, **hyper}
        if not self.momentum:
            return formula(W - lr * g, **known), {}
        known["v"] = states["momentum"]
        if self.style == "caffe":
            known["n"] = formula(mu * V + lr * g, **known)
            change = (1 + mu) * N - mu * V if self.nesterov else N
        else:
            known["n"] = formula(mu * V + (SHARE * g if "share" in hyper else g), **known)
            change = lr * (g + mu * N if self.nesterov else N)
        return formula(W - change, **known), {"momentum": known["n"]}


@dataclass(frozen=True)
class Adam(Optimizer):
    """m ← β1·m + (1-β1)·g, v ← β2·v + (1-β2)·g²,
    w ← w - lr/(1-β1^t) · m / (sqrt(v)/sqrt(1-β2^t) + eps); weight decay is L2.
    ``style="caffe"``: w ← w - lr·sqrt(1-β2^t)/(1-β1^t) · m / (sqrt(v) + eps).

    Source:  Kingma and Ba, 2015, in the form of torch.optim.Adam; caffe/solvers/adam_solver.cpp
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    style: str = "torch"

    def __post_init__(self) -> None:
        super().__post_init__()
        fine = all(0 <= beta < 1 for beta in self.betas)
        _require(fine, "betas", self.betas, "two numbers, 0 <= beta < 1")
        _require(self.eps >= 0, "eps", self.eps, ">= 0")
        _require(self.style in _STYLES, "style", self.style, "torch or caffe")

    @property
    def counts_steps(self) -> bool:
        return True

    def states(self, leaf: Parameter) -> dict[str, Initializer]:
        return {"exp_avg": constant(0.0), "exp_avg_sq": constant(0.0)}

    def prepare(self, hyper: Values) -> Values:
        first, second = (_one_minus_power(beta, hyper["step"]) for beta in self.betas)
        return {"lr": hyper["lr"], "rate": div(hyper["lr"], first), "root": sqrt(second)}

    def update(
        self, parameter: Value, gradient: Value, states: Values, hyper: Values, leaf: Parameter
    ) -> tuple[Value, Values]:
        known = {"w": parameter, "g": gradient, **hyper}
        return self._step(W, self.gradient(leaf), known, states, leaf)

    def _step(
        self, w: sp.Expr, g: sp.Expr, known: dict[str, Value], states: Values, leaf: Parameter
    ) -> tuple[Value, Values]:
        beta1, beta2 = self.betas
        known |= {"m": states["exp_avg"], "v": states["exp_avg_sq"]}
        m = formula(number(beta1) * M + number(1.0 - beta1) * g, **known)
        v = formula(number(beta2) * V + number(1.0 - beta2) * g**2, **known)
        known |= {"m": m, "v": v}
        if self.style == "caffe":
            direction = M * ROOT / (sp.sqrt(V) + number(self.eps))
        else:
            direction = M / (sp.sqrt(V) / ROOT + number(self.eps))
        new = formula(w - RATE * number(leaf.lr_scale) * direction, **known)
        return new, {"exp_avg": m, "exp_avg_sq": v}


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay: w ← w - lr·λ·w first, and no L2 term.

    The default of ``weight_decay`` is 0; torch.optim.AdamW's is 0.01.

    Source:  Loshchilov and Hutter, 2019, in the form of torch.optim.AdamW
    """

    def update(
        self, parameter: Value, gradient: Value, states: Values, hyper: Values, leaf: Parameter
    ) -> tuple[Value, Values]:
        decay = number(self.weight_decay * leaf.decay_scale) * LR * number(leaf.lr_scale)
        known = {"w": parameter, "g": gradient, **hyper}
        return self._step(W * (1 - decay), G, known, states, leaf)


@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """s ← s + g², w ← w - lr·g/(sqrt(s) + eps).

    Source:  Duchi, Hazan and Singer, 2011, in the form of torch.optim.Adagrad
    """

    eps: float = 1e-10
    lr_decay: float = 0.0
    initial: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("eps", "lr_decay", "initial"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), ">= 0")

    @property
    def counts_steps(self) -> bool:
        return self.lr_decay != 0

    def states(self, leaf: Parameter) -> dict[str, Initializer]:
        return {"sum": constant(self.initial)}

    def prepare(self, hyper: Values) -> Values:
        if not self.lr_decay:
            return hyper
        slower = 1 + (STEP - 1) * number(self.lr_decay)
        return {"lr": formula(LR / slower, lr=hyper["lr"], step=hyper["step"])}

    def update(
        self, parameter: Value, gradient: Value, states: Values, hyper: Values, leaf: Parameter
    ) -> tuple[Value, Values]:
        g, lr = self.gradient(leaf), LR * number(leaf.lr_scale)
        known = {"w": parameter, "g": gradient, **hyper, "v": states["sum"]}
        known["n"] = formula(V + g**2, **known)
        new = formula(W - lr * g / (sp.sqrt(N) + number(self.eps)), **known)
        return new, {"sum": known["n"]}


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """s ← α·s + (1-α)·g², w ← w - lr·g/(sqrt(s) + eps).

    ``centered``: sqrt(s - mean²), with a running mean of g. ``momentum``: u ← μ·u + g/(…),
    w ← w - lr·u.

    Source:  Tieleman and Hinton, 2012, in the form of torch.optim.RMSprop
    """

    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 <= self.alpha < 1, "alpha", self.alpha, "0 <= alpha < 1")
        _require(self.eps >= 0, "eps", self.eps, ">= 0")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "0 <= momentum < 1")

    def states(self, leaf: Parameter) -> dict[str, Initializer]:
        names = ["square_avg"]
        names += ["grad_avg"] if self.centered else []
        names += ["momentum"] if self.momentum else []
        return {name: constant(0.0) for name in names}

    def update(
        self, parameter: Value, gradient: Value, states: Values, hyper: Values, leaf: Parameter
    ) -> tuple[Value, Values]:
        g, lr = self.gradient(leaf), LR * number(leaf.lr_scale)
        keep, take = number(self.alpha), number(1.0 - self.alpha)
        known = {"w": parameter, "g": gradient, **hyper, "v": states["square_avg"]}
        known["n"] = formula(keep * V + take * g**2, **known)
        after = {"square_avg": known["n"]}
        inside = N
        if self.centered:
            known["a"] = states["grad_avg"]
            known["a"] = after["grad_avg"] = formula(keep * A + take * g, **known)
            # rounding may leave a small negative number where g hardly changes
            inside = sp.Piecewise((N - A**2, N > A**2), (0, True))
        change = g / (sp.sqrt(inside) + number(self.eps))
        if self.momentum:
            known["m"] = states["momentum"]
            known["m"] = after["momentum"] = formula(number(self.momentum) * M + change, **known)
            change = M
        return formula(W - lr * change, **known), after


@dataclass(frozen=True)
class AdaDelta(Optimizer):
    """s ← ρ·s + (1-ρ)·g², d = g·sqrt((u + eps)/(s + eps)), u ← ρ·u + (1-ρ)·d², w ← w - lr·d.

    Source:  Zeiler, 2012; caffe/solvers/adadelta_solver.cpp and torch.optim.Adadelta, which agree
    """

    rho: float = 0.9
    eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 <= self.rho < 1, "rho", self.rho, "0 <= rho < 1")
        _require(self.eps > 0, "eps", self.eps, "> 0")

    def states(self, leaf: Parameter) -> dict[str, Initializer]:
        return {"square_avg": constant(0.0), "acc_delta": constant(0.0)}

    def update(
        self, parameter: Value, gradient: Value, states: Values, hyper: Values, leaf: Parameter
    ) -> tuple[Value, Values]:
        g, lr, eps = self.gradient(leaf), LR * number(leaf.lr_scale), number(self.eps)
        keep, take = number(self.rho), number(1.0 - self.rho)
        known = {"w": parameter, "g": gradient, **hyper, "v": states["square_avg"],
                 "a": states["acc_delta"]}  # fmt: skip
        known["n"] = formula(keep * V + take * g**2, **known)
        known["m"] = formula(g * sp.sqrt((A + eps) / (N + eps)), **known)
        after = {"square_avg": known["n"], "acc_delta": formula(keep * A + take * M**2, **known)}
        return formula(W - lr * M, **known), after


def _one_minus_power(beta: float, step: Value) -> Value:
    """1 - beta^step with all its digits: in f32, 1 - 0.999 alone would lose four of seven."""
    if beta == 0:
        return constant_value(step, 1.0, step.dtype)
    return neg(expm1(mul(step, math.log(beta))))


def _require(condition: bool, name: str, got: object, expected: str) -> None:
    if not condition:  # also for NaN, which no comparison holds for
        raise UsageError(f"the optimizer's {name} makes no sense", got=got, expected=expected)


# ── text ─────────────────────────────────────────────────────────────────────────────────

#: name on the command line -> class
OPTIMIZERS: Mapping[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "adadelta": AdaDelta,
    "adagrad": AdaGrad,
    "rmsprop": RMSProp,
}


def parse_optimizer(text: str) -> Optimizer:
    """The optimizer of a text such as ``sgd:lr=0.1,momentum=0.9,nesterov=true``.

    A pair of numbers is written with a slash: ``adam:lr=0.001,betas=0.9/0.999``, and so is a
    loss scale, where it starts and how many finite steps make it grow: ``loss_scale=1024/2000``.
    Raises UsageError that names what was not understood.
    """
    name, _, rest = text.strip().partition(":")
    kind = OPTIMIZERS.get(name.strip().lower())
    if kind is None:
        raise UsageError(
            "unknown optimizer", got=repr(name)[:60], expected=", ".join(OPTIMIZERS),
            hint="for example sgd:lr=0.1,momentum=0.9",
        )  # fmt: skip
    known = {f.name: f for f in fields(kind)}
    given: dict[str, object] = {}
    for part in filter(None, (p.strip() for p in rest.split(","))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if key not in known or not equals:
            raise UsageError(
                f"{name} has no such option", got=repr(part)[:60],
                expected=", ".join(f"{k}=…" for k in known),
            )  # fmt: skip
        if key in given:
            raise UsageError(f"{name}: {key} is given twice", got=repr(text)[:120])
        given[key] = _value(str(known[key].type), f"{name}: {key}", value)
    missing = [k for k, f in known.items() if f.default is MISSING and k not in given]
    if missing:
        raise UsageError(
            f"{name} needs {', '.join(missing)}", got=repr(text)[:120], hint=f"{name}:lr=0.01"
        )
    try:
        return kind(**given)  # type: ignore[arg-type]
    except BrickcError as error:
        raise error.at(repr(text)[:120]) from None


def _value(type: str, where: str, text: str) -> object:
    """The text as a value of a field's type. The fields' types are strings here."""
    try:
        match type:
            case "str":
                return text
            case "int":
                return int(text)
            case "bool":
                return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
            case "tuple[float, float]":
                first, second = text.split("/")
                return _number(first), _number(second)
            case "LossScale | None":
                first, _, second = text.partition("/")
                interval = int(second) if second else LossScale.interval
                return LossScale(_number(first), interval)
            case _:
                return _number(text)
    except (ValueError, KeyError):
        form = {
            "bool": "true or false",
            "int": "a whole number",
            "tuple[float, float]": "two numbers: 0.9/0.999",
            "LossScale | None": "a scale and a number of steps: 32768/2000",
        }
        raise UsageError(
            f"{where} is not understood", got=repr(text)[:60], expected=form.get(type, "a number")
        ) from None


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
