"""The public ONNX backend suite, and the table that says what of it passes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from onnx_suite import Verdict, judge_all, table

ROOT = Path(__file__).resolve().parent.parent.parent.parent
TABLE = ROOT / "docs" / "onnx-coverage.md"


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    return judge_all()


@pytest.mark.slow
def test_nothing_is_wrong(verdicts: list[Verdict]) -> None:
    wrong = [f"{v.case.name}: {v.reason[:300]}" for v in verdicts if v.result == "wrong"]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_enough_passes(verdicts: list[Verdict]) -> None:
    assert len(verdicts) >= 2000
    assert Counter(v.result for v in verdicts)["pass"] >= 1400


@pytest.mark.slow
def test_training_domain_passes(verdicts: list[Verdict]) -> None:
    training = [v for v in verdicts if any("training." in o for o in v.case.operators)]
    assert len(training) == 9
    assert all(v.result == "pass" for v in training)


@pytest.mark.slow
def test_table_is_fresh(verdicts: list[Verdict]) -> None:
    text = TABLE.read_text(encoding="utf-8")
    assert text == table(verdicts), "stale: python docs/generate_onnx_coverage.py"
