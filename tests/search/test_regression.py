"""A metric of which less is better, from the user's arrays to a verified bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from whole_runs import save_values, small_config

from automc.bundle.verify import Bundle
from automc.config import Constraints
from automc.pareto import non_dominated
from automc.run import Run
from automc.search.choice import choose
from automc.search.loop import search
from automc.workloads import create_workload


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("regression")
    save_values(folder)
    config = small_config(folder, "regression", constraints={"max_drop_points": 2.0})
    return search(config, run_dir=folder / "run")


def test_the_figures_are_errors_and_say_so(run: Run) -> None:
    trials = [trial for trial in run.trials() if trial.ok]
    assert len(trials) >= 6
    for trial in trials:
        accuracy = trial["accuracy"]
        assert (accuracy.direction, accuracy.unit) == ("min", "score")
        assert accuracy.value > 0
    assert all(trial["size_bytes"].direction is None for trial in trials)


def test_a_drop_is_how_much_larger_the_error_is(run: Run) -> None:
    points = run.finalists()
    reference = next(point for point in points if point.anchor == "reference")
    for point in points:
        for accuracy, drop in (("accuracy", "drop_points"), ("test_accuracy", "test_drop_points")):
            larger = point.figures[accuracy].value - reference.figures[accuracy].value
            assert point.figures[drop].value == pytest.approx(100 * larger, abs=1e-9)
    assert any(point.figures["drop_points"].value > 0 for point in points)


def test_the_front_is_of_small_errors_and_small_files(run: Run) -> None:
    points = run.finalists()
    errors = [[point.figures["accuracy"].value, point.figures["size_bytes"].value] for point in points]
    assert [point.on_front for point in points] == non_dominated(errors).tolist()
    assert not all(point.on_front for point in points)


def test_the_choice_keeps_the_limit_and_the_most_accurate_errs_least(run: Run) -> None:
    points = run.finalists()
    chosen = next(point for point in points if point.chosen)
    assert chosen.figures["drop_points"].value <= 2.0
    least = min(points, key=lambda point: point.figures["accuracy"].value)
    assert choose(points, "most_accurate", Constraints()) is least


def test_the_knee_is_near_the_smallest_error() -> None:
    from test_choice import ACCURATE, FAST, MIDDLE

    # latency 4, 2, 1 ms and error 0.05, 0.055, 0.10 scale to (1, 0), (1/3, 0.1), (0, 1)
    def erring(point, error):  # type: ignore[no-untyped-def]
        figure = replace(point.figures["accuracy"], value=error, direction="min")
        return replace(point, figures={**point.figures, "accuracy": figure})

    points = [erring(ACCURATE, 0.05), erring(MIDDLE, 0.055), erring(FAST, 0.10)]
    assert choose(points, "knee", Constraints()) is points[1]
    assert choose(points, "most_accurate", Constraints()) is points[0]


def test_the_bundle_gives_the_error_back_from_the_users_own_data(run: Run, tmp_path: Path) -> None:
    bundle = Bundle(run.folder / "bundle")
    promised = json.loads((bundle.folder / "expected.json").read_text())["figures"]["accuracy"]
    assert promised["direction"] == "min"  # as the figure says of itself; verify.py goes by the metric it scores
    options = run.config.workload.options
    test = create_workload("arrays", options, None).split("test")
    values = np.asarray(test.targets)[:, 0]  # flat, as the user stores them
    np.savez(tmp_path / "test.npz", x=test.inputs, y=values)
    check = bundle.verify(tmp_path / "test.npz").checks[-1]
    assert check.delivered is not None
    assert check.delivered["value"] == pytest.approx(promised["value"], rel=1e-5)
    np.savez(tmp_path / "worse.npz", x=test.inputs, y=values + 5)
    assert not bundle.examine(tmp_path / "worse.npz").ok
    np.savez(tmp_path / "better.npz", x=test.inputs, y=predicted(bundle, test.inputs))
    assert bundle.verify(tmp_path / "better.npz").ok  # an error of nothing is no broken promise


def predicted(bundle: Bundle, inputs: np.ndarray) -> np.ndarray:
    from automc.bundle.templates import run as runner

    prepared = runner.prepare(inputs, runner.read_json(bundle.folder, "preprocess.json"))
    return runner.run_one_by_one(runner.open_session(bundle.folder), [prepared])[0]


def test_card_and_report_speak_of_an_error(run: Run) -> None:
    card = (run.folder / "bundle" / "MODEL_CARD.md").read_text()
    assert "| squared error |" in card
    assert "The squared error was measured on data like the test split" in card
    page = (run.folder / "report.html").read_text()
    assert "latency against squared error" in page
    assert "points below the reference" not in page
