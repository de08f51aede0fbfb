"""The whole examination, in one order: what cannot be looked at is said, and the rest is looked at all the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from automc.config import SearchConfig, load_config
from automc.constraints import PREDICTED, limits_of, needed_of
from automc.doctor.budget import Budget
from automc.doctor.costs import Costing
from automc.doctor.data import findings_of
from automc.doctor.diagnosis import (
    DataFindings,
    Diagnosis,
    Effort,
    Finding,
    LimitOutlook,
    SpaceOutlook,
    TechniqueReach,
    UnknownOperator,
)
from automc.doctor.effort import effort_of, step_seconds
from automc.doctor.reachable import layers_of, macs_by_layer, techniques_on
from automc.doctor.stages import Forms, forms_of
from automc.errors import CompressionError, ConfigError, StaleCalibrationError, TrainingDiverged
from automc.evaluate import Evaluator, SelfScored
from automc.search.progress import Progress, Watcher, nobody
from automc.search.setup import data_root_of
from automc.threads import one_thread

if TYPE_CHECKING:
    import torch
    from torch import nn

    from automc.profiles import HardwareProfile
    from automc.space import SearchSpace
    from automc.workloads.workload import Workload

PARITY_SAMPLES = 8


def examine(
    config: SearchConfig | Path | str | None = None,
    *,
    data_root: Path | str | None = None,
    calibrate: bool = False,
    budget: Budget | None = None,
    watch: Watcher = nobody,
    told: str | None = None,
) -> Diagnosis:
    """What a search of `config` will meet, found without training a candidate; nothing is changed or left behind.

    config: a SearchConfig, a YAML file, or None for the embedded demo. calibrate: measure the kernels that the profile
    does not know, and add them to it. told: how the next command is told of the same config; default its file.
    Raises ConfigError where the config, the model or the workload is wrong so that
    there is nothing to examine.
    """
    with one_thread():
        resolved = config if isinstance(config, SearchConfig) else load_config(config)
        root = f" --data-root {data_root}" if data_root is not None else ""
        named = told or (config if isinstance(config, Path | str) else "CONFIG")
        examination = _Examination(resolved, data_root_of(data_root), calibrate, budget or Budget(), watch)
        return examination.run(f"{named}{root}")


class _Examination:
    def __init__(
        self, config: SearchConfig, data_root: Path | None, calibrate: bool, budget: Budget, watch: Watcher
    ) -> None:
        self.config, self.data_root, self.calibrate, self.budget = config, data_root, calibrate, budget
        self.watch = watch
        self.findings: list[Finding] = []

    def run(self, arguments: str) -> Diagnosis:
        """arguments: what a command that goes on from here is given."""
        from automc.space import SearchSpace
        from automc.workloads.registry import create_workload

        started = self.budget.clock()
        config = self.config
        space = SearchSpace.load(config.space)
        workload = create_workload(config.workload.name, config.workload.options, self.data_root)
        if isinstance(workload, SelfScored):
            raise ConfigError(
                f"workload {config.workload.name} is a table of figures: there is no model to examine",
                next_step=f"automc search {arguments}",
            )
        self._tell("building the base")
        model, inputs = workload.model(), workload.example_inputs()
        profile = self._profile()
        self._tell("tracing and exporting it")
        forms = forms_of(model, inputs, _samples(workload), self.budget.clock)
        macs = macs_by_layer(forms)
        techniques: tuple[TechniqueReach, ...] = ()
        if forms.runs:
            self._tell("asking every technique what it can act on")
            techniques = techniques_on(model, inputs, forms.exported, macs, space.techniques)
        threads = profile.threads if profile is not None else 1
        self._tell("comparing the splits")
        data, scoring_s = findings_of(workload, forms.exported, threads, self.budget)
        unknown, outlook, limits = self._costs(workload, model, space, profile, forms)
        effort = self._effort(workload, model, space, forms, scoring_s, outlook)
        self._judge(forms, techniques, data, unknown, outlook, limits)
        return Diagnosis(
            name=config.name,
            model=type(model).__name__,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            macs=None if macs is None else sum(macs.values()),
            size_bytes=None if forms.exported is None else forms.exported.ByteSize(),
            profile=config.profile,
            stages=forms.stages,
            techniques=techniques,
            layers=layers_of(model, techniques, macs),
            unknown=unknown,
            space=outlook,
            limits=limits,
            effort=effort,
            data=data,
            findings=tuple(self.findings),
            next_step=self._next_step(arguments, unknown),
            seconds=self.budget.clock() - started,
        )

    # --- parts ------------------------------------------------------------------------------------------------------

    def _profile(self) -> HardwareProfile | None:
        """The profile costs are predicted on; None where there is none, or a search would make it anew."""
        from automc.measure.fingerprint import check_fingerprint
        from automc.profiles import load_profile
        from automc.search.checking import check_limits

        config = self.config
        renewed = config.profile == "host" and config.calibrate != "never"
        try:
            profile = load_profile(config.profile)
        except ConfigError as error:
            if not renewed:
                raise
            self._add("warn", f"costs are unknown: {error.message} (a search calibrates it first: {config.calibrate})")
            return None
        try:
            check_fingerprint(profile)
        except StaleCalibrationError as error:
            if renewed:
                self._add("warn", f"costs are unknown: {error.message} (a search calibrates it first)")
                return None
            self._add("stop", f"{error.message}, and a search here re-measures on this machine")
            return profile
        try:
            check_limits(config)
        except ConfigError as error:
            self._add("stop", f"{error.message} ({error.next_step})")
        return profile

    def _costs(
        self,
        workload: Workload,
        model: nn.Module,
        space: SearchSpace,
        profile: HardwareProfile | None,
        forms: Forms,
    ) -> tuple[tuple[UnknownOperator, ...], SpaceOutlook | None, tuple[LimitOutlook, ...]]:
        """Unknown kernels, the space, and its limits; as far as there is a profile and a trace to know them from."""
        from automc.cost.graph import operators_of
        from automc.profiles import profile_folder
        from automc.run import ArtifactStore
        from automc.search.screening import Screener

        config, limits = self.config, limits_of(self.config.constraints)
        why = "no profile is calibrated" if profile is None else "the network cannot be exported"
        if profile is None or (forms.traced is None and forms.exported is None):
            return (), None, tuple(LimitOutlook(item.metric, item.maximum, "unknown", None, "", why) for item in limits)
        with tempfile.TemporaryDirectory(prefix="automc-") as folder:
            evaluator = Evaluator(
                config, workload, ArtifactStore(Path(folder)), profile_folder(config.profile), Path(folder)
            )
            screener = Screener(evaluator, (), config.search.seed, needed_of(config))
            factor = 1.0
            if forms.exported is not None and forms.traced is not None:
                factor = forms.exported.ByteSize() / forms.traced.ByteSize()
            costing = Costing(evaluator, screener, factor)
            inputs = workload.example_inputs()
            for precision in profile.precisions:
                operators = operators_of(model, inputs, precision=precision, scheme=profile.int8)
                differing = costing.note_base(operators, forms.at(precision, profile.int8))
                if differing:
                    self._add("warn", f"in {precision} the export has other kernels than the trace: {differing}")
            added, problems = self._calibrated(evaluator, costing)
            self._tell("costing candidates of the space")
            costing.look(space, self.budget, config.search.seed)
            # what was left out the first time may have been so for kinds that are known now, or for a busy moment
            more, again = self._calibrated(evaluator, costing, skip=added)
            outlook, judged = costing.outlook(space, limits)
        problems = {kind: why for kind, why in (problems | again).items() if kind not in more}
        unknown = tuple(
            UnknownOperator(
                kind, item.operator, item.shapes, item.kernels, item.candidates,
                calibrated=kind in {*added, *more}, problem=problems.get(kind, ""),
            )
            for kind, item in costing.unknown.items()
        )  # fmt: skip
        return unknown, outlook, judged

    def _calibrated(
        self, evaluator: Evaluator, costing: Costing, skip: set[str] | None = None
    ) -> tuple[set[str], dict[str, str]]:
        """Kinds measured now and added to the profile, and why others could not be; the predictor knows them then."""
        wanted = {
            kind: list(item.models.values()) for kind, item in costing.unknown.items() if kind not in (skip or set())
        }
        if not self.calibrate or not wanted:
            return set(), {}
        self._tell(f"measuring {', '.join(wanted)}")
        from automc.cost.predictor import load_predictor
        from automc.measure.missing import add_kinds
        from automc.profiles import load_profile

        added = add_kinds(self.config.profile, wanted, seed=self.config.search.seed)
        evaluator.predictor = load_predictor(load_profile(str(added.folder)), added.folder)
        return set(added.kinds), dict(added.problems)

    def _effort(
        self,
        workload: Workload,
        model: nn.Module,
        space: SearchSpace,
        forms: Forms,
        scoring_s: float,
        outlook: SpaceOutlook | None,
    ) -> Effort | None:
        if not forms.ok("parity") or not scoring_s:
            return None
        self._tell("timing a training step")
        step_s = 0.0
        try:
            if any(rung.steps for rung in self.config.search.rungs):
                step_s = step_seconds(model, workload, self.config, self.budget.clock)
        except TrainingDiverged as error:
            self._add("warn", f"training the base diverges within three steps: {error.message}")
            return None
        except CompressionError as error:
            self._add("stop", f"the base cannot be trained: {error.message} ({error.next_step})")
            return None
        plan_s = outlook.seconds / outlook.looked_at if outlook is not None and outlook.looked_at else 0.0
        return effort_of(
            self.config, space, plan_s=plan_s, step_s=step_s, export_s=forms.seconds("exported"), scoring_s=scoring_s
        )

    # --- what it comes to -------------------------------------------------------------------------------------------

    def _tell(self, message: str) -> None:
        self.watch(Progress("preparing", message))

    def _add(self, level: str, text: str) -> None:
        self.findings.append(Finding(level, text))  # type: ignore[arg-type]

    def _judge(
        self,
        forms: Forms,
        techniques: tuple[TechniqueReach, ...],
        data: DataFindings,
        unknown: tuple[UnknownOperator, ...],
        outlook: SpaceOutlook | None,
        limits: tuple[LimitOutlook, ...],
    ) -> None:
        needs_costs = bool(needed_of(self.config) & PREDICTED)
        for stage in forms.stages:
            if stage.ok is False and (stage.name != "traced" or forms.exported is not None):
                where = f" in {stage.site}" if str(stage.site) else ""
                level = "warn" if stage.name == "traced" else "stop"
                self._add(level, f"{_FAILED[stage.name]}{where}: {stage.detail}")
        for problem in dict.fromkeys(split.problem for split in data.splits if split.problem):
            named = ", ".join(split.name for split in data.splits if split.problem == problem)
            self._add("stop", f"{named} cannot be read: {problem}")
        for leak in data.leaks:
            self._add(
                "stop" if leak.inside == "test" or leak.of == "train" else "warn",
                f"{leak.samples} sample{'s' if leak.samples > 1 else ''} of {leak.inside} "
                f"{'are' if leak.samples > 1 else 'is'} in {leak.of} too (sample {leak.first[0]} is sample "
                f"{leak.first[1]} there): a score on samples that were trained on proves nothing",
            )
        for note in data.notes:
            self._add("warn", note)
        open_kinds = [item for item in unknown if not item.calibrated]
        if open_kinds:
            kinds = ", ".join(item.kind for item in open_kinds[:3])
            kinds += f" and {len(open_kinds) - 3} more kinds of operators" if len(open_kinds) > 3 else ""
            everywhere = outlook is not None and outlook.unknown == outlook.looked_at - outlook.infeasible
            level = "stop" if needs_costs and everywhere else "warn"
            reasons = "; ".join(f"{item.kind}: {item.problem}" for item in open_kinds[:3] if item.problem)
            self._add(
                level,
                f"profile {self.config.profile} does not know {kinds}: what they cost is unknown"
                + (f" ({reasons})" if reasons else ""),
            )
        for limit in limits:
            if limit.outlook == "not seen reachable" and limit.lowest is not None and outlook is not None:
                self._add(
                    "warn",
                    f"no candidate of the {outlook.looked_at} looked at meets {limit.metric} <= {limit.maximum:g}: the "
                    f"lowest is {limit.lowest.value:.4g} {limit.lowest.unit}"
                    + (f" ({limit.note})" if limit.note else ""),
                )
        used = [entry for entry in techniques if entry.in_space and entry.reach.unit]
        idle = [entry.technique for entry in used if not entry.reach.targets]
        if idle:
            self._add(
                "warn",
                f"{', '.join(idle)} of the space {'finds' if len(idle) == 1 else 'find'} nothing to act on in this "
                "network: candidates with it cannot exist, leave it out",
            )

    def _next_step(self, arguments: str, unknown: tuple[UnknownOperator, ...]) -> str:
        from automc.measure.missing import TOO_BUSY

        if any(not item.calibrated and item.problem in ("", TOO_BUSY) for item in unknown):
            return f"automc doctor {arguments} --calibrate"
        stops = [finding for finding in self.findings if finding.level == "stop"]
        if stops:
            return f"mend what is named above, then: automc doctor {arguments}"
        return f"automc search {arguments}"


_FAILED = {
    "runs": "the network does not run",
    "traced": "the network cannot be traced",
    "exported": "the network cannot be exported",
    "parity": "the exported graph does not compute what the network does",
}


def _samples(workload: Workload) -> tuple[torch.Tensor, ...] | None:
    """A few real inputs to compare the export on; None where the split they are of cannot be read."""
    try:
        return next(iter(workload.split("calibration").batches(PARITY_SAMPLES))).inputs
    except ConfigError:
        return None
