"""The peers' networks, described once: torch modules and JAX functions are made from the same
lists, and so differ in nothing but the framework.

The sizes are those of brickc's zoo; parameters come in the same order and layout (convolution
[out, in, kh, kw], linear [out, in]; every weight followed by its bias). No dropout: timings of
random masks compare random generators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["NETWORKS", "Network", "examples", "jax_function", "torch_module", "weights"]

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Conv:
    out: int
    kernel: int
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True)
class Linear:
    out: int


@dataclass(frozen=True)
class Pool:
    kind: str  # max or mean
    kernel: int
    stride: int
    padding: int = 0
    ceil: bool = False


@dataclass(frozen=True)
class Activation:
    kind: str  # tanh or relu


@dataclass(frozen=True)
class Flatten:
    pass


@dataclass(frozen=True)
class Normalise:
    """Local response normalisation over five channels, as in Caffe: (1 + 1e-4/5 Σx²)^-0.75."""


@dataclass(frozen=True)
class Branches:
    """Side by side on the same input, joined along the channels."""

    parts: tuple[tuple[Layer, ...], ...]


Layer = Conv | Linear | Pool | Activation | Flatten | Normalise | Branches

_TANH, _RELU = Activation("tanh"), Activation("relu")


@dataclass(frozen=True)
class Network:
    """``plain_sgd`` is False where the zoo's biases learn at twice the rate (Caffe's habit):
    there only the first loss is compared between peers."""

    shape: Shape
    classes: int
    layers: tuple[Layer, ...]
    plain_sgd: bool = True


def _relu_conv(out: int, kernel: int, stride: int = 1, padding: int = 0) -> tuple[Layer, ...]:
    return Conv(out, kernel, stride, padding), _RELU


def _head(*widths: int) -> tuple[Layer, ...]:
    layers: list[Layer] = [Flatten()]
    for width in widths:
        layers += [Linear(width), _RELU]
    return tuple(layers[:-1])


def _mlp() -> Network:
    return Network((784,), 10, (Linear(512), _TANH, Linear(512), _TANH, Linear(10)))


def _lenet5() -> Network:
    mean = Pool("mean", 2, 2)
    return Network((1, 32, 32), 10, (
        Conv(6, 5), _TANH, mean, Conv(16, 5), _TANH, mean, Conv(120, 5), _TANH,
        Flatten(), Linear(84), _TANH, Linear(10),
    ))  # fmt: skip


def _lenet() -> Network:
    largest = Pool("max", 2, 2)
    layers = (Conv(20, 5), largest, Conv(50, 5), largest, *_head(500, 10))
    return Network((1, 28, 28), 10, layers, plain_sgd=False)


def _alexnet() -> Network:
    pool = Pool("max", 3, 2)
    return Network((3, 224, 224), 1000, (
        *_relu_conv(64, 11, 4, 2), pool, *_relu_conv(192, 5, 1, 2), pool,
        *_relu_conv(384, 3, 1, 1), *_relu_conv(256, 3, 1, 1), *_relu_conv(256, 3, 1, 1), pool,
        *_head(4096, 4096, 1000),
    ))  # fmt: skip


def _overfeat() -> Network:
    pool = Pool("max", 2, 2)
    return Network((3, 231, 231), 1000, (
        *_relu_conv(96, 11, 4), pool, *_relu_conv(256, 5), pool, *_relu_conv(512, 3, 1, 1),
        *_relu_conv(1024, 3, 1, 1), *_relu_conv(1024, 3, 1, 1), pool, *_head(3072, 4096, 1000),
    ))  # fmt: skip


def _vgg_a() -> Network:
    layers: list[Layer] = []
    for block in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for width in block:
            layers += _relu_conv(width, 3, 1, 1)
        layers.append(Pool("max", 2, 2))
    return Network((3, 224, 224), 1000, (*layers, *_head(4096, 4096, 1000)))


def _inception(one: int, r3: int, three: int, r5: int, five: int, project: int) -> Branches:
    return Branches((
        _relu_conv(one, 1),
        (*_relu_conv(r3, 1), *_relu_conv(three, 3, 1, 1)),
        (*_relu_conv(r5, 1), *_relu_conv(five, 5, 1, 2)),
        (Pool("max", 3, 1, 1), *_relu_conv(project, 1)),
    ))  # fmt: skip


def _googlenet() -> Network:
    pool = Pool("max", 3, 2, ceil=True)
    layers = (
        *_relu_conv(64, 7, 2, 3), pool, Normalise(), *_relu_conv(64, 1), *_relu_conv(192, 3, 1, 1),
        Normalise(), pool, _inception(64, 96, 128, 16, 32, 32),
        _inception(128, 128, 192, 32, 96, 64), pool, _inception(192, 96, 208, 16, 48, 64),
        _inception(160, 112, 224, 24, 64, 64), _inception(128, 128, 256, 24, 64, 64),
        _inception(112, 144, 288, 32, 64, 64), _inception(256, 160, 320, 32, 128, 128), pool,
        _inception(256, 160, 320, 32, 128, 128), _inception(384, 192, 384, 48, 128, 128),
        Pool("mean", 7, 1), *_head(1000),
    )  # fmt: skip
    return Network((3, 224, 224), 1000, layers, plain_sgd=False)


NETWORKS: dict[str, Network] = {
    "mlp": _mlp(),
    "lenet5": _lenet5(),
    "lenet": _lenet(),
    "alexnet": _alexnet(),
    "overfeat": _overfeat(),
    "vgg_a": _vgg_a(),
    "googlenet": _googlenet(),
}


def examples(network: Network, batch: int) -> tuple[Array, Array]:
    """The same x [batch, …] float32 (normal) and t [batch] int32 for every peer."""
    rng = np.random.Generator(np.random.Philox(key=11))
    x = rng.standard_normal((batch, *network.shape), np.float32)
    return x, rng.integers(0, network.classes, batch).astype(np.int32)


def weights(network: Network) -> list[Array]:
    """The same first parameters for every peer: He et al.'s normal weights, zero biases."""
    rng = np.random.Generator(np.random.Philox(key=12))
    found: list[Array] = []
    _walk(network.layers, network.shape, lambda _, shape: found.extend(_first(rng, shape)))
    return found


def _first(rng: np.random.Generator, shape: Shape) -> tuple[Array, Array]:
    scale = np.float32(math.sqrt(2 / math.prod(shape[1:])))
    return rng.standard_normal(shape, np.float32) * scale, np.zeros(shape[0], np.float32)


def _places(size: int, pool: Pool) -> int:
    """Places of a pool's window; with ``ceil`` the last may hang over, but starts inside."""
    room = size + 2 * pool.padding - pool.kernel
    places = -(-room // pool.stride) + 1 if pool.ceil else room // pool.stride + 1
    if pool.ceil and (places - 1) * pool.stride >= size + pool.padding:
        places -= 1
    return places


def _walk(layers: Sequence[Layer], shape: Shape, visit: Callable[[Layer, Shape], object]) -> Shape:
    """Shapes [C, H, W] or [D] through the layers; ``visit`` gets each weight's shape."""
    for layer in layers:
        match layer:
            case Conv(out, kernel, stride, padding):
                visit(layer, (out, shape[0], kernel, kernel))
                shape = (out, *((s + 2 * padding - kernel) // stride + 1 for s in shape[1:]))
            case Linear(out):
                visit(layer, (out, math.prod(shape)))
                shape = (out,)
            case Pool():
                shape = (shape[0], *(_places(s, layer) for s in shape[1:]))
            case Flatten():
                shape = (math.prod(shape),)
            case Branches(parts):
                ends = [_walk(part, shape, visit) for part in parts]
                shape = (sum(e[0] for e in ends), *ends[0][1:])
    return shape


# -- torch -------------------------------------------------------------------------------------


def torch_module(network: Network) -> Any:
    """A torch.nn.Module with the shared first parameters; NCHW, as torch's default is."""
    import torch

    class Concat(torch.nn.Module):
        def __init__(self, parts: Sequence[Any]) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(parts)

        def forward(self, x: Any) -> Any:
            return torch.cat([part(x) for part in self.parts], 1)

    def build(layers: Sequence[Layer], shape: Shape) -> Any:
        nn = torch.nn
        modules: list[Any] = []
        for layer in layers:
            match layer:
                case Conv(out, kernel, stride, padding):
                    modules.append(nn.Conv2d(shape[0], out, kernel, stride, padding))
                case Linear(out):
                    modules.append(nn.Linear(math.prod(shape), out))
                case Pool("max", kernel, stride, padding, ceil):
                    modules.append(nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil))
                case Pool(_, kernel, stride, padding, _):
                    modules.append(nn.AvgPool2d(kernel, stride, padding))
                case Activation(kind):
                    modules.append(nn.Tanh() if kind == "tanh" else nn.ReLU())
                case Flatten():
                    modules.append(nn.Flatten())
                case Normalise():
                    modules.append(nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0))
                case Branches(parts):
                    modules.append(Concat([build(part, shape) for part in parts]))
            shape = _walk((layer,), shape, lambda *_: None)
        return nn.Sequential(*modules)

    module = build(network.layers, network.shape)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights(network), strict=True):
            parameter.copy_(torch.from_numpy(value))
    return module


# -- JAX ---------------------------------------------------------------------------------------


def jax_function(
    network: Network, channels_last: bool
) -> tuple[Callable[[Any, Any], Any], list[Any], Callable[[Array], Array]]:
    """(f(parameters, x) -> logits, the shared first parameters, x in f's layout).

    ``channels_last`` computes in NHWC with HWIO filters; parameters and input are turned
    beforehand, so that no transposition is timed.
    """
    import jax.numpy as jnp

    values = iter(weights(network))
    turned: list[Any] = []
    last: list[Shape] = [network.shape]  # shape in front of the latest Flatten, for its Linear

    def turn(layers: Sequence[Layer], shape: Shape) -> None:
        for layer in layers:
            if isinstance(layer, Conv | Linear):
                w, b = next(values), next(values)
                if isinstance(layer, Conv):
                    w = w.transpose(2, 3, 1, 0) if channels_last else w
                else:
                    if channels_last and len(last[0]) == 3:
                        w = w.reshape(-1, *last[0]).transpose(0, 2, 3, 1).reshape(len(w), -1)
                    last[0] = (len(w),)
                    w = w.T
                turned.append((jnp.asarray(np.ascontiguousarray(w)), jnp.asarray(b)))
            elif isinstance(layer, Flatten):
                last[0] = shape
            elif isinstance(layer, Branches):
                for part in layer.parts:
                    turn(part, shape)
            shape = _walk((layer,), shape, lambda *_: None)

    turn(network.layers, network.shape)

    def function(parameters: Any, x: Any) -> Any:
        return _jax_apply(network.layers, iter(parameters), x, channels_last)

    def prepare(x: Array) -> Array:
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if channels_last and x.ndim == 4 else x

    return function, turned, prepare


def _jax_apply(layers: Sequence[Layer], values: Any, x: Any, channels_last: bool) -> Any:
    import jax
    import jax.numpy as jnp

    def spatial(c: Any, n: Any, hw: tuple[Any, Any]) -> tuple[Any, ...]:
        return (n, *hw, c) if channels_last else (n, c, *hw)

    names = ("NHWC", "HWIO", "NHWC") if channels_last else ("NCHW", "OIHW", "NCHW")
    channel = 3 if channels_last else 1
    for layer in layers:
        match layer:
            case Conv(_, _, stride, padding):
                w, b = next(values)
                x = jax.lax.conv_general_dilated(
                    x, w, (stride, stride), [(padding, padding)] * 2, dimension_numbers=names
                ) + b.reshape(spatial(-1, 1, (1, 1)))
            case Linear():
                w, b = next(values)
                x = x @ w + b
            case Pool(kind, kernel, stride, padding, _):
                sizes = x.shape[1:3] if channels_last else x.shape[2:4]
                pads = []
                for size in sizes:
                    needed = (_places(size, layer) - 1) * stride + kernel - size - padding
                    pads.append((padding, max(needed, 0)))
                first, combine = (-jnp.inf, jax.lax.max) if kind == "max" else (0.0, jax.lax.add)
                x = jax.lax.reduce_window(
                    x, first, combine, spatial(1, 1, (kernel, kernel)),
                    spatial(1, 1, (stride, stride)), spatial((0, 0), (0, 0), (pads[0], pads[1])),
                )  # fmt: skip
                x = x if kind == "max" else x / kernel**2
            case Activation(kind):
                x = jnp.tanh(x) if kind == "tanh" else jax.nn.relu(x)
            case Flatten():
                x = x.reshape(x.shape[0], -1)
            case Normalise():
                window = spatial(5, 1, (1, 1))
                pads4 = spatial((2, 2), (0, 0), ((0, 0), (0, 0)))
                total = jax.lax.reduce_window(x * x, 0.0, jax.lax.add, window, (1,) * 4, pads4)
                x = x * (1 + 1e-4 / 5 * total) ** -0.75
            case Branches(parts):
                outs = [_jax_apply(part, values, x, channels_last) for part in parts]
                x = jnp.concatenate(outs, channel)
    return x
