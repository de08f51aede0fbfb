"""What one ONNX model costs on several devices, each priced by itself: one that cannot hides nothing of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from automc.cost.kernels import KernelGraph, KernelRow
from automc.cost.predictor import Costs, Estimate, KernelCost, advice_on, load_predictor, shapes_of
from automc.errors import PredictorError, UnseenOperatorError
from automc.profiles import Fingerprint, HardwareProfile, load_profile, profile_folder

if TYPE_CHECKING:
    from automc.cost.lowering import Level

Verdict = Literal["fits", "may not fit", "does not fit", "limit not known"]

WELL_COVERED = 0.9
"""Share of the time within the calibrated range, below which `predict` says what lies outside."""


@dataclass(frozen=True)
class MemoryFit:
    """The predicted memory against what the device has. limit_mb, share: None where the profile does not know it.

    share: of the limit, 0 to 1 and beyond. verdict: by the whole bounds; where the limit lies within them it is open.
    """

    limit_mb: float | None
    share: float | None
    verdict: Verdict

    @classmethod
    def of(cls, memory_mb: Estimate, limit_mb: float | None) -> MemoryFit:
        if limit_mb is None:
            return cls(None, None, "limit not known")
        verdict: Verdict = "fits"
        if memory_mb.high > limit_mb:
            verdict = "does not fit" if memory_mb.low > limit_mb else "may not fit"
        return cls(limit_mb, memory_mb.value / limit_mb, verdict)


@dataclass(frozen=True)
class Priced:
    """Predicted costs of the model on one device, kernel by kernel in the order of execution."""

    costs: Costs
    kernels: tuple[KernelCost, ...]
    memory: MemoryFit

    def share(self, kernel: KernelCost) -> float:
        """Share of the total latency, 0 to 1; all of nothing is shared evenly."""
        total = self.costs.latency_ms.value
        return kernel.latency_ms.value / total if total else 1 / len(self.kernels)

    def costliest(self, count: int | None) -> tuple[KernelCost, ...]:
        """The `count` kernels of the longest latency (None: all), in the order of execution; ties go to the earlier."""
        by_latency = sorted(range(len(self.kernels)), key=lambda place: -self.kernels[place].latency_ms.value)
        return tuple(self.kernels[place] for place in sorted(by_latency[:count]))


@dataclass(frozen=True)
class Prediction:
    """What the profile at `folder` says of the model: `priced`, or the `error` that kept it from pricing, never both.

    macs: multiply-accumulates; None where no graph could be read. unseen: kernels of classes it was never calibrated
    for. notes: what a reader of these figures must know of the device.
    """

    profile: HardwareProfile
    folder: Path
    macs: int | None
    priced: Priced | None
    unseen: tuple[KernelRow, ...]
    error: PredictorError | None
    notes: tuple[str, ...]


def predict_on(model: Path, profiles: Sequence[str]) -> tuple[Prediction, ...]:
    """One prediction per profile (names or folders), in the order given; one that is named twice is asked once.

    Raises ConfigError where there is no such model or profile, PredictorError where the runtime cannot read the model.
    What a single profile cannot price is told in its own prediction.
    """
    folders = list(dict.fromkeys(profile_folder(name) for name in profiles))
    devices = [load_profile(str(folder)) for folder in folders]
    graphs: dict[Level, KernelGraph] = {}
    return tuple(_predict_on(model, device, folder, graphs) for device, folder in zip(devices, folders, strict=True))


def require_one(model: Path, found: Sequence[Prediction]) -> None:
    """Raises the PredictorError that says why, where none of `found` could price the model."""
    errors = [item.error for item in found if item.error is not None]
    if len(errors) < len(found) or not errors:
        return
    if len(errors) == 1:
        raise errors[0]
    raise PredictorError(
        f"{model}: none of {len(found)} profiles can price it:\n" + "\n".join(error.message for error in errors),
        next_step="; ".join(dict.fromkeys(error.next_step for error in errors if error.next_step)),
    )


def _predict_on(model: Path, profile: HardwareProfile, folder: Path, graphs: dict[Level, KernelGraph]) -> Prediction:
    """graphs: the model's kernels by level, as far as they were read; what is missing is read and added."""
    from automc.cost.graph import graph_from_onnx

    notes = _notes(profile)
    try:
        predictor = load_predictor(profile, folder)
    except PredictorError as error:
        return Prediction(profile, folder, None, None, (), error, notes)
    graph = graphs.get(predictor.level)
    if graph is None:
        graph = graphs[predictor.level] = graph_from_onnx(model, level=predictor.level)
    unseen = tuple(predictor.unseen(graph))
    if unseen:
        return Prediction(profile, folder, graph.macs, None, unseen, _never_seen(model, profile, graph, unseen), notes)
    costs = predictor.predict(graph)
    priced = Priced(costs, tuple(predictor.kernels(graph)), MemoryFit.of(costs.memory_mb, profile.memory_mb))
    return Prediction(profile, folder, graph.macs, priced, (), None, (*notes, *_outside(priced, profile)))


def _outside(priced: Priced, profile: HardwareProfile) -> tuple[str, ...]:
    """Which kernels make the interval wide, where much of the time is in such as were never calibrated."""
    coverage = priced.costs.latency_ms.coverage
    if coverage >= WELL_COVERED:
        return ()
    beyond = sorted((k for k in priced.kernels if not k.latency_ms.coverage), key=lambda k: -k.latency_ms.value)
    named = "; ".join(f"{kernel.row.op} {shapes_of(kernel.row)}" for kernel in beyond[:3])
    more = f" and {len(beyond) - 3} more" if len(beyond) > 3 else ""
    cure = (
        f"; automc profile calibrate {profile.name} knows more than --quick" if profile.calibration == "quick" else ""
    )
    return (
        f"{1 - coverage:.0%} of the time is in kernels larger or smaller than any that was calibrated, or of which the "
        f"measurements tell nothing, so the interval is wider ({named}{more}){cure}",
    )


def _never_seen(
    model: Path, profile: HardwareProfile, graph: KernelGraph, unseen: Sequence[KernelRow]
) -> UnseenOperatorError:
    return UnseenOperatorError(
        f"{model}: no total, {len(unseen)} of {len(graph.rows)} kernels were never calibrated on {profile.name!r}:\n"
        + "\n".join(f"  {row.op} {shapes_of(row)} ({row.name})" for row in unseen),
        next_step=advice_on(unseen, profile),
    )


def _notes(profile: HardwareProfile) -> tuple[str, ...]:
    from automc.measure.fingerprint import host_fingerprint

    notes = []
    here = host_fingerprint()
    unlike = [
        field.replace("_", " ")
        for field in Fingerprint.model_fields
        if getattr(here, field) != getattr(profile.fingerprint, field)
    ]
    if unlike:
        notes.append(
            f"of another machine ({', '.join(unlike)} differ from this host's): the kernels are read from the graph "
            f"that {here.runtime} {here.runtime_version} makes of the model on this host, and the device may fuse and "
            "lay out otherwise"
        )
    use, why = profile.good_for()
    if use == "rank only":
        notes.append(f"rank only: {why}")
    return tuple(notes)
