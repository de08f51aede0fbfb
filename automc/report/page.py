"""The report: one self-contained HTML page, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
from markupsafe import Markup

from automc.report.cells import cell_of, marks_of, recipe_of, size_text
from automc.report.data import ReportData, effects, in_words, orders, side
from automc.report.roofline import roofline_svg
from automc.report.svg import STYLE, accuracy_of, front_svg, scatter_svg, trials_svg
from automc.report.tables import (
    device_rows,
    effect_rows,
    failure_rows,
    held_out_rows,
    kernel_charts,
    limit_rows,
    named,
    rung_rows,
    trial_rows,
)
from automc.run import FrontPoint
from automc.trial import Figure

__all__ = ["ReportData", "render_report"]


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
        effects=effect_rows(found, data),
        silent=sorted(used - {effect.technique for effect in found}),
        orders=[trial_rows(group, data) for group in orders(data.rungs)],
        kernels=kernel_charts(data.kernels),
        roofline=None if (drawn := roofline_svg(data.kernels)) is None else Markup(drawn),
        rungs=rung_rows(data),
        failures=failure_rows(data),
        trials=trial_rows(top, data),
        cloud=Markup(trials_svg(top, named(data), metric=data.metric)),
        device=device_rows(data),
        conditions=[*limit_rows(data), *data.conditions.items()],
        held_out=held_out_rows(data),
        version=version("automc"),
    )
    return _typeset(page)


def _typeset(page: str) -> str:
    """A true minus before digits in running text, never in markup; no line break before a per cent sign."""

    def mend(found: re.Match[str]) -> str:
        return re.sub(r"(?<![\w-])-(?=\d)", "−", found[0]).replace(" %", "\u00a0%").replace(" n ", " n\u00a0")

    head, body = page.split("</style>", 1)
    return head + "</style>" + re.sub(r">[^<]+<", mend, body)


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
        detail = f"10th percentile of {latency.n} runs" + (f", {low} to {high} in a repeat" if low != high else "")
        tiles.append({"value": f"{latency.value:#.3g} ms", "label": f"latency, {latency.kind}", "detail": detail})
    if speedup is not None:
        detail = f"{speedup.low:.2f} to {speedup.high:.2f}, timed in turn"
        tiles.append({"value": f"{speedup.value:.2f} times", "label": "as fast as the reference", "detail": detail})
    if drop is not None:
        label = "points " + ("below" if drop.value == 0 else side(data.chosen, drop)) + " the reference"
        detail = f"drop {drop.low:+.2f} to {drop.high:+.2f}, {drop.split} split, n {drop.n}"
        tiles.append({"value": f"{abs(drop.value):.2f}", "label": label, "detail": detail})
    if size is not None:
        reference = data.point("reference")
        beside = reference.figures.get("size_bytes") if reference is not None else None
        detail = f"reference {size_text(beside.value)}" if beside is not None else ""
        tiles.append({"value": size_text(size.value), "label": "model.onnx", "detail": detail})
    return tiles


def _finalist(number: int, point: FrontPoint) -> dict[str, object]:
    figures = point.figures
    return {
        "number": number,
        "chosen": point.chosen,
        "marks": marks_of(point.anchor, point.chosen, not point.on_front),
        "recipe": recipe_of(point.trial.candidate),
        "latency": cell_of(figures.get("latency_ms")),
        "speedup": cell_of(figures.get("speedup"), ".2f"),
        "accuracy": cell_of(accuracy_of(point)),
        "drop": cell_of(_drop(point), "+.2f"),
        "size": cell_of(figures.get("size_bytes")),
        "energy": cell_of(figures.get("energy_mj")),
    }


def _promise(number: int, point: FrontPoint) -> dict[str, object]:
    predicted, measured = point.figures.get("predicted_latency_ms"), point.figures.get("latency_ms")
    off, kept = "unknown", None
    if predicted is not None and measured is not None:
        off = f"{100 * (predicted.value / measured.value - 1):+.1f} %"
        kept = predicted.low <= measured.value <= predicted.high
    return {
        "number": number,
        "chosen": point.chosen,
        "predicted": cell_of(predicted),
        "measured": cell_of(measured),
        "off": off,
        "kept": kept,
        "validation": cell_of(point.figures.get("accuracy")),
        "test": cell_of(point.figures.get("test_accuracy")),
    }


def _scatter(data: ReportData) -> Markup | None:
    pairs = []
    for number, point in enumerate(data.points, start=1):
        predicted, measured = point.figures.get("predicted_latency_ms"), point.figures.get("latency_ms")
        if predicted is not None and measured is not None:
            pairs.append((str(number), predicted, measured))
    return Markup(scatter_svg(pairs)) if pairs else None
