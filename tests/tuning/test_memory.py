"""Results of tuning on disk: written whole, read with care, apart by environment."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from brickc.errors import UsageError
from brickc.ir.kernel.choices import Choice
from brickc.tuning import Entry, Memory, cache_folder

HERE = {"target": "c", "processor": "a", "threads": "2"}


def entry(rows: int = 6, seconds: float = 0.5) -> Entry:
    choice = Choice((("rows", rows), ("copy", "whole")))
    return Entry("fc", choice, seconds, 1.0, frozenset({str(choice), "rows=1"}), False)


def test_results_come_back(tmp_path: Path) -> None:
    memory = Memory(HERE, tmp_path)
    assert memory.entries == {}
    memory.store({"k": entry()})
    assert Memory(HERE, tmp_path).entries == {"k": entry()}
    assert [p.name for p in (tmp_path / "tune").iterdir()] == [memory.path.name]
    assert json.loads(memory.path.read_text())["environment"] == HERE


@pytest.mark.parametrize("key", HERE)
def test_other_environments_have_other_files(tmp_path: Path, key: str) -> None:
    Memory(HERE, tmp_path).store({"k": entry()})
    other = Memory({**HERE, key: "another"}, tmp_path)
    assert other.entries == {}
    other.store({"k": entry(3)})
    assert Memory(HERE, tmp_path).entries["k"] == entry()
    assert len(list((tmp_path / "tune").iterdir())) == 2


def test_two_processes_keep_each_others_results(tmp_path: Path) -> None:
    one, two = Memory(HERE, tmp_path), Memory(HERE, tmp_path)
    one.store({"a": entry(1)})
    two.store({"b": entry(2)})
    assert Memory(HERE, tmp_path).entries == {"a": entry(1), "b": entry(2)}


def broken(text: str, **change: object) -> str:
    data = json.loads(text)
    data.update(change)
    return json.dumps(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: broken(text, format=2),
        lambda text: broken(text, environment={}),
        lambda text: broken(text, kernels=[1]),
        lambda text: broken(text, kernels={"k": {"choice": 3}}),
        lambda text: text.replace('"whole"', "[]"),
        lambda text: text.replace("0.5", '"soon"'),
    ],
)
def test_what_cannot_be_read_is_said_once(tmp_path: Path, damage: object) -> None:
    memory = Memory(HERE, tmp_path)
    memory.store({"k": entry()})
    memory.path.write_text(damage(memory.path.read_text()))  # type: ignore[operator]
    with pytest.warns(UserWarning, match="cannot be read") as said:
        again = Memory(HERE, tmp_path)
    assert again.entries == {}
    again.store({"new": entry(3)})  # a second warning would be an error
    assert len(said) == 1
    assert str(memory.path) in str(said[0].message)
    assert Memory(HERE, tmp_path).entries == {"new": entry(3)}


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    memory = Memory(HERE, tmp_path)
    memory.store({})
    memory.path.write_bytes(b"\xff\xfe\x00")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert Memory(HERE, tmp_path).entries == {}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "tune").write_text("a file")
    with pytest.warns(UserWarning, match="cannot be read"):
        memory = Memory(HERE, tmp_path)
    with pytest.raises(UsageError, match=r"cannot be kept; got .*; BRICKC_CACHE names another"):
        memory.store({"k": entry()})


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BRICKC_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("BRICKC_CACHE")
    assert cache_folder() == tmp_path / "b" / "brickc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "brickc"


def test_times_are_numbers(tmp_path: Path) -> None:
    Memory(HERE, tmp_path).store({"k": entry(seconds=1.25e-5)})
    found = Memory(HERE, tmp_path).entries["k"]
    assert math.isclose(found.seconds, 1.25e-5)
