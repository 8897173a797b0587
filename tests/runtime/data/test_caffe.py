"""What Caffe's data layers read: databases, lists of images, HDF5 files; transformations."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
from PIL import Image

from brickc.errors import BrickcError, DataError, UnsupportedError
from brickc.frontends.caffe.binary import encode_datum, write_blob
from brickc.frontends.caffe.files import finder
from brickc.frontends.caffe.text import parse_text
from brickc.runtime.data.caffe import Transform, layer_stream
from brickc.runtime.data.stream import Stream

RNG = np.random.default_rng(13)


def stream(text: str, folder: Path, *, training: bool = True) -> Stream:
    (layer,) = parse_text(f"layer {{ {text} }}", "NetParameter").subs("layer")
    return layer_stream(layer, finder(folder), training=training, seed=0, dtypes={"t": np.int32})


def database(path: Path, records: list[bytes]) -> None:
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as t:
        for k, record in enumerate(records):
            t.put(f"{k:08}".encode(), record)


def transform(text: str, folder: Path, training: bool = False) -> Transform:
    return Transform.of(parse_text(text, "TransformationParameter"), finder(folder), training)


PIXELS = RNG.integers(0, 256, (6, 2, 5, 4)).astype(np.uint8)


def test_a_database(tmp_path: Path) -> None:
    database(tmp_path / "train_lmdb", [encode_datum(p, k) for k, p in enumerate(PIXELS)])
    text = (
        'name: "d" type: "Data" top: "x" top: "t" transform_param { scale: 0.5 mean_value: 1 mean_value: 2 } '
        'data_param { source: "some/where/train_lmdb" batch_size: 4 backend: LMDB }'
    )
    found = stream(text, tmp_path)
    expected = (PIXELS.astype(np.float32) - np.array([1, 2]).reshape(2, 1, 1)) * 0.5
    batch = found.batch(0)
    np.testing.assert_allclose(batch["x"], expected[:4])
    assert batch["t"].tolist() == [0, 1, 2, 3]
    assert batch["t"].dtype == np.int32
    assert found.batch(1)["t"].tolist() == [4, 5, 0, 1]


def test_encoded_records(tmp_path: Path) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (5, 4, 3)).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "png")
    from brickc.frontends.caffe.binary import _messages

    datum = _messages()["Datum"](encoded=True, data=buffer.getvalue(), label=3)
    database(tmp_path / "db", [datum.SerializeToString()])
    text = 'name: "d" type: "Data" top: "x" top: "t" data_param { source: "db" batch_size: 1 backend: LMDB }'
    batch = stream(text, tmp_path).batch(0)
    # blue, green, red, as OpenCV decodes
    np.testing.assert_array_equal(batch["x"][0], np.asarray(image)[:, :, ::-1].transpose(2, 0, 1))
    assert batch["t"].tolist() == [3]


def test_a_list_of_images(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a b.png 2\nsub/c.png 1\n")
    (tmp_path / "sub").mkdir()
    pixels = RNG.integers(0, 256, (2, 6, 7, 3)).astype(np.uint8)
    for name, array in zip(("a b.png", "sub/c.png"), pixels, strict=True):
        Image.fromarray(array).save(tmp_path / name)
    text = 'name: "d" type: "ImageData" top: "x" top: "t" image_data_param {{ source: "list.txt" batch_size: 2 {} }}'
    batch = stream(text.format(""), tmp_path).batch(0)
    np.testing.assert_array_equal(batch["x"], pixels[:, :, :, ::-1].transpose(0, 3, 1, 2))
    assert batch["t"].tolist() == [2, 1]
    small = stream(text.format("new_height: 3 new_width: 2 is_color: false"), tmp_path).batch(0)
    assert small["x"].shape == (2, 1, 3, 2)
    shuffled = stream(text.format("shuffle: true"), tmp_path)
    assert sorted(t for k in range(2) for t in shuffled.batch(k)["t"].tolist()) == [1, 1, 2, 2]


def test_hdf5_files(tmp_path: Path) -> None:
    for name, lo in (("a.h5", 0), ("b.h5", 3)):
        with h5py.File(tmp_path / name, "w") as file:
            file["x"] = np.arange(lo, lo + 3, dtype=np.float64).reshape(3, 1)
            file["t"] = np.arange(lo, lo + 3)
    (tmp_path / "list.txt").write_text("a.h5\ndata/b.h5\n")
    text = 'name: "d" type: "HDF5Data" top: "x" top: "t" hdf5_data_param { source: "list.txt" batch_size: 4 }'
    batch = stream(text, tmp_path).batch(0)
    assert batch["x"].ravel().tolist() == [0, 1, 2, 3]
    assert (batch["x"].dtype, batch["t"].dtype) == (np.float32, np.int32)


def test_transformations(tmp_path: Path) -> None:
    # the cases of Caffe's DataTransformTest: crop, mirror, mean of values and of a file, scale
    image = np.arange(2 * 4 * 6, dtype=np.uint8).reshape(2, 4, 6)
    rng = np.random.default_rng(0)
    plain = transform("", tmp_path).apply(image, rng, "i")
    np.testing.assert_array_equal(plain, image)
    middle = transform("crop_size: 2", tmp_path).apply(image, rng, "i")
    np.testing.assert_array_equal(middle, image[:, 1:3, 2:4])
    write_blob(tmp_path / "mean.binaryproto", np.full((1, 2, 4, 6), 3, np.float32))
    meant = transform('mean_file: "a/mean.binaryproto" scale: 0.5 crop_size: 2', tmp_path)
    np.testing.assert_allclose(meant.apply(image, rng, "i"), (image[:, 1:3, 2:4] - 3.0) * 0.5)
    mirror = transform("mirror: true", tmp_path)
    seen = {float(mirror.apply(image, rng, "i")[0, 0, 0]) for _ in range(20)}
    assert seen == {0.0, 5.0}
    crops = transform("crop_size: 2", tmp_path, training=True)
    corners = {float(crops.apply(image, rng, "i")[0, 0, 0]) for _ in range(200)}
    assert corners == {float(6 * h + w) for h in range(3) for w in range(5)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crop_size: 9", "smaller than the crop"),
        ("mean_value: 1 mean_value: 2 mean_value: 3", "mean does not fit"),
        ('mean_file: "none"', "not there"),
        ('mean_file: "../m" mean_value: 1', "both mean_file"),
    ],
)
def test_transformations_that_make_no_sense(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BrickcError, match=message):
        transform(text, tmp_path).apply(
            np.zeros((2, 4, 6), np.uint8), np.random.default_rng(0), "i"
        )


def test_what_cannot_be_read(tmp_path: Path) -> None:
    data = 'name: "d" type: "Data" top: "x" data_param {{ source: "{}" batch_size: 1 backend: {} }}'
    with pytest.raises(DataError, match=r"not there.*--data"):
        stream(data.format("none", "LMDB"), tmp_path)
    with pytest.raises(DataError, match="not there"):
        stream(data.format("/etc/passwd", "LMDB"), tmp_path)
    with pytest.raises(UnsupportedError, match="LEVELDB"):
        stream(data.format("none", "LEVELDB"), tmp_path)
    (tmp_path / "file").write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match="no LMDB database"):
        stream(data.format("file", "LMDB"), tmp_path)
    database(tmp_path / "empty", [])
    with pytest.raises(DataError, match="no records"):
        stream(data.format("empty", "LMDB"), tmp_path)
    with pytest.raises(UnsupportedError, match="MemoryData"):
        stream(
            'name: "d" type: "MemoryData" top: "x" memory_data_param { batch_size: 1 }', tmp_path
        )
    (tmp_path / "list.txt").write_text("nothing\n")
    with pytest.raises(DataError, match=r"list\.txt:1: no label"):
        stream(
            'type: "ImageData" top: "x" image_data_param { source: "list.txt" batch_size: 1 }',
            tmp_path,
        )


def test_files_stay_in_their_folder(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret").write_text("x")
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "fine").write_text("x")
    find = finder(inside)
    for name in (
        "../secret",
        "link",
        str(tmp_path / "secret"),
        "",
        "a\0b",
        "x" * 10_000,
        ".",
        "..",
    ):
        assert find(name) is None
    assert find("any/where/fine") == (inside / "fine").resolve()
    assert find("fine") == (inside / "fine").resolve()
    assert finder(inside, tmp_path)("secret") == (tmp_path / "secret").resolve()
