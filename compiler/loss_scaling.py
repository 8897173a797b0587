"""Loss scaling: gradients that a half would lose are made larger, and divided again.

The loss is multiplied by a scale before it is differentiated, and the gradients of parameters are
divided by it in f32. Where one of them is not finite, something overflowed on the way: the step
leaves parameters and states as they were, and the scale shrinks. After a number of good steps it
grows. The scale is a state of the program, so no call waits for the host to look at gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from ..ir.brick import State
from ..ir.bricks.arithmetic import mul
from ..ir.bricks.convert import cast
from ..ir.builder import Builder, GraphValue, rewrite
from ..ir.dtypes import DType
from ..ir.graph import Graph
from ..ir.initializers import constant
from ..ir.origin import Origin
from ..ir.types import TensorType

__all__ = ["GOOD_STEPS", "SCALE", "SCALED", "LossScale", "scale_loss"]

#: the state that holds the scale; whoever runs the program may set it at any time
SCALE = "optimizer.loss_scale"
#: the state that counts the steps since the scale last changed
GOOD_STEPS = "optimizer.good_steps"
#: the output that is differentiated instead of the loss; joining the optimizer takes it away
SCALED = "loss/scaled"


@dataclass(frozen=True)
class LossScale:
    """How the scale starts and moves; all of it belongs to one optimizer.

    It starts as ``initial``, is multiplied by ``backoff`` after a step whose gradients are not
    finite, and by ``growth`` after ``interval`` finite ones in a row; it stays between ``least``
    and ``largest``. Powers of two cost no digits.

    Raises:  UsageError for numbers that make no sense
    Source:  Micikevicius et al., Mixed Precision Training, 2018; torch.amp.GradScaler
    """

    initial: float = 2.0**15
    interval: int = 2000
    growth: float = 2.0
    backoff: float = 0.5
    least: float = 1.0
    largest: float = 2.0**24

    def __post_init__(self) -> None:
        for name, fine, expected in (
            ("initial", self.least <= self.initial <= self.largest,
             f"{self.least} .. {self.largest}"),
            ("interval", self.interval >= 1, ">= 1"),
            ("growth", self.growth >= 1, ">= 1"),
            ("backoff", 0 < self.backoff <= 1, "0 < backoff <= 1"),
            ("least", self.least > 0, "> 0"),
            ("largest", self.largest < 2.0**128, "a number of f32"),
        ):  # fmt: skip
            if not fine:
                raise UsageError(f"the loss scale's {name} makes no sense",
                                 got=getattr(self, name), expected=expected)  # fmt: skip


def scale_loss(graph: Graph, loss: str, scaling: LossScale) -> Graph:
    """The graph with the scaled loss as the output ``SCALED``; the loss itself stays."""
    for name in (SCALE, SCALED):
        if name in graph.states or name in graph.parameters or name in graph.outputs:
            raise UsageError("loss scaling needs a name that is taken", got=name)
    new = rewrite(graph, lambda builder, node, operands: None, live_only=False)
    builder = Builder(new, Origin(note="loss scaling"))
    scale = builder.add(State(SCALE, TensorType(DType.F32), constant(scaling.initial)))
    value = builder.value(new.outputs[loss])
    scaled = mul(value, cast(scale, value.dtype))
    assert isinstance(scaled, GraphValue)
    new.outputs[SCALED] = scaled.id
    return new
