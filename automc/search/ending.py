"""From the top rung to what the user takes home: finalists re-measured, one chosen, bundled, verified, reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from automc import pipeline
from automc.bundle.verify import Bundle
from automc.errors import BundleError, InfeasibleSearchError, RunInterrupted, RunRefused
from automc.pareto import non_dominated
from automc.run import FrontPoint, Run
from automc.search.choice import Prospect, choose
from automc.search.fidelity import distinct, objectives_of, predicted_ms
from automc.search.finalists import points_of, remeasure, score_test_split, select, with_drop
from automc.search.progress import Progress, Watcher
from automc.search.provenance import write_provenance
from automc.trial import Figure, Metric, Trial, to_minimise

if TYPE_CHECKING:
    from automc.evaluate import Evaluator
    from automc.profiles import HardwareProfile
    from automc.search.loop import Ended
    from automc.search.setup import Prepared
    from automc.workloads.workload import Workload

GOLDEN_SAMPLES = 4
UNPREDICTED = (
    "No cost could be predicted: the profile was never calibrated for an operator of this network. "
    "Latency is measured; energy and memory are unknown."
)


def finish(run: Run, prepared: Prepared, ended: Ended, watch: Watcher) -> None:
    """Write front.json, provenance.json, the verified bundle and report.html, and journal the end.

    Raises InfeasibleSearchError after the front and the report are written, BundleError where the bundle does not
    deliver what it states.
    """
    from automc.search.reporting import write_report

    evaluator = prepared.evaluator
    if evaluator is None or ended.reference is None:
        points = _scored_points(ended, run)
    else:
        reference = with_drop(run, ended.reference, ended.reference)
        top = [with_drop(run, trial, reference) for trial in ended.rungs[-1].values()]
        finalists = select(ended, top, run.config)
        timings = remeasure(run, evaluator, finalists, reference, watch)
        tested = score_test_split(run, evaluator, finalists, reference, watch)
        points = points_of(ended.anchors, finalists, timings, tested, run.config)
    infeasible = None
    try:
        chosen = choose(points, run.config.choose, run.config.constraints, prospects=lambda: _screened_out(ended))
        points = [replace(point, chosen=point is chosen) for point in points]
    except InfeasibleSearchError as error:
        infeasible = error
    run.write_text("front.json", json.dumps({"points": [point.to_json() for point in points]}, indent=1))
    write_provenance(run)
    if infeasible is None and evaluator is not None:
        watch(Progress("bundling", "writing and verifying the bundle"))
        _bundle_chosen(run, next(point for point in points if point.chosen), evaluator)
    if evaluator is not None:
        watch(Progress("bundling", "writing report.html"))
        write_report(run, evaluator, ended, points)
    if infeasible is not None:
        raise infeasible
    picked = next(point for point in points if point.chosen).trial.candidate.id
    run.journal.append("end", chosen=picked)
    watch(Progress("done", f"chose {picked}"))


def _screened_out(ended: Ended) -> list[Prospect]:
    """Who was dropped on predicted costs before any training."""
    return [
        Prospect(candidate, dict(ended.predicted[candidate.id].by_metric()), "screened out before training")
        for candidate, failure in ended.screened
        if failure.kind == "screened" and candidate.id in ended.predicted
    ]


def _scored_points(ended: Ended, run: Run) -> list[FrontPoint]:
    """Points of a workload that scores its candidates itself: nothing to re-measure, figures stay as they were told."""
    trials = distinct(ended.rungs[-1].values())
    if not trials:
        return []
    best = min(to_minimise("accuracy", trial["accuracy"]) for trial in trials)
    mask = non_dominated([objectives_of(trial, run.config.objectives) for trial in trials])
    points = [
        FrontPoint(trial, ended.anchors.get(trial.candidate.id), bool(on_front), False, _scored_figures(trial, best))
        for trial, on_front in zip(trials, mask, strict=True)
    ]
    return sorted(points, key=lambda point: (predicted_ms(point.trial), point.trial.candidate.id))


def _scored_figures(trial: Trial, best: float) -> dict[str, Figure]:
    """The trial's figures with `drop_points` counted from the `best` accuracy seen (as compared): no reference here."""
    drop = 100 * (to_minimise("accuracy", trial["accuracy"]) - best)
    return {
        **{str(name): figure for name, figure in (trial.figures or {}).items()},
        "drop_points": Figure(drop, drop, drop, "points", "measured", n=1, rung=trial.rung),
    }


def _bundle_chosen(run: Run, point: FrontPoint, evaluator: Evaluator) -> None:
    """The bundle of the run. One half-way from an interrupted ending is written again."""
    folder = run.folder / "bundle"
    if folder.exists():
        shutil.rmtree(folder)
    try:
        bundle = write_point(run, point, folder, evaluator.workload, evaluator.profile)
    except BundleError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise RunInterrupted(error.message, next_step=f"make room, then: automc resume {run.folder}") from error
    bundle.verify()
    run.journal.append("bundle", id=point.trial.candidate.id)


def write_bundle_of(run: Run, trial: Trial, folder: Path) -> Bundle:
    """The bundle of one finalist of a finished run. Raises RunError where `trial` is not among its finalists."""
    from automc.profiles import load_profile
    from automc.search.setup import workload_of

    points = {point.trial.candidate.id: point for point in run.finalists()}
    if trial.candidate.id not in points:
        raise RunRefused(f"{trial.candidate.id} is no finalist of {run.folder}", next_step=f"automc front {run.folder}")
    return write_point(
        run, points[trial.candidate.id], folder, workload_of(run), load_profile(str(run.folder / "profile"))
    )


def write_point(
    run: Run,
    point: FrontPoint,
    folder: Path,
    workload: Workload,
    profile: HardwareProfile,
    *,
    reference: FrontPoint | None = None,
    notes: Sequence[str] = (),
) -> Bundle:
    """The bundle of `point` for `profile`; its figures are those of that device.

    reference: default the run's own. notes: what the model card has to say besides, one sentence each.
    """
    from automc.bundle.write import BundleContents, write_bundle
    from automc.techniques.plan import Plan
    from automc.workloads.workload import HoldsRaw

    trial = point.trial
    plans = json.loads(run.artifacts.get(trial.artifacts["plans"]))
    examples = workload.split("validation")
    batch = next(iter(examples.batches(GOLDEN_SAMPLES)))
    figures, predicted = _promises(point)
    if reference is None:
        reference = next((item for item in run.finalists() if item.anchor == "reference"), None)
    speedup, noise = point.figures.get("speedup"), 1.0 + profile.noise_floor_percent / 100
    digests = run.lock.get("digests")
    return write_bundle(
        folder,
        BundleContents(
            name=f"{run.config.name}-{trial.candidate.id}",
            base_name=workload.name,
            model=run.artifacts.get(trial.artifacts["onnx"]),
            profile=profile,
            candidate=trial.candidate,
            figures=figures,
            predicted=predicted,
            reference={} if reference is None else _promises(reference)[0],
            speedup=replace(speedup, low=speedup.low / noise, high=speedup.high * noise)  # as of a repeat
            if speedup is not None and speedup.kind == "measured"
            else None,
            golden_inputs=tuple(tensor.numpy() for tensor in batch.inputs),
            golden_raw=examples.raw(batch.indices) if isinstance(examples, HoldsRaw) else None,
            preprocessing=cast(Mapping[str, Any], workload.preprocessing),
            quantization={"plans": [plan for plan in plans["graph"] if plan["edits"]]},
            plans=tuple(Plan.model_validate(plan) for plan in [*plans["model"], *plans["graph"]]),
            recovery={
                **run.config.recovery.model_dump(mode="json"),
                "steps": run.config.search.rungs[trial.rung].steps,
            },
            seed=trial.seed,
            data_digests=cast(Mapping[str, str], digests) if isinstance(digests, dict) else {},
            saves={
                item.step.technique: tuple(sorted(item.technique.saves))
                for item in pipeline.resolve(trial.candidate.steps)
            },
            metric=workload.task.metric,
            class_labels=workload.class_labels,
            notice=workload.licence_notice,
            summary=f"{workload.name} compressed by: {trial.candidate}",
            limits=(*(() if predicted else (UNPREDICTED,)), *notes),
            device=None if "latency_ms" in figures else profile.fingerprint.model_dump(mode="json"),
        ),
    )


def _promises(point: FrontPoint) -> tuple[dict[Metric, Figure], dict[Metric, Figure]]:
    """(promised by the bundle, predicted).

    Promised: accuracy and drop of the test split, of validation where that was not read; size; and what was measured on
    the device: latency as a rule, energy where it has a counter.
    """
    figures = point.figures
    split = "test_" if "test_accuracy" in figures else ""
    promised: dict[Metric, Figure] = {"accuracy": figures[f"{split}accuracy"]}
    if f"{split}drop_points" in figures:
        promised["drop_points"] = figures[f"{split}drop_points"]
    predicted: dict[Metric, Figure] = {}
    if "predicted_latency_ms" in figures:
        predicted["latency_ms"] = figures["predicted_latency_ms"]
    costs: tuple[Metric, ...] = ("latency_ms", "size_bytes", "energy_mj", "memory_mb")
    for metric in costs:
        if metric in figures:
            told = figures[metric]
            (predicted if told.kind == "predicted" else promised)[metric] = told
    return promised, predicted
