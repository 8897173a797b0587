"""What the self-test's report says, as data: it travels as a file among a program's sources."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["SELF_TEST", "overall", "report_of", "results_of"]

#: the file that says which kernels were tested, at which sizes, and with which errors
SELF_TEST = "self_test.json"


def report_of(sources: Mapping[str, str | bytes]) -> dict[str, Any]:
    """The report among a program's sources; empty where the target builds nothing."""
    text = sources.get(SELF_TEST)
    return {} if text is None else dict(json.loads(text))


def overall(report: Mapping[str, Any], function: str) -> dict[str, Any] | None:
    """What the report says of one function as a whole; None if there is no report."""
    if not report:
        return None
    if not report["tested"]:
        return {"tested": False, "reason": report["reason"]}
    return {
        "tested": True,
        "sizes": report["sizes"][function],
        "kernels": report["kernels"][function],
        "tolerances": report["tolerances"],
    }


def results_of(
    report: Mapping[str, Any], function: str, kernels: Sequence[dict[str, Any]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each of the function's own kernels with what came of it; nothing if they were not tested.

    Copies of the arguments, which are tested too, come before them in the report.
    """
    found = report.get("results", {}).get(function)
    if found is None:
        return []
    return list(zip(kernels, found[len(found) - len(kernels) :], strict=True))
