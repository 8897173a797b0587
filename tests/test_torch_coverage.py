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
HINT = "run: python docs/generate_torch_coverage.py"


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


#: the database in parts, which workers share; neighbours are alike, so every part has some of each
PARTS = 12


@pytest.fixture(scope="module")
def written(script: dict[str, Any]) -> str:
    text = PAGE.read_text(encoding="utf-8")
    if f"with torch {script['version']()};" not in text:
        pytest.skip(f"the page was written with another torch than {torch.__version__}")
    return text


def test_the_page_has_every_entry_once(script: dict[str, Any], written: str) -> None:
    """And says nothing else than what it says of the entries: the whole text follows from that."""
    names = [name for name, _ in script["operators"]()]
    assert len(set(names)) == len(names)
    said = script["stated"](written)
    assert said.keys() == set(names)
    found = []
    for name in names:
        entry = script["Entry"](name, passed=1)
        if said[name].startswith("|"):
            _, _, samples, why, _ = said[name].split("|")
            entry.passed, total = (int(n) for n in samples.split(" of "))
            entry.refused = total - entry.passed
            entry.reasons[why.strip()] += 1
        entry.gradients = said[name] == "with gradients"
        found.append(entry)
    assert script["page"](found) == written, HINT


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_the_page_is_not_stale(part: int, script: dict[str, Any], written: str) -> None:
    said = script["stated"](written)
    entries = script["entries"](lambda number, name: number % PARTS == part)
    assert len(entries) >= len(said) // PARTS
    for entry in entries:
        assert not entry.wrong, entry
        found = script["row"](entry)
        if entry.verdict == "pass":
            found = "with gradients" if entry.gradients else "without"
        assert found == said[entry.name], HINT
