"""One candidate at one rung: compress, recover, export, check, score in ONNX Runtime, predict costs."""

from __future__ import annotations

import copy
import io
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pydantic import JsonValue

from automc import pipeline
from automc.candidate import Candidate, canonical_json, digest
from automc.config import SearchConfig
from automc.constraints import PREDICTED, needed_of
from automc.errors import (
    AutomcError,
    CandidateError,
    CompressionError,
    ExportError,
    InfeasibleCandidate,
    OutOfBudget,
    ParityError,
    TrainingDiverged,
    UnseenOperatorError,
)
from automc.run import ArtifactStore, Run, write_durably
from automc.techniques.plan import Plan
from automc.techniques.technique import Phase
from automc.trial import Failure, FailureKind, Figure, Metric, Provenance, Trial

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch
    from torch import nn

    from automc.cost.kernels import KernelGraph, Precision
    from automc.cost.predictor import Costs, Predictor
    from automc.profiles import HardwareProfile
    from automc.techniques.technique import PlanContext
    from automc.workloads.workload import SplitName, Workload

KINDS: dict[type[AutomcError], FailureKind] = {
    InfeasibleCandidate: "infeasible",
    CompressionError: "compression",
    TrainingDiverged: "diverged",
    ExportError: "export",
    ParityError: "parity",
    OutOfBudget: "budget",
    UnseenOperatorError: "unknown_cost",
}
BATCH = 250
PARITY_SAMPLES = 8


@runtime_checkable
class SelfScored(Protocol):
    """A workload that knows its candidates' figures without training: a table of published measurements, a no-op.

    Where it says in an attribute `tells` which figures it gives, objectives are checked before a run begins.
    """

    def score(self, candidate: Candidate, rung: int, seed: int) -> Mapping[Metric, Figure]: ...


@runtime_checkable
class TellsCosts(Protocol):
    """A self-scored workload that predicts costs of thousands of candidates at once, before any is evaluated."""

    def predicted(self, candidates: Sequence[Candidate]) -> Sequence[Mapping[Metric, float]]: ...


@dataclass(frozen=True)
class Job:
    """What a worker is asked: `candidate` at `rung`, having had `steps` optimiser steps by its end.

    parent: artifacts of the same candidate at the rung before, whose checkpoint is continued after `trained` steps.
    teacher: artifacts of the reference, for distillation.
    """

    candidate: Candidate
    rung: int
    seed: int
    steps: int
    trained: int = 0
    parent: Mapping[str, str] | None = None
    teacher: Mapping[str, str] | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        return (self.candidate.id, self.rung, self.seed)


@dataclass(frozen=True)
class EvaluatorFactory:
    """Makes one evaluator per long-lived worker from the run folder alone; small enough to send anywhere."""

    folder: str

    def __call__(self) -> Callable[[Job], Trial]:
        return evaluator_of(Run.open(self.folder))


def evaluator_of(run: Run) -> Callable[[Job], Trial]:
    from automc.workloads.registry import create_workload

    workload = create_workload(run.config.workload.name, run.config.workload.options, run.data_root)
    if isinstance(workload, SelfScored):
        scored = workload
        return lambda job: _recorded(job, lambda job, started: _scored(scored, job, started))
    return Evaluator(run.config, workload, run.artifacts, run.folder / "profile", run.folder / "cache").evaluate


def _recorded(job: Job, evaluate: Callable[[Job, float], Trial]) -> Trial:
    """The job's trial. A CandidateError becomes a named failure here and nowhere else; a bug passes through."""
    started = time.time()
    try:
        return evaluate(job, started)
    except (CandidateError, InfeasibleCandidate, UnseenOperatorError) as error:
        kind = next(kind for cls, kind in KINDS.items() if isinstance(error, cls))
        failure = Failure(kind, error.message)
        return Trial(job.candidate, job.rung, job.seed, failure=failure, provenance=_provenance(started, 0))


def _scored(workload: SelfScored, job: Job, started: float) -> Trial:
    figures = workload.score(job.candidate, job.rung, job.seed)
    return Trial(job.candidate, job.rung, job.seed, figures=figures, provenance=_provenance(started, 0))


class Evaluator:
    """Holds what is the same for every candidate: the base, the data, the profile's predictor, the teacher."""

    def __init__(
        self, config: SearchConfig, workload: Workload, artifacts: ArtifactStore, profile_folder: Path, cache: Path
    ) -> None:
        from automc.cost.parts import PartPrices
        from automc.cost.predictor import load_predictor
        from automc.cost.remembered import Lowerings
        from automc.profiles import load_profile

        self.config = config
        self.workload = workload
        self.artifacts = artifacts
        self.cache = cache
        self.profile: HardwareProfile = load_profile(str(profile_folder))
        self.predictor: Predictor = load_predictor(self.profile, profile_folder)
        self._teachers: dict[str, nn.Module] = {}
        self._lowerings = Lowerings()
        self._parts = PartPrices(self._lowered, lambda graph: self.predictor.predict(graph))

    @cached_property
    def base(self) -> nn.Module:
        return self.workload.model()

    def evaluate(self, job: Job) -> Trial:
        """The job's trial: its figures, or the named failure of its candidate."""
        return _recorded(job, self._evaluate)

    def _evaluate(self, job: Job, started: float) -> Trial:
        from automc.export import check_parity, export_onnx, onnx_bytes
        from automc.workloads.workload import weights_digest

        context = self.plan_context(job.seed, pipeline.final_precision(job.candidate.steps))
        compressed = self._compress(job, context)
        key = None
        if job.rung == 0:
            key = self._cache_key(job, weights_digest(compressed.model))
            known = self._cached(key)
            if known is not None:
                return Trial(
                    job.candidate, job.rung, job.seed, figures=known.figures, artifacts=known.artifacts,
                    facts={
                        **known.facts,
                        "recoveries": _recoveries(job.candidate),
                        "same_network_as": known.candidate.id,
                    },
                    provenance=_provenance(started, 0),
                )  # fmt: skip
        exported = export_onnx(compressed.model, self.workload.example_inputs())
        batch = next(iter(self.workload.split("calibration").batches(PARITY_SAMPLES)))
        check_parity(compressed.model, exported, batch.inputs)
        graph, graph_plans, lossless = pipeline.apply_graph(exported, job.candidate.steps, context)
        if lossless and graph_plans:
            check_parity(compressed.model, graph, batch.inputs)
        scores = self.scores(graph, "validation")
        figures = self.figures(graph, scores, job.rung)
        trial = Trial(
            job.candidate, job.rung, job.seed, figures=figures,
            artifacts={
                "onnx": self.artifacts.put(onnx_bytes(graph)),
                "weights": self.artifacts.put(_weights_bytes(compressed.model)) if job.steps else "",
                "plans": self.artifacts.put(_plans_bytes(compressed.plans, graph_plans)),
                "scores": self.artifacts.put(_array_bytes(scores)),
            },
            facts={
                "network": weights_digest(compressed.model)[:16],
                "parameters": _parameters(compressed.model),
                "recoveries": _recoveries(job.candidate),
            },
            provenance=_provenance(started, compressed.steps_trained),
        )  # fmt: skip
        if key is not None:
            self._remember(key, trial)
        return trial

    def _compress(self, job: Job, context: PlanContext) -> pipeline.Compressed:
        from automc.recovery.batchnorm import reestimate_batchnorm
        from automc.recovery.training import RecoveryContext

        recovery = RecoveryContext(
            self.workload, self.config.recovery, job.seed, self.teacher(job.teacher), first_step=job.trained
        )
        if job.trained and job.parent is not None:
            model, plans = self.restore(job.parent)
            further = pipeline.recover_further(model, job.candidate.steps, recovery, job.steps - job.trained)
            return pipeline.Compressed(further, plans, 0 if further is model else job.steps - job.trained)
        compressed = pipeline.apply(self.base, job.candidate.steps, context, recovery, job.steps)
        if compressed.steps_trained == 0 and any(plan.edits for plan in compressed.plans):
            model = reestimate_batchnorm(compressed.model, self.workload.split("calibration"))
            return pipeline.Compressed(model, compressed.plans, 0)
        return compressed

    def restore(self, artifacts: Mapping[str, str]) -> tuple[nn.Module, tuple[Plan, ...]]:
        """The network stored under `artifacts` (plans and weights), rebuilt from the base."""
        from safetensors.torch import load

        stored = json.loads(self.artifacts.get(artifacts["plans"]))
        plans = tuple(Plan.model_validate(item) for item in stored["model"])
        model = pipeline.replay(copy.deepcopy(self.base), plans)  # without plans a replay is the base itself
        model.load_state_dict(load(self.artifacts.get(artifacts["weights"])), strict=True)
        return model, plans

    def teacher(self, artifacts: Mapping[str, str] | None) -> nn.Module | None:
        if self.config.teacher == "base":
            return self.base
        if self.config.teacher == "none" or artifacts is None:
            return None
        name = artifacts["weights"]
        if name not in self._teachers:
            self._teachers = {name: self.restore(artifacts)[0].eval()}
        return self._teachers[name]

    def plan_context(self, seed: int, precision: Precision) -> PlanContext:
        """What plans may read. precision: what the candidate's kernels run at in the end; costs are asked in it."""
        from automc.techniques.technique import PlanContext

        return PlanContext(
            example_inputs=self.workload.example_inputs(),
            profile=self.profile,
            task=self.workload.task,
            calibration=lambda: self.workload.split("calibration"),
            cost=lambda model: self.cost(model, precision),
            seed=seed,
            layers_ms=lambda network, layers, shape: self._parts.milliseconds(
                network, self.workload.example_inputs(), layers, shape, precision
            ),
        )

    def cost(self, model: nn.Module, precision: Precision) -> Costs:
        """Predicted costs of a torch network, meta tensors allowed, once it runs at `precision`."""
        return self.predictor.predict(self.kernels(model, precision))

    def kernels(self, model: nn.Module, precision: Precision) -> KernelGraph:
        """Kernel rows of a torch network at `precision`, as the predictor reads them. Raises UnseenOperatorError."""
        return self._lowered(model, self.workload.example_inputs(), precision)

    def _lowered(self, model: nn.Module, inputs: tuple[torch.Tensor, ...], precision: Precision) -> KernelGraph:
        return self._lowerings.graph(model, inputs, precision, self.profile.int8, self.predictor.level)

    def scores(self, graph: onnx.ModelProto, split: SplitName) -> np.ndarray:
        """(n,) metric of every sample of `split`, from the ONNX graph in ONNX Runtime."""
        import numpy as np

        from automc.export import open_session

        session = open_session(graph, self.profile.threads)
        names = [entry.name for entry in session.get_inputs()]
        parts = []
        for batch in self.workload.split(split).batches(BATCH):
            outputs = session.run(None, {n: x.numpy() for n, x in zip(names, batch.inputs, strict=True)})[0]
            parts.append(self.workload.task.score(outputs, batch.targets.numpy()))
        return np.concatenate(parts).astype(np.float64)

    def figures(self, graph: onnx.ModelProto, scores: np.ndarray, rung: int) -> dict[Metric, Figure]:
        """Accuracy, size and predicted costs, which are left out where they are unknown and nothing needs them.

        Raises UnseenOperatorError where an objective, a limit or the rule of choice does.
        """
        from automc.cost.graph import graph_from_onnx
        from automc.export import onnx_bytes
        from automc.stats import mean_figure

        accuracy = mean_figure(scores, rung=rung, split="validation", direction=self.workload.task.direction)
        figures: dict[Metric, Figure] = {"accuracy": accuracy}
        try:
            costs = self.predictor.predict(graph_from_onnx(graph, level=self.predictor.level))
        except UnseenOperatorError:
            if needed_of(self.config) & PREDICTED:
                raise
        else:
            figures.update(costs.figures(rung))
        size = float(len(onnx_bytes(graph)))
        figures["size_bytes"] = Figure(size, size, size, "bytes", "measured", n=1, rung=rung)
        return figures

    def _cache_key(self, job: Job, network: str) -> str:
        """Two orders that make the same network are one evaluation; graph steps and versions count too."""
        graph = [
            {"technique": i.step.technique, "params": i.step.params} for i in pipeline.graph_steps(job.candidate.steps)
        ]
        return digest([network, graph, job.rung, job.seed, _versions()])

    def _cached(self, key: str) -> Trial | None:
        path = self.cache / f"{key}.json"
        return Trial.from_json(json.loads(path.read_text())) if path.is_file() else None

    def _remember(self, key: str, trial: Trial) -> None:
        self.cache.mkdir(exist_ok=True)
        write_durably(self.cache / f"{key}.json", canonical_json(trial.to_json()).encode())


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("automc", "torch", "onnx", "onnxruntime")}


def _provenance(started: float, steps: int) -> Provenance:
    seconds = time.time() - started
    return Provenance(f"{platform.node()}:{os.getpid()}", platform.node(), os.getpid(), started, seconds, steps)


def _weights_bytes(model: nn.Module) -> bytes:
    from safetensors.torch import save

    content: bytes = save({name: tensor.detach().contiguous().clone() for name, tensor in model.state_dict().items()})
    return content


def _plans_bytes(model: tuple[Plan, ...], graph: tuple[Plan, ...]) -> bytes:
    record: dict[str, JsonValue] = {
        "model": [plan.model_dump(mode="json") for plan in model],
        "graph": [plan.model_dump(mode="json") for plan in graph],
    }
    return canonical_json(record).encode()


def _array_bytes(array: np.ndarray) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _recoveries(candidate: Candidate) -> list[JsonValue]:
    """[number of MODEL steps before it, the step] of every recovery: what trained rungs will do differently."""
    found: list[JsonValue] = []
    structural = 0
    for item in pipeline.model_steps(candidate.steps):
        if item.technique.phase is Phase.RECOVERY:
            found.append([structural, str(item.step)])
        else:
            structural += 1
    return found


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
