"""A run directory has one writer, keeps artifacts by their content and refuses to be mixed with another run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from automc.config import SearchConfig
from automc.errors import ConfigError, RunError
from automc.run import LOCK, ArtifactStore, Run


def test_a_second_run_into_the_same_folder_is_refused_with_the_way_out(tmp_path: Path) -> None:
    Run.create(tmp_path / "r", SearchConfig(), data_root=None).close()
    with pytest.raises(RunError, match="holds a run already") as caught:
        Run.create(tmp_path / "r", SearchConfig(), data_root=None)
    assert "automc resume" in str(caught.value)


def test_a_folder_with_other_files_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(RunError):
        Run.create(tmp_path, SearchConfig(), data_root=None)
    assert (tmp_path / "thesis.txt").read_text() == "dear"


def test_two_writers_cannot_hold_one_run(tmp_path: Path) -> None:
    with (
        Run.create(tmp_path / "r", SearchConfig(), data_root=None),
        pytest.raises(RunError, match="another process is running it"),
    ):
        Run.open(tmp_path / "r", writable=True)
    Run.open(tmp_path / "r", writable=True).close()


def test_config_and_locked_digests_come_back(tmp_path: Path) -> None:
    config = SearchConfig(name="mine")
    with Run.create(tmp_path / "r", config, data_root=tmp_path) as run:
        run.lock_in("digests", {"train": "ab"})
    again = Run.open(tmp_path / "r")
    assert again.config == config
    assert again.data_root == tmp_path.resolve()
    assert again.lock["digests"] == {"train": "ab"}


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run"):
        Run.open(tmp_path)


def test_a_damaged_lock_file_is_named(tmp_path: Path) -> None:
    Run.create(tmp_path / "r", SearchConfig(), data_root=None).close()
    (tmp_path / "r" / LOCK).write_text("name: [")
    with pytest.raises(RunError, match=LOCK):
        Run.open(tmp_path / "r")


def test_the_front_of_a_run_that_has_not_ended_says_how_to_go_on(tmp_path: Path) -> None:
    with (
        Run.create(tmp_path / "r", SearchConfig(), data_root=None) as run,
        pytest.raises(RunError, match="has not ended") as caught,
    ):
        run.front()
    assert caught.value.next_step == f"automc resume {tmp_path / 'r'}"


def test_an_artifact_is_stored_once_and_checked_on_reading(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    name = store.put(b"weights")
    assert store.put(b"weights") == name
    assert store.get(name) == b"weights"
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == [name]
    (tmp_path / "artifacts" / name).write_bytes(b"Weights")
    with pytest.raises(RunError, match="damaged"):
        store.get(name)
    with pytest.raises(RunError, match="missing"):
        store.get("0" * 64)


def test_a_run_and_its_artifacts_are_on_disk_before_they_are_relied_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, fsync = [], os.fsync

    def watched(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    with Run.create(tmp_path / "r", SearchConfig(), data_root=None) as run:
        lock = f".{LOCK}.{os.getpid()}.part"
        # the run's own name, then the content of its lock file, then that file's name, then the journal's
        assert synced == [tmp_path.name, lock, "r", "r"]
        synced.clear()
        name = run.artifacts.put(b"weights")
        assert synced == ["r", f".{name}.{os.getpid()}.part", "artifacts"]
        run.artifacts.put(b"weights")
        assert len(synced) == 3


@pytest.mark.parametrize("left", [b"Weights", b"wei", b""])
def test_a_damaged_artifact_is_written_again(tmp_path: Path, left: bytes) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    name = store.put(b"weights")
    (tmp_path / "artifacts" / name).write_bytes(left)
    assert store.put(b"weights") == name
    assert store.get(name) == b"weights"


def test_a_damaged_front_is_one_message(tmp_path: Path) -> None:
    with Run.create(tmp_path / "r", SearchConfig(), data_root=None) as run:
        run.journal.append("end", chosen="x")
        (tmp_path / "r" / "front.json").write_text("{bad")
        with pytest.raises(RunError, match="is damaged"):
            run.front()


def test_a_front_without_its_journal_is_refused(tmp_path: Path) -> None:
    with Run.create(tmp_path / "r", SearchConfig(), data_root=None) as run:
        run.write_text("front.json", '{"points": []}')
    with pytest.raises(RunError, match="empty or missing journal"):
        Run.open(tmp_path / "r")


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "afile").touch()
    with pytest.raises(ConfigError, match="is a file"):
        Run.create(tmp_path / "afile", SearchConfig(), data_root=None)


def test_a_search_that_cannot_begin_leaves_no_folder(tmp_path: Path) -> None:
    from automc.search.loop import search

    with pytest.raises(ConfigError):
        search(SearchConfig(space="nowhere"), run_dir=tmp_path / "r")
    assert not (tmp_path / "r").exists()
