"""The cache of compiled kernels: entries are whole or not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from brickc.backends.cache import cache_folder, read_entry, write_entry


def test_an_entry_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRICKC_CACHE", str(tmp_path))
    assert read_entry("kind", "abcdef") is None
    write_entry("kind", "abcdef", b"one\ntwo\x00")
    assert read_entry("kind", "abcdef") == b"one\ntwo\x00"
    assert read_entry("other", "abcdef") is None
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["abcdef"]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_entry_counts_as_missing(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRICKC_CACHE", str(tmp_path))
    write_entry("kind", "abcdef", b"content")
    path = tmp_path / "kind" / "ab" / "abcdef"
    whole = path.read_bytes()
    broken = {"cut": whole[:-2], "changed": whole[:-1] + b"T", "empty": b""}[damage]
    path.write_bytes(broken)
    assert read_entry("kind", "abcdef") is None
    write_entry("kind", "abcdef", b"content")
    assert read_entry("kind", "abcdef") == b"content"


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRICKC_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "brickc"
    monkeypatch.setenv("BRICKC_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, where a folder is wanted")
    monkeypatch.setenv("BRICKC_CACHE", str(blocked))
    write_entry("kind", "abcdef", b"content")
    assert read_entry("kind", "abcdef") is None
    if os.getuid():  # the superuser writes anywhere
        closed = tmp_path / "closed"
        closed.mkdir()
        closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
        monkeypatch.setenv("BRICKC_CACHE", str(closed))
        write_entry("kind", "abcdef", b"content")
        assert read_entry("kind", "abcdef") is None
