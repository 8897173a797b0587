"""What an exporter notes about initializers: which of them are weights.

torch's newer exporter folds constants into initializers, masks and scales among them. It leaves
notes: the parameters' names with the graph, and with each folded value what it was made of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["Signature"]

_SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"
_FOLDED = "pkg.onnxscript.optimizer.folded_from"
_PARAMETER = re.compile(r"PARAMETER target='([^']*)'")
_NAME = re.compile(r"'([^']*)'")


@dataclass(frozen=True)
class Signature:
    """Names of the parameters, as far as the file says, and what folded values are made of."""

    parameters: frozenset[str]
    made_of: Mapping[str, frozenset[str]]

    @staticmethod
    def of(graph: onnx.GraphProto) -> Signature:
        """What the graph's notes say; nothing if there are none."""
        # the field is newer than the oldest onnx package that brickc runs with
        notes = {p.key: p.value for p in getattr(graph, "metadata_props", ())}
        parameters = frozenset(_PARAMETER.findall(notes.get(_SIGNATURE, "")))
        made_of: dict[str, frozenset[str]] = {}
        for value in graph.value_info if parameters else ():
            for note in value.metadata_props:
                if note.key == _FOLDED:
                    made_of[value.name] = frozenset(_NAME.findall(note.value))
        return Signature(parameters, made_of)

    def is_constant(self, name: str) -> bool:
        """True for a value that was folded without any parameter. Without a note nothing is."""
        made_of = self.made_of.get(name)
        return made_of is not None and name not in self.parameters and not made_of & self.parameters
