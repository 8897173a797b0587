"""One peer in a process of its own, told over a pipe when to run.

Started by run.py as ``child.py PEER NETWORK BATCH MODE THREADS``. It answers every line of
JSON on standard input with one on standard output: first, unasked, what it is; then the
seconds of each step of a turn. Whatever the frameworks print goes to standard error.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from typing import Any

from processes import die_with_parent, pin


def main() -> None:
    die_with_parent()
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()

    try:
        _serve(sys.argv[1:], answer)
    except Exception as error:
        traceback.print_exc()
        text = str(error).strip().splitlines()
        answer({"error": f"{type(error).__name__}: {text[0] if text else 'no message'}"})
        sys.exit(1)


def _serve(arguments: list[str], answer: Any) -> None:
    name, network, batch, mode, threads = arguments
    pin(int(threads))
    started = time.perf_counter()
    from peers import PEERS, Case, versions

    peer = PEERS[name]
    case = Case(network, int(batch), mode, int(threads))
    peer.load(case.threads)
    loaded = time.perf_counter()
    step = peer.build(case)
    value = step.run()
    built = time.perf_counter()
    checks = [step.read(value), step.read(step.run())]

    # the first steps still page in memory and fill caches: a good while, then an estimate
    seconds: list[float] = []
    until = time.perf_counter() + 0.5
    while len(seconds) < 3 or (time.perf_counter() < until and len(seconds) < 500):
        before = time.perf_counter()
        step.run()
        seconds.append(time.perf_counter() - before)
    answer({
        "import_s": loaded - started,
        "compile_s": built - loaded,
        "checks": checks,
        "estimate_s": sorted(seconds)[len(seconds) // 2],
        "versions": versions(peer),
    })  # fmt: skip

    gc.collect()
    gc.disable()
    clock = time.perf_counter
    for line in sys.stdin:
        order = json.loads(line)
        for _ in range(order["lead_in"]):
            step.run()
        times: list[float] = []
        for _ in range(order["steps"]):
            before = clock()
            step.run()
            times.append(clock() - before)
        answer({"seconds": times})
        gc.collect()


if __name__ == "__main__":
    main()
