"""How the result of a run is printed: finalists in columns, the conditions of their figures, the result in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from automc.cli.output import print_columns, print_json

if TYPE_CHECKING:
    from pydantic import JsonValue

    from automc.config import Constraints
    from automc.report.data import Said
    from automc.run import FrontPoint, Run
    from automc.search.rescoring import Rescored
    from automc.trial import Figure


def print_run(run: Run, as_json: bool) -> None:
    """What a finished run came to: its finalists, the bundle and the report."""
    points = run.finalists()
    if as_json:
        print_json({"run": str(run.folder), "finalists": [point.to_json() for point in points]})
        return
    print_points(points, run.config.constraints)
    typer.echo("")
    if (run.folder / "profile").is_dir():
        print_words(in_words_of(run, points))
    for what, name in (("bundle", "bundle"), ("report", "report.html")):
        if (run.folder / name).exists():
            typer.echo(f"{what}: {run.folder / name}")


def print_rescored(found: Rescored, points: Sequence[FrontPoint]) -> None:
    """`points` of a rescored run under the device, rung and limits they are judged by, then what to know of them."""
    from automc.constraints import limits_of
    from automc.report.tables import LIMITS

    rungs = found.run.config.search.rungs
    device = "the device of the run" if found.profile is None else f"profile {found.profile.name}"
    said = [LIMITS[limit.metric].format(limit.maximum) for limit in limits_of(found.constraints)]
    typer.echo(f"{device}; rung {found.rung} of {len(rungs) - 1} ({rungs[found.rung].steps} optimiser steps)")
    typer.echo(f"limits: {'; '.join(said) or 'none'}")
    print_points(points, found.constraints)
    for why in dict.fromkeys(found.unknown.values()):
        names = [name for name, reason in found.unknown.items() if reason == why]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        typer.echo(f"unknown: {', '.join(names[:3])}{more}: {why}")
    for note in found.notes:
        typer.echo(f"note: {note}")


def print_points(points: Sequence[FrontPoint], constraints: Constraints) -> None:
    """One line a point, in the order given, and below them the conditions the numbers hold under."""
    from automc.constraints import limits_of, unmet

    limits = limits_of(constraints)
    predicted = all(figure.kind == "predicted" for figure in _known(points, "latency_ms"))
    timed = not predicted and any(_known(points, "latency_ms"))
    rows = []
    for point in points:
        marks = ("chosen",) * point.chosen + (f"anchor {point.anchor}",) * (point.anchor is not None)
        marks += tuple(
            f"{limit.metric} {'over the limit' if limit.metric in point.figures else 'unknown'}"
            for limit in unmet(limits, point.figures)
        )
        rows.append(
            (
                point.trial.candidate.id,
                _shown(point, "accuracy", ".4f"),
                _shown(point, "drop_points", "+.2f"),
                _shown(point, "latency_ms", ".4f", interval=not timed),
                *([_shown(point, "predicted_latency_ms", ".4f")] if timed else []),
                _shown(point, "speedup", ".2f", interval=timed),
                _shown(point, "size_bytes", ",.0f"),
                _shown(point, "energy_mj", ".4g"),
                ", ".join(marks) or ("" if point.on_front else "beaten"),
                _steps(point),
            )
        )
    header = (
        "candidate", "accuracy", "drop", *(("ms", "predicted") if timed else ("ms (predicted)",)), "speed-up", "bytes",
        "mJ", "", "steps",
    )  # fmt: skip
    print_columns(header, rows)
    for line in _conditions(points) if points else []:
        typer.echo(line)


def _known(points: Sequence[FrontPoint], name: str) -> list[Figure]:
    return [point.figures[name] for point in points if name in point.figures]


def _shown(point: FrontPoint, name: str, form: str, *, interval: bool = False) -> str:
    """The figure in `form`, '?' where it is unknown: an unknown is never shown as a number."""
    figure = point.figures.get(name)
    if figure is None:
        return "?"
    bounds = f" ({figure.low:{form}} to {figure.high:{form}})" if interval else ""
    return f"{figure.value:{form}}{bounds}"


def _conditions(points: Sequence[FrontPoint]) -> list[str]:
    """How the figures of each column were got, by the first point that has one."""

    def said(name: str, text: str, interval: str = "") -> list[str]:
        known = _known(points, name)
        if not known:
            return []
        figure = known[0]
        details = [figure.kind] + [f"n={figure.n}"] * (figure.n is not None) + [figure.split or "", figure.source or ""]
        if figure.kind == "predicted" and interval:
            details.append(interval)
        return [f"{text}: {', '.join(part for part in details if part)}"]

    return [
        *said("accuracy", "accuracy"),
        *said("drop_points", "drop in points below the reference"),
        *said("latency_ms", "ms, 10th percentile", "with its 90 % interval"),
        *said("predicted_latency_ms", "predicted ms"),
        *said("speedup", "speed-up with its 95 % interval" if _known(points, "predicted_latency_ms") else "speed-up"),
        *said("energy_mj", "mJ"),
    ]


def _steps(point: FrontPoint) -> str:
    """The recipe, architecture first where there is any."""
    candidate = point.trial.candidate
    chosen = ", ".join(f"{key}={value}" for key, value in candidate.architecture.items())
    return " > ".join([chosen] * bool(chosen) + [str(candidate)] * bool(candidate.steps or not chosen))


def in_words_of(run: Run, points: list[FrontPoint]) -> Said:
    from automc.constraints import limits_of
    from automc.profiles import load_profile
    from automc.report.data import ReportData, in_words
    from automc.techniques.registry import get_technique

    names = {step.technique for point in points for step in point.trial.candidate.steps}
    data = ReportData(
        title=run.config.name,
        model=run.config.workload.name,
        profile=load_profile(str(run.folder / "profile")),
        points=points,
        rungs=(),
        rung_steps=(),
        saves={name: tuple(sorted(get_technique(name).saves)) for name in names},
        limits=limits_of(run.config.constraints),
    )
    return in_words(data)


def rungs_of(run: Run) -> list[dict[str, JsonValue]]:
    """What was evaluated at each rung, and how well its order of accuracies foretold that of the next (Spearman)."""
    from automc.report.data import foresight

    trials = run.trials()
    rungs = [[trial for trial in trials if trial.rung == rung] for rung in range(len(run.config.search.rungs))]
    return [
        {
            "rung": number,
            "steps": run.config.search.rungs[number].steps,
            "evaluated": len(found),
            "failed": sum(not trial.ok for trial in found),
            "rank_correlation": None if told is None else told.correlation,
            "in_both": None if told is None else told.shared,
        }
        for number, (found, told) in enumerate(zip(rungs, foresight(rungs), strict=True))
    ]


def print_rungs(rungs: Sequence[Mapping[str, JsonValue]]) -> None:
    counts = ("rung", "steps", "evaluated", "failed")
    rows = []
    for rung in rungs:
        value, shared = rung["rank_correlation"], rung["in_both"]
        said = f"{value:.2f} over {shared}" if isinstance(value, float) else f"unknown ({shared} in both)"
        rows.append((*(str(rung[name]) for name in counts), "top rung" if shared is None else said))
    print_columns((*counts, "rank correlation of accuracy with the next rung"), rows)


def print_words(said: Said) -> None:
    typer.echo(said.headline)
    for sentence in said.sentences:
        typer.echo(f"  {sentence}")
