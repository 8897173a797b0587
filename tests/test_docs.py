"""Documentation that is generated from the code is up to date."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_ir_reference_is_not_stale() -> None:
    made = runpy.run_path(str(DOCS / "generate_reference.py"))["reference"]()
    assert (DOCS / "ir-reference.md").read_text(encoding="utf-8") == made, (
        "run: python docs/generate_reference.py"
    )
