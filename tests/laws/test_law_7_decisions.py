"""Two runs with the same seed and the same answers make the same decisions."""

from __future__ import annotations

from pathlib import Path

import pytest
from noop_runs import config_in, decisions, start_out_of_order

from automc.search.conductor import Conductor
from automc.search.loop import search


@pytest.mark.parametrize("strategy", ["random", "nsga2", "tpe", "guided"])
def test_the_same_seed_decides_the_same(tmp_path: Path, strategy: str) -> None:
    config = config_in(tmp_path, seed=5, strategy=strategy)
    first = search(config, run_dir=tmp_path / "first")
    second = search(config, run_dir=tmp_path / "second")
    assert decisions(first) == decisions(second)


def test_another_seed_asks_for_other_candidates(tmp_path: Path) -> None:
    first = search(config_in(tmp_path, seed=5), run_dir=tmp_path / "first")
    second = search(config_in(tmp_path, seed=6), run_dir=tmp_path / "second")
    assert decisions(first) != decisions(second)


@pytest.mark.parametrize("strategy", ["nsga2", "tpe", "guided"])
def test_the_order_in_which_workers_answer_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    config = config_in(tmp_path, seed=5, strategy=strategy)
    orderly = search(config, run_dir=tmp_path / "orderly")
    monkeypatch.setattr(Conductor, "_start", start_out_of_order)
    shuffled = search(config, run_dir=tmp_path / "shuffled")
    completed = [[trial.candidate.id for trial in run.trials()] for run in (orderly, shuffled)]
    assert completed[0] != completed[1]  # else this test shows nothing
    assert decisions(orderly) == decisions(shuffled)
