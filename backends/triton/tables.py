"""Choices that came with brickc, measured on a GPU: ``tables/ARCHITECTURE.json``.

    {"format": 1, "architecture": "sm_90", "measured": {"device": …, "triton": …},
     "kernels": {PRECISION: {KERNEL_KEY: [["m", 128], ["n", 64], …]}}}

There is a table only where there was such a GPU to measure on. ``benchmarks/tuning_table.py`` makes
one of what a tuner has remembered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ...errors import InternalError
from ...ir.kernel.choices import Choice
from ..base import NO_CHOICES, Choices
from .options import Options

__all__ = ["FOLDER", "FORMAT", "read_table", "shipped", "table_text"]

FORMAT = 1

FOLDER = Path(__file__).parent / "tables"


def shipped(options: Options) -> Choices:
    """The table's choices for an architecture and precision; none if nothing was measured.

    A program that is compiled where it runs has no architecture yet, and no table.
    """
    if options.architecture is None:
        return NO_CHOICES
    return _table(FOLDER / f"{options.architecture.name}.json").get(options.precision, NO_CHOICES)


@cache
def _table(path: Path) -> Mapping[str, Choices]:
    return read_table(path) if path.is_file() else {}


def read_table(path: Path) -> Mapping[str, Choices]:
    """Precision -> kernel's key -> choice. Raises InternalError if it is no table of ours."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT or data["architecture"] != path.stem:
            raise ValueError("another format or architecture")
        return {
            str(precision): {str(key): _choice(values) for key, values in kernels.items()}
            for precision, kernels in data["kernels"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InternalError(f"{path} is no table of choices: {error!r}") from None


def _choice(values: object) -> Choice:
    if not isinstance(values, list):
        raise TypeError(f"{values!r} is no list of decisions")
    found = []
    for name, value in values:
        if not isinstance(name, str) or not isinstance(value, int | str):
            raise TypeError(f"{name!r}: {value!r} is no decision")
        found.append((name, value))
    return Choice(tuple(found))


def table_text(
    architecture: str, measured: Mapping[str, str], kernels: Mapping[str, Choices]
) -> str:
    """The text of a table; equal choices give equal bytes."""
    data = {
        "format": FORMAT,
        "architecture": architecture,
        "measured": dict(measured),
        "kernels": {
            precision: {key: [list(v) for v in c.values] for key, c in sorted(choices.items())}
            for precision, choices in sorted(kernels.items())
        },
    }
    return json.dumps(data, indent=1, sort_keys=True) + "\n"
