"""The journal survives torn ends, refuses damage in the middle and never loses what it acknowledged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from automc.errors import RunError
from automc.journal import Journal


def written(path: Path, count: int) -> Path:
    journal = Journal(path, writable=True)
    for number in range(count):
        journal.append("told", n=number)
    journal.close()
    return path


def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    path = written(tmp_path / "journal.jsonl", 3)
    assert [record["n"] for record in Journal(path, writable=False).of("told")] == [0, 1, 2]
    assert Journal(path, writable=False).last("told") == {"event": "told", "n": 2}
    assert Journal(path, writable=False).last("end") is None


def test_a_reader_cannot_append(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="for reading"):
        Journal(written(tmp_path / "journal.jsonl", 1), writable=False).append("told", n=1)


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_dropped_and_the_next_append_starts_clean(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "journal.jsonl", 3)
    os.truncate(path, path.stat().st_size - cut)
    journal = Journal(path, writable=True)
    assert [record["n"] for record in journal.of("told")] == [0, 1]
    journal.append("told", n=7)
    journal.close()
    assert [record["n"] for record in Journal(path, writable=False).of("told")] == [0, 1, 7]


def test_a_torn_last_line_is_left_alone_by_a_reader(tmp_path: Path) -> None:
    path = written(tmp_path / "journal.jsonl", 2)
    os.truncate(path, path.stat().st_size - 1)
    size = path.stat().st_size
    Journal(path, writable=False)
    assert path.stat().st_size == size


def test_garbage_in_the_middle_is_refused_and_the_line_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "journal.jsonl", 3)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"n":1', b'"n":9')
    path.write_bytes(b"".join(lines))
    with pytest.raises(RunError, match="line 2 is damaged"):
        Journal(path, writable=False)


def test_an_empty_journal_has_no_events(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").touch()
    assert Journal(tmp_path / "journal.jsonl", writable=False).events == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_one_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "journal.jsonl", 1)
    journal = Journal(path, writable=True)
    with Path("/dev/full").open("ab", buffering=0) as full:
        monkeypatch.setattr(journal, "_file", full)
        with pytest.raises(RunError, match="No space left") as caught:
            journal.append("told", n=1)
        monkeypatch.undo()
    journal.close()
    assert "automc resume" in str(caught.value)
    assert [record["n"] for record in Journal(path, writable=False).of("told")] == [0]
