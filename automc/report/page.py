"""The report: one self-contained HTML page, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict

import jinja2
from markupsafe import Markup

from automc.candidate import Candidate
from automc.report.data import Effect, KernelTimes, ReportData, Spread, effects, in_words, is_error, orders, side
from automc.report.svg import STYLE, accuracy_of, change_svg, front_svg, kernels_svg, scatter_svg, trials_svg
from automc.run import FrontPoint
from automc.search.fidelity import predicted_ms, rank_correlation
from automc.trial import Failure, FailureKind, Figure, Metric, Trial, to_minimise

__all__ = ["ReportData", "render_report"]

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


class Cell(TypedDict):
    """A figure as text: value with its unit where the column has none, and its interval."""

    value: str
    bounds: str


def render_report(data: ReportData) -> str:
    """The page as one HTML text, under 1 MB for some hundred candidates."""
    from importlib.metadata import version

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = (Path(__file__).parent / "templates" / "report.html.j2").read_text(encoding="utf-8")
    top = list(data.rungs[-1]) if data.rungs else []
    fraction = any(accuracy_of(point).unit == "fraction" for point in data.points)
    label = data.metric.replace("_", " ").capitalize()
    found = effects(data.rungs)
    used = {step.technique for trials in data.rungs for trial in trials for step in trial.candidate.steps}
    page = environment.from_string(template).render(
        title=data.title,
        model=data.model,
        profile=data.profile,
        said=in_words(data),
        tiles=_tiles(data),
        metric=data.metric.replace("_", " "),
        metric_label=f"{label}, %" if fraction else label,
        chart_style=Markup(STYLE),
        front=Markup(front_svg(data.points, metric=data.metric)),
        has_energy=any("energy_mj" in point.figures for point in data.points),
        finalists=[_finalist(number, point) for number, point in enumerate(data.points, start=1)],
        promises=[_promise(number, point) for number, point in enumerate(data.points, start=1)],
        scatter=_scatter(data),
        effects=_effect_rows(found, data),
        silent=sorted(used - {effect.technique for effect in found}),
        orders=[_trials(group, data) for group in orders(data.rungs)],
        kernels=_kernels(data.kernels),
        rungs=_rungs(data),
        failures=_failures(data),
        trials=_trials(top, data),
        cloud=Markup(trials_svg(top, _named(data), metric=data.metric)),
        device=_device(data),
        conditions=[*_limits(data), *data.conditions.items()],
        held_out=_held_out(data),
        version=version("automc"),
    )
    return _typeset(page)


def _typeset(page: str) -> str:
    """A true minus before digits in running text, never in markup; no line break before a per cent sign."""

    def mend(found: re.Match[str]) -> str:
        return re.sub(r"(?<![\w-])-(?=\d)", "−", found[0]).replace(" %", "\u00a0%").replace(" n ", " n\u00a0")

    head, body = page.split("</style>", 1)
    return head + "</style>" + re.sub(r">[^<]+<", mend, body)


def _cell(figure: Figure | None, digits: str = "#.3g") -> Cell | None:
    if figure is None:
        return None
    scale = 1.0
    if figure.unit == "fraction":
        scale, digits = 100.0, ".2f"
    elif figure.unit == "bytes":
        return Cell(value=_size(figure.value), bounds="")
    value, low, high = (f"{v * scale:{digits}}".rstrip(".") for v in (figure.value, figure.low, figure.high))
    return Cell(value=value, bounds="" if low == high else f"{low} to {high}")


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.1f} kB"


def _drop(point: FrontPoint) -> Figure | None:
    return point.figures.get("test_drop_points") or point.figures.get("drop_points")


def _tiles(data: ReportData) -> list[dict[str, str]]:
    """The four numbers of the chosen point, each with where it comes from."""
    if data.chosen is None:
        return []
    figures, drop = data.chosen.figures, _drop(data.chosen)
    tiles = []
    latency, speedup, size = figures.get("latency_ms"), figures.get("speedup"), figures.get("size_bytes")
    if latency is not None:
        low, high = f"{latency.low:#.3g}", f"{latency.high:#.3g}"
        detail = f"10th percentile of {latency.n} runs" + (f", {low} to {high} over passes" if low != high else "")
        tiles.append({"value": f"{latency.value:#.3g} ms", "label": f"latency, {latency.kind}", "detail": detail})
    if speedup is not None:
        detail = f"{speedup.low:.2f} to {speedup.high:.2f}, interleaved medians"
        tiles.append({"value": f"{speedup.value:.2f} times", "label": "as fast as the reference", "detail": detail})
    if drop is not None:
        label = "points " + ("below" if drop.value == 0 else side(data.chosen, drop)) + " the reference"
        detail = f"drop {drop.low:+.2f} to {drop.high:+.2f}, {drop.split} split, n {drop.n}"
        tiles.append({"value": f"{abs(drop.value):.2f}", "label": label, "detail": detail})
    if size is not None:
        reference = data.point("reference")
        beside = reference.figures.get("size_bytes") if reference is not None else None
        detail = f"reference {_size(beside.value)}" if beside is not None else ""
        tiles.append({"value": _size(size.value), "label": "model.onnx", "detail": detail})
    return tiles


def _marks(anchor: str | None, chosen: bool, beaten: bool) -> list[str]:
    return ["chosen"] * chosen + ([f"anchor: {anchor}"] if anchor else []) + ["beaten"] * beaten


def _finalist(number: int, point: FrontPoint) -> dict[str, object]:
    figures = point.figures
    return {
        "number": number,
        "chosen": point.chosen,
        "marks": _marks(point.anchor, point.chosen, not point.on_front),
        "recipe": _recipe(point.trial.candidate),
        "latency": _cell(figures.get("latency_ms")),
        "speedup": _cell(figures.get("speedup"), ".2f"),
        "accuracy": _cell(accuracy_of(point)),
        "drop": _cell(_drop(point), "+.2f"),
        "size": _cell(figures.get("size_bytes")),
        "energy": _cell(figures.get("energy_mj")),
    }


def _recipe(candidate: Candidate) -> Markup:
    """Technique names in ink, their parameters softer, in the order they run."""
    parts = []
    for step in candidate.steps:
        params = ", ".join(f"{key} {value}" for key, value in step.params.items())
        parts.append(Markup("{}{}").format(step.technique, Markup(" <i>{}</i>").format(params) if params else ""))
    choices = candidate.architecture
    if choices:
        parts.insert(0, Markup("<i>{}</i>").format(", ".join(f"{key} {value}" for key, value in choices.items())))
    return Markup(" → ").join(parts) if parts else Markup("as it is")


def _promise(number: int, point: FrontPoint) -> dict[str, object]:
    predicted, measured = point.figures.get("predicted_latency_ms"), point.figures.get("latency_ms")
    off, kept = "unknown", None
    if predicted is not None and measured is not None:
        off = f"{100 * (predicted.value / measured.value - 1):+.1f} %"
        kept = predicted.low <= measured.value <= predicted.high
    return {
        "number": number,
        "chosen": point.chosen,
        "predicted": _cell(predicted),
        "measured": _cell(measured),
        "off": off,
        "kept": kept,
        "validation": _cell(point.figures.get("accuracy")),
        "test": _cell(point.figures.get("test_accuracy")),
    }


def _scatter(data: ReportData) -> Markup | None:
    pairs = []
    for number, point in enumerate(data.points, start=1):
        predicted, measured = point.figures.get("predicted_latency_ms"), point.figures.get("latency_ms")
        if predicted is not None and measured is not None:
            pairs.append((str(number), predicted, measured))
    return Markup(scatter_svg(pairs)) if pairs else None


def _effect_rows(found: Sequence[Effect], data: ReportData) -> list[dict[str, object]]:
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


def _kernels(parts: Sequence[KernelTimes]) -> list[dict[str, object]]:
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


def _rungs(data: ReportData) -> list[dict[str, str]]:
    rows = []
    keyed = [{trial.candidate.id: trial for trial in trials} for trials in data.rungs]
    for rung, trials in enumerate(data.rungs):
        good = [trial for trial in trials if trial.ok]
        correlation = "top rung"
        if rung + 1 < len(data.rungs):
            shared = len([key for key in keyed[rung] if key in keyed[rung + 1] and keyed[rung + 1][key].ok])
            value = rank_correlation(keyed[rung], keyed[rung + 1], "accuracy")
            correlation = f"{value:.2f} over {shared}" if value is not None else f"unknown ({shared} in both)"
        best = min((trial["accuracy"] for trial in good), key=partial(to_minimise, "accuracy"), default=None)
        fastest = min((predicted_ms(trial) for trial in good), default=math.inf)
        best_cell = _cell(best)
        rows.append(
            {
                "rung": str(rung),
                "steps": str(data.rung_steps[rung]),
                "evaluated": str(len(trials)),
                "failed": str(len(trials) - len(good)),
                "best": best_cell["value"] if best_cell else "none",
                "fastest": f"{fastest:#.3g}" if math.isfinite(fastest) else "unknown" if good else "none",
                "correlation": correlation,
            }
        )
    return rows


def _failures(data: ReportData) -> list[dict[str, object]]:
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


def _named(data: ReportData) -> dict[str, str]:
    """Labels of the candidates worth finding among all: the anchors and the chosen one."""
    chosen = {data.chosen.trial.candidate.id: "chosen"} if data.chosen else {}
    return dict(data.anchors) | chosen


def _trials(top: Sequence[Trial], data: ReportData) -> list[dict[str, object]]:
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
                "marks": _marks(data.anchors.get(identity), identity == chosen, False),
                "recipe": _recipe(trial.candidate),
                "failure": f"{trial.failure.kind}: {trial.failure.reason}" if trial.failure else "",
                "accuracy": _cell(figures.get("accuracy")),
                "latency": _cell(figures.get("latency_ms")),
                "size": _cell(figures.get("size_bytes")),
                "seconds": f"{trial.provenance.seconds:.1f}" if trial.provenance else "",
            }
        )
    return rows


def _device(data: ReportData) -> list[tuple[str, str]]:
    profile, print_ = data.profile, data.profile.fingerprint
    protocol = profile.protocol
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
        (
            "Protocol",
            f"{protocol.warmup} warm-up runs, percentile {protocol.percentile:g}, "
            f"finalists {protocol.finalist_runs} runs in at least {protocol.passes} passes",
        ),
        ("Energy from", f"{profile.energy.kind}: {profile.energy.detail}"),
    ]


def _limits(data: ReportData) -> list[tuple[str, str]]:
    if not data.limits:
        return [("Constraints", "none")]
    return [("Constraints", "; ".join(f"{LIMITS[limit.metric].format(limit.maximum)}" for limit in data.limits))]


def _held_out(data: ReportData) -> list[dict[str, object]]:
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
            "coverage": f"{100 * item.interval_coverage:.0f} %",
        }
        for item in data.profile.held_out
    ]
