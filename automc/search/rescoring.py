"""Choosing again without searching again: the stored ONNX files of a run, judged for another device or other limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automc.config import Constraints
from automc.constraints import PREDICTED, limits_of
from automc.cost.calibration import load_calibration
from automc.cost.predictor import load_predictor
from automc.errors import ConfigError, InfeasibleSearchError, UnseenOperatorError
from automc.pareto import non_dominated
from automc.profiles import load_profile, profile_folder
from automc.run import FrontPoint, Run
from automc.search.another_device import constraints_of, differences, require_limits
from automc.search.choice import RULES, Prospect, choose
from automc.search.fidelity import distinct
from automc.search.finalists import points_of, timing_json, with_drop
from automc.search.progress import Progress, Watcher, nobody
from automc.trial import Figure, Metric, Trial, to_minimise

if TYPE_CHECKING:
    from automc.bundle.verify import Bundle
    from automc.cost.predictor import Costs, Predictor
    from automc.profiles import HardwareProfile

NOT_TESTED = (
    "The test split was not read for this model: its accuracy and drop are those of the validation split, by which it "
    "was also selected."
)


@dataclass(frozen=True)
class Rescored:
    """Candidates of one rung of a run as they stand on `profile`, fastest first, those of unknown latency last.

    profile: None where the workload tells figures by itself. points: figures as in the run's finalists, but costs are
    of this device: predicted (`latency_ms` included) unless it was timed here. Test figures are those the run read for
    its finalists; nobody else has any.
    unknown: candidate id to why its costs could not be predicted. notes: what a reader of these figures must know.
    """

    run: Run
    profile: HardwareProfile | None
    profile_folder: Path
    constraints: Constraints
    rung: int
    points: tuple[FrontPoint, ...]
    unknown: Mapping[str, str]
    notes: tuple[str, ...]
    own: bool
    """Whether the device is the one the run was made for."""

    def front(self) -> list[FrontPoint]:
        """The points that no other beats in the run's objectives; those of unknown objectives are not among them."""
        return [point for point in self.points if point.on_front]

    def choose(self, rule: str | None = None) -> FrontPoint:
        """The point that `rule` (None: the config's; or a candidate id) picks among those within the constraints.

        Raises InfeasibleSearchError (binding constraint, by how much, the closest) where none is.
        """
        try:
            return choose(
                self.points, rule or self.run.config.choose, self.constraints,
                prospects=self._further_down, noun="candidate",
            )  # fmt: skip
        except InfeasibleSearchError as error:
            unpriced = self._unpriced(rule or self.run.config.choose)
            if unpriced is not None:
                raise unpriced from error
            elsewhere = self.profile is not None and self.profile.imported is not None
            where = "" if self.profile is None else f" on {self.profile.name}"
            raise InfeasibleSearchError(
                f"{error.message}{''.join(f'; {key}: {why}' for key, why in list(self.unknown.items())[:1])}",
                next_step="give wider limits: a search runs on a profile of this machine, and a device of a table is "
                "chosen for afterwards"
                if elsewhere
                else f"give wider limits, or search for it{where} (`profile` in the config)",
            ) from error

    def _unpriced(self, rule: str) -> InfeasibleSearchError | None:
        """The error where a cost that `rule` or a limit asks is unknown of every candidate: no wider limit helps."""
        asked = {limit.metric for limit in limits_of(self.constraints)} | set(RULES.get(rule.replace("-", "_"), ()))
        known = {name for point in self.points for name in point.figures}
        if self.profile is None or not self.unknown or (asked & PREDICTED) <= known:
            return None
        candidate, why = next(iter(self.unknown.items()))
        return InfeasibleSearchError(
            f"no candidate can be priced on {self.profile.name}: {candidate}: {why}",
            next_step=(
                f"on that machine, automc doctor CONFIG --profile {self.profile.name} --calibrate"
                if self.profile.imported is None
                else "measure networks with these operators there and import them"
            )
            + "; or choose for another --profile",
        )

    def _further_down(self) -> list[Prospect]:
        """Candidates of the rungs below, which went no further: predicted, but never trained to the end."""
        if self.profile is None:
            return []
        predictor, here = load_predictor(self.profile, self.profile_folder), {p.trial.candidate.id for p in self.points}
        found = []
        for trial in distinct(_latest(self.run).values()):
            if trial.rung < self.rung and trial.candidate.id not in here and trial.artifacts.get("onnx"):
                costs, _ = _costs(self.run, trial, predictor)
                if costs is not None:
                    why = f"which went no further than rung {trial.rung}"
                    found.append(Prospect(trial.candidate, dict(costs.by_metric()), why))
        return found

    def bundle(self, point: FrontPoint, folder: Path | None = None) -> Bundle:
        """Write the bundle of `point` for this device (default: its own folder in the run's)."""
        from automc.search.ending import write_point
        from automc.search.setup import workload_of

        if self.profile is None:
            raise _no_files(self.run)
        name = point.trial.candidate.id if self.own else f"{self.profile.name}-{point.trial.candidate.id}"
        notes = list(self.notes)
        if "test_accuracy" not in point.figures:
            notes.append(NOT_TESTED)
        if point.figures.get("latency_ms") is None or point.figures["latency_ms"].kind == "predicted":
            notes.append(f"Nothing was timed on {self.profile.name}: what is said of its latency is predicted.")
        reference = next((item for item in self.points if item.anchor == "reference"), None)
        return write_point(
            self.run, point, folder or self.run.folder / f"bundle-{name}", workload_of(self.run), self.profile,
            reference=reference, notes=notes,
        )  # fmt: skip


def rescore(
    run: Run,
    profile: str | None = None,
    limits: Mapping[str, float | None] | None = None,
    *,
    rung: int | None = None,
    measure: bool = False,
    insist: bool = False,
    watch: Watcher = nobody,
) -> Rescored:
    """The candidates of one rung of `run`, judged for `profile` (a name or a folder; None: the run's own device).

    limits: laid over the run's, by the keys of `constraints` in a config; None lifts one. Limits of the run on latency,
    energy and memory hold for its own device alone. rung: default the highest that has candidates; rungs are never
    mixed. measure: time them here, against the reference, which needs a profile of this very machine. insist: judge
    limits also by a profile that only ranks.
    Without a profile, a rung or `measure`, a finished run is judged by what its finalists measured.
    Raises ConfigError where there is no such profile, key or rung, or no ONNX file, or a limit is on what the profile
    cannot say; StaleCalibrationError where
    something is to be measured and the profile is another machine's.
    """
    own_folder = run.folder / "profile"
    has_own = (own_folder / "profile.yaml").is_file()
    if profile is None and rung is None and not measure and run.has_finalists:
        device = load_profile(str(own_folder)) if has_own else None
        finalists = run.finalists()
        measured = tuple(replace(point, chosen=False) for point in finalists)
        top = max((point.trial.rung for point in finalists), default=0)
        constraints, _ = constraints_of(run, limits, own=True)
        energies = [point.figures.get("energy_mj") for point in measured]
        if device is not None and not insist and any(found and found.kind == "predicted" for found in energies):
            use, reason = device.good_for()
            said = f"energies are predicted, and {device.name} is good for ranking only: {reason}"
            only = {"max_energy_mj": (limits or {}).get("max_energy_mj") if use == "rank only" else None}
            require_limits(device, None, only, said)
        return Rescored(run, device, own_folder, constraints, top, measured, {}, (), own=True)
    if not has_own:
        raise _no_files(run)
    mine = load_profile(str(own_folder))
    folder = own_folder if profile is None else profile_folder(profile)
    device = load_profile(str(folder))
    own = (device.fingerprint, device.calibration_digest) == (mine.fingerprint, mine.calibration_digest)
    constraints, dropped = constraints_of(run, limits, own=own)
    use, reason = device.good_for()
    if device.imported is not None or (use == "rank only" and not measure):
        good_for = "good enough to decide limits" if use == "limits" else "good for ranking only"
        said = f"{device.name} is {good_for}: {reason}"
        if not insist:
            require_limits(device, load_calibration(device, folder).measured_energy, limits or {}, said)
        elsewhere = f". Its runtime is {device.fingerprint.runtime}, not the one a bundle runs in."
        dropped.append(said + (elsewhere if device.imported is not None else "."))
    if measure:
        from automc.measure.fingerprint import check_fingerprint

        check_fingerprint(device)
    trials, chosen_rung, notes = _trials_of(run, rung)
    predictor = load_predictor(device, folder)
    anchors, reference, tested = _known_of(run, chosen_rung)
    rescored, unknown = [], {}
    for number, trial in enumerate(trials, start=1):
        watch(Progress("preparing", f"predicting {number} of {len(trials)} candidates for {device.name}"))
        costs, why = _costs(run, trial, predictor)
        if why is not None:
            unknown[trial.candidate.id] = why
        rescored.append(_with_costs(trial if reference is None else with_drop(run, trial, reference), costs))
    if measure and reference is not None:
        points = _measured(run, rescored, reference, device, anchors, tested, watch)
    else:
        points = _predicted(run, rescored, anchors, tested)
    if own and not measure and run.has_finalists:
        notes.append(f"This is the run's own device; what its finalists measured: automc front {run.folder}")
    notes += dropped if own else [*dropped, *differences(mine, device, rescored)]
    return Rescored(run, device, folder, constraints, chosen_rung, tuple(points), unknown, tuple(notes), own)


def _no_files(run: Run) -> ConfigError:
    return ConfigError(
        f"{run.folder}: its workload {run.config.workload.name} tells figures by itself, so there are no ONNX files to "
        "predict, time or bundle",
        next_step=f"automc front {run.folder}    (limits and --pick work without --profile)",
    )


def _latest(run: Run) -> dict[tuple[str, int], Trial]:
    return {(trial.candidate.id, trial.rung): trial for trial in run.trials()}


def _trials_of(run: Run, rung: int | None) -> tuple[list[Trial], int, list[str]]:
    """The distinct successful candidates of one rung, which one, and what is to be said of it."""
    by_rung: dict[int, list[Trial]] = {}
    for trial in _latest(run).values():
        if trial.ok and trial.artifacts.get("onnx"):
            by_rung.setdefault(trial.rung, []).append(trial)
    if not by_rung:
        raise ConfigError(
            f"{run.folder}: no candidate has come through yet, so there is nothing to choose from",
            next_step=f"automc resume {run.folder}",
        )
    if rung is None:  # the reference runs ahead of the others: a rung it has to itself is no choice
        rung = max((number for number, found in by_rung.items() if len(found) > 1), default=max(by_rung))
    if rung not in by_rung:
        raise ConfigError(
            f"{run.folder}: no candidate has come through rung {rung}, only {', '.join(map(str, sorted(by_rung)))}",
            next_step="leave out --rung, or give one of these",
        )
    rungs, notes = run.config.search.rungs, []
    if rung < len(rungs) - 1:
        notes.append(
            f"These are candidates of rung {rung}: they had {rungs[rung].steps} of {rungs[-1].steps} optimiser steps, "
            "and their accuracy says little of what it becomes at the last one."
        )
    if not run.finished:
        notes.append("The run has not ended: more candidates may come, and none has been scored on the test split.")
    return distinct(by_rung[rung]), rung, notes


def _known_of(run: Run, rung: int) -> tuple[dict[str, str], Trial | None, dict[str, dict[str, Figure]]]:
    """Anchors by candidate id, the reference at `rung`, and the test figures of finalists of that rung."""
    from automc.space import SearchSpace

    anchors = {c.id: anchor.name for anchor in SearchSpace.load(run.config.space).anchors for c in anchor.candidates}
    trials = _latest(run)
    found = (trials.get((key, rung)) for key, name in anchors.items() if name == "reference")
    reference = next((trial for trial in found if trial is not None and trial.ok), None)
    tested = {
        point.trial.candidate.id: {key: figure for key, figure in point.figures.items() if key.startswith("test_")}
        for point in (run.finalists() if run.has_finalists else [])
        if point.trial.rung == rung
    }
    return anchors, reference, tested


def _costs(run: Run, trial: Trial, predictor: Predictor) -> tuple[Costs | None, str | None]:
    """(predicted costs, None), or (None, which operator the device was never calibrated for)."""
    import onnx

    from automc.cost.graph import graph_from_onnx

    model = onnx.load_model_from_string(run.artifacts.get(trial.artifacts["onnx"]))
    try:
        return predictor.predict(graph_from_onnx(model, level=predictor.level)), None
    except UnseenOperatorError as error:
        return None, error.message


def _with_costs(trial: Trial, costs: Costs | None) -> Trial:
    """The trial with the costs of another device in place of its own."""
    kept: dict[Metric, Figure] = {
        metric: figure
        for metric, figure in (trial.figures or {}).items()
        if metric in ("accuracy", "drop_points", "size_bytes")
    }
    return replace(trial, figures={**kept, **(costs.figures(trial.rung) if costs is not None else {})})


def _predicted(
    run: Run, trials: Sequence[Trial], anchors: Mapping[str, str], tested: Mapping[str, Mapping[str, Figure]]
) -> list[FrontPoint]:
    reference = next((trial for trial in trials if anchors.get(trial.candidate.id) == "reference"), None)
    drafts = []
    for trial in trials:
        figures: dict[str, Figure] = {str(name): figure for name, figure in (trial.figures or {}).items()}
        if reference is not None and "latency_ms" in figures and "latency_ms" in (reference.figures or {}):
            figures["speedup"] = _ratio(reference["latency_ms"], figures["latency_ms"])
        drafts.append((trial, {**figures, **tested.get(trial.candidate.id, {})}))
    names = run.config.objectives
    judged = [index for index, (_, figures) in enumerate(drafts) if all(name in figures for name in names)]
    matrix = [[to_minimise(name, drafts[index][1][name]) for name in names] for index in judged]
    on_front = {index for index, best in zip(judged, non_dominated(matrix), strict=True) if best} if judged else set()
    points = [
        FrontPoint(trial, anchors.get(trial.candidate.id), index in on_front, False, figures)
        for index, (trial, figures) in enumerate(drafts)
    ]
    return sorted(points, key=_by_latency)


def _by_latency(point: FrontPoint) -> tuple[bool, float, str]:
    figure = point.figures.get("latency_ms")
    return figure is None, 0.0 if figure is None else figure.value, point.trial.candidate.id


def _ratio(reference: Figure, mine: Figure) -> Figure:
    """How many times as fast as the reference, by predictions alone: as wide as both are off in opposite ways."""
    return Figure(
        reference.value / mine.value, reference.low / mine.high, reference.high / mine.low, "times", "predicted",
        rung=mine.rung,
        source="ratio of two predictions; its interval is the worst case, one of them erring high and the other low",
    )  # fmt: skip


def _measured(
    run: Run,
    trials: Sequence[Trial],
    reference: Trial,
    device: HardwareProfile,
    anchors: Mapping[str, str],
    tested: Mapping[str, Mapping[str, Figure]],
    watch: Watcher,
) -> list[FrontPoint]:
    """Every candidate timed here, interleaved with the reference of its rung."""
    from automc.measure.timing import measure_interleaved
    from automc.search.setup import patiently

    watch(Progress("measuring", f"timing {len(trials)} candidates against the reference"))
    models = {"reference": run.artifacts.get(reference.artifacts["onnx"])}
    models.update({trial.candidate.id: run.artifacts.get(trial.artifacts["onnx"]) for trial in trials})
    timings = patiently(lambda: measure_interleaved(models, device, baseline="reference"))
    shown: dict[str, Mapping[str, Any]] = {name: timing_json(timing, device) for name, timing in timings.items()}
    return points_of(anchors, trials, shown, {key: dict(item) for key, item in tested.items()}, run.config)
