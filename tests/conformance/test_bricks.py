"""Every brick of the catalogue by every backend against the interpreter."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conformance import TARGETS, check

from brickc.ir.brick import Brick, Input, ModeDependent, State
from brickc.ir.bricks.indexing import Gather
from brickc.ir.bricks.loss import SoftmaxLoss
from brickc.ir.bricks.normalization import BatchNorm
from brickc.ir.bricks.random import RandomUniform
from brickc.ir.bricks.samples import Sample, samples
from brickc.ir.bricks.shape import BroadcastTo, Reshape, Slice
from brickc.ir.bricks.source import Constant, DimSize, Iota, Literal
from brickc.ir.bricks.window import WindowSumGrad
from brickc.ir.builder import Builder
from brickc.ir.dims import Dim, Size
from brickc.ir.dtypes import DType
from brickc.ir.graph import Graph
from brickc.ir.initializers import constant
from brickc.ir.types import TensorType

SAMPLES = samples()
DTYPES = (DType.F64, DType.F32)


def _names() -> list[str]:
    seen: Counter[str] = Counter()
    found = []
    for s in SAMPLES:
        name = s.label or s.brick.mnemonic
        seen[name] += 1
        found.append(f"{name} {seen[name]}" if seen[name] > 1 else name)
    return found


NAMES = _names()


def in_dtype(arrays: list[Any], dtype: DType) -> list[Any]:
    return [a.astype(dtype.numpy) if a.dtype.kind == "f" else a for a in map(np.asarray, arrays)]


def states_of(sample: Sample) -> set[int]:
    """Positions of the operands that training updates."""
    return {3, 4} if isinstance(sample.brick, BatchNorm) else set()


def graph_of(sample: Sample, types: list[TensorType], rows: Size | None = None) -> Graph:
    """The brick alone, its operands as inputs; ``rows`` names a dim that no operand has."""
    graph = Graph("sample")
    builder = Builder(graph)
    operands = []
    for k, type in enumerate(types):
        limit = 5 if isinstance(sample.brick, SoftmaxLoss) and k == 1 else 0
        leaf = (
            State(f"x{k}", type, constant(0))
            if k in states_of(sample)
            else Input(f"x{k}", type, limit)
        )
        operands.append(builder.add(leaf))
    graph.outputs["y"] = builder.add(sample.brick, *operands).id
    if rows is not None:
        graph.outputs["rows"] = builder.add(Input("rows", TensorType(DType.F64, (rows,)))).id
    return graph


def types_of(arrays: list[Any]) -> list[TensorType]:
    return [TensorType(DType.of(a.dtype), a.shape) for a in arrays]


def modes(sample: Sample) -> tuple[bool, ...]:
    return (False, True) if isinstance(sample.brick, ModeDependent) else (False,)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sample", SAMPLES, ids=NAMES)
def test_sample(sample: Sample, dtype: DType, target: str, rng: np.random.Generator) -> None:
    arrays = in_dtype(sample.draw(rng), dtype)
    named = {f"x{k}": a for k, a in enumerate(arrays)}
    for training in modes(sample):
        check(graph_of(sample, types_of(arrays)), named, target=target, training=training)


# ── a batch whose size is known when the program runs ────────────────────────────────────────

N = Dim("N", 1, 8)


def batched(brick: Brick) -> Brick:
    """The brick with N where its attributes name the size of axis 0."""
    match brick:
        case Reshape((6, 4)):
            return Reshape((N * 3, 4))
        case Reshape():
            return Reshape((N, *brick.shape[1:]))
        case BroadcastTo():
            return BroadcastTo((N, *brick.shape[1:]))
        case Slice():
            return replace(brick, stop=(N, *brick.stop[1:]))
        case WindowSumGrad():
            return replace(brick, input_size=(N, *brick.input_size[1:]))
        case RandomUniform():
            return replace(brick, shape=(N, *brick.shape[1:]))
        case DimSize():
            return replace(brick, size=N)
        case Iota():
            return Iota(TensorType(brick.type.dtype, (N, *brick.type.shape[1:])), 0)
    return brick


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("sample", SAMPLES, ids=NAMES)
def test_sample_of_any_batch(sample: Sample, target: str, rng: np.random.Generator) -> None:
    if isinstance(sample.brick, Constant | Literal):
        pytest.skip("the same whatever the batch")
    draws = [sample.draw(rng) for _ in range(5)]
    joined = [np.concatenate(a) if np.ndim(a[0]) else a[0] for a in zip(*draws, strict=True)]
    # an index of Gather and a second factor have rows of their own
    with_rows = {
        k
        for k, a in enumerate(draws[0])
        if np.shape(a)[:1] == np.shape(draws[0][0])[:1] != ()
        and not (isinstance(sample.brick, Gather) and k > 0)
    }
    if isinstance(sample.brick, BroadcastTo):
        with_rows = set()
    named = replace(sample, brick=batched(sample.brick))
    types = [
        TensorType(DType.of(np.asarray(a).dtype),
                   (N, *np.shape(a)[1:]) if k in with_rows else np.shape(a))
        for k, a in enumerate(draws[0])
    ]  # fmt: skip
    feeds = []
    for rows in (1, 2, 5):
        arrays = [a[:rows] if k in with_rows else draws[0][k] for k, a in enumerate(joined)]
        arrays = sample.derive(arrays) if sample.derive else arrays
        feeds.append({f"x{k}": a for k, a in enumerate(arrays)})
        if not with_rows:
            feeds[-1]["rows"] = np.arange(float(rows))
    for training in modes(sample):
        graph = graph_of(named, types, None if with_rows else N)
        check(graph, *feeds, target=target, training=training)
