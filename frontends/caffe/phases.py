"""Which layers take part: phases, levels and stages.

Source: Net::StateMeetsRule of Caffe
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .message import Message

__all__ = ["NetState", "selected"]


@dataclass(frozen=True)
class NetState:
    """What rules are compared with: TRAIN or TEST, a level, some stages."""

    phase: str = "TEST"
    level: int = 0
    stages: tuple[str, ...] = ()

    @staticmethod
    def of(phase: str, *messages: Message) -> NetState:
        """The phase, with levels and stages of NetState messages; later ones go before."""
        level = 0
        found: tuple[str, ...] = ()
        for message in messages:
            phase = message.text("phase") if message.has("phase") else phase
            level = message.integer("level") if message.has("level") else level
            found += tuple(s for s in message.texts("stage") if s not in found)
        return NetState(phase, level, found)

    def meets(self, rule: Message) -> bool:
        """True if every condition of the rule holds."""
        if rule.has("phase") and rule.text("phase") != self.phase:
            return False
        if rule.has("min_level") and self.level < rule.integer("min_level"):
            return False
        if rule.has("max_level") and self.level > rule.integer("max_level"):
            return False
        if any(stage not in self.stages for stage in rule.texts("stage")):
            return False
        return all(stage not in self.stages for stage in rule.texts("not_stage"))


def selected(layers: Sequence[Message], state: NetState) -> list[Message]:
    """The layers of a net in that state. Raises ImportModelError for rules of both kinds."""
    kept = []
    for layer in layers:
        include, exclude = layer.subs("include"), layer.subs("exclude")
        if include and exclude:
            raise layer.fail("a layer has rules to include or to exclude it, not both")
        taken = not any(map(state.meets, exclude)) if not include else any(
            map(state.meets, include)
        )  # fmt: skip
        if taken:
            kept.append(layer)
    return kept
