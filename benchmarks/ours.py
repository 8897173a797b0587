"""brickc as a peer, by its public API alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from networks import NETWORKS, examples, weights

__all__ = ["OPTIONS", "build", "set_parameters"]

#: what makes the zoo's networks those that the peers run
OPTIONS: dict[str, dict[str, Any]] = {"googlenet": {"dropout": False}}


def build(
    network: str, batch: int, mode: str, target: str, rate: float
) -> tuple[Callable[[], Any], Callable[[Any], list[float]]]:
    """(one step, its numbers to compare). Compiled for a range of batch sizes, this one the
    typical one, but for the very batch if it is smaller than a vector: the target then fills its
    lanes otherwise."""
    import brickc as bc

    size = batch if batch < 16 else bc.Dim("N", 1, max(1024, batch), batch)
    model = bc.zoo.model(network, batch=size, **OPTIONS.get(network, {}))
    function = "train_step" if mode == "train" else "infer"
    program = bc.compile(model, target=target, optimizer=bc.SGD(rate), functions=[function])
    set_parameters(program, network)
    x, t = examples(NETWORKS[network], batch)
    if mode == "train":
        return lambda: program.train_step(x=x, t=t), lambda out: [float(out["loss"])]
    return (
        lambda: program.infer(x=x),
        lambda out: [float(v) for v in np.asarray(out["logits"])[0, :10]],
    )


def set_parameters(program: Any, network: str) -> None:
    """The peers' first parameters, in the model's order. Raises ValueError if shapes differ."""
    names = program.parameters()
    values = weights(NETWORKS[network])
    shapes = {name: value.shape for name, value in names.items()}
    if list(shapes.values()) != [v.shape for v in values]:
        raise ValueError(f"{network}: the zoo's parameters are not the peers': {shapes}")
    program.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
