"""Protocol buffers' text format: what is read, with its line, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brickc.errors import ImportModelError
from brickc.frontends.caffe.text import LARGEST_TEXT, parse_text, read_text

NET = """\
name: "a" 'b'  # joined
force_backward: true;
input: "x", input: 'y'
input_dim: [1, 2, 0x10, 010]
layer <
  name: "c\\101\\x42\\n"
  type: "Convolution"
  convolution_param: { kernel_size: 3 pad: 1 weight_filler { std: .5e-1f value: -2 } }
>
"""


def test_everything_that_the_format_has() -> None:
    net = parse_text(NET, "NetParameter")
    assert net.text("name") == "ab"
    assert net.flag("force_backward")
    assert net.texts("input") == ["x", "y"]
    assert net.integers("input_dim") == [1, 2, 16, 8]
    (layer,) = net.subs("layer")
    assert layer.line == 5
    assert layer.text("name") == "cAB\n"
    given = layer.sub("convolution_param")
    assert given.line == 8
    assert given.sub("weight_filler").real("std") == 0.05
    assert given.sub("weight_filler").real("value") == -2
    # what is not there has its default
    assert given.flag("bias_term")
    assert given.integer("group") == 1
    assert not given.has("group")
    assert layer.sub("pooling_param").text("pool") == "MAX"


def test_enumerations_by_name_and_number() -> None:
    for text in ("phase: TEST", "phase: 1"):
        assert parse_text(text, "NetState").text("phase") == "TEST"


def test_unknown_fields_are_remembered() -> None:
    net = parse_text('layer { name: "a" foo { bar: [1, 2] baz: -inf } nice: "x" }', "NetParameter")
    assert list(net.strangers()) == [("foo", 1), ("nice", 1)]
    assert net.subs("layer")[0].text("name") == "a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nname: 3", "net:2: name cannot be this"),
        ("input_dim: x", "net:1: input_dim cannot be this"),
        ("input_dim: 1.5", "input_dim cannot be this"),
        ("input_dim: 99999999999", "input_dim cannot be this"),
        ("input_dim: " + "9" * 10_000, "input_dim cannot be this"),
        ("input_dim: 09", "input_dim cannot be this"),
        ('force_backward: "true"', "force_backward is no text"),
        ('name: "a" name: "b"', "name is given twice"),
        ("state { phase: NEVER }", "expected TRAIN, TEST"),
        ("state { phase: -1 }", "cannot be this"),
        ('name "a"', "name has no value"),
        ("name { }", "name is no message"),
        ("layer: 3", "layer is a message"),
        ("layer {", "ends inside NetParameter|ends inside LayerParameter"),
        ("layer { name: 'a' >", "not a field"),
        ("layer { } }", "not a field"),
        ('name: "a', "not a token"),
        ("name: [1]", "takes one value"),
        ("input_dim: [1", "not a list"),
        ("input_dim: [1 2]", "not a list"),
        ("name: ", "not a value"),
        ("@", "not a token"),
        ("solver { }" * 2 + "{", "not a field"),
        ("state { level: nan }", "cannot be this"),
        ("[a.b]: 3", "not a field"),
        ("x {" * 100_000, "nested too deeply"),
        ("x: [" * 100_000, "not a list"),
    ],
)  # fmt: skip
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ImportModelError, match=message):
        parse_text(text, "NetParameter", "net")


def test_no_infinite_numbers() -> None:
    for value in ("1e999", "inf", "nan", "-inf"):
        with pytest.raises(ImportModelError, match="base_lr"):
            parse_text(f"base_lr: {value}", "SolverParameter")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b"\xef\xbb\xbfname: 'x'\r\n")
    assert read_text(path, "NetParameter").text("name") == "x"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImportModelError, match="not a text file"):
        read_text(path, "NetParameter")
    path.write_bytes(b" " * (LARGEST_TEXT + 1))
    with pytest.raises(ImportModelError, match="too large"):
        read_text(path, "NetParameter")
    with pytest.raises(ImportModelError, match="cannot be read"):
        read_text(tmp_path / "none", "NetParameter")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_text(text, "NetParameter")
    except ImportModelError as error:
        assert error.where
