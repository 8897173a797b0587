"""The peers: each builds a whole training step, or an inference call, of one network.

A training step is forward, softmax cross-entropy, backward and the plain SGD update of every
parameter in place. Inputs lie in the framework's own arrays before the clock starts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import ours
from networks import NETWORKS, Network, examples, jax_function, torch_module

__all__ = ["PEERS", "RATE", "Case", "Peer", "Step", "versions"]

#: learning rate of every peer: small, so that thousands of steps on one batch stay finite
RATE = 1e-3


@dataclass(frozen=True)
class Case:
    """What is timed: a network, a batch size, and ``train`` or ``infer``."""

    network: str
    batch: int
    mode: str
    threads: int

    @property
    def description(self) -> Network:
        return NETWORKS[self.network]


@dataclass(frozen=True)
class Step:
    """``run`` does one step and gives a value; ``read`` makes numbers of it, to be compared
    between peers: the loss before the update, or the first example's logits."""

    run: Callable[[], Any]
    read: Callable[[Any], list[float]]


@dataclass(frozen=True)
class Peer:
    """``load`` imports the framework and sets its threads; ``build`` is timed as compilation,
    together with the first step."""

    load: Callable[[int], None]
    build: Callable[[Case], Step]
    packages: tuple[str, ...]
    modes: tuple[str, ...] = ("train", "infer")


def versions(peer: Peer) -> dict[str, str]:
    """Versions of the packages that the peer runs on."""
    found: dict[str, str] = {}
    for name in peer.packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


# -- torch -------------------------------------------------------------------------------------


def _load_torch(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _torch_inputs(case: Case) -> tuple[Any, Any]:
    import torch

    x, t = examples(case.description, case.batch)
    return torch.from_numpy(x), torch.from_numpy(t.astype(np.int64))


def _torch(case: Case, compiled: bool) -> Step:
    import torch

    module = torch_module(case.description)
    x, t = _torch_inputs(case)
    if case.mode == "infer":
        module.eval()
        forward = torch.compile(module, dynamic=False) if compiled else module

        def infer() -> Any:
            with torch.inference_mode():
                return forward(x)

        return Step(infer, lambda y: [float(v) for v in y[0, :10]])

    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)

    def loss_of() -> Any:
        return torch.nn.functional.cross_entropy(module(x), t)

    def update() -> None:
        optimizer.step()

    loss = torch.compile(loss_of, dynamic=False) if compiled else loss_of
    apply = torch.compile(update, dynamic=False) if compiled else update

    def train() -> Any:
        optimizer.zero_grad()
        error = loss()
        error.backward()
        apply()
        return error

    return Step(train, lambda error: [float(error.detach())])


def _torch_eager(case: Case) -> Step:
    return _torch(case, compiled=False)


def _torch_compile(case: Case) -> Step:
    return _torch(case, compiled=True)


# -- JAX ---------------------------------------------------------------------------------------


def _load_jax(threads: int) -> None:
    # XLA takes its threads from the cores that the process may run on; the parent set those
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.devices()


def _jax(case: Case, channels_last: bool) -> Step:
    import jax
    import jax.numpy as jnp

    function, first, prepare = jax_function(case.description, channels_last)
    values, labels = examples(case.description, case.batch)
    x, t = jnp.asarray(prepare(values)), jnp.asarray(labels)
    if case.mode == "infer":
        forward = jax.jit(function)
        return Step(
            lambda: jax.block_until_ready(forward(first, x)),
            lambda y: [float(v) for v in np.asarray(y)[0, :10]],
        )

    def loss(parameters: Any, x: Any, t: Any) -> Any:
        chosen = jnp.take_along_axis(jax.nn.log_softmax(function(parameters, x)), t[:, None], 1)
        return -jnp.mean(chosen)

    def step(parameters: Any, x: Any, t: Any) -> tuple[Any, Any]:
        error, gradient = jax.value_and_grad(loss)(parameters, x, t)
        return jax.tree.map(lambda p, g: p - RATE * g, parameters, gradient), error

    compiled = jax.jit(step, donate_argnums=0)
    state = [first]

    def train() -> Any:
        state[0], error = compiled(state[0], x, t)
        jax.block_until_ready(state[0])
        return error

    return Step(train, lambda error: [float(error)])


def _jax_nhwc(case: Case) -> Step:
    return _jax(case, channels_last=True)


def _jax_nchw(case: Case) -> Step:
    return _jax(case, channels_last=False)


# -- onnxruntime -------------------------------------------------------------------------------


def _load_onnxruntime(threads: int) -> None:
    import onnxruntime  # noqa: F401

    _load_torch(threads)


def _onnxruntime(case: Case) -> Step:
    """torch.onnx.export of the same module, in a session with a static batch size."""
    import onnxruntime
    import torch

    module = torch_module(case.description).eval()
    x, _ = examples(case.description, case.batch)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        # dynamo=True needs onnxscript; external data keeps vgg_a under protobuf's 2 GiB
        program = torch.onnx.export(
            module, (torch.from_numpy(x),), dynamo=True, verbose=False,
            input_names=["x"], output_names=["y"],
        )  # fmt: skip
        assert program is not None
        program.save(str(path), external_data=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = case.threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    feed = {"x": x}
    return Step(lambda: session.run(None, feed)[0], lambda y: [float(v) for v in y[0, :10]])


# -- brickc ------------------------------------------------------------------------------------


def _load_nothing(threads: int) -> None:
    import brickc  # noqa: F401


def _brickc(target: str) -> Callable[[Case], Step]:
    def build(case: Case) -> Step:
        return Step(*ours.build(case.network, case.batch, case.mode, target, RATE))

    return build


PEERS: dict[str, Peer] = {
    "brickc-numpy": Peer(_load_nothing, _brickc("numpy"), ("brickc", "numpy")),
    "brickc-c": Peer(_load_nothing, _brickc("c"), ("brickc", "numpy")),
    "torch-eager": Peer(_load_torch, _torch_eager, ("torch",)),
    "torch-compile": Peer(_load_torch, _torch_compile, ("torch",)),
    "jax": Peer(_load_jax, _jax_nhwc, ("jax", "jaxlib")),
    "jax-nchw": Peer(_load_jax, _jax_nchw, ("jax", "jaxlib")),
    "onnxruntime": Peer(
        _load_onnxruntime, _onnxruntime, ("onnxruntime", "onnx", "onnxscript", "torch"), ("infer",)
    ),
}
