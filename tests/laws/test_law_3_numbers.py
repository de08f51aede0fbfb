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
from automc.search.loop import search
from automc.trial import Trial


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
