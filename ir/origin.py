"""Where a node came from: kept through every pass, down to a comment on its kernel."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Origin"]


@dataclass(frozen=True, slots=True)
class Origin:
    """A place in a frontend's source, or the rule that made the node.

    ``str`` gives ``lenet.prototxt:41 "sig1"`` or ``lenet.prototxt:41 "sig1" grad of %4``.
    """

    file: str = ""
    line: int = 0
    layer: str = ""
    note: str = ""

    def with_note(self, note: str) -> Origin:
        """The same place with a note added after the earlier ones."""
        joined = f"{self.note}, {note}" if self.note else note
        return Origin(self.file, self.line, self.layer, joined)

    def __str__(self) -> str:
        parts = []
        if self.file:
            parts.append(f"{self.file}:{self.line}")
        if self.layer:
            parts.append('"' + self.layer + '"')
        if self.note:
            parts.append(self.note)
        return " ".join(parts)
