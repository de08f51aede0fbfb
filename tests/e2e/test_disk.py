"""A disk that fills up in the middle of a search costs one message and a resume, and decides nothing."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import pytest
from noop_runs import config_in, decisions
from whole_runs import outcomes, save_classes, small_config

from automc.config import dump_config
from automc.run import Run
from automc.search.loop import search

pytestmark = pytest.mark.e2e


def no_room(path: object, number: int = errno.ENOSPC) -> OSError:
    return OSError(number, os.strerror(number), str(path))


@contextmanager
def full(files: str, room_for: int = 0) -> Iterator[None]:
    """No room for files like `files`, after as many as `room_for`."""
    opened, left = Path.open, [room_for]

    def open_or_fail(self: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        if "w" in mode and fnmatch(str(self), files):
            left[0] -= 1
            if left[0] < 0:
                raise no_room(self)
        return opened(self, mode, *args, **kwargs)  # type: ignore[call-overload]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", open_or_fail)
        yield


@contextmanager
def full_for_copies() -> Iterator[None]:
    def fail(source: object, target: object, **_: object) -> None:
        raise no_room(target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "copyfile", fail)
        yield


FILLS: dict[str, Callable[[], object]] = {
    "the lock file": lambda: full("*/.config.lock.yaml*.part", room_for=1),  # the first is written with the folder
    "the profile's copy": full_for_copies,
    "an artifact": lambda: full("*/artifacts/.*.part", room_for=2),
    "the cache": lambda: full("*/cache/.*.part"),
    "the front": lambda: full("*/.front.json*.part"),
    "the bundle": lambda: full("*/.bundle.*/model.onnx"),
    "the report": lambda: full("*/.report.html*.part"),
}


def test_whatever_fills_the_disk_the_run_is_resumed_and_decides_as_if_it_had_not(automc, tmp_path: Path) -> None:
    """Every writer fails in turn, the first under `search`, the others under the `resume` that was asked for."""
    save_classes(tmp_path)
    rungs = [{"candidates": 2, "steps": 0}, {"candidates": 1, "steps": 2}]
    config = small_config(tmp_path, "classification", search={"strategy": "random", "rungs": rungs, "finalists": 1})
    (tmp_path / "search.yaml").write_text(dump_config(config))
    folder = tmp_path / "run"
    command: tuple[object, ...] = ("search", tmp_path / "search.yaml", "--run", folder)
    for what, filled in FILLS.items():
        with filled():  # type: ignore[attr-defined]
            answer = automc(*command)
        said, following = answer.err.splitlines()[-2:]
        assert answer.code == 5, f"{what}: {answer.err}"
        assert said.startswith("automc: "), what
        assert "No space left on device" in said, what
        assert following.startswith("  next: make room"), what
        assert following.endswith(f"then: automc resume {folder}"), what
        assert answer.err.count("automc: ") == 1
        assert "Traceback" not in answer.err
        command = ("resume", folder)
    assert automc(*command).code == 0
    whole, run = search(config, run_dir=tmp_path / "whole"), Run.open(folder)
    assert decisions(run) == decisions(whole)
    assert outcomes(run) == outcomes(whole)
    assert not list(folder.glob(".*bundle*.part"))


def test_a_folder_that_could_be_made_but_not_held_is_resumed(automc, tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text(dump_config(config_in(tmp_path)))
    folder = tmp_path / "run"
    with full("*/run/.lock"):
        answer = automc("search", tmp_path / "search.yaml", "--run", folder)
    assert answer.code == 5
    assert answer.err.splitlines()[-1].endswith(f"then: automc resume {folder}")
    assert automc("resume", folder).code == 0


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES], ids=errno.errorcode.get)
def test_a_folder_that_may_not_be_made_is_the_users_mistake(
    automc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Patched, not chmod: a superuser may write anywhere."""
    (tmp_path / "search.yaml").write_text(dump_config(config_in(tmp_path)))
    folder, mkdir = tmp_path / "run", Path.mkdir

    def fail(self: Path, *args: object, **kwargs: object) -> None:
        if self == folder:
            raise no_room(self, number)
        mkdir(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", fail)
    answer = automc("search", tmp_path / "search.yaml", "--run", folder)
    assert answer.code == 2
    assert f"automc: {folder}: cannot be written: {os.strerror(number)}" in answer.err
    assert "next: give a writable folder: --run DIR" in answer.err
