"""The table of torch's operators is what a run of them gives."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "torch-coverage.md"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "generate_torch_coverage.py"))


def count(text: str, what: str) -> int:
    found = re.search(rf"^\| {re.escape(what)} \| (\d+) \|$", text, re.M)
    assert found, what
    return int(found[1])


def test_enough_pass_and_none_is_wrong() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert count(text, "of these with gradients") >= 150
    assert count(text, "**wrong**") == 0


@pytest.mark.parametrize("name", ["lerp", "nn.functional.layer_norm", "cumsum"])
def test_some_entries(name: str, script: dict[str, Any]) -> None:
    text = script["coverage"](name)
    assert count(text, "**wrong**") == 0
    assert count(text, "unsupported") == 0
    assert f"`{name}`" in text


def test_wrong_numbers_are_seen(script: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself can fail: a converter that is off by a little is found."""
    from brickc.frontends.torch_export.table import CONVERTERS

    right = CONVERTERS["aten.sin.default"]

    def off(out: Any, x: Any) -> Any:
        return right(out, x) * (1 + 1e-7)

    monkeypatch.setitem(CONVERTERS, "aten.sin.default", off)
    text = script["coverage"]("sin")
    assert "- `sin`: float64, sample 0: output: off by" in text


@pytest.mark.slow
def test_the_page_is_not_stale(script: dict[str, Any]) -> None:
    written = PAGE.read_text(encoding="utf-8")
    version = script["version"]()
    if f"with torch {version};" not in written:
        pytest.skip(f"the page was written with another torch than {torch.__version__}")
    assert script["coverage"]() == written, "run: python docs/generate_torch_coverage.py"
