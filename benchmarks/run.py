"""Times brickc beside its peers: one process a peer, all alive, taking turns.

    python benchmarks/run.py --cases lenet5:64,mlp:64 --peers brickc-numpy,torch-eager,jax
    python benchmarks/run.py --mode infer --cases lenet5:1 --json out.json --markdown out.md

benchmarks/README.md says how it measures.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import Child, ChildError, Watch, available_cores, wait_for_quiet
from report import machine, markdown, write_json, write_text

#: in the table's order; brickc-… first, since the ratios are to the first of them
KNOWN = (
    "brickc-numpy", "brickc-c", "torch-eager", "torch-compile", "jax", "jax-nchw", "onnxruntime",
)  # fmt: skip
DEFAULT_PEERS = {
    "train": "brickc-numpy,torch-eager,torch-compile,jax",
    "infer": "brickc-numpy,torch-eager,torch-compile,jax,onnxruntime",
}
DEFAULT_CASES = {
    "train": "mlp:64,lenet5:64,lenet:64,alexnet:16",
    "infer": "mlp:1,lenet5:1,lenet:1,alexnet:1",
}
NETWORKS = ("mlp", "lenet5", "lenet", "alexnet", "overfeat", "vgg_a", "googlenet")

#: largest difference of losses or logits between peers, relative to the largest number
TOLERANCE = 1e-3


#: cores that others may use during a turn that counts as quiet
QUIET = 0.15


@dataclass(frozen=True)
class Turn:
    """The steps of one turn in seconds, and the cores that others used meanwhile."""

    seconds: list[float]
    others: float | None

    @property
    def quiet(self) -> bool:
        return self.others is None or self.others <= QUIET

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass
class Result:
    """What became of one peer in one case; times in seconds."""

    peer: str
    error: str = ""
    ready: dict[str, Any] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)

    @property
    def quiet(self) -> int:
        return sum(turn.quiet for turn in self.turns)

    @property
    def estimate(self) -> float:
        """Seconds of a step, to choose how many make a turn."""
        return min([float(self.ready["estimate_s"]), *(turn.median for turn in self.turns)])

    def as_dict(self) -> dict[str, Any]:
        """For the JSON. The figures are those of the quiet turns, or of all if none was."""
        found: dict[str, Any] = {"peer": self.peer, "error": self.error or None, **self.ready}
        chosen = [turn for turn in self.turns if turn.quiet] or self.turns
        times = sorted(t for turn in chosen for t in turn.seconds)
        if times and not self.error:
            found |= {
                "median_s": statistics.median(times),
                "p10_s": times[len(times) // 10],
                "p90_s": times[min(len(times) - 1, len(times) * 9 // 10)],
                "min_s": times[0],
                "steps": len(times),
                "turns": [
                    {"median_s": turn.median, "steps": len(turn.seconds), "others": turn.others}
                    for turn in self.turns
                ],
                "quiet_turns": self.quiet,
            }
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    # so that a polite kill, too, ends the children
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    document: dict[str, Any] = {
        "format": 1,
        "mode": options.mode,
        "threads": options.threads,
        "rounds": options.rounds,
        "turn_s": options.turn,
        "wait_policy": options.wait_policy,
        "machine": machine(),
        "cases": [],
    }
    failed = False
    for network, batch in options.cases:
        case = _measure(network, batch, options)
        document["cases"].append(case)
        failed |= any(row["error"] for row in case["results"])
        print(markdown({**document, "cases": [case]}), flush=True)
        # after every case, so that an interrupted run leaves what it has
        if options.json:
            write_json(options.json, document)
        if options.markdown:
            write_text(options.markdown, markdown(document))
    return 1 if failed else 0


def _measure(network: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    results = [Result(peer) for peer in options.peers]
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        live: list[tuple[Result, Child]] = []
        for result in results:
            if result.peer == "onnxruntime" and options.mode == "train":
                result.error = "no training step: onnxruntime only infers"
                continue
            _say(f"{network}:{batch} {options.mode}: building {result.peer}")
            try:
                child = stack.enter_context(
                    Child(
                        [result.peer, network, str(batch), options.mode, str(options.threads)],
                        threads=options.threads,
                        wait_policy=options.wait_policy,
                        scratch=Path(scratch) / result.peer,
                    )
                )
            except OSError as error:
                result.error = f"cannot be started: {error}"
                continue
            try:
                result.ready = child.receive(options.timeout)
                child.stop()
            except ChildError as error:
                result.error = str(error)
                child.end()  # one that was too slow would disturb the others
                continue
            live.append((result, child))
        _compare(results, network)
        live = [(result, child) for result, child in live if not result.error]
        number, patience = 0, options.patience
        # disturbed turns are made up for, within reason
        while number < 3 * options.rounds and any(
            not result.error and result.quiet < options.rounds for result, _ in live
        ):
            _say(f"{network}:{batch} {options.mode}: round {number + 1}")
            # another neighbour each round, so that nobody always follows the same peer
            first = number % len(live)
            number += 1
            for result, child in live[first:] + live[:first]:
                if result.error:
                    continue
                patience -= wait_for_quiet(QUIET, patience)
                try:
                    result.turns.append(_turn(child, result.estimate, options))
                except ChildError as error:
                    result.error = str(error)
    _say("")
    return {
        "network": network,
        "batch": batch,
        "mode": options.mode,
        "rounds": number,
        "load_average": os.getloadavg()[0],
        "results": [result.as_dict() for result in results],
    }


def _turn(child: Child, estimate: float, options: argparse.Namespace) -> Turn:
    """Wake the child, let it warm up untimed, time its steps, put it to sleep again."""
    steps = max(2, min(5000, round(options.turn / max(estimate, 1e-7))))
    watch = Watch(child)
    child.resume()
    try:
        # the peer before is held still, but clocks and caches settle
        time.sleep(0.005)
        reply = child.ask({"steps": steps, "lead_in": max(1, steps // 10)}, options.timeout)
    finally:
        child.stop()
    return Turn([float(t) for t in reply["seconds"]], watch.others())


def _compare(results: Sequence[Result], network: str) -> None:
    """Mark the peers whose first numbers are not those of the majority.

    Everyone starts from the same parameters and the same batch, so the first loss (or the
    logits) must agree, and the second loss too unless the zoo's rates differ by parameter.
    """
    count = 1 if network in ("lenet", "googlenet") else 2
    checked = [r for r in results if r.ready and not r.error]

    def near(a: Result, b: Result) -> bool:
        first = [v for check in a.ready["checks"][:count] for v in check]
        second = [v for check in b.ready["checks"][:count] for v in check]
        scale = max(map(abs, first + second))
        return len(first) == len(second) and all(
            abs(x - y) <= TOLERANCE * scale for x, y in zip(first, second, strict=True)
        )

    votes = {r.peer: sum(near(r, other) for other in checked) for r in checked}
    most = max(votes.values(), default=0)
    for result in checked:
        if votes[result.peer] < most or (most == 1 and len(checked) > 1):
            numbers = [round(v, 6) for v in result.ready["checks"][0][:3]]
            result.error = f"its numbers differ from the other peers': {numbers}"


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time brickc beside its peers.")
    parser.add_argument("--mode", choices=("train", "infer"), default="train")
    parser.add_argument("--cases", help="NETWORK:BATCH,… (default: the mode's four)")
    parser.add_argument("--peers", help=f"of {', '.join(KNOWN)}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--turn", type=float, default=0.25, help="seconds of one turn")
    parser.add_argument("--threads", type=int, default=available_cores(), help="for every peer")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one answer")
    parser.add_argument(
        "--patience", type=float, default=60.0,
        help="seconds a case may wait, in all, for other processes to be quiet",
    )  # fmt: skip
    parser.add_argument(
        "--wait-policy", choices=("default", "passive", "active"), default="default",
        help="OMP_WAIT_POLICY of every peer",
    )  # fmt: skip
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args(arguments)
    options.cases = [
        _case(parser, text) for text in (options.cases or DEFAULT_CASES[options.mode]).split(",")
    ]
    options.peers = list(dict.fromkeys((options.peers or DEFAULT_PEERS[options.mode]).split(",")))
    unknown = [peer for peer in options.peers if peer not in KNOWN]
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(KNOWN)}")
    if options.rounds < 1 or options.threads < 1 or options.turn <= 0:
        parser.error("--rounds, --threads and --turn are positive")
    if options.threads > available_cores():
        parser.error(f"--threads {options.threads}: only {available_cores()} cores")
    return options


def _case(parser: argparse.ArgumentParser, text: str) -> tuple[str, int]:
    network, _, batch = text.partition(":")
    if network not in NETWORKS or not batch.isdecimal() or int(batch) < 1:
        parser.error(f"no case {text!r}: NETWORK:BATCH with one of {', '.join(NETWORKS)}")
    return network, int(batch)


if __name__ == "__main__":
    sys.exit(main())
