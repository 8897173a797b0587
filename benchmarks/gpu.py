"""Whole training steps on a GPU: checks brickc there, then times it beside its peers.

    python benchmarks/gpu.py --json gpu.json --markdown gpu.md        # all of it, within 9 minutes
    python benchmarks/gpu.py --cases lenet5:64,mlp:128 --peers brickc-tf32,torch-graph
    python benchmarks/gpu.py --cases lenet5:64 --peers brickc-tf32-launches,brickc-tf32-x8
    python benchmarks/gpu.py --check-only

Needs python, torch, triton, numpy, sympy, networkx and this checkout; JAX if it is there. A
process of its own for every peer and case; results are written after each, and an existing
``--json`` is added to. benchmarks/README.md says what is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from report import machine, write_json, write_text

ROOT = Path(__file__).resolve().parent.parent
CASES = "lenet5:64,mlp:128,alexnet:128,lenet:64,lenet5:1024,googlenet:128,vgg_a:64,overfeat:128"
PEERS = (
    "brickc-tf32", "brickc-f32", "torch-compile", "torch-eager", "torch-graph",
    "torch-max-autotune", "jax",
)  # fmt: skip
RATE, MOMENTUM = 1e-4, 0.9

#: the floor's rates on an H100: operations a second by precision, bytes a second
RATES = {"tf32": 400e12, "f32": 60e12, "bf16": 800e12, "f16": 800e12}
BYTES = 3.0e12

#: largest relative difference of first losses that rounding to tf32 explains
SAME = 1e-2

#: what is compared on the device with brickc's NumPy backend in float64: network, batch
CHECKED = (("mlp", 8), ("lenet5", 4), ("lenet", 4), ("alexnet2012", 2))
#: relative error of losses, and of parameters after some steps, by precision
ALLOWED = {"f32": (1e-4, 1e-4), "tf32": (1e-2, 2e-2), "bf16": (5e-2, 5e-2), "f16": (1e-2, 2e-2)}


#: seconds that a check and a peer may take; Triton's interpreter is slow
LIMITS = {"cuda": (60, 120), "cpu": (300, 300)}

#: what compute-sanitizer ends with if it found something
FOUND = 86


# -- a peer's process ------------------------------------------------------------------------------


def see_the_checkout() -> None:
    """Make ``import brickc`` find this checkout, whatever its folder is called."""
    folder = tempfile.mkdtemp(prefix="brickc-checkout-")
    os.symlink(ROOT, os.path.join(folder, "brickc"))
    sys.path.insert(0, folder)


def batch_of(network: str, batch: int) -> tuple[Any, Any]:
    """The peers' common examples."""
    from networks import NETWORKS, examples

    return examples(NETWORKS[network], batch)


def brickc_step(network: str, batch: int, precision: str, *more: str) -> dict[str, Any]:
    """One step as the device does it: inputs are there, the loss stays there.

    ``more`` may hold a form, launches or persistent, and "x8": 8 steps a launch.
    """
    import numpy as np
    from ours import OPTIONS, set_parameters

    import brickc as bc
    from brickc.ir.dims import hint

    at_once = max([int(word[1:]) for word in more if word[0] == "x"], default=1)
    target = ",".join([f"triton:{precision}", *(word for word in more if word[0] != "x")])
    options = OPTIONS.get(network, {})
    model = bc.zoo.model(network, batch=bc.Dim("N", 1, max(1024, batch), batch), **options)
    program = bc.compile(
        model, target, optimizer=bc.SGD(RATE, momentum=MOMENTUM), functions=["train_step"],
        steps_per_launch=at_once,
    )  # fmt: skip
    set_parameters(program, network)
    x, t = batch_of(network, batch)
    loss = float(program.train_step(x=x, t=t)["loss"])
    program.train_step(x=x, t=t)  # records the launches
    started = time.perf_counter()
    program.train_step(x=x, t=t)
    call = time.perf_counter() - started
    if at_once > 1:
        for _ in range(2):
            program.train_steps(x=np.stack([x] * at_once), t=np.stack([t] * at_once))
    *_, bound = program._program._bound.values()
    kernels = program.compiled.functions["train_step"].program.kernels
    floor = sum(max(k.flops / RATES[precision], hint(k.bytes_moved) / BYTES) for k in kernels)
    return {
        "step": bound[0].start, "loss": loss, "floor_s": floor, "call_s": call,
        "launches": len(bound[0].launches), "steps": at_once,
    }  # fmt: skip


def torch_step(network: str, batch: int, how: str, device: str) -> dict[str, Any]:
    """The same network in torch; tf32 as ``torch.backends`` allow it for convolutions and GEMMs."""
    import torch
    from networks import NETWORKS, torch_module

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    module = torch_module(NETWORKS[network]).to(device)
    x, t = (torch.from_numpy(a).to(device) for a in batch_of(network, batch))
    t = t.long()
    if x.ndim == 4:
        module, x = module.to(memory_format=torch.channels_last), x.contiguous(
            memory_format=torch.channels_last)  # fmt: skip
    graph = how == "torch-graph"
    optimizer = torch.optim.SGD(
        module.parameters(), lr=RATE, momentum=MOMENTUM, fused=device == "cuda"
    )

    def loss_of() -> Any:
        return torch.nn.functional.cross_entropy(module(x), t)

    mode = {"torch-compile": "default", "torch-max-autotune": "max-autotune"}.get(how)
    forward = loss_of if mode is None else torch.compile(loss_of, mode=mode, dynamic=False)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=not graph)
        loss = forward()
        loss.backward()
        optimizer.step()
        return loss

    first = float(step().detach())
    if not graph or device == "cpu":
        return {"step": step, "loss": first}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    recorded = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=False)
    with torch.cuda.graph(recorded):
        step()
    return {"step": recorded.replay, "loss": first}


def jax_step(network: str, batch: int) -> dict[str, Any]:
    """jit of value_and_grad and the update, parameters donated."""
    import jax
    import jax.numpy as jnp
    from networks import NETWORKS, jax_function

    function, first, prepare = jax_function(NETWORKS[network], True)
    values, labels = batch_of(network, batch)
    x, t = jnp.asarray(prepare(values)), jnp.asarray(labels)

    def loss(parameters: Any) -> Any:
        chosen = jnp.take_along_axis(jax.nn.log_softmax(function(parameters, x)), t[:, None], 1)
        return -jnp.mean(chosen)

    def update(parameters: Any, velocity: Any) -> tuple[Any, Any, Any]:
        error, gradient = jax.value_and_grad(loss)(parameters)
        velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, gradient)
        return jax.tree.map(lambda p, v: p - RATE * v, parameters, velocity), velocity, error

    compiled = jax.jit(update, donate_argnums=(0, 1))
    state = [first, jax.tree.map(jnp.zeros_like, first)]

    def step() -> Any:
        state[0], state[1], error = compiled(*state)
        return error

    found = float(step())
    return {"step": step, "loss": found, "wait": lambda: jax.block_until_ready(state)}


def timed(step: Callable[[], Any], wait: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Median over groups of steps, the device waited for once a group; 0 seconds: one step."""
    for _ in range(3 if seconds else 0):
        step()
    wait()
    started = time.perf_counter()
    step()
    wait()
    one = time.perf_counter() - started
    group = max(1, min(200, int(seconds / 12 / max(one, 1e-6))))
    groups: list[float] = []
    until = time.perf_counter() + seconds
    while len(groups) < (3 if seconds else 1) or (time.perf_counter() < until and len(groups) < 40):
        started = time.perf_counter()
        for _ in range(group):
            step()
        wait()
        groups.append((time.perf_counter() - started) / group)
    return {"median_s": statistics.median(groups), "least_s": min(groups), "groups": len(groups),
            "steps_a_group": group}  # fmt: skip


def child(peer: str, case: str, device: str, seconds: float) -> dict[str, Any]:
    """Build one peer's step and time it; what goes wrong is raised."""
    network, _, batch = case.partition(":")
    started = time.perf_counter()
    if peer == "jax":
        found = jax_step(network, int(batch))
    elif peer.startswith("brickc-"):
        see_the_checkout()
        found = brickc_step(network, int(batch), *peer.removeprefix("brickc-").split("-"))
    else:
        found = torch_step(network, int(batch), peer, device)
    step = found.pop("step")
    wait = found.pop("wait", None) or _synchronize(device)
    result = {"peer": peer, "case": case, "build_s": time.perf_counter() - started, **found}
    times = timed(step, wait, seconds)
    for key in ("median_s", "least_s"):
        times[key] /= found.get("steps", 1)
    return {**result, **times}


def _synchronize(device: str) -> Callable[[], Any]:
    import torch

    return torch.cuda.synchronize if device == "cuda" else lambda: None


def check(network: str, batch: int, precision: str) -> dict[str, Any]:
    """Losses and parameters of four steps beside the NumPy backend's in float64."""
    see_the_checkout()
    import numpy as np

    import brickc as bc

    def program(target: str, dtype: str) -> Any:
        model = bc.zoo.model(network, dtype=dtype)
        return bc.compile(model, target, optimizer=bc.SGD(0.01, momentum=MOMENTUM),
                          functions=["train_step"], seed=1)  # fmt: skip

    ours, exact = program(f"triton:{precision}", "f32"), program("numpy", "f64")
    first = ours.state_dict()
    kept = {n: a.astype("f8") if a.dtype == np.float32 else a for n, a in first.items()}
    exact.load_state_dict(kept)
    x, t = batch_of(network, batch)
    worst = 0.0
    for _ in range(4):
        got = float(ours.train_step(x=x, t=t)["loss"])
        want = float(exact.train_step(x=x.astype("f8"), t=t)["loss"])
        worst = max(worst, abs(got - want) / abs(want))
    after, wanted = ours.parameters(), exact.parameters()
    part = max(float(np.abs(after[n] - wanted[n]).max() / np.abs(wanted[n]).max()) for n in wanted)
    losses, parameters = ALLOWED[precision]
    return {"network": network, "precision": precision, "loss_error": worst,
            "parameter_error": part, "passed": worst <= losses and part <= parameters}  # fmt: skip


# -- the run -----------------------------------------------------------------------------------


def run_child(
    arguments: list[str], limit: float, device: str, under: Sequence[str] = ()
) -> dict[str, Any]:
    """The last line of a child's output; an error of its own is a result too.

    ``under`` is a command that runs the child.
    """
    environment = dict(os.environ)
    if device == "cpu":
        environment["TRITON_INTERPRET"] = "1"
    command = [*under, sys.executable, str(Path(__file__)), "--device", device, *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True,
                              timeout=max(limit, 1), check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"not done within {limit:.0f} s"}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"error": (lines[-1] if lines else f"exit status {done.returncode}")[:200]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def sanitized(case: str, tool: str, limit: float, device: str) -> dict[str, Any]:
    """A check in f32 under a tool of compute-sanitizer: passed if that found nothing either."""
    row = {"network": case.partition(":")[0], "precision": f"f32, {tool}"}
    toolkit = os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin")
    path = os.pathsep.join((os.environ.get("PATH", ""), toolkit))
    program = shutil.which("compute-sanitizer", path=path)
    if program is None:
        return {**row, "error": "not done: no compute-sanitizer on this machine", "absent": True}
    with tempfile.TemporaryDirectory(prefix="brickc-sanitizer-") as folder:
        log = Path(folder) / "log"
        under = [program, "--tool", tool, "--error-exitcode", str(FOUND), "--log-file", str(log)]
        found = run_child(["--child-check", case, "f32"], limit, device, under)
        said = log.read_text(errors="replace") if log.exists() else ""
    summary = [line.lstrip("= ") for line in said.splitlines() if "SUMMARY" in line]
    if "error" in found and summary:
        found = {"error": summary[-1]}
    return {**found, **row}


def markdown(document: dict[str, Any]) -> str:
    """The checks, then a row a case and peer."""
    measured = document["device"] != "cpu"
    lines = [f"{document['device']}; torch {document['torch']}, triton {document['triton']}; "
             f"{document['machine']['time']}", ""]  # fmt: skip
    lines += ["| check | precision | loss | parameters | |", "|---|---|--:|--:|---|"]
    for row in document["checks"]:
        if "error" in row:
            lines.append(f"| {row['network']} | {row['precision']} | | | {row['error']} |")
        else:
            lines.append(f"| {row['network']} | {row['precision']} | {row['loss_error']:.1e} | "
                         f"{row['parameter_error']:.1e} | "
                         f"{'passed' if row['passed'] else 'FAILED'} |")  # fmt: skip
    lines += ["", "| case | peer | step | ÷ brickc-tf32 | of the floor | build | |",
              "|---|---|--:|--:|--:|--:|---|"]  # fmt: skip
    ours = {r["case"]: r["median_s"] for r in document["results"]
            if r["peer"] == "brickc-tf32" and "median_s" in r}  # fmt: skip
    for r in document["results"]:
        if "median_s" not in r:
            lines.append(f"| {r['case']} | {r['peer']} | | | | | {r['error']} |")
            continue
        if not measured:
            lines.append(f"| {r['case']} | {r['peer']} | not measured | | | | |")
            continue
        base = ours.get(r["case"])
        ratio = f"{r['median_s'] / base:.2f}" if base else ""
        floor = f"{100 * r['floor_s'] / r['median_s']:.0f} %" if "floor_s" in r else ""
        lines.append(f"| {r['case']} | {r['peer']} | {r['median_s'] * 1e3:.3f} ms | {ratio} | "
                     f"{floor} | {r['build_s']:.1f} s | |")  # fmt: skip
    return "\n".join(lines) + "\n"


def compared(row: dict[str, Any], others: list[dict[str, Any]]) -> dict[str, Any]:
    """The row, or an error if its first loss is not that of the case's first peer."""
    same = [r["loss"] for r in others if r["case"] == row["case"] and "loss" in r]
    if "loss" in row and same and abs(row["loss"] - same[0]) > SAME * abs(same[0]):
        what = f"the first loss is {row['loss']:.5f}, others have {same[0]:.5f}"
        return {"peer": row["peer"], "case": row["case"], "error": what}
    return row


def describe(device: str) -> dict[str, Any]:
    """Device and versions. Ends the process where there is no GPU and one is asked for."""
    try:
        import torch
        import triton
    except ImportError as error:
        sys.exit(f"benchmarks/gpu.py needs torch and triton: {error}")
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU here; targets numpy and c run (benchmarks/run.py times them), and "
                 "`brickc compile --target triton:sm_90` compiles without one")  # fmt: skip
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return {"device": name, "torch": torch.__version__, "triton": triton.__version__,
            "machine": machine(), "checks": [], "results": []}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", default=CASES, help="NETWORK:BATCH,...")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--budget", type=float, default=500, help="seconds for all of it")
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing, a peer and case")
    parser.add_argument("--check-only", action="store_true")
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument("--checks", default=",".join(f"{n}:{b}" for n, b in CHECKED))
    parser.add_argument("--precisions", default="f32,tf32", help=f"some of {', '.join(ALLOWED)}")
    parser.add_argument("--sanitized", default="mlp:3,lenet5:3",
                        help="what runs under compute-sanitizer")  # fmt: skip
    parser.add_argument("--sanitizers", default="memcheck",
                        help="its tools: memcheck,racecheck,initcheck,synccheck")  # fmt: skip
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"),
                        help="cpu: go through all of it, measure nothing")  # fmt: skip
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--child", nargs=2, metavar=("PEER", "CASE"), help=argparse.SUPPRESS)
    parser.add_argument("--child-check", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(*given.child, given.device, given.seconds)))
        return
    if given.child_check:
        network, _, batch = given.child_check[0].partition(":")
        print(json.dumps(check(network, int(batch), given.child_check[1])))
        return
    document = describe(given.device)
    if given.json and given.json.exists():
        before = json.loads(given.json.read_text())
        document |= {k: before[k] for k in ("checks", "results")}
    until = time.monotonic() + given.budget

    def note(kind: str, row: dict[str, Any], keys: tuple[str, str]) -> None:
        same = [r for r in document[kind] if all(r.get(k) == row.get(k) for k in keys)]
        document[kind] = [r for r in document[kind] if r not in same] + [row]
        print(json.dumps(row), flush=True)
        if given.json:
            write_json(given.json, document)
        if given.markdown:
            write_text(given.markdown, markdown(document))

    failed = False
    for case in given.checks.split(",") if given.checks and not given.no_check else ():
        for precision in given.precisions.split(","):
            row = run_child(["--child-check", case, precision],
                            min(LIMITS[given.device][0], until - time.monotonic()),
                            given.device)  # fmt: skip
            row = {"network": case.partition(":")[0], "precision": precision, **row}
            failed |= not row.get("passed", False)
            note("checks", row, ("network", "precision"))
    for case in given.sanitized.split(",") if given.sanitized and not given.no_check else ():
        for tool in given.sanitizers.split(","):
            limit = min(2 * LIMITS[given.device][0], until - time.monotonic())
            row = sanitized(case, tool, limit, given.device)
            failed |= not (row.get("passed", False) or row.get("absent", False))
            note("checks", row, ("network", "precision"))
    for case in given.cases.split(",") if not given.check_only else ():
        for peer in given.peers.split(","):
            left = until - time.monotonic()
            row = {"error": "not reached within the budget"}
            if left > 5:
                limit = min(left, LIMITS[given.device][1])
                row = run_child(["--child", peer, case, "--seconds", str(given.seconds)],
                                limit, given.device)  # fmt: skip
            row = {"peer": peer, "case": case, **row}
            note("results", compared(row, document["results"]), ("peer", "case"))
    print(markdown(document))
    if failed:
        sys.exit("a check failed")


if __name__ == "__main__":
    main()
