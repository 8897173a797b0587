"""Data sources: what is read, what is refused, and that the order of batches can be resumed."""

from __future__ import annotations

import gzip
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from brickc.errors import DataError, UsageError
from brickc.runtime.data import Batches, Dataset, Split, digits, idx, load, mnist
from brickc.runtime.data.idx import read_idx

Array = npt.NDArray[Any]


def idx_bytes(array: Array, code: int = 8) -> bytes:
    head = struct.pack(">BBBB", 0, 0, code, array.ndim)
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_pair(folder: Path, which: str, count: int, packed: bool = False) -> tuple[Array, Array]:
    """Images of 4×5 whose first pixel counts them, and labels 0, 1, 2 …"""
    images = np.random.default_rng(count).integers(0, 256, (count, 4, 5)).astype(np.uint8)
    images[:, 0, 0] = np.arange(count) % 251
    labels = (np.arange(count) % 10).astype(np.uint8)
    for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
        raw = idx_bytes(array)
        if packed:
            (folder / f"{which}-{name}.gz").write_bytes(gzip.compress(raw))
        else:
            (folder / f"{which}-{name}").write_bytes(raw)
    return images, labels


# -- IDX files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("code", "dtype"), [(8, ">u1"), (9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]
)
def test_reads_what_was_written(
    tmp_path: Path, pack: Callable[[bytes], bytes], code: int, dtype: str
) -> None:
    array = np.arange(-6, 18).reshape(2, 3, 4).astype(dtype)
    (tmp_path / "a").write_bytes(pack(idx_bytes(array, code)))
    found = read_idx(tmp_path / "a")
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, array)


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "no IDX file"),
        (b"\0\0\x08", "no IDX file"),
        (b"\x89PNG" + GOOD[4:], "no IDX file"),
        (b"\0\0\x07" + GOOD[3:], "no IDX file"),
        (GOOD[:9], "truncated"),
        (GOOD[:-1], "truncated"),
        (GOOD + b"\0", "longer than it says"),
        (b"\0\0\x08\xff" + b"\0" * 2000, "too many axes"),
    ],
    ids=["empty", "short", "png", "type", "header", "body", "longer", "axes"],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_damaged_files_are_named(
    tmp_path: Path, raw: bytes, message: str, pack: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "broken").write_bytes(pack(raw))
    with pytest.raises(DataError, match=message) as caught:
        read_idx(tmp_path / "broken")
    assert str(tmp_path / "broken") in str(caught.value)


def test_damaged_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(GOOD)
    path = tmp_path / "a.gz"
    path.write_bytes(packed[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(path)
    path.write_bytes(packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:])
    with pytest.raises(DataError, match="CRC"):
        read_idx(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "missing")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("sides", [(1000, 1000, 1000), (0xFFFFFFFF,) * 3])
def test_nothing_of_a_claimed_size_is_allocated(
    tmp_path: Path, sides: tuple[int, ...], pack: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "a").write_bytes(pack(b"\0\0\x08\x03" + struct.pack(">3I", *sides) + b"\0" * 99))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"truncated|too large"):
            read_idx(tmp_path / "a")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """Far more data than the header says: reading stops behind what the header says."""
    head = b"\0\0\x08\x01" + struct.pack(">I", 10)
    (tmp_path / "a").write_bytes(gzip.compress(head + b"\0" * 50_000_000, 1))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="longer than it says"):
            read_idx(tmp_path / "a")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_the_bound_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(GOOD)
    monkeypatch.setattr(idx, "LARGEST", 24)
    assert read_idx(tmp_path / "a").size == 24
    monkeypatch.setattr(idx, "LARGEST", 23)
    with pytest.raises(DataError, match="too large"):
        read_idx(tmp_path / "a")


# -- MNIST -------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_with_training_files(tmp_path: Path, packed: bool) -> None:
    images, labels = write_pair(tmp_path, "train", 40, packed)
    held, held_labels = write_pair(tmp_path, "t10k", 20, packed)
    data = load(f"mnist:{tmp_path}")
    assert data.note == ""
    assert data.classes == 10
    assert data.train.x.shape == (40, 1, 4, 5)
    assert (data.train.x.dtype, data.train.t.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(data.train.t, labels)
    np.testing.assert_array_equal(data.held_out.t, held_labels)
    # the mean and deviation are those of the examples to train on, for both splits
    mean, std = images.mean() / 255, images.std() / 255
    np.testing.assert_allclose(data.train.x[:, 0], (images / 255 - mean) / std, atol=1e-5)
    np.testing.assert_allclose(data.held_out.x[:, 0], (held / 255 - mean) / std, atol=1e-5)


def test_mnist_with_test_files_alone(tmp_path: Path) -> None:
    _, labels = write_pair(tmp_path, "t10k", 10_000)
    data = mnist(tmp_path)
    assert (len(data.train), len(data.held_out)) == (8000, 2000)
    np.testing.assert_array_equal(data.train.t, labels[:8000])
    np.testing.assert_array_equal(data.held_out.t, labels[8000:])
    assert "8,000" in data.note
    assert "2,000" in data.note


def test_mnist_refuses(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no t10k-images"):
        mnist(tmp_path)
    write_pair(tmp_path, "t10k", 20)
    with pytest.raises(DataError, match="got 20 images"):
        mnist(tmp_path)
    write_pair(tmp_path, "train", 30)
    assert len(mnist(tmp_path).train) == 30

    labels = tmp_path / "train-labels-idx1-ubyte"
    good = labels.read_bytes()
    labels.write_bytes(idx_bytes(np.zeros(29, np.uint8)))
    with pytest.raises(DataError, match="30 images and 29 labels"):
        mnist(tmp_path)
    labels.write_bytes(good[:-1] + b"\x0a")
    with pytest.raises(DataError, match=r"label is out of range; got 10; expected 0\.\.9"):
        mnist(tmp_path)
    labels.write_bytes(idx_bytes(np.zeros(30, ">f4"), 13))
    with pytest.raises(DataError, match="does not hold labels"):
        mnist(tmp_path)
    labels.unlink()
    with pytest.raises(DataError, match="has no train-labels"):
        mnist(tmp_path)
    labels.write_bytes(good)
    images = tmp_path / "train-images-idx3-ubyte"
    images.write_bytes(good)
    with pytest.raises(DataError, match="does not hold images"):
        mnist(tmp_path)
    images.write_bytes(idx_bytes(np.zeros((30, 3, 3), np.uint8)))
    with pytest.raises(DataError, match="differ in size"):
        mnist(tmp_path)


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "train", 0)
    write_pair(tmp_path, "t10k", 5)
    with pytest.raises(DataError, match="no examples"):
        mnist(tmp_path)


# -- digits ------------------------------------------------------------------------------------


def test_digits() -> None:
    data = load("digits")
    assert data.train.x.shape == (1438, 1, 8, 8)
    assert (data.train.x.dtype, data.train.t.dtype) == (np.float32, np.int32)
    assert len(data.train) + len(data.held_out) == 1797
    assert abs(float(data.train.x.mean(dtype=np.float64))) < 1e-5
    assert abs(float(data.train.x.std(dtype=np.float64)) - 1) < 1e-5
    shares = np.bincount(data.held_out.t) / np.bincount(np.r_[data.train.t, data.held_out.t])
    assert shares.shape == (10,)
    assert np.all(np.abs(shares - 0.2) < 0.01)


def test_digits_are_split_by_the_seed_alone() -> None:
    first, again, other = digits(3), digits(3), digits(4)
    np.testing.assert_array_equal(first.held_out.x, again.held_out.x)
    assert not np.array_equal(first.held_out.t, other.held_out.t)


def test_no_held_out_digit_is_trained_on() -> None:
    from sklearn.datasets import load_digits

    everything = np.asarray(load_digits().images, np.float32)
    data = digits()
    # undo the normalisation: the two splits must together be the whole set, each image once
    x = np.concatenate([data.train.x, data.held_out.x])[:, 0]
    x = np.round((x - x.min()) / (x.max() - x.min()) * 16)
    assert sorted(map(bytes, x.astype(np.uint8))) == sorted(map(bytes, everything.astype(np.uint8)))


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        digits()


# -- npz and specs -----------------------------------------------------------------------------


def save(folder: Path, **arrays: Array) -> str:
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    return f"npz:{folder / 'data.npz'}"


def test_npz(tmp_path: Path) -> None:
    x = np.arange(60, dtype=np.float64).reshape(20, 3)
    t = np.arange(20) // 5
    both = load(save(tmp_path, x=x, t=t, x_test=x[:4], t_test=t[:4]))
    np.testing.assert_array_equal(both.train.x, x)
    np.testing.assert_array_equal(both.held_out.t, t[:4])
    assert both.classes == 4
    assert both.train.x.dtype == np.float32
    assert both.note == ""

    one = load(save(tmp_path, x=x, t=t))
    assert (len(one.train), len(one.held_out)) == (16, 4)
    together = np.concatenate([one.train.x, one.held_out.x])
    np.testing.assert_array_equal(together[np.argsort(together[:, 0])], x)
    np.testing.assert_array_equal(one.train.t, one.train.x[:, 0].astype(int) // 3 // 5)
    assert set(one.train.t) == {0, 1, 2, 3}, "sorted by class, yet every class is trained on"
    assert "fifth" in one.note


X, T = np.zeros((4, 3), np.float32), np.arange(4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "lacks arrays; got x; expected x and t"),
        ({"x": X, "t": T[:3]}, "differ in number"),
        ({"x": X, "t": T, "x_test": X}, "without the other"),
        ({"x": X, "t": T, "x_test": X[:, :2], "t_test": T}, "differ in shape"),
        ({"x": X, "t": T + 0.5}, "does not hold labels"),
        ({"x": X, "t": T - 1}, "label out of range"),
        ({"x": X, "t": T + 2**40}, "label out of range"),
        ({"x": X[:, 0], "t": T}, "does not hold examples"),
        ({"x": X.astype(str), "t": T}, "does not hold examples"),
        ({"x": X + np.nan, "t": T}, "not finite"),
        ({"x": X.astype(np.float64) + 1e300, "t": T}, "not finite"),
        ({"x": X[:0], "t": T[:0]}, "no examples"),
        ({"x": np.array([None, {}]), "t": T}, "cannot be read"),
    ],
)
def test_npz_refuses(tmp_path: Path, arrays: dict[str, Array], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(save(tmp_path, **arrays))


def test_npz_that_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", X)
    (tmp_path / "text").write_text("x, t")
    (tmp_path / "empty").touch()
    save(tmp_path, x=X, t=T)
    whole = (tmp_path / "data.npz").read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    for name in ("one.npy", "text", "empty", "half", "missing"):
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            load(f"npz:{tmp_path / name}")


@pytest.mark.parametrize("spec", ["", "mnist", "npz:", "cifar:/data", "digits:8"])
def test_unknown_data_lists_the_known(spec: str) -> None:
    with pytest.raises(DataError, match=r"digits, mnist:FOLDER, npz:FILE"):
        load(spec)


# -- shapes ------------------------------------------------------------------------------------


def dataset(x: Array, held: Array | None = None) -> Dataset:
    held = x[:1] if held is None else held
    zeros = np.zeros(len(x), np.int32)
    return Dataset("some", Split(x, zeros), Split(held, zeros[: len(held)]), 1)


def test_fit_enlarges_and_centres() -> None:
    x = np.random.default_rng(1).random((3, 1, 8, 8), np.float32)
    large = dataset(x).fit_to((1, 32, 32)).train.x
    assert (large.shape, large.dtype) == ((3, 1, 32, 32), np.float32)
    assert np.all(large[:, :, :4] == x.min())
    assert np.all(large[:, :, :, -4:] == x.min())
    # corners stay where they are, and no value lies outside those of the image
    np.testing.assert_allclose(large[:, :, 4, 4], x[:, :, 0, 0])
    np.testing.assert_allclose(large[:, :, 27, 27], x[:, :, 7, 7])
    assert large.max() <= x.max()
    small = dataset(x).fit_to((1, 28, 28)).train.x
    np.testing.assert_array_equal(small, large[:, :, 2:30, 2:30])


def test_fit_interpolates_linearly() -> None:
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32), (1, 1, 8, 8))
    inside = dataset(ramp).fit_to((1, 32, 32)).train.x[0, 0, 4:28, 4:28]
    np.testing.assert_allclose(inside, np.broadcast_to(np.linspace(0, 7, 24), (24, 24)), atol=1e-5)


def test_fit_pads_with_the_background_of_the_training_examples() -> None:
    x = np.full((2, 1, 28, 28), 5, np.float32)
    x[0, 0, 3, 3] = -2
    held = np.full((1, 1, 28, 28), 7, np.float32)
    fitted = dataset(x, held).fit_to((1, 32, 32))
    np.testing.assert_array_equal(fitted.train.x[:, :, 2:30, 2:30], x)
    assert np.all(fitted.held_out.x[:, :, :2] == -2)
    np.testing.assert_array_equal(fitted.held_out.x[:, :, 2:30, 2:30], held)


def test_fit_flattens() -> None:
    x = np.random.default_rng(2).random((2, 3, 4, 5), np.float32)
    np.testing.assert_array_equal(dataset(x).fit_to((60,)).train.x, x.reshape(2, 60))
    eight = x[:, :1, :, :4].repeat(2, 2).repeat(2, 3)
    assert eight.shape == (2, 1, 8, 8)
    flat = dataset(eight).fit_to((784,)).train.x
    np.testing.assert_array_equal(flat, dataset(eight).fit_to((1, 28, 28)).train.x.reshape(2, -1))


def test_fit_repeats_one_channel() -> None:
    x = np.random.default_rng(3).random((2, 1, 6, 6), np.float32)
    rgb = dataset(x).fit_to((3, 6, 6)).train.x
    assert rgb.shape == (2, 3, 6, 6)
    for channel in range(3):
        np.testing.assert_array_equal(rgb[:, channel], x[:, 0])


def test_fit_leaves_what_fits() -> None:
    data = dataset(np.zeros((2, 1, 8, 8), np.float32))
    assert data.fit_to((1, 8, 8)) is data


def test_fit_with_nothing_held_out() -> None:
    x = np.zeros((2, 1, 8, 8), np.float32)
    assert dataset(x, x[:0]).fit_to((1, 32, 32)).held_out.x.shape == (0, 1, 32, 32)


def test_fit_of_single_pixels() -> None:
    fitted = dataset(np.ones((1, 1, 1, 1), np.float32)).fit_to((1, 8, 8)).train.x
    assert np.all(fitted == 1)


@pytest.mark.parametrize(
    ("have", "want", "message"),
    [
        ((3, 8, 8), (1, 8, 8), "number of channels"),
        ((3, 8, 8), (4, 8, 8), "number of channels"),
        ((1, 28, 28), (1, 27, 28), "larger than"),
        ((1, 8, 8), (63,), "cannot be flattened"),
        ((3, 8, 8), (100,), "cannot be flattened"),
        ((64,), (1, 8, 8), "does not fit"),
        ((64,), (63,), "does not fit"),
        ((1, 8, 8), (8, 8), "does not fit"),
        ((1, 0, 8), (1, 8, 8), "empty"),
    ],
)
def test_fit_refuses(have: tuple[int, ...], want: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataset(np.zeros((2, *have), np.float32)).fit_to(want)


def test_labels_are_checked_against_the_classes() -> None:
    x = np.zeros((2, 3), np.float32)
    for bad in ([0, 2], [-1, 0]):
        with pytest.raises(DataError, match=r"label is out of range.*expected 0\.\.1"):
            Dataset("bad", Split(x, np.array([0, 1])), Split(x, np.array(bad)), 2)


@pytest.mark.parametrize(("x", "t"), [((3, 2), (2,)), ((3,), (3,)), ((3, 2), (3, 1))])
def test_a_split_is_checked(x: tuple[int, ...], t: tuple[int, ...]) -> None:
    with pytest.raises(DataError):
        Split(np.zeros(x, np.float32), np.zeros(t, np.int32))


# -- batches -----------------------------------------------------------------------------------


def numbered(count: int = 23) -> Split:
    return Split(np.arange(count * 2, dtype=np.float32).reshape(count, 2), np.arange(count))


def labels_of(batches: Batches) -> list[list[int]]:
    return [list(batch["t"]) for batch in batches]


def order_of(batches: Batches) -> list[int]:
    return [label for batch in batches for label in batch["t"]]


def test_every_example_comes_once_an_epoch_and_the_tail_too() -> None:
    batches = Batches(numbered(), 5, ("x", "t"), seed=1)
    assert len(batches) == 5
    assert [len(b["t"]) for b in batches] == [5, 5, 5, 5, 3]
    assert sorted(order_of(batches)) == list(range(23))
    for batch in batches:
        np.testing.assert_array_equal(batch["x"][:, 0], batch["t"] * 2)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return labels_of(Batches(numbered(), 5, ("x", "t"), seed, epoch))

    wanted = order(7, 3)
    np.random.default_rng(0).random(99)  # what was drawn before must not matter
    order(7, 0)
    assert order(7, 3) == wanted
    orders = [order(seed, epoch) for seed in (7, 2**63, 2**63 + 1, -1) for epoch in (0, 1, 2)]
    assert len({str(o) for o in orders}) == 12


def test_the_order_is_the_same_on_every_machine() -> None:
    """Written down once: a change here breaks the resumption of everyone's checkpoints."""
    assert order_of(Batches(numbered(8), 4, ("x", "t"), 0, 0)) == ORDER_0
    assert order_of(Batches(numbered(8), 4, ("x", "t"), 0, 1)) == ORDER_1


ORDER_0 = [5, 0, 6, 1, 7, 2, 4, 3]
ORDER_1 = [2, 0, 4, 1, 7, 5, 3, 6]


def test_an_epoch_can_be_resumed_at_every_step() -> None:
    whole = labels_of(Batches(numbered(), 4, ("x", "t"), seed=2, epoch=5))
    for step in range(len(whole) + 1):
        again = Batches(numbered(), 4, ("x", "t"), seed=2, epoch=5)
        assert [list(b["t"]) for b in again.starting_at(step)] == whole[step:]
        assert [list(b["t"]) for b in again[step:]] == whole[step:]
    with pytest.raises(UsageError, match="no such step"):
        Batches(numbered(), 4, ("x", "t"), seed=2).starting_at(len(whole) + 1)


def test_without_a_seed_the_order_is_that_of_the_examples() -> None:
    batches = Batches(numbered(6), 4, ("image", "label"), seed=None)
    assert [list(b["label"]) for b in batches] == [[0, 1, 2, 3], [4, 5]]
    assert list(batches[-1]["label"]) == [4, 5]
    for index in (2, -3):
        with pytest.raises(IndexError):
            batches[index]


def test_no_examples_make_no_batches() -> None:
    assert list(Batches(numbered(0), 4, ("x", "t"), seed=0)) == []


def test_senseless_batches_are_refused() -> None:
    with pytest.raises(UsageError, match="needs examples"):
        Batches(numbered(), 0, ("x", "t"), seed=0)
    with pytest.raises(UsageError, match="count from 0"):
        Batches(numbered(), 4, ("x", "t"), seed=0, epoch=-1)
