"""The whole line on a network that trains in a second: two Ray workers, three rungs, a teacher, to the verified bundle.

What is asserted is read from what a user gets: the files of the run, and the exit codes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from noop_runs import decisions
from strict_html import stands_alone
from whole_runs import SPACE, outcomes, save_classes, small_config

from automc.config import ExecutorSection, SearchConfig, dump_config
from automc.errors import InfeasibleSearchError, RunInterrupted
from automc.evaluate import Evaluator
from automc.run import FrontPoint, Run
from automc.search.loop import resume, search
from automc.search.progress import Progress
from automc.workloads import create_workload
from automc.workloads.workload import SplitName

pytestmark = pytest.mark.e2e

RUNGS = [{"candidates": 4, "steps": 0}, {"candidates": 3, "steps": 10}, {"candidates": 2, "steps": 20}]
ANCHORS = {"reference", "int8"}
PREDICTED = {"latency_ms", "energy_mj", "memory_mb"}


def config_in(folder: Path, **sections: object) -> SearchConfig:
    """Two Ray workers, three rungs, the reference as teacher, distillation in the space, unless told otherwise."""
    save_classes(folder)
    space = folder / "taught.yaml"
    recovery = {"fine_tune": {}, "distillation": {"temperature": [2, 4]}}  # the first is the anchors'
    space.write_text(yaml.safe_dump({**SPACE, "recovery": recovery}, sort_keys=False))
    usual = {
        "space": str(space),
        "search": {"strategy": "random", "seed": 1, "rungs": RUNGS, "finalists": 2},
        "teacher": "reference",
        "executor": {"kind": "ray", "workers": 2},
    }
    return small_config(folder, "classification", **{**usual, **sections})


@dataclass
class Line:
    """A finished run, and the splits that its main process scored while it ran."""

    run: Run
    config: SearchConfig
    scored: list[str]

    def samples(self, split: SplitName) -> int:
        return len(create_workload("arrays", self.config.workload.options, None).split(split))

    @property
    def chosen(self) -> FrontPoint:
        return next(point for point in self.run.finalists() if point.chosen)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("line")
    config = config_in(folder)
    scored: list[str] = []
    scores = Evaluator.scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Evaluator, "scores", lambda self, graph, split: (scored.append(split), scores(self, graph, split))[1]
        )
        yield Line(search(config, run_dir=folder / "run"), config, scored)


@pytest.mark.ray
def test_the_test_split_is_scored_once_for_each_finalist_and_never_again(line: Line, automc) -> None:
    finalists = {point.trial.candidate.id for point in line.run.finalists()}
    tested = [event for event in line.run.journal.events if event["event"] == "tested"]
    assert [set(event["figures"]) for event in tested] == [finalists]
    assert line.scored.count("test") == len(finalists)
    before = list(line.scored)
    resume(line.run.folder)
    assert automc("front", line.run.folder, "--all").code == 0
    assert automc("report", line.run.folder).code == 0
    assert line.scored == before


@pytest.mark.ray
def test_every_rung_has_its_trials_with_every_figure_and_how_it_was_got(line: Line) -> None:
    trials = line.run.trials()
    assert all(trial.ok for trial in trials), [trial.failure for trial in trials]
    ids = [{trial.candidate.id for trial in trials if trial.rung == rung} for rung in range(3)]
    assert [len(reached) for reached in ids] == [4 + 2, 3 + 2, 2 + 2]  # with the anchors, which always go up
    assert ids[0] >= ids[1] >= ids[2]
    samples = line.samples("validation")
    for trial in trials:
        figures = trial.figures or {}
        assert set(figures) == {"accuracy", "size_bytes", *PREDICTED}
        accuracy, size = figures["accuracy"], figures["size_bytes"]
        assert (accuracy.kind, accuracy.split, accuracy.n) == ("measured", "validation", samples)
        assert accuracy.low <= accuracy.value <= accuracy.high
        assert (size.kind, size.unit) == ("measured", "bytes")
        assert size.value == len(line.run.artifacts.get(trial.artifacts["onnx"]))
        for metric in PREDICTED:
            figure = figures[metric]
            assert figure.kind == "predicted"
            assert figure.source
            assert 0 < figure.low < figure.value < figure.high
            assert 0 <= (figure.coverage or 0.0) <= 1
        assert {figure.rung for figure in figures.values()} == {trial.rung}
        spent = trial.provenance
        assert spent is not None
        recovers = any(step.technique in {"fine_tune", "distillation"} for step in trial.candidate.steps)
        # each rung goes on from the checkpoint of the rung before it: 10 steps, then 10 more
        assert spent.steps_trained == (10 if trial.rung and recovers else 0)
    assert {step.technique for trial in trials if trial.rung == 2 for step in trial.candidate.steps} >= {"fine_tune"}
    assert any(step.technique == "distillation" for trial in trials if trial.rung for step in trial.candidate.steps)


@pytest.mark.ray
def test_every_finalist_was_measured_again_and_counted_from_the_reference(line: Line) -> None:
    points = line.run.finalists()
    assert {point.anchor for point in points if point.anchor} == ANCHORS
    for point in points:
        figures = point.figures
        assert point.trial.rung == 2
        assert {name: figures[name].kind for name in ("latency_ms", "latency_median_ms", "speedup")} == {
            "latency_ms": "measured", "latency_median_ms": "measured", "speedup": "measured",
        }  # fmt: skip
        assert (figures["latency_ms"].n or 0) >= 30  # what the protocol of the device on paper asks for
        assert figures["predicted_latency_ms"].kind == "predicted"
        assert figures["drop_points"].split == "validation"
        assert figures["test_accuracy"].split == figures["test_drop_points"].split == "test"
        assert figures["test_accuracy"].n == line.samples("test")
    reference = next(point for point in points if point.anchor == "reference")
    assert reference.figures["drop_points"].value == reference.figures["test_drop_points"].value == 0


@pytest.mark.ray
def test_the_accuracy_on_the_front_is_that_of_the_bundled_file_in_the_runtime_alone(line: Line) -> None:
    bundle = line.run.folder / "bundle"
    test = create_workload("arrays", line.config.workload.options, None).split("test")
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    found = [
        int(np.argmax(session.run(None, {given.name: sample[None].astype(np.float32)})[0])) for sample in test.inputs
    ]
    recomputed = float(np.mean(np.array(found) == test.targets))
    promised = json.loads((bundle / "expected.json").read_text())["figures"]["accuracy"]
    (shown,) = [item for item in json.loads((line.run.folder / "front.json").read_text())["points"] if item["chosen"]]
    assert promised["value"] == pytest.approx(recomputed, abs=1e-12)
    assert shown["figures"]["test_accuracy"]["value"] == pytest.approx(recomputed, abs=1e-12)
    assert (promised["split"], promised["n"]) == ("test", len(test.targets))


@pytest.mark.ray
def test_any_finalist_can_be_bundled_afterwards_from_python_and_from_the_command_line(
    line: Line, automc, tmp_path: Path
) -> None:
    smallest = line.run.choose("smallest")
    assert line.run.bundle(smallest, tmp_path / "mine").verify().ok
    answer = automc("bundle", "build", line.run.folder, "--choose", "smallest", "--out", tmp_path / "theirs")
    assert answer.code == 0, answer.err
    assert smallest.candidate.id in answer.out
    assert (tmp_path / "theirs" / "model.onnx").read_bytes() == (tmp_path / "mine" / "model.onnx").read_bytes()
    reference = next(point.trial for point in line.run.finalists() if point.anchor == "reference")
    assert reference != smallest
    by_id = automc("bundle", "build", line.run.folder, "--choose", reference.candidate.id, "--out", tmp_path / "other")
    assert by_id.code == 0, by_id.err
    assert (tmp_path / "other" / "model.onnx").read_bytes() == line.run.artifacts.get(reference.artifacts["onnx"])


@pytest.mark.ray
def test_the_report_stands_alone_and_shows_the_chosen_one_and_every_anchor(line: Line) -> None:
    text = stands_alone((line.run.folder / "report.html").read_text()).text
    assert line.chosen.trial.candidate.id in text
    for anchor in ANCHORS:
        assert f"anchor: {anchor}" in text


@pytest.mark.ray
def test_both_workers_were_busy_and_provenance_says_how_long(line: Line) -> None:
    told = json.loads((line.run.folder / "provenance.json").read_text())
    assert len(told["workers"]) == 2
    assert all(worker["busy_s"] > 0 and worker["trials"] > 0 for worker in told["workers"].values())
    assert sum(worker["trials"] for worker in told["workers"].values()) == len(line.run.trials())
    assert told["executor"]["kind"] == "ray"


def test_constraints_nothing_meets_leave_front_and_report_but_no_bundle_and_resuming_says_the_same(
    automc, tmp_path: Path
) -> None:
    config = tmp_path / "search.yaml"
    impossible = config_in(
        tmp_path,
        constraints={"max_size_bytes": 10, "max_drop_points": None},
        search={"strategy": "random", "rungs": [{"candidates": 1, "steps": 0}, {"candidates": 1, "steps": 5}]},
        executor={"kind": "inline"},
    )
    config.write_text(dump_config(impossible))
    folder = tmp_path / "run"
    answer = automc("search", config, "--run", folder)
    assert answer.code == 3
    assert "the binding one is size_bytes <= 10" in answer.err
    assert "next: automc front RUN --max-size-bytes " in answer.err
    assert "else raise constraints.max_size_bytes" in answer.err
    taking = answer.err.partition("next: automc ")[2].partition(" takes that one")[0].replace("RUN", str(folder))
    taken = automc(*taking.split())
    assert taken.code == 0, taken.err
    assert ", verified" in taken.out
    assert stands_alone((folder / "report.html").read_text())
    assert not any(item["chosen"] for item in json.loads((folder / "front.json").read_text())["points"])
    assert not (folder / "bundle").exists()
    journal = (folder / "journal.jsonl").read_bytes()
    again = automc("resume", folder)
    assert (again.code, again.err.splitlines()[-2:]) == (3, answer.err.splitlines()[-2:])
    assert (folder / "journal.jsonl").read_bytes() == journal  # no trial, no timing, no look at the test split
    assert not (folder / "bundle").exists()
    with pytest.raises(InfeasibleSearchError):
        Run.open(folder).choose()


def stop_when(reached: Callable[[Progress], bool]) -> Callable[[Progress], None]:
    def watch(progress: Progress) -> None:
        if reached(progress):
            raise KeyboardInterrupt

    return watch


@pytest.mark.ray
def test_a_run_that_was_stopped_while_training_and_while_bundling_ends_as_the_one_that_was_not(
    line: Line, tmp_path: Path
) -> None:
    """Stopped inline what ran on Ray without a stop: neither the stops nor who evaluates may matter."""
    config = line.config.model_copy(update={"executor": ExecutorSection(kind="inline")})
    folder = tmp_path / "run"
    training = stop_when(lambda seen: seen.trial is not None and seen.trial.rung == 1)
    with pytest.raises(RunInterrupted, match=f"automc resume {folder}"):
        search(config, run_dir=folder, watch=training)
    kept = [trial.to_json() for trial in Run.open(folder).trials()]
    with pytest.raises(RunInterrupted):
        resume(folder, watch=stop_when(lambda seen: seen.stage == "bundling"))
    scored = len(line.scored)
    run = resume(folder)
    assert "test" not in line.scored[scored:]  # tested before the second stop
    assert [trial.to_json() for trial in run.trials()][: len(kept)] == kept
    assert outcomes(run) == outcomes(line.run)
    assert decisions(run) == decisions(line.run)
    assert set(Counter((trial.candidate.id, trial.rung) for trial in run.trials()).values()) == {1}
