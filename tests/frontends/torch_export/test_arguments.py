"""Mixed dtypes as torch mixes them, and arguments of the kinds that converters declare."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from brickc.errors import ImportModelError, UnsupportedError
from brickc.frontends import trace
from brickc.frontends.torch_export.arguments import Out, axes_of, axis_of, bind, each, promoted
from brickc.frontends.trace import Tensor
from brickc.ir.dtypes import DType

KINDS = {DType.BOOL: torch.bool, DType.I32: torch.int32, DType.I64: torch.int64,
         DType.F16: torch.float16, DType.F32: torch.float32, DType.F64: torch.float64}  # fmt: skip
#: dtype and rank of a tensor, or a number
OPERANDS: list[Any] = [*itertools.product(KINDS, (0, 1)), True, 3, 2.5]


@pytest.mark.parametrize(("left", "right"), list(itertools.product(OPERANDS, OPERANDS)))
def test_promotion_is_torchs(left: Any, right: Any) -> None:
    def pair(x: Any) -> tuple[Any, Any]:
        if isinstance(x, tuple):
            dtype, rank = x
            return trace.literal([1] if rank else 1, dtype), torch.ones(
                [1] * rank, dtype=KINDS[dtype]
            )
        return x, x

    (ours, theirs), (mine, his) = pair(left), pair(right)
    assert KINDS[promoted(ours, mine)] == torch.result_type(theirs, his)


def made(
    out: Out, x: Tensor, dims: Sequence[int], scale: float = 1.0, *, flag: bool = False
) -> Any:
    return x, dims, scale, flag


X = trace.literal([1.0], "f32")


def test_arguments_are_bound_by_place_and_name() -> None:
    assert bind("made", made, [X, [1, 2]], {"flag": True}) == {"x": X, "dims": [1, 2], "flag": True}
    assert bind("made", made, [], {"self": X, "dims": (), "scale": 2}) == {
        "x": X, "dims": [], "scale": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [([X], {}), ([X, 1], {}), ([1.0, [1]], {}), ([X, [1.5]], {}), ([X, [True]], {}),
     ([X, [2**70]], {}), ([X, [1], "a"], {}), ([X, [1], 1.0, True], {}), ([X, [1]], {"flag": 1}),
     ([X, [1]], {"other": 1}), ([None, [1]], {})],
)  # fmt: skip
def test_other_arguments_are_refused(args: list[Any], kwargs: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="made with"):
        bind("made", made, args, kwargs)


def test_axes() -> None:
    assert [axis_of(3, a) for a in (0, 2, -1, -3)] == [0, 2, 2, 0]
    assert axis_of(0, -1) == 0
    assert axes_of(trace.literal([[1.0]]), [-1, 0]) == (0, 1)
    assert axes_of(trace.literal([[1.0]]), None) == (0, 1)
    for bad in (3, -4):
        with pytest.raises(ImportModelError, match="no such axis"):
            axis_of(3, bad)
    with pytest.raises(ImportModelError, match="twice"):
        axes_of(trace.literal([[1.0]]), [1, -1])


def test_one_number_for_each_axis() -> None:
    assert each(3, 2) == each([3], 2) == (3, 3)
    with pytest.raises(ImportModelError, match="one number per axis"):
        each([1, 2, 3], 2)
