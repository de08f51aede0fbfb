"""A search never emits worse than the obvious."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from noop_runs import SPACE, config_in

from automc.candidate import Candidate
from automc.run import Run
from automc.search.loop import search
from automc.space import SearchSpace
from automc.trial import Figure, Metric
from automc.workloads import registry

SPACE_WITH_ANCHORS = {**{key: value for key, value in SPACE.items() if key != "anchors"}, "recovery": {"fine_tune": {}}}


class Hopeless:
    """Whatever the search proposes is slower and less accurate than the obvious: int8 takes 1 ms, all else 5 to 6."""

    name = "hopeless"

    def score(self, candidate: Candidate, rung: int, seed: int) -> Mapping[Metric, Figure]:
        values = [float(str(value)) for value in candidate.architecture.values()]
        steps = [step.technique for step in candidate.steps]
        latency = 5 + sum(values) / len(values) if values else 1.0 if "int8_ptq" in steps else 5.0
        accuracy = 0.5 if values else 0.9 - 0.1 * ("depth_pruning" in steps)
        return {
            "accuracy": Figure(accuracy, accuracy, accuracy, "share", "predicted", rung=rung),
            "latency_ms": Figure(latency, latency, latency, "ms", "predicted", rung=rung),
        }


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(registry, "create_workload", lambda *_: Hopeless())
    return search(config_in(tmp_path, space=SPACE_WITH_ANCHORS), run_dir=tmp_path / "run")


def test_every_anchor_is_evaluated_and_stands_among_the_finalists(run: Run) -> None:
    anchors = SearchSpace.load(run.config.space).anchors
    assert [anchor.name for anchor in anchors] == ["reference", "int8", "int8_depth"]
    evaluated = {trial.candidate.id for trial in run.trials() if trial.rung == 0}
    assert {candidate.id for anchor in anchors for candidate in anchor.candidates} <= evaluated
    assert {point.anchor for point in run.finalists()} >= {"reference", "int8", "int8_depth"}


def test_where_the_search_finds_nothing_better_int8_itself_is_chosen(run: Run) -> None:
    chosen = next(point for point in run.finalists() if point.chosen)
    assert chosen.anchor in {"int8", "int8_depth"}  # both take 1 ms
    assert chosen.figures["latency_ms"].value == 1.0
