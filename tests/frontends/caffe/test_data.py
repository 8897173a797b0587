"""Data layers as inputs: shapes from hints, sources, crops; what is made instead of read."""

from __future__ import annotations

from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
from caffe_nets import imported, model_of, run_model
from PIL import Image

from brickc.errors import BrickcError, UnsupportedError
from brickc.frontends.caffe.binary import encode_datum, write_blob

USE = 'layer {{ name: "u" type: "AbsVal" bottom: "{}" top: "u" }}'


def shape_in(text: str, folder: Path, name: str = "x") -> str:
    return str(imported(text + USE.format(name), folder=folder).model.inputs[name])


def test_a_database_tells_its_shape(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "db"), map_size=2**20) as db, db.begin(write=True) as t:
        t.put(b"0", encode_datum(np.zeros((2, 5, 7), np.uint8), 0))
    text = 'layer {{ name: "d" type: "Data" top: "x" {} data_param {{ source: "db" batch_size: 3 backend: LMDB }} }}'
    assert shape_in(text.format(""), tmp_path) == "f32[N,2,5,7]"
    assert shape_in(text.format("transform_param { crop_size: 4 }"), tmp_path) == "f32[N,2,4,4]"


def test_images_tell_their_shape(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text("a.png 0\n")
    text = 'layer {{ name: "d" type: "ImageData" top: "x" image_data_param {{ source: "list.txt" batch_size: 3 {} }} }}'
    assert shape_in(text.format(""), tmp_path) == "f32[N,3,5,7]"
    assert (
        shape_in(text.format("is_color: false new_height: 4 new_width: 6"), tmp_path)
        == "f32[N,1,4,6]"
    )


def test_hdf5_files_tell_their_shapes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["t"] = np.zeros((9, 4, 2)), np.zeros((9, 1))
    (tmp_path / "list.txt").write_text("a.h5\n")
    text = 'layer { name: "d" type: "HDF5Data" top: "x" top: "t" hdf5_data_param { source: "list.txt" batch_size: 3 } }'
    text += 'layer { name: "s" type: "Silence" bottom: "t" }'
    assert shape_in(text, tmp_path) == "f32[N,4,2]"


def test_a_mean_image_tells_the_shape(tmp_path: Path) -> None:
    write_blob(tmp_path / "mean.binaryproto", np.zeros((1, 3, 6, 8), np.float32))
    text = 'layer {{ name: "d" type: "Data" top: "x" transform_param {{ mean_file: "m/mean.binaryproto" {} }} data_param {{ source: "db" batch_size: 3 }} }}'
    assert shape_in(text.format(""), tmp_path) == "f32[N,3,6,8]"
    assert shape_in(text.format("crop_size: 4"), tmp_path) == "f32[N,3,4,4]"


def test_arrays_in_memory() -> None:
    text = (
        'layer { name: "d" type: "MemoryData" top: "x" top: "t" memory_data_param { batch_size: 3 channels: 2 height: 4 width: 5 } }'
        'layer { name: "f" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 6 } }'
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "l" }'
    )
    inputs = {n: str(t) for n, t in model_of(text).inputs.items()}
    assert inputs == {"x": "f32[N,2,4,5]", "t": "i32[N]"}


def test_dummies() -> None:
    # Caffe's DummyDataLayerTest: one filler for all tops, or one for each
    text = (
        'layer { name: "d" type: "DummyData" top: "a" top: "b" dummy_data_param { '
        "num: 5 channels: 3 height: 2 width: 4 num: 5 channels: 1 height: 1 width: 4 "
        'data_filler { value: 7 } data_filler { type: "gaussian" mean: 3 std: 0.5 } } }'
    )
    values = {"random.seed": 1, "random.counter": 0}
    found = run_model(
        model_of(text + USE.format("a") + USE.format("b").replace('"u"', '"v"')), {}, values
    )
    assert found["u"].shape == (5, 3, 2, 4)
    assert (found["u"] == 7).all()
    assert found["v"].shape == (5, 1, 1, 4)
    assert found["v"].mean() == pytest.approx(3, abs=0.6)
    many = text.replace("num: 5 channels: 1", "num: 500 channels: 9")
    found = run_model(model_of(many + USE.format("b")), {}, values)["u"]
    assert found.mean() == pytest.approx(3, abs=0.02)
    assert found.std() == pytest.approx(0.5, abs=0.02)
    uniform = text.replace('"gaussian" mean: 3 std: 0.5', '"uniform" min: 2 max: 4')
    found = run_model(model_of(uniform + USE.format("b")), {}, values)["u"]
    assert ((found >= 2) & (found < 4)).all()


def test_python_layers_that_make_data() -> None:
    text = (
        'layer { name: "d" type: "Python" top: "x" top: "t" python_param { module: "m" layer: "L" param_str: "1/0" } }'
        'layer { name: "f" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 6 kernel_size: 1 } }'
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "l" }'
    )
    with pytest.raises(UnsupportedError, match="--shape x=N,… --shape t=N"):
        model_of(text)
    model = model_of(text, shapes={"x": (3, 4, 4), "t": (1, 4, 4)})
    assert {n: str(t) for n, t in model.inputs.items()} == {
        "x": "f32[N,3,4,4]",
        "t": "i32[N,1,4,4]",
    }
    with pytest.raises(UnsupportedError, match="runs Python code"):
        model_of(
            text.replace('bottom: "x" top: "y"', 'bottom: "x" top: "y0"')
            + 'layer { name: "p" type: "Python" bottom: "x" top: "z" }',
            shapes={"x": (3, 4, 4), "t": (1, 4, 4)},
        )


@pytest.mark.parametrize(
    "text",
    [
        'layer { name: "d" type: "DummyData" top: "x" dummy_data_param { num: 1 } }',
        'layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 0 } } }',
        'layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 99999 dim: 99999 } } }',
        'layer { name: "d" type: "MemoryData" top: "x" memory_data_param { batch_size: 1 } }',
        'layer { name: "d" type: "Data" top: "x" top: "y" top: "z" data_param { source: "mnist" batch_size: 1 } }',
        'layer { name: "d" type: "HDF5Data" top: "x" hdf5_data_param { source: "no" batch_size: 1 } }',
        'layer { name: "d" type: "Input" top: "x" }',
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(BrickcError, match=r"net\.prototxt:1"):
        model_of(text + USE.format("x"))
