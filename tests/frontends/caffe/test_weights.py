"""Weights in and out: .caffemodel, Caffe's HDF5, Mocha's snapshots; the same losses afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import brickc as bc
from brickc.errors import ArtifactError, BrickcError, DataError, ImportModelError
from brickc.frontends.caffe import load_caffemodel, load_net, save_caffemodel
from brickc.frontends.caffe.binary import (
    StoredLayer,
    decode_datum,
    encode_datum,
    encode_net,
    read_blob,
    read_net,
    write_blob,
)

NETS = Path(__file__).parent / "nets"
NET = NETS / "lenet_train_test.prototxt"
RNG = np.random.default_rng(11)


@pytest.fixture(scope="module")
def program() -> bc.Program:
    model = load_net(NET, shapes={"data": (1, 12, 12)}).model
    return bc.compile(model, optimizer=bc.SGD(0.05, 0.9, style="caffe"))


def batch(k: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([12, k])
    return {
        "data": rng.random((16, 1, 12, 12)).astype(np.float32),
        "label": rng.integers(0, 10, 16).astype(np.int32),
    }


def test_the_same_losses_after_writing_and_reading(program: bc.Program, tmp_path: Path) -> None:
    for k in range(3):
        program.train_step(**batch(k))
    save_caffemodel(program, tmp_path / "w.caffemodel")
    momenta = {n: a for n, a in program.state_dict().items() if "/" in n}
    going_on = [float(program.train_step(**batch(k))["loss"]) for k in range(3, 6)]
    model = load_net(NET, weights=tmp_path / "w.caffemodel", shapes={"data": (1, 12, 12)}).model
    other = bc.compile(model, optimizer=bc.SGD(0.05, 0.9, style="caffe"), seed=9)
    other.load_state_dict(momenta, strict=False)
    assert [float(other.train_step(**batch(k))["loss"]) for k in range(3, 6)] == going_on
    # the same weights give the same bytes
    fresh = load_net(NET, weights=tmp_path / "w.caffemodel", shapes={"data": (1, 12, 12)}).model
    save_caffemodel(bc.compile(fresh), tmp_path / "again.caffemodel")
    assert (tmp_path / "again.caffemodel").read_bytes() == (tmp_path / "w.caffemodel").read_bytes()


def test_into_a_program(program: bc.Program, tmp_path: Path) -> None:
    before = program.parameters()
    save_caffemodel(program, tmp_path / "w.caffemodel")
    program.init(5)
    names = load_caffemodel(program, tmp_path / "w.caffemodel")
    assert sorted(names) == sorted(before)
    for name, array in program.parameters().items():
        np.testing.assert_array_equal(array, before[name])


def proper_messages() -> dict[str, Any]:
    """BlobProto and NetParameter as caffe.proto has them: numbers as packed floats."""
    file = descriptor_pb2.FileDescriptorProto(
        name="proper.proto", package="proper", syntax="proto2"
    )

    def add(
        message: Any, name: str, number: int, type: int, label: int = 1, other: str = ""
    ) -> None:
        field = message.field.add(name=name, number=number, type=type, label=label)
        if other:
            field.type_name = f".proper.{other}"
        elif label == 3 and type in (2, 3):
            field.options.packed = True

    shape = file.message_type.add(name="BlobShape")
    add(shape, "dim", 1, 3, 3)
    blob = file.message_type.add(name="BlobProto")
    add(blob, "shape", 7, 11, other="BlobShape")
    add(blob, "data", 5, 2, 3)
    for k, name in enumerate(("num", "channels", "height", "width"), 1):
        add(blob, name, k, 5)
    layer = file.message_type.add(name="LayerParameter")
    add(layer, "name", 1, 9)
    add(layer, "type", 2, 9)
    add(layer, "blobs", 7, 11, 3, "BlobProto")
    old = file.message_type.add(name="V1LayerParameter")
    add(old, "name", 4, 9)
    add(old, "type", 5, 5)
    add(old, "blobs", 6, 11, 3, "BlobProto")
    net = file.message_type.add(name="NetParameter")
    add(net, "name", 1, 9)
    add(net, "layers", 2, 11, 3, "V1LayerParameter")
    add(net, "layer", 100, 11, 3, "LayerParameter")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"proper.{n}"))
        for n in ("NetParameter", "BlobProto")
    }


def test_files_are_those_of_the_protocol(tmp_path: Path) -> None:
    """Numbers go over the wire as bytes here; whoever has the real descriptors reads floats."""
    array = RNG.standard_normal((2, 3)).astype(np.float32)
    proper = proper_messages()["NetParameter"]()
    proper.ParseFromString(encode_net("n", [StoredLayer("a", "InnerProduct", (array,))]))
    (layer,) = proper.layer
    assert (proper.name, layer.name, layer.type) == ("n", "a", "InnerProduct")
    assert list(layer.blobs[0].shape.dim) == [2, 3]
    np.testing.assert_array_equal(np.array(layer.blobs[0].data, np.float32), array.ravel())
    # and the other way round, of the first generation with four axes for everything
    old = proper_messages()["NetParameter"]()
    entry = old.layers.add(name="ip", type=14)
    entry.blobs.add(num=1, channels=1, height=2, width=3).data.extend(array.ravel().tolist())
    (tmp_path / "old.caffemodel").write_bytes(old.SerializeToString())
    (found,) = read_net(tmp_path / "old.caffemodel")
    assert found.name == "ip"
    np.testing.assert_array_equal(found.blobs[0], array.reshape(1, 1, 2, 3))


def write(path: Path, *layers: StoredLayer) -> Path:
    path.write_bytes(encode_net("n", layers))
    return path


def arrays() -> dict[str, tuple[np.ndarray, ...]]:
    return {
        "conv1": (RNG.standard_normal((4, 1, 5, 5)), RNG.standard_normal((1, 1, 1, 4))),
        "ip2": (RNG.standard_normal((1, 1, 10, 20)), RNG.standard_normal(10)),
    }


def test_layers_that_one_side_lacks_are_left_alone(tmp_path: Path) -> None:
    stored = arrays()
    path = write(
        tmp_path / "w.caffemodel",
        StoredLayer("elsewhere", "", (np.ones(3),)),
        *(StoredLayer(n, "", b) for n, b in stored.items()),
    )
    weights = load_net(NET, weights=path, shapes={"data": (1, 12, 12)}).model.weights
    assert weights is not None
    assert set(weights) == {"conv1.weight", "conv1.bias", "ip2.weight", "ip2.bias"}
    np.testing.assert_array_equal(
        weights["conv1.bias"], stored["conv1"][1].ravel().astype(np.float32)
    )
    assert weights["ip2.weight"].shape == (10, 20)


def test_everything_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    path = write(
        tmp_path / "w.caffemodel",
        StoredLayer("conv1", "", (np.ones((4, 1, 3, 3)), np.ones(4))),
        StoredLayer("ip2", "", (np.ones((10, 20)),)),
    )
    with pytest.raises(ImportModelError) as caught:
        load_net(NET, weights=path, shapes={"data": (1, 12, 12)})
    assert "conv1.weight: [4, 1, 3, 3], expected [4, 1, 5, 5]" in str(caught.value)
    assert "ip2: 1 blobs, expected 2" in str(caught.value)
    path = write(tmp_path / "x.caffemodel", StoredLayer("else", "", (np.ones(4),)))
    with pytest.raises(ImportModelError, match="no layer of the file"):
        load_net(NET, weights=path, shapes={"data": (1, 12, 12)})


@pytest.mark.parametrize("style", ["caffe", "mocha"])
def test_hdf5(style: str, tmp_path: Path) -> None:
    stored = {n: tuple(b.astype(np.float32) for b in blobs) for n, blobs in arrays().items()}
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        for name, blobs in stored.items():
            for k, blob in enumerate(blobs):
                key = (
                    f"data/{name}/{k}" if style == "caffe" else f"{name}___{('weight', 'bias')[k]}"
                )
                file[key] = blob
    weights = load_net(NET, weights=path, shapes={"data": (1, 12, 12)}).model.weights
    assert weights is not None
    np.testing.assert_array_equal(weights["conv1.weight"], stored["conv1"][0])
    np.testing.assert_array_equal(weights["ip2.bias"], stored["ip2"][1])


def test_hdf5_without_weights(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["something"] = [1, 2]
    with pytest.raises(ImportModelError, match="no weights"):
        load_net(NET, weights=tmp_path / "w.h5", shapes={"data": (1, 12, 12)})


def test_hostile_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with h5py.File(tmp_path / "else.h5", "w") as file:
        file["secret"] = [1.0]
    with h5py.File(path, "w") as file:  # links to other files are not followed
        file["a___weight"] = h5py.ExternalLink(str(tmp_path / "else.h5"), "secret")
    with pytest.raises(ImportModelError, match="no weights"):
        load_net(NET, weights=path, shapes={"data": (1, 12, 12)})
    with h5py.File(path, "w") as file:  # numbers that take no room in the file
        file.create_dataset("a___weight", (2**20, 2**20), np.float32, chunks=(1, 1024))
    with pytest.raises(DataError, match="too large for this file"):
        load_net(NET, weights=path, shapes={"data": (1, 12, 12)})
    with h5py.File(path, "w") as file:  # a group within itself
        group = file.create_group("data").create_group("a")
        for k in range(9):
            group[f"g{k}"] = group
    with pytest.raises(ImportModelError, match="within themselves"):
        load_net(NET, weights=path, shapes={"data": (1, 12, 12)})
    whole = path.read_bytes()
    for k in range(0, len(whole), 97):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 0x55]) + whole[k + 1 :])
        with pytest.raises(BrickcError):
            load_net(NET, weights=path, shapes={"data": (1, 12, 12)})


def test_statistics_are_blobs(tmp_path: Path) -> None:
    (tmp_path / "n.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }'
        'layer { name: "a/bn" type: "BatchNorm" bottom: "x" top: "y" }'
        'layer { name: "a/s" type: "Scale" bottom: "y" top: "y" scale_param { bias_term: true } }'
    )
    path = write(
        tmp_path / "w.caffemodel",
        StoredLayer(
            "a/bn", "BatchNorm", (np.array([2.0, 4]), np.array([8.0, 18]), np.array([2.0]))
        ),
        StoredLayer("a/s", "Scale", (np.array([1.0, 10]), np.array([0.0, 1]))),
    )
    program = bc.compile(bc.load_model(f"{tmp_path}/n.prototxt:{path}"))
    np.testing.assert_allclose(
        program.infer(x=np.array([[3, 5]], np.float32))["y"], [[1, 11]], rtol=1e-4
    )
    save_caffemodel(program, tmp_path / "again.caffemodel")
    for first, second in zip(read_net(path), read_net(tmp_path / "again.caffemodel"), strict=True):
        assert first.name == second.name
        for a, b in zip(first.blobs, second.blobs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_nothing_to_write(tmp_path: Path) -> None:
    from brickc.frontends import trace
    from brickc.frontends.model import Model

    program = bc.compile(Model(trace.input("x", (2,)) * 2.0))
    with pytest.raises(ArtifactError, match="no weights"):
        save_caffemodel(program, tmp_path / "w.caffemodel")


def test_blobs(tmp_path: Path) -> None:
    array = RNG.standard_normal((1, 3, 4, 5)).astype(np.float32)
    write_blob(tmp_path / "m.binaryproto", array)
    np.testing.assert_array_equal(read_blob(tmp_path / "m.binaryproto"), array)
    for data, message in (
        (b"\x08", "not a BlobProto"),
        (b"\x2a\x03abc", "cut off"),
        (b"\x08\x05\x10\x01\x18\x01\x20\x01", "do not fill"),
    ):
        (tmp_path / "m.binaryproto").write_bytes(data)
        with pytest.raises(ImportModelError, match=message):
            read_blob(tmp_path / "m.binaryproto")


def test_huge_shapes_cost_nothing(tmp_path: Path) -> None:
    proper = proper_messages()["NetParameter"]()
    blob = proper.layer.add(name="a").blobs.add()
    blob.shape.dim.extend([2**31, 2**31, 2**31])
    blob.data.extend([1.0])
    (tmp_path / "w.caffemodel").write_bytes(proper.SerializeToString())
    with pytest.raises(ImportModelError, match="do not fill its shape"):
        read_net(tmp_path / "w.caffemodel")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_records(dtype: type) -> None:
    pixels = RNG.integers(0, 255, (3, 4, 5)).astype(dtype)
    found = decode_datum(encode_datum(pixels, 7), "db")
    assert found.label == 7
    assert found.pixels.dtype == dtype
    np.testing.assert_array_equal(found.pixels, pixels)
    with pytest.raises(ImportModelError, match="do not fill"):
        decode_datum(b"\x08\x02", "db")
