"""The committed figures of a finished run: `python benchmarks/run_figures.py RUN benchmarks/results/NAME`.

Writes NAME.json (conditions, every finalist, every candidate of the top rung), NAME.md (the same as tables, for the
README) and NAME.svg (the front). Nothing is computed here that is not in the run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from automc.report.svg import front_svg
from automc.run import FrontPoint, Run
from automc.search.finalists import with_drop
from automc.trial import Figure, Trial


def percent(figure: Figure) -> str:
    return f"{100 * figure.value:.2f} ({100 * figure.low:.2f} to {100 * figure.high:.2f})"


def points_of(figure: Figure) -> str:
    return f"{figure.value:+.2f} ({figure.low:+.2f} to {figure.high:+.2f})"


def finalist_row(point: FrontPoint) -> str:
    figures = point.figures
    marks = [mark for mark, holds in (("chosen", point.chosen), (f"anchor {point.anchor}", point.anchor)) if holds]
    off = 100 * (figures["latency_ms"].value / figures["predicted_latency_ms"].value - 1)
    cells = [
        f"{point.trial.candidate}" + (f" **{', '.join(marks)}**" if marks else ""),
        f"{figures['latency_ms'].value:.3f}",
        f"{off:+.0f} %",
        f"{figures['speedup'].value:.2f} ({figures['speedup'].low:.2f} to {figures['speedup'].high:.2f})",
        points_of(figures["drop_points"]),
        percent(figures["test_accuracy"]),
        points_of(figures["test_drop_points"]),
        f"{figures['size_bytes'].value / 1000:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def top_row(trial: Trial) -> str:
    cells = [
        str(trial.candidate),
        percent(trial["accuracy"]),
        points_of(trial["drop_points"]),
        f"{trial['latency_ms'].value:.3f}",
        f"{trial['size_bytes'].value / 1000:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main(folder: str, target: str) -> None:
    run = Run.open(folder)
    points = run.finalists()
    top = len(run.config.search.rungs) - 1
    trials = [trial for trial in run.trials() if trial.rung == top]
    reference = next(point.trial for point in points if point.anchor == "reference")
    judged = [with_drop(run, trial, reference) for trial in trials]
    succeeded = sorted((t for t in judged if t.ok), key=lambda trial: trial["latency_ms"].value)
    provenance = json.loads((run.folder / "provenance.json").read_text())
    profile = (run.folder / "profile" / "profile.yaml").read_text()
    record = {
        "config": run.config.model_dump(mode="json"),
        "provenance": provenance,
        "profile": profile,
        "evaluated": len(run.trials()),
        "finalists": [point.to_json() for point in points],
        "top_rung": [trial.to_json() for trial in judged],
    }
    where = Path(target)
    where.parent.mkdir(parents=True, exist_ok=True)
    where.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    where.with_suffix(".svg").write_text(front_svg(points, standalone=True))
    lines = [
        "Finalists, fastest first. Latency: 10th percentile, measured, interleaved. Speed-up: interleaved medians "
        "against the reference. Drop: points below the reference, paired. Intervals 95 %.",
        "",
        "| candidate | ms | against predicted | speed-up | drop, validation | test accuracy, % | drop, test | kB |",
        "|---|---|---|---|---|---|---|---|",
        *(finalist_row(point) for point in points),
        "",
        f"All {len(succeeded)} candidates of the top rung, by predicted latency; accuracy and drop on validation.",
        "",
        "| candidate | accuracy, % | drop | predicted ms | kB |",
        "|---|---|---|---|---|",
        *(top_row(trial) for trial in succeeded),
        "",
        f"{record['evaluated']} evaluations; workers busy "
        + ", ".join(f"{item['busy_s']:.0f} s ({item['trials']} trials)" for item in provenance["workers"].values())
        + f"; two or more at once for {provenance['two_or_more_busy_s']:.0f} s.",
    ]
    where.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:3])
