"""Hostile files: truncated, bit-flipped, shuffled. A clear error or a correct import, nothing else.

Whatever comes out is a BrickcError or a model that can be differentiated; each example has its
time and memory bounded by the test's own limits.
"""

from __future__ import annotations

import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from caffe_wild import WILD
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brickc.compiler.differentiate import with_gradients
from brickc.errors import BrickcError
from brickc.frontends.caffe import load_net
from brickc.frontends.caffe.binary import (
    StoredLayer,
    decode_datum,
    encode_datum,
    encode_net,
    read_blob,
    read_net,
)
from brickc.frontends.caffe.solver import read_solver

NETS = Path(__file__).parent / "nets"
LENET = (NETS / "lenet_train_test.prototxt").read_text()
TEXTS = [LENET, *WILD.values()]
#: seconds and bytes that one file may cost
SECONDS, BYTES = 5.0, 2**28

some = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def bounded(read: Callable[[], object], *, memory: bool = False) -> None:
    """Run; a BrickcError is fine, any other exception, much time or much memory is not."""
    started = time.process_time()
    attempt(read)
    assert time.process_time() - started < SECONDS
    if memory:
        tracemalloc.start()
        attempt(read)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < BYTES


def attempt(read: Callable[[], object]) -> None:
    try:
        read()
    except BrickcError as error:
        assert str(error)


def import_text(text: str, *, memory: bool = False) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.prototxt"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")

        def read() -> None:
            model = load_net(path).model
            if model.loss is not None:
                with_gradients(model.training(), "loss", trained_only=True)

        bounded(read, memory=memory)


NUMBER = re.compile(r"\b\d+(\.\d+)?\b")
NUMBERS = ["0", "-1", "1", "2", "3", "7", "65536", "2147483647", "2147483648", "4294967295",
           "18446744073709551616", "1e30", "1e-30", "0.5", "-0.5"]  # fmt: skip


@some
@given(st.sampled_from(TEXTS), st.data())
def test_other_numbers(text: str, data: st.DataObject) -> None:
    """One to three numbers of a network replaced."""
    for _ in range(data.draw(st.integers(1, 3))):
        places = list(NUMBER.finditer(text))
        chosen = data.draw(st.sampled_from(places))
        text = text[: chosen.start()] + data.draw(st.sampled_from(NUMBERS)) + text[chosen.end() :]
    import_text(text)


@some
@given(st.sampled_from(TEXTS), st.data())
def test_lines_lost_repeated_and_moved(text: str, data: st.DataObject) -> None:
    lines = text.split("\n")
    for _ in range(data.draw(st.integers(1, 4))):
        a, b = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        match data.draw(st.integers(0, 3)):
            case 0:
                del lines[a]
            case 1:
                lines.insert(b, lines[a])
            case 2:
                lines[a], lines[b] = lines[b], lines[a]
            case _:
                lines = lines[: max(a, 1)]
        if not lines:
            lines = [""]
    import_text("\n".join(lines))


WORDS = re.compile(r'"[^"\n]*"')


@some
@given(st.sampled_from(TEXTS), st.data())
def test_other_names_and_types(text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        places = list(WORDS.finditer(text))
        chosen, other = (data.draw(st.sampled_from(places)) for _ in range(2))
        word = data.draw(st.one_of(st.just(other.group()), st.sampled_from(
            ['""', '"x\\"; import os #"', '"../../etc/passwd"', '"' + "x" * 10_000 + '"', '"\\000"',
             '"Pooling"', '"LSTM"', '"SPP"', '"Deconvolution"', '"Embed"', '"Slice"', '"MVN"']
        )))  # fmt: skip
        text = text[: chosen.start()] + word + text[chosen.end() :]
    import_text(text)


@some
@given(st.sampled_from(TEXTS), st.data())
def test_other_characters(text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(text)))
        text = (
            text[:place]
            + data.draw(st.text(max_size=3))
            + text[place + data.draw(st.integers(0, 3)) :]
        )
    import_text(text)


def mutated(data: st.DataObject, whole: bytes) -> bytes:
    """Bits turned around, bytes lost, the end cut off."""
    array = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 8))):
        if not array:
            break
        place = data.draw(
            st.integers(0, min(len(array) - 1, 400) if data.draw(st.booleans()) else len(array) - 1)
        )
        match data.draw(st.integers(0, 3)):
            case 0:
                array[place] ^= 1 << data.draw(st.integers(0, 7))
            case 1:
                array[place] = data.draw(st.sampled_from([0, 0x7F, 0x80, 0xFF]))
            case 2:
                del array[place : place + data.draw(st.integers(1, 9))]
            case _:
                array = array[:place]
    return bytes(array)


RNG = np.random.default_rng(17)
MODEL = encode_net(
    "n",
    [
        StoredLayer("conv1", "Convolution", (RNG.random((4, 1, 5, 5)), RNG.random(4))),
        StoredLayer("ip2", "InnerProduct", (RNG.random((10, 20)), RNG.random(10))),
    ],
)


@some
@given(st.data())
def test_broken_weights(data: st.DataObject) -> None:
    broken = mutated(data, MODEL)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "w.caffemodel"
        path.write_bytes(broken)
        bounded(
            lambda: load_net(
                NETS / "lenet_train_test.prototxt", weights=path, shapes={"data": (1, 12, 12)}
            )
        )
        bounded(lambda: read_net(path), memory=True)
        bounded(lambda: read_blob(path))


@some
@given(st.data())
def test_broken_records(data: st.DataObject) -> None:
    record = encode_datum(RNG.integers(0, 255, (3, 4, 5)).astype(np.uint8), 3)
    broken = mutated(data, record)
    bounded(lambda: decode_datum(broken, "db"), memory=True)


@some
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "w.caffemodel"
        path.write_bytes(data)
        bounded(lambda: read_net(path))
        path = Path(folder) / "net.prototxt"
        path.write_bytes(data)
        bounded(lambda: load_net(path))


@some
@given(st.data())
def test_broken_solvers(data: st.DataObject) -> None:
    text = (NETS / "lenet_solver.prototxt").read_text()
    for _ in range(data.draw(st.integers(1, 3))):
        chosen = data.draw(
            st.sampled_from(list(NUMBER.finditer(text)) + list(WORDS.finditer(text)))
        )
        word = data.draw(
            st.sampled_from([*NUMBERS, '"exp"', '"Adam"', '"poly"', '"../../x"', "TRAIN"])
        )
        text = text[: chosen.start()] + word + text[chosen.end() :]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lenet_solver.prototxt"
        path.write_text(text)
        (Path(folder) / "lenet_train_test.prototxt").write_text(LENET)

        def read() -> None:
            solver = read_solver(path)
            assert solver.rate(10) >= 0
            solver.net((1, 12, 12), {})

        bounded(read)


@pytest.mark.parametrize(
    "text",
    [
        "layer { " * 50_000,
        'layer { name: "a" type: "ReLU" bottom: "a" top: "a" }\n' * 5_001,
        "x: '" + "\\" * 1_000_000,
        "#" * 1_000_000,
        " " * 1_000_000,
        "name: " + '"a" ' * 50_000,
        'layer { name: "x" type: "Input" top: "x" input_param { shape { ' + "dim: 2 " * 5000 + "} } }",
        'layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 65536 dim: 65536 } } }',
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 1 dim: 268435456 } } }'
        'layer { name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param { pool: AVE kernel_h: 1 kernel_w: 3 pad_h: 0 pad_w: 1 } }',
    ],
    ids=range(9),
)  # fmt: skip
def test_large_and_deep(text: str) -> None:
    import_text(text, memory=True)
