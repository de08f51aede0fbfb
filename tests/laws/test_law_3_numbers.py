"""The number on the front is the number in the bundle."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from digits_evaluator import boast, evaluator_in  # noqa: F401
from noop_runs import config_in

from automc.candidate import Candidate, Step
from automc.evaluate import Evaluator, Job
from automc.run import FrontPoint
from automc.search.ending import _promises
from automc.search.loop import search
from automc.trial import Figure, Trial


def correct_by_hand(evaluator: Evaluator, trial: Trial) -> np.ndarray:
    """(n,) 0 or 1 per validation sample, from the stored ONNX file and nothing else."""
    session = onnxruntime.InferenceSession(evaluator.artifacts.get(trial.artifacts["onnx"]))
    (entry,) = session.get_inputs()
    answers = []
    for batch in evaluator.workload.split("validation").batches(1):
        (logits,) = session.run(None, {entry.name: batch.inputs[0].numpy()})
        answers.append(float(logits.argmax() == int(batch.targets)))
    return np.array(answers)


@pytest.mark.usefixtures("boast")
@pytest.mark.parametrize("steps", [(Step.of("channel_pruning", ratio=0.5),), (Step.of("negate"),)], ids=str)
def test_accuracy_is_that_of_the_file_that_is_stored(tmp_path: Path, steps: tuple[Step, ...]) -> None:
    evaluator = evaluator_in(tmp_path)
    trial = evaluator.evaluate(Job(Candidate(steps), rung=0, seed=0, steps=0))
    assert trial.ok, trial.failure
    by_hand = correct_by_hand(evaluator, trial)
    assert trial["accuracy"].value == pytest.approx(by_hand.mean(), abs=1e-12)
    assert trial["accuracy"].n == len(by_hand)
    stored = np.load(io.BytesIO(evaluator.artifacts.get(trial.artifacts["scores"])), allow_pickle=False)
    assert np.array_equal(stored, by_hand)
    assert trial["size_bytes"].value == len(evaluator.artifacts.get(trial.artifacts["onnx"]))


def test_a_search_never_reads_the_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = evaluator_in(tmp_path)
    real = evaluator.workload.split

    def guarded(name):
        assert name != "test", "the test split was read before the end"
        return real(name)

    monkeypatch.setattr(evaluator.workload, "split", guarded)
    trial = evaluator.evaluate(Job(Candidate(), rung=0, seed=0, steps=0))
    assert trial.ok, trial.failure
    assert trial["accuracy"].split == "validation"


def test_a_front_holds_one_fidelity_the_highest(tmp_path: Path) -> None:
    run = search(config_in(tmp_path), run_dir=tmp_path / "run")
    assert {trial.rung for trial in run.trials()} == {0, 1}
    assert {point.trial.rung for point in run.finalists()} == {1}
    assert {figure.rung for point in run.finalists() for figure in point.figures.values()} == {1}


def test_a_bundle_promises_what_was_measured_and_not_what_was_predicted() -> None:
    figures = {
        "accuracy": Figure(0.97, 0.95, 0.98, "fraction", "measured", n=395, split="validation"),
        "drop_points": Figure(0.5, -0.2, 1.2, "points", "measured", n=395, split="validation"),
        "test_accuracy": Figure(0.96, 0.94, 0.97, "fraction", "measured", n=395, split="test"),
        "test_drop_points": Figure(0.8, 0.1, 1.5, "points", "measured", n=395, split="test"),
        "latency_ms": Figure(0.30, 0.29, 0.31, "ms", "measured", n=200),
        "predicted_latency_ms": Figure(0.25, 0.22, 0.28, "ms", "predicted"),
        "size_bytes": Figure(70_000, 70_000, 70_000, "bytes", "measured", n=1),
    }
    trial = Trial(Candidate(), 2, 0, figures={"accuracy": figures["accuracy"]})
    promised, predicted = _promises(FrontPoint(trial, None, on_front=True, chosen=True, figures=figures))
    assert promised == {
        "accuracy": figures["test_accuracy"],
        "drop_points": figures["test_drop_points"],
        "latency_ms": figures["latency_ms"],
        "size_bytes": figures["size_bytes"],
    }
    assert predicted == {"latency_ms": figures["predicted_latency_ms"]}
