"""The end of the search proper: the best of the top rung, re-measured beside each other, tested once."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from automc.config import SearchConfig
from automc.constraints import limits_of, unmet
from automc.errors import MeasurementError, RunError
from automc.pareto import non_dominated, promote
from automc.run import FrontPoint, Run
from automc.search.allowance import EXTENDED
from automc.search.fidelity import distinct, objectives_of
from automc.search.progress import Progress, Watcher
from automc.search.setup import patiently
from automc.stats import drop_figure, mean_figure
from automc.trial import DISTURBED, Figure, Trial, to_minimise

if TYPE_CHECKING:
    from automc.evaluate import Evaluator
    from automc.measure.timing import Timing
    from automc.profiles import HardwareProfile
    from automc.search.loop import Ended

INTERVAL_SHARE = 0.90  # predictions state a 90 % interval
_RESTORE = "restore journal.jsonl, or run the search again: automc search CONFIG --run ANOTHER"


def with_drop(run: Run, trial: Trial, reference: Trial) -> Trial:
    """The trial with `drop_points`: paired over the validation samples, counted from the reference at the same rung."""
    if not trial.ok or trial.figures is None:
        return trial
    drop = drop_figure(
        scores_of(run, reference), scores_of(run, trial), rung=trial.rung, split="validation",
        direction=trial["accuracy"].direction or "max",
    )  # fmt: skip
    return Trial(
        trial.candidate, trial.rung, trial.seed, {**trial.figures, "drop_points": drop},
        None, trial.artifacts, trial.facts, trial.provenance,
    )  # fmt: skip


def scores_of(run: Run, trial: Trial) -> np.ndarray:
    """(n,) per-sample validation scores stored with the trial."""
    loaded: np.ndarray = np.load(io.BytesIO(run.artifacts.get(trial.artifacts["scores"])), allow_pickle=False)
    return loaded


def select(ended: Ended, trials: Sequence[Trial], config: SearchConfig) -> list[Trial]:
    """Who is re-measured: the anchors of the top rung and the best of the rest, those within the limits first.

    trials: of the top rung, with drops. The rest is ranked by front and crowding over the config's objectives.
    """
    anchors = [trial for trial in distinct(trials) if trial.candidate.id in ended.anchors]
    taken = {trial.artifacts.get("onnx") for trial in anchors}
    rest = [trial for trial in distinct(trials) if trial.artifacts.get("onnx") not in taken]
    limits = limits_of(config.constraints)
    met = [trial for trial in rest if not unmet(limits, trial.figures or {})]
    broken = [trial for trial in rest if trial not in met]
    chosen: list[Trial] = []
    for group in (met, broken):
        room = config.search.finalists - len(chosen)
        if group and room > 0:
            order = promote([objectives_of(trial, config.objectives) for trial in group], room)
            chosen += [group[int(index)] for index in order]
    return anchors + chosen


def remeasure(
    run: Run, evaluator: Evaluator, finalists: Sequence[Trial], reference: Trial, watch: Watcher
) -> dict[str, Mapping[str, float]]:
    """Latency of every finalist, interleaved with the reference on an idle device; journalled once as one event."""
    known = run.journal.last("measured", after=EXTENDED)
    if known is None:
        from automc.measure.timing import measure_interleaved

        watch(Progress("measuring", f"timing {len(finalists)} finalists against the reference"))
        models = {"reference": run.artifacts.get(reference.artifacts["onnx"])}
        models.update({trial.candidate.id: run.artifacts.get(trial.artifacts["onnx"]) for trial in finalists})
        timings = patiently(lambda: measure_interleaved(models, evaluator.profile, baseline="reference"))
        shown: dict[str, Any] = {name: timing_json(timing, evaluator.profile) for name, timing in timings.items()}
        for name, energy in _energies(models, run.config, evaluator, watch).items():
            shown[name]["energy"] = energy
        run.journal.append("measured", timings=dict(shown))
        known = run.journal.last("measured")
    if known is None or not isinstance(known["timings"], dict):
        raise RunError(f"{run.folder}: the journal's measurements are damaged", next_step=_RESTORE)
    return known["timings"]  # type: ignore[return-value]


def _energies(
    models: Mapping[str, bytes], config: SearchConfig, evaluator: Evaluator, watch: Watcher
) -> dict[str, dict[str, Any]]:
    """Energy of every model by what the config names; nothing where that is the model or something else drew more."""
    from automc.measure.energy import counter_of, measure_models_mj
    from automc.measure.timing import settings_of

    counter = counter_of(config.energy, evaluator.profile.execution_provider)
    if counter is None:
        return {}
    watch(Progress("measuring", f"reading the energy of {len(models)} models from {counter.source.detail}"))
    try:
        found = patiently(lambda: measure_models_mj(models, settings_of(evaluator.profile), counter))
    except MeasurementError as error:
        watch(Progress("measuring", f"no energy could be read, its figures stay predicted: {error.message}"))
        return {}
    return {name: {"mj": list(values), "source": counter.source.detail} for name, values in found.items()}


def timing_json(timing: Timing, profile: HardwareProfile) -> dict[str, Any]:
    """As the journal keeps a timing on the profile's device, and `points_of` takes it."""
    return {
        "n": timing.n, "p10_ms": timing.p10_ms, "median_ms": timing.median_ms, "p90_ms": timing.p90_ms,
        "passes_ms": list(timing.pass_p10_ms), "calm": timing.calm,
        "repeats_ms": list(timing.repeats_ms(profile.noise_floor_percent)),
        "speedup": timing.speedup, "speedup_low": timing.speedup_low, "speedup_high": timing.speedup_high,
    }  # fmt: skip


def score_test_split(
    run: Run, evaluator: Evaluator, finalists: Sequence[Trial], reference: Trial, watch: Watcher
) -> dict[str, dict[str, Figure]]:
    """Accuracy and paired drop of every finalist on the test split, which is read here and nowhere else."""
    known = run.journal.last("tested", after=EXTENDED)
    if known is None:
        import onnx

        earlier = run.journal.last("tested")  # before the run was extended: what was read then is not read again
        figures = dict(earlier["figures"]) if earlier is not None and isinstance(earlier["figures"], dict) else {}

        watch(Progress("measuring", "scoring the finalists on the test split, once"))

        def scored(trial: Trial) -> np.ndarray:
            graph = onnx.load_model_from_string(run.artifacts.get(trial.artifacts["onnx"]))
            return evaluator.scores(graph, "test")

        base, direction = scored(reference), evaluator.workload.task.direction
        for trial in finalists:
            if trial.candidate.id in figures:
                continue
            scores = base if trial.candidate.id == reference.candidate.id else scored(trial)
            figures[trial.candidate.id] = {
                "test_accuracy": mean_figure(scores, rung=trial.rung, split="test", direction=direction).to_json(),
                "test_drop_points": drop_figure(
                    base, scores, rung=trial.rung, split="test", direction=direction
                ).to_json(),
            }
        run.journal.append("tested", figures=figures)
        known = run.journal.last("tested")
    if known is None or not isinstance(known["figures"], dict):
        raise RunError(f"{run.folder}: the journal's test figures are damaged", next_step=_RESTORE)
    return {
        key: {name: Figure(**figure) for name, figure in item.items()}  # type: ignore[union-attr,arg-type]
        for key, item in known["figures"].items()
    }


def points_of(
    anchors: Mapping[str, str],
    finalists: Sequence[Trial],
    timings: Mapping[str, Mapping[str, Any]],
    tested: Mapping[str, Mapping[str, Figure]],
    config: SearchConfig,
) -> list[FrontPoint]:
    """One point per finalist, fastest first, none chosen yet.

    anchors: candidate id to the anchor's name. tested: candidate id to figures of the test split, where there are any.
    """
    drafts = []
    for trial in finalists:
        timing = timings[trial.candidate.id]
        figures: dict[str, Figure] = {str(name): figure for name, figure in (trial.figures or {}).items()}
        if "latency_ms" in figures:
            figures["predicted_latency_ms"] = figures["latency_ms"]
        low, high = timing.get("repeats_ms") or (min(timing["passes_ms"]), max(timing["passes_ms"]))  # older: not kept
        figures["latency_ms"] = _measured(timing["p10_ms"], low, high, timing)
        figures["latency_median_ms"] = _measured(timing["median_ms"], timing["p10_ms"], timing["p90_ms"], timing)
        figures["speedup"] = Figure(
            timing["speedup"], timing["speedup_low"], timing["speedup_high"], "times", "measured", n=timing["n"],
            source="blocks interleaved with the reference",
        )  # fmt: skip
        if "energy" in timing:
            if "energy_mj" in figures:
                figures["predicted_energy_mj"] = figures["energy_mj"]
            passes, source = sorted(timing["energy"]["mj"]), timing["energy"]["source"]
            middle = passes[len(passes) // 2]
            figures["energy_mj"] = Figure(middle, passes[0], passes[-1], "mJ", "measured", n=len(passes), source=source)
        figures.update(tested.get(trial.candidate.id, {}))
        drafts.append((trial, figures))
    matrix = [[to_minimise(name, figures[name]) for name in config.objectives] for _, figures in drafts]
    mask = non_dominated(matrix)
    points = [
        FrontPoint(trial, anchors.get(trial.candidate.id), bool(on_front), False, figures)
        for (trial, figures), on_front in zip(drafts, mask, strict=True)
    ]
    return sorted(points, key=lambda point: (point.figures["latency_ms"].value, point.trial.candidate.id))


def _measured(value: float, low: float, high: float, timing: Mapping[str, Any]) -> Figure:
    source = "ONNX Runtime on this device"
    if not timing.get("calm", True):
        source += f", {DISTURBED}: too slow by an unknown factor"
    return Figure(value, low, high, "ms", "measured", n=int(timing["n"]), source=source)
