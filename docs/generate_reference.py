"""Writes docs/ir-reference.md from the catalogue: `python docs/generate_reference.py`."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from pathlib import Path

from brickc.ir.brick import Brick, Composite, ModeDependent, View
from brickc.ir.bricks import CATALOGUE
from brickc.ir.bricks.elementwise import Elementwise

TARGET = Path(__file__).parent / "ir-reference.md"

HEAD = """# IR reference

Generated from the catalogue by `python docs/generate_reference.py`; a test fails when it is stale.

A graph is text with one node a line:

    %4: f32[N,10] = logistic(%3) {attribute=value, …}  # file:line "layer" note

Kinds: *elementwise* bricks are a formula and nothing more; *views* share memory where strides
allow; *composites* stand for other bricks; *by mode* means one thing in training and another in
inference.
"""


def kind(brick: type[Brick]) -> str:
    """The family that a brick belongs to by its base class."""
    for base, name in (
        (Elementwise, "elementwise"),
        (View, "view"),
        (Composite, "composite"),
        (ModeDependent, "by mode"),
    ):
        if issubclass(brick, base):
            return name
    return "brick"


def entry(mnemonic: str, brick: type[Brick]) -> str:
    """One brick's section."""
    attributes = [
        f"`{f.name}: {f.type}`" + ("" if f.default is MISSING else f" = {f.default!r}")
        for f in fields(brick)
        if f.init
    ]
    lines = [f"## `{mnemonic}`", "", f"*{kind(brick)}*"]
    formula = getattr(brick, "formula", None)
    if formula is not None:
        lines[-1] += f" · y = `{formula}`"
    if attributes:
        lines += ["", "Attributes: " + ", ".join(attributes)]
    lines += ["", "```", inspect.cleandoc(brick.__doc__ or ""), "```"]
    return "\n".join(lines)


def reference() -> str:
    """The whole page."""
    parts = [entry(m, b) for m, b in sorted(CATALOGUE.items())]
    return HEAD + "\n" + "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
