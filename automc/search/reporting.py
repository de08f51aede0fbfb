"""Gathers a finished run into report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from automc.constraints import limits_of
from automc.errors import UnseenOperatorError
from automc.evaluate import Evaluator
from automc.run import FrontPoint, Run
from automc.techniques.registry import get_technique
from automc.trial import Trial

SAME = 1e-6  # relative: rows that agree give the same sum up to rounding

if TYPE_CHECKING:
    from automc.report.data import KernelTimes
    from automc.search.loop import Ended
    from automc.workloads.workload import SplitName


def write_report(run: Run, evaluator: Evaluator, ended: Ended, points: Sequence[FrontPoint]) -> None:
    """report.html of the run: one self-contained page."""
    from automc.report.data import ReportData
    from automc.report.page import render_report

    config = run.config
    names = {step.technique for rung in ended.rungs for trial in rung.values() for step in trial.candidate.steps}
    data = ReportData(
        title=config.name,
        model=_named(config.workload.name, config.workload.options),
        profile=evaluator.profile,
        points=points,
        rungs=[_with_reference(rung, ended.reference) for rung in ended.rungs],
        rung_steps=[rung.steps for rung in config.search.rungs],
        screened=ended.screened,
        anchors=ended.anchors,
        saves={name: tuple(sorted(get_technique(name).saves)) for name in sorted(names)},
        kernels=_kernels(run, evaluator, points),
        limits=limits_of(config.constraints),
        conditions={**_conditions(run, evaluator), "screening": _screening(ended)},
        metric=evaluator.workload.task.metric,
    )
    run.write_text("report.html", render_report(data))


def _with_reference(rung: Mapping[str, Trial], reference: Trial | None) -> list[Trial]:
    trials = list(rung.values())
    if reference is not None and trials and trials[0].rung == reference.rung and reference not in trials:
        trials = [reference, *(trial for trial in trials if trial.candidate.id != reference.candidate.id)]
    return trials


def _named(workload: str, options: Mapping[str, object]) -> str:
    shown = ", ".join(f"{key} {value}" for key, value in options.items())
    return f"{workload} ({shown})" if shown else workload


def _kernels(run: Run, evaluator: Evaluator, points: Sequence[FrontPoint]) -> list[KernelTimes]:
    """Predicted kernels of the reference and of the chosen network (or of the fastest, where none was chosen)."""
    import onnx

    from automc.cost.graph import graph_from_onnx
    from automc.report.data import KernelTimes

    reference = next((point for point in points if point.anchor == "reference"), None)
    chosen = next((point for point in points if point.chosen), points[0] if points else None)
    found = []
    for label, point in (("reference", reference), ("chosen", chosen)):
        if point is not None:
            model = onnx.load_model_from_string(run.artifacts.get(point.trial.artifacts["onnx"]))
            try:
                found.append(
                    KernelTimes(
                        label, evaluator.predictor.kernels(graph_from_onnx(model, level=evaluator.predictor.level))
                    )
                )
            except UnseenOperatorError:  # its costs are unknown: nothing to draw
                continue
    return found


def _screening(ended: Ended) -> str:
    """Whether costs predicted from the trace, before any export, were those of the exported graph (rung 0)."""
    exact, estimated = list[float](), list[float]()
    for name, trial in ended.rungs[0].items():
        if "latency_ms" in (trial.figures or {}) and name in ended.predicted:
            gap = abs(ended.predicted[name].latency_ms.value / trial["latency_ms"].value - 1)
            (estimated if name in ended.estimated else exact).append(gap)
    said = []
    if exact:
        same = sum(gap < SAME for gap in exact)
        said.append(
            f"latency from the trace equals the export's for {same} of {len(exact)}, largest gap {max(exact):.1%}"
        )
    if estimated:
        said.append(
            f"of {len(estimated)} whose shapes hang on the weights that a step before leaves, and were estimated from "
            f"the base, the largest gap is {max(estimated):.1%}"
        )
    return "; ".join(said) or "no candidate was both screened and exported"


def _conditions(run: Run, evaluator: Evaluator) -> dict[str, str]:
    config, profile, search = run.config, evaluator.profile, run.config.search
    shown: tuple[SplitName, ...] = ("train", "validation", "test")
    sizes = {name: len(evaluator.workload.split(name)) for name in shown}
    rungs = ", ".join(f"{rung.candidates} candidates with {rung.steps} steps" for rung in search.rungs)
    return {
        "device": f"{profile.fingerprint.cpu}, {profile.threads} thread(s)",
        "runtime": f"{profile.fingerprint.runtime} {profile.fingerprint.runtime_version}",
        "calibration": f"{profile.calibration}, noise floor {profile.noise_floor_percent:.1f} %"
        + (", ranks networks and no more" if profile.good_for()[0] == "rank only" else ""),
        "energy": profile.energy.detail,
        "data": f"train {sizes['train']}, validation {sizes['validation']}, test {sizes['test']} samples",
        "search": f"{search.strategy}, seed {search.seed}; rungs: {rungs} of batch {config.recovery.batch_size}",
        "objectives": ", ".join(config.objectives),
        "executor": "this process"
        if config.executor.kind == "inline"
        else f"{config.executor.kind}, {config.executor.workers} worker(s)",
    }
