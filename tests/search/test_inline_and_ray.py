"""A search is the same search on Ray: the same trials, the same figures, the same decisions, the same front."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from noop_runs import config_in, decisions
from whole_runs import outcomes, save_classes, small_config

from automc.config import ExecutorSection, SearchConfig
from automc.run import Run
from automc.search.loop import search

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ON_RAY = ExecutorSection(kind="ray", workers=2)
MEASURED = {"latency_ms", "latency_median_ms", "speedup"}


def on_both(config: SearchConfig, folder: Path) -> tuple[Run, Run]:
    inline = search(config, run_dir=folder / "inline")
    return inline, search(config.model_copy(update={"executor": ON_RAY}), run_dir=folder / "ray")


def finalists(run: Run) -> list[tuple[str, str | None, bool, bool, Mapping[str, object]]]:
    """By id, as their order is by measured latency: anchor, place on the front, choice, and what was not timed."""
    return sorted(
        (
            point.trial.candidate.id,
            point.anchor,
            point.on_front,
            point.chosen,
            {name: figure for name, figure in point.figures.items() if name not in MEASURED},
        )
        for point in run.finalists()
    )


def test_a_whole_search_on_ray_is_the_one_inline(tmp_path: Path) -> None:
    inline, on_ray = on_both(config_in(tmp_path, seed=5), tmp_path)
    assert len(outcomes(inline)) == 30
    assert outcomes(on_ray) == outcomes(inline)
    assert decisions(on_ray) == decisions(inline)
    assert [point.to_json() | {"trial": None} for point in on_ray.front()] == [
        point.to_json() | {"trial": None} for point in inline.front()
    ]  # nothing here is timed, so that figures and order agree as well


def test_networks_trained_and_scored_on_ray_are_those_inline(tmp_path: Path) -> None:
    save_classes(tmp_path)
    inline, on_ray = on_both(small_config(tmp_path, "classification"), tmp_path)
    assert {trial.rung for trial in inline.trials()} == {0, 1}
    assert all(trial.ok for trial in inline.trials())
    assert outcomes(on_ray) == outcomes(inline)
    assert decisions(on_ray) == decisions(inline)
    assert finalists(on_ray) == finalists(inline)
