"""The tables of the report: what each technique did, kernels, rungs, failures, trials, the device."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial

from markupsafe import Markup

from automc.candidate import Candidate
from automc.report.cells import cell_of, marks_of, recipe_of
from automc.report.data import Effect, KernelTimes, ReportData, Spread, foresight, is_error
from automc.report.svg import change_svg, kernels_svg
from automc.search.fidelity import predicted_ms
from automc.trial import Failure, FailureKind, Metric, Trial, to_minimise

KERNELS_SHOWN = 40
LABEL_LENGTH = 30
REASON_LENGTH = 180
FAILURES: dict[FailureKind, str] = {
    "infeasible": "cannot exist on this model or device",
    "screened": "its whole predicted interval breaks a constraint",
    "compression": "a technique could not be applied",
    "diverged": "training diverged",
    "export": "could not be exported to ONNX",
    "parity": "the graph does not compute what the network computes",
    "budget": "used more time or memory than it was given",
    "unknown_cost": "a constraint needs a cost that cannot be predicted",
}
CLAIMS = {
    "latency": "latency", "energy": "energy", "memory": "memory", "download": "download", "load_time": "load time",
    "accuracy": "accuracy",
}  # fmt: skip


LIMITS: dict[Metric, str] = {
    "accuracy": "accuracy at most {:g}",
    "drop_points": "at most {:g} points worse than the reference",
    "latency_ms": "latency at most {:g} ms",
    "energy_mj": "energy at most {:g} mJ",
    "memory_mb": "memory at most {:g} MB",
    "size_bytes": "size at most {:g} bytes",
}


def effect_rows(found: Sequence[Effect], data: ReportData) -> list[dict[str, object]]:
    extents = {
        name: max((max(abs(s.low), abs(s.high)) for s in (getattr(effect, name) for effect in found) if s), default=1.0)
        for name in ("latency", "size", "accuracy")
    }

    def change(spread: Spread | None, name: str, digits: str, good_is_negative: bool) -> dict[str, object]:
        if spread is None:
            return {"middle": "unknown", "range": "", "chart": ""}
        chart = change_svg(spread.middle, spread.low, spread.high, extents[name], good_is_negative)
        bounds = "" if spread.low == spread.high else f"{spread.low:{digits}} to {spread.high:{digits}}"
        return {"middle": f"{spread.middle:{digits}}", "range": bounds, "chart": Markup(chart)}

    return [
        {
            "technique": effect.technique,
            "rung": effect.rung,
            "pairs": effect.pairs,
            "latency": change(effect.latency, "latency", "+.1f", True),
            "size": change(effect.size, "size", "+.1f", True),
            "accuracy": change(effect.accuracy, "accuracy", "+.2f", any(map(is_error, data.points))),
            "claim": _claim(data.saves.get(effect.technique)),
        }
        for effect in found
    ]


def _claim(saves: Sequence[str] | None) -> str:
    if saves is None:
        return "not stated"
    if set(saves) == {"download"}:
        return "download only: neither faster nor less memory"
    return ", ".join(CLAIMS.get(item, item) for item in saves) or "nothing by itself"


def kernel_charts(parts: Sequence[KernelTimes]) -> list[dict[str, object]]:
    """The slowest kernels of each network in execution order, the rest named as a sum."""
    drawn = []
    longest = max((kernel.latency_ms.value for part in parts for kernel in part.kernels), default=0.0)
    for place, part in enumerate(parts):
        times = [kernel.latency_ms.value for kernel in part.kernels]
        slowest = sorted(range(len(times)), key=lambda index: -times[index])[:KERNELS_SHOWN]
        kept = sorted(slowest)
        labels = [_kernel_label(part, index) for index in kept]
        hidden = len(times) - len(kept)
        rest = f"and {hidden} smaller kernels, {1000 * (sum(times) - sum(times[i] for i in kept)):.3g} µs together"
        chart = kernels_svg(
            labels, [times[i] for i in kept], longest, f"Kernels of the {part.label}", "gold" if place else ""
        )
        drawn.append(
            {
                "label": part.label.capitalize(),
                "total": f"{sum(times):.3g} ms",
                "count": len(times),
                "chart": Markup(chart),
                "rest": rest if hidden else "",
            }
        )
    return drawn


def _kernel_label(part: KernelTimes, index: int) -> str:
    """Operator, precision and output shape without the batch: "Conv int8 64×8×8"."""
    row = part.kernels[index].row
    shape = "×".join(map(str, row.output_shape[1:]))
    label = f"{row.op}{' int8' if row.precision == 'int8' else ''} {shape}"
    return label if len(label) <= LABEL_LENGTH else f"{label[: LABEL_LENGTH - 1]}…"


def rung_rows(data: ReportData) -> list[dict[str, str]]:
    rows = []
    for rung, (trials, told) in enumerate(zip(data.rungs, foresight(data.rungs), strict=True)):
        good = [trial for trial in trials if trial.ok]
        best = min((trial["accuracy"] for trial in good), key=partial(to_minimise, "accuracy"), default=None)
        fastest = min((predicted_ms(trial) for trial in good), default=math.inf)
        best_cell = cell_of(best)
        rows.append(
            {
                "rung": str(rung),
                "steps": str(data.rung_steps[rung]),
                "evaluated": str(len(trials)),
                "failed": str(len(trials) - len(good)),
                "best": best_cell["value"] if best_cell else "none",
                "fastest": f"{fastest:#.3g}" if math.isfinite(fastest) else "unknown" if good else "none",
                "correlation": "top rung" if told is None else told.words,
            }
        )
    return rows


def failure_rows(data: ReportData) -> list[dict[str, object]]:
    """Failed and screened candidates, grouped by kind, step and reason (numbers apart), most frequent first."""
    every: list[tuple[Candidate, Failure]] = list(data.screened)
    every += [
        (trial.candidate, trial.failure) for trials in data.rungs for trial in trials if trial.failure is not None
    ]
    groups: dict[tuple[FailureKind, str, str], list[tuple[Candidate, Failure]]] = {}
    for candidate, failure in every:
        pattern = re.sub(r"\d+(\.\d+)?", "#", failure.reason.split(" (", 1)[0])
        groups.setdefault((failure.kind, failure.step or "", pattern), []).append((candidate, failure))
    return [
        {
            "kind": kind,
            "words": FAILURES[kind],
            "step": step,
            "reason": found[0][1].reason if len(found[0][1].reason) <= REASON_LENGTH else "",
            "start": found[0][1].reason[:REASON_LENGTH].rsplit(" ", 1)[0],
            "whole": found[0][1].reason,
            "count": len(found),
            "example": str(found[0][0]),
        }
        for (kind, step, _), found in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]


def named(data: ReportData) -> dict[str, str]:
    """Labels of the candidates worth finding among all: the anchors and the chosen one."""
    chosen = {data.chosen.trial.candidate.id: "chosen"} if data.chosen else {}
    return dict(data.anchors) | chosen


def trial_rows(top: Sequence[Trial], data: ReportData) -> list[dict[str, object]]:
    chosen = data.chosen.trial.candidate.id if data.chosen else None
    good = sorted((t for t in top if t.ok), key=predicted_ms)
    rows = []
    for trial in [*good, *(t for t in top if not t.ok)]:
        identity = trial.candidate.id
        figures = trial.figures or {}
        rows.append(
            {
                "id": identity,
                "chosen": identity == chosen,
                "marks": marks_of(data.anchors.get(identity), identity == chosen, False),
                "recipe": recipe_of(trial.candidate),
                "failure": f"{trial.failure.kind}: {trial.failure.reason}" if trial.failure else "",
                "accuracy": cell_of(figures.get("accuracy")),
                "latency": cell_of(figures.get("latency_ms")),
                "size": cell_of(figures.get("size_bytes")),
                "seconds": f"{trial.provenance.seconds:.1f}" if trial.provenance else "",
            }
        )
    return rows


def device_rows(data: ReportData) -> list[tuple[str, str]]:
    profile, print_ = data.profile, data.profile.fingerprint
    protocol = profile.protocol
    use, why = profile.good_for()
    return [
        ("Profile", f"{profile.name}, {profile.calibration} calibration"),
        ("Processor", f"{print_.cpu}, {print_.cores} cores"),
        ("Instruction sets", ", ".join(print_.instruction_sets) or "none named"),
        ("System", print_.system),
        ("Runtime", f"{print_.runtime} {print_.runtime_version}, {profile.execution_provider}"),
        ("Threads", str(profile.threads)),
        ("Channel multiple", str(profile.channel_multiple)),
        ("int8", f"{profile.int8.speedup:.2f} times fp32 (median), {profile.int8.activation_type} activations"),
        ("Noise floor", f"{profile.noise_floor_percent:.2g} %, {profile.noise_floor_ms:.2g} ms"),
        ("Predictions", ": ".join(("good for limits" if use == "limits" else "rank only", why)) if why else use),
        (
            "Protocol",
            f"{protocol.warmup} warm-up runs, percentile {protocol.percentile:g}, "
            f"finalists {protocol.finalist_runs} runs in at least {protocol.passes} passes",
        ),
        ("Predicted energy from", f"{profile.energy.kind}: {profile.energy.detail}"),
    ]


def limit_rows(data: ReportData) -> list[tuple[str, str]]:
    if not data.limits:
        return [("Constraints", "none")]
    return [("Constraints", "; ".join(f"{LIMITS[limit.metric].format(limit.maximum)}" for limit in data.limits))]


def held_out_rows(data: ReportData) -> list[dict[str, object]]:
    return [
        {
            "precision": item.precision,
            "networks": item.networks,
            "families": item.families,
            "within_5": f"{100 * item.within_5_percent:.0f} %",
            "within_10": f"{100 * item.within_10_percent:.0f} %",
            "within_15": f"{100 * item.within_15_percent:.0f} %",
            "mape": f"{item.mape_percent:.1f} %",
            "rank": f"{item.rank_correlation:.3f}",
            "coverage": "-" if item.interval_coverage is None else f"{100 * item.interval_coverage:.0f} %",
        }
        for item in data.profile.held_out
    ]
