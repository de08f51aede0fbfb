"""One candidate at one rung on a small digits network and a device on paper."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "laws"))
from digits_evaluator import evaluator_in

from automc.candidate import Candidate, Step
from automc.evaluate import Job
from automc.workloads.workload import weights_digest

CUT = Step.of("channel_pruning", ratio=0.5)
TRAIN = Step.of("fine_tune")


def test_the_next_rung_goes_on_from_the_checkpoint_and_keeps_its_structure(tmp_path: Path) -> None:
    evaluator = evaluator_in(tmp_path)
    candidate = Candidate((CUT, TRAIN))
    first = evaluator.evaluate(Job(candidate, rung=1, seed=0, steps=3))
    assert first.ok, first.failure
    second = evaluator.evaluate(Job(candidate, rung=2, seed=0, steps=5, trained=3, parent=dict(first.artifacts)))
    assert second.ok, second.failure
    assert (first.provenance.steps_trained, second.provenance.steps_trained) == (3, 2)
    before, _ = evaluator.restore(first.artifacts)
    after, _ = evaluator.restore(second.artifacts)
    shapes = [tuple(tensor.shape) for tensor in before.state_dict().values()]
    assert shapes == [tuple(tensor.shape) for tensor in after.state_dict().values()]
    assert not torch.equal(next(before.parameters()), next(after.parameters()))


def test_bringing_a_stored_network_back_leaves_the_base_as_it_came(tmp_path: Path) -> None:
    evaluator = evaluator_in(tmp_path)
    before = weights_digest(evaluator.base)
    reference = evaluator.evaluate(Job(Candidate((TRAIN,)), rung=1, seed=0, steps=2))
    restored, _ = evaluator.restore(reference.artifacts)
    assert weights_digest(restored) != before
    assert weights_digest(evaluator.base) == before == weights_digest(evaluator.workload.model())


def test_a_stored_network_computes_what_its_onnx_file_computes(tmp_path: Path) -> None:
    import onnx

    from automc.export import check_parity

    evaluator = evaluator_in(tmp_path)
    trial = evaluator.evaluate(Job(Candidate((CUT, TRAIN)), rung=1, seed=0, steps=2))
    network, _ = evaluator.restore(trial.artifacts)
    graph = onnx.load_model_from_string(evaluator.artifacts.get(trial.artifacts["onnx"]))
    batch = next(iter(evaluator.workload.split("validation").batches(16)))
    assert check_parity(network, graph, batch.inputs) < 1e-4


def test_the_same_job_gives_the_same_bytes_and_scores(tmp_path: Path) -> None:
    job = Job(Candidate((CUT, TRAIN)), rung=1, seed=0, steps=2)
    one = evaluator_in(tmp_path / "a").evaluate(job)
    two = evaluator_in(tmp_path / "b").evaluate(job)
    assert one.artifacts == two.artifacts
    assert one.figures == two.figures


def test_two_orders_that_make_one_network_are_one_evaluation(tmp_path: Path) -> None:
    evaluator = evaluator_in(tmp_path)
    # cutting with ratio 0 changes nothing, so its place in the chain cannot matter
    still = Step.of("channel_pruning", ratio=0.0)
    one = evaluator.evaluate(Job(Candidate((still, CUT)), rung=0, seed=0, steps=0))
    two = evaluator.evaluate(Job(Candidate((CUT, still)), rung=0, seed=0, steps=0))
    assert one.candidate.id != two.candidate.id
    assert two.facts["same_network_as"] == one.candidate.id
    for metric, figure in one.figures.items():
        assert two[metric].value == pytest.approx(figure.value, rel=1e-11)  # JSON keeps 12 digits
    assert "same_network_as" not in one.facts


def test_scores_are_those_of_the_graph_and_their_mean_is_the_accuracy(tmp_path: Path) -> None:
    import io

    evaluator = evaluator_in(tmp_path)
    trial = evaluator.evaluate(Job(Candidate(), rung=0, seed=0, steps=0))
    scores = np.load(io.BytesIO(evaluator.artifacts.get(trial.artifacts["scores"])), allow_pickle=False)
    assert len(scores) == len(evaluator.workload.split("validation"))
    assert trial["accuracy"].value == pytest.approx(scores.mean())
    assert trial["size_bytes"].value == len(evaluator.artifacts.get(trial.artifacts["onnx"]))


def test_an_impossible_step_is_a_named_failure_not_an_end(tmp_path: Path) -> None:
    trial = evaluator_in(tmp_path).evaluate(
        Job(Candidate((Step.of("channel_pruning", ratio=2.0),)), rung=0, seed=0, steps=0)
    )
    assert trial.failure is not None
    assert trial.failure.kind == "infeasible"


def test_distillation_without_a_teacher_is_a_named_failure(tmp_path: Path) -> None:
    trial = evaluator_in(tmp_path).evaluate(Job(Candidate((Step.of("distillation"),)), rung=1, seed=0, steps=1))
    assert trial.failure is not None
    assert trial.failure.kind == "compression"
    assert "teacher" in trial.failure.reason


def test_a_cut_without_recovery_has_fresh_batchnorm_statistics_at_every_rung_and_claims_no_steps(
    tmp_path: Path,
) -> None:
    evaluator = evaluator_in(tmp_path)
    candidate = Candidate((CUT,))
    untrained = evaluator.evaluate(Job(candidate, rung=0, seed=0, steps=0))
    first = evaluator.evaluate(Job(candidate, rung=1, seed=0, steps=3))
    second = evaluator.evaluate(Job(candidate, rung=2, seed=0, steps=5, trained=3, parent=dict(first.artifacts)))
    assert first["accuracy"].value == untrained["accuracy"].value == second["accuracy"].value
    assert (first.provenance.steps_trained, second.provenance.steps_trained) == (0, 0)
