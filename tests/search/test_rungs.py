"""From rung to rung in whole searches: who goes up, from which weights they go on, and what is said of it after."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from noop_runs import config_in
from scipy.stats import spearmanr
from strict_html import parsed
from torch import nn
from whole_runs import save_classes, small_config

from automc import pipeline
from automc.evaluate import Evaluator
from automc.run import Run
from automc.search.loop import search
from automc.search.setup import workload_of
from automc.trial import Trial
from automc.workloads.workload import weights_digest

Point = tuple[float, float]


def of_rung(run: Run, rung: int) -> dict[str, Trial]:
    return {trial.candidate.id: trial for trial in run.trials() if trial.rung == rung}


def promoted_by_hand(points: Mapping[str, Point], count: int) -> set[str]:
    """The ids of `count` points, to be minimised: front after front; of the front that does not fit, the loneliest."""
    left, chosen = dict(points), set[str]()
    while len(chosen) < count:
        front = {
            name: point
            for name, point in left.items()
            if not any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in left.values())
        }
        lonely = dict.fromkeys(front, 0.0)
        for axis in (0, 1):
            line = sorted(front, key=lambda name: front[name][axis])
            span = front[line[-1]][axis] - front[line[0]][axis]
            lonely[line[0]] = lonely[line[-1]] = math.inf
            for before, name, after in zip(line, line[1:], line[2:], strict=False):
                lonely[name] += (front[after][axis] - front[before][axis]) / span
        chosen |= set(sorted(front, key=lambda name: -lonely[name])[: count - len(chosen)])
        left = {name: point for name, point in left.items() if name not in front}
    return chosen


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_who_goes_up_is_of_the_first_fronts_and_the_least_crowded_of_the_last(tmp_path: Path, seed: int) -> None:
    rungs = [{"candidates": 60, "steps": 0}, {"candidates": 14, "steps": 1}, {"candidates": 5, "steps": 2}]
    run = search(config_in(tmp_path, seed=seed, strategy="random", rungs=rungs), run_dir=tmp_path / "run")
    for rung, count in ((0, 14), (1, 5)):
        below = {
            name: (-trial["accuracy"].value, trial["latency_ms"].value) for name, trial in of_rung(run, rung).items()
        }
        up = set(of_rung(run, rung + 1))
        assert up == promoted_by_hand(below, count)
        best = sorted(below, key=lambda name: below[name][0])[:count]
        assert up != set(best)  # the most accurate alone would be others: this test tells the two apart


@pytest.mark.slow
def test_each_rung_trains_on_from_the_weights_of_the_one_before_and_the_report_says_what_the_cheap_one_foretold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, automc
) -> None:
    save_classes(tmp_path)
    steps = (0, 20, 50)
    settings: dict[str, Any] = {
        "strategy": "random",
        "rungs": [{"candidates": n, "steps": s} for n, s in zip((5, 4, 3), steps, strict=True)],
        "finalists": 2,
    }
    further, begun = pipeline.recover_further, list[tuple[str, int]]()

    def watched(model: nn.Module, chain: object, recovery: object, count: int) -> nn.Module:
        begun.append((weights_digest(model), count))
        return further(model, chain, recovery, count)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "recover_further", watched)
    run = search(small_config(tmp_path, "classification", search=settings), run_dir=tmp_path / "run")
    evaluator = Evaluator(run.config, workload_of(run), run.artifacts, run.folder / "profile", run.folder / "cache")
    lower, upper = of_rung(run, 1), of_rung(run, 2)
    assert len(upper) >= 3
    ended = {weights_digest(evaluator.restore(lower[name].artifacts)[0]) for name in upper}
    assert {digest for digest, _ in begun} == ended
    assert {count for _, count in begun} == {50 - 20}
    trained = {trial.provenance.steps_trained for trial in upper.values() if trial.provenance is not None}
    assert trained <= {0, 30}  # nothing where another order had made the same network
    assert 30 in trained

    told = json.loads(automc("report", run.folder, "--json").out)["rungs"]
    page, words = parsed((run.folder / "report.html").read_text()).text, automc("report", run.folder).out
    assert [row["rung"] for row in told] == [0, 1, 2]
    for rung in (0, 1):
        one, other = of_rung(run, rung), of_rung(run, rung + 1)
        both = sorted(one.keys() & other.keys())
        pair = [[trials[name]["accuracy"].value for name in both] for trials in (one, other)]
        assert told[rung]["in_both"] == len(both)
        if min(len(set(values)) for values in pair) > 1:
            expected = spearmanr(*pair).statistic
            assert told[rung]["rank_correlation"] == pytest.approx(expected)
            assert f"{expected:.2f} over {len(both)}" in page
            assert f"{expected:.2f} over {len(both)}" in words
        else:
            assert told[rung]["rank_correlation"] is None
            assert f"unknown ({len(both)} in both)" in words
    assert told[2]["rank_correlation"] is None
    assert "top rung" in words
    check_that_the_page_is_opened(run, monkeypatch, automc)


def check_that_the_page_is_opened(run: Run, monkeypatch: pytest.MonkeyPatch, automc: Any) -> None:
    page, asked = run.folder / "report.html", list[str]()
    for there in (True, False):
        monkeypatch.setattr("webbrowser.open", lambda uri, there=there: asked.append(uri) or there)
        answer = automc("report", run.folder, "--open")
        assert f"report: {page}" in answer.out
        assert answer.code == (0 if there else 1)
        assert ("no browser could be started here" in answer.err) == (not there)
    assert asked == [page.resolve().as_uri()] * 2
