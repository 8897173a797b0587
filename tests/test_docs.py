"""Documentation that is generated from the code is up to date."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from brickc.frontends.caffe.table import CONVERTERS

DOCS = Path(__file__).parent.parent / "docs"


def test_ir_reference_is_not_stale() -> None:
    made = runpy.run_path(str(DOCS / "generate_reference.py"))["reference"]()
    assert (DOCS / "ir-reference.md").read_text(encoding="utf-8") == made, (
        "run: python docs/generate_reference.py"
    )


def test_every_layer_of_caffe_is_listed() -> None:
    text = (DOCS / "caffe.md").read_text(encoding="utf-8").partition("## Layers")[2]
    names = set(re.findall(r"[A-Z][A-Za-z0-9]+", text))
    assert set(CONVERTERS) <= names, "see docs/caffe.md"
