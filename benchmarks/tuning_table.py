"""A table of choices to ship, made of what the tuner has remembered of a GPU.

    brickc compile zoo:alexnet --target triton:sm_90,tf32 -o /tmp/a --tune 300   # on the GPU
    python -m benchmarks.tuning_table sm_90

writes ``backends/triton/tables/sm_90.json`` from the files in the cache whose device is of that
architecture and whose kernels are of this brickc's text. Kernels for which the rules are fastest
are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from brickc.backends.trials import text_hash
from brickc.backends.triton.options import ARCHITECTURES
from brickc.backends.triton.tables import FOLDER, table_text
from brickc.ir.kernel.choices import Choice
from brickc.tuning import Memory, cache_folder


def collect(folder: Path, architecture: str) -> tuple[dict[str, str], dict[str, dict[str, Choice]]]:
    """What was measured with, and choices by precision that are faster than the rules'."""
    number = ARCHITECTURES[architecture].number
    code = text_hash(FOLDER.parent)
    measured: dict[str, str] = {}
    found: dict[str, dict[str, Choice]] = {}
    for path in sorted((folder / "tune").glob("triton-*.json")):
        environment = json.loads(path.read_text(encoding="utf-8"))["environment"]
        if not environment["device"].endswith(f"sm_{number}") or environment["code"] != code:
            continue
        memory = Memory(environment, folder)
        better = {key: e.choice for key, e in memory.entries.items()
                  if e.seconds < e.default_seconds}  # fmt: skip
        found.setdefault(environment["precision"], {}).update(better)
        measured = {k: environment[k] for k in ("device", "triton", "brickc") if k in environment}
    return measured, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architecture", choices=sorted(ARCHITECTURES))
    parser.add_argument("--cache", type=Path, default=cache_folder())
    parser.add_argument("--output", type=Path, default=None)
    given = parser.parse_args()
    measured, kernels = collect(given.cache, given.architecture)
    if not kernels:
        print(f"nothing measured on {given.architecture} with this brickc in {given.cache}",
              file=sys.stderr)  # fmt: skip
        return 1
    path = given.output or FOLDER / f"{given.architecture}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(table_text(given.architecture, measured, kernels), encoding="utf-8")
    print(f"{path}: {sum(map(len, kernels.values()))} kernels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
