"""Every converter, called with anything: a tensor, or an error that says what is wrong."""

from __future__ import annotations

import inspect
import time
import tracemalloc
import types
from collections.abc import Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickc.errors import BrickcError
from brickc.frontends.torch_export.convert import convert
from brickc.frontends.torch_export.exported import (
    Call,
    Exported,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    Ref,
)
from brickc.frontends.torch_export.table import ALIASING, CONVERTERS, converter
from brickc.frontends.trace import Tensor
from brickc.ir.dims import Dim, DimExpr
from brickc.ir.dtypes import DType
from brickc.ir.origin import Origin
from brickc.ir.types import TensorType

N = Dim("N", 1, 64)
HUGE = 2**31 - 1
INPUTS = {
    "scalar": TensorType(DType.F32), "vector": TensorType(DType.F32, (6,)),
    "matrix": TensorType(DType.F32, (4, 6)), "image": TensorType(DType.F32, (2, 4, 6, 6)),
    "batch": TensorType(DType.F32, (N, 4, 6)), "doubles": TensorType(DType.F64, (4, 6)),
    "empty": TensorType(DType.F32, (0, 3)), "huge": TensorType(DType.F32, (HUGE, 2)),
    "long": TensorType(DType.F32, (2, HUGE)), "labels": TensorType(DType.I64, (4,)),
    "indices": TensorType(DType.I64, (4, 6)), "mask": TensorType(DType.BOOL, (4, 6)),
}  # fmt: skip
INTS = st.sampled_from(
    [0, 1, -1, 2, 3, -2, 4, 6, 7, 100, 2**20, HUGE, -HUGE, 2**31, 2**62, -(2**63)]
)
FLOATS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-5, 2.5, 1e300, float("inf"), float("nan")])
WORDS = st.sampled_from(
    ["none", "tanh", "same", "mean", "sum", "floor", "reflect", "ab,bc->ac", "x"]
)


def drawn(hint: Any) -> st.SearchStrategy[Any]:
    """Arguments of the kind that a converter declares, sensible or not."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return st.one_of([drawn(option) for option in get_args(hint)])
    if origin is not None and issubclass(origin, Sequence):
        return st.lists(drawn(get_args(hint)[0]), max_size=5)
    kinds = {Tensor: st.sampled_from([Ref(n) for n in INPUTS]), bool: st.booleans(), int: INTS,
             float: FLOATS, str: WORDS, DType: st.sampled_from(list(DType)),
             type(None): st.none(), Dim: st.just(N), DimExpr: st.just(N * 2)}  # fmt: skip
    return kinds.get(hint, st.none())


@settings(max_examples=400)
@given(data=st.data())
def test_any_arguments(data: st.DataObject) -> None:
    target = data.draw(st.sampled_from(sorted(CONVERTERS)))
    function = CONVERTERS[target]
    hints = get_type_hints(function)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        if parameter.default is not parameter.empty and data.draw(st.booleans()):
            break
        value = data.draw(drawn(hints[name]))
        if parameter.kind is parameter.KEYWORD_ONLY:
            kwargs[name] = value
        else:
            args.append(value)
    inputs = [InputSpec(InputKind.USER, n, type=t) for n, t in INPUTS.items()]
    call = Call(target, tuple(args), kwargs, ("result",), (None,), True, Origin())
    outputs = [OutputSpec(OutputKind.USER, Ref(n)) for n in ("matrix", "result")]
    tracemalloc.start()
    started = time.perf_counter()
    try:
        convert(Exported("program", inputs, [call], outputs, {}))
    except BrickcError as error:
        assert str(error)
    finally:
        seconds = time.perf_counter() - started
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert seconds < 5
    assert peak < 2**30


@pytest.mark.parametrize("target", sorted(CONVERTERS))
def test_parameters_have_known_kinds(target: str) -> None:
    """The arguments are checked by these annotations, so each of them must be there."""
    function = CONVERTERS[target]
    names = list(inspect.signature(function).parameters)
    assert names[0] == "out"
    assert set(names) <= set(get_type_hints(function))


def test_names_are_torchs() -> None:
    """A misspelt operator would never be called: each one in the table exists."""
    torch = pytest.importorskip("torch")
    for target in CONVERTERS:
        space, name, overload = target.split(".")
        packet = getattr(getattr(torch.ops, space), name)
        assert overload in packet.overloads(), target


def test_parameters_are_torchs() -> None:
    """Positional arguments mean what they mean in torch's schema."""
    torch = pytest.importorskip("torch")
    for target, function in CONVERTERS.items():
        space, name, overload = target.split(".")
        schema = getattr(getattr(getattr(torch.ops, space), name), overload)._schema
        theirs = [a for a in schema.arguments if not a.kwarg_only]
        parameters = list(inspect.signature(function).parameters.values())[1:]
        ours = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
        assert len(ours) >= len(theirs), target
        keywords = {a.name for a in schema.arguments if a.kwarg_only}
        assert keywords >= {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"dtype"}, (
            target
        )


def test_in_place_operators_are_the_others() -> None:
    assert converter("aten.relu_.default") == (CONVERTERS["aten.relu.default"], True)
    assert converter("aten.relu.default") == (CONVERTERS["aten.relu.default"], False)
    assert converter("aten.no_such_thing.default") == (None, False)
    assert "aten.view.default" in ALIASING
    assert "aten.clone.default" not in ALIASING
