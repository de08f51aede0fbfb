"""`automc demo | search | resume | front | report`."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automc.cli.output import AsJson, print_columns, print_json

if TYPE_CHECKING:
    from pydantic import JsonValue

    from automc.config import SearchConfig
    from automc.report.data import Said
    from automc.run import FrontPoint, Run
    from automc.trial import Figure

Folder = Annotated[Path, typer.Argument(help="Folder of the run.")]
NewFolder = Annotated[Path | None, typer.Option("--run", help="Folder to write; default runs/ and the config's name.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the data; default $AUTOMC_DATA.")]
Executor = Annotated[str | None, typer.Option(help="inline (this process) or ray (workers).")]
Workers = Annotated[int | None, typer.Option(help="Ray workers.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random choice.")]


def register(app: typer.Typer) -> None:
    for command in (demo, search, resume, front, report):
        app.command()(command)


def demo(
    run: NewFolder = None,
    executor: Executor = None,
    workers: Workers = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole line on an embedded default.

    Calibrates this machine, compresses a digits classifier for it and ends in a verified bundle: at most six minutes on
    two cores. Data, model and config are part of automc.

    Example: automc demo
    """
    from automc.config import load_config

    config = load_config(None, _overrides(executor, workers, seed))
    _search(config, None, _free_folder(config.name) if run is None else run, as_json)


def search(
    config: Annotated[Path, typer.Argument(help="YAML file; `automc config init` prints one.")],
    data_root: DataRoot = None,
    run: NewFolder = None,
    executor: Executor = None,
    workers: Workers = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Search, and end in a verified bundle.

    Calibrates where needed, searches, re-measures the finalists, chooses by the config's rule, bundles, verifies and
    reports.

    Example: automc search examples/cifar10_resnet20.yaml --data-root ~/data
    """
    from automc.config import load_config

    _search(load_config(config, _overrides(executor, workers, seed)), data_root, run, as_json)


def resume(
    folder: Folder,
    data_root: Annotated[
        Path | None, typer.Option(help="Where the data have been moved to; default where the run began with them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go on with an interrupted run.

    Finished trials are kept and none is evaluated twice. Data in another folder than at the start are taken only where
    their digests are those in the run's lock file.

    Example: automc resume runs/demo
    """
    from automc.cli.progress import ProgressDisplay
    from automc.search.loop import resume as resume_run

    with ProgressDisplay() as display:
        run = resume_run(folder, data_root=data_root, watch=display)
    _print_run(run, as_json)


def front(
    folder: Folder,
    every: Annotated[bool, typer.Option("--all", help="Every finalist, also those beaten in all respects.")] = False,
    as_json: AsJson = False,
) -> None:
    """The Pareto front of a finished run.

    Latency as re-measured on the device at the end, accuracy as evaluated in ONNX Runtime.

    Example: automc front runs/demo
    """
    from automc.run import Run

    run = Run.open(folder)
    points = run.finalists() if every else run.front()
    if as_json:
        print_json([point.to_json() for point in points])
        return
    _print_points(run, points)


def report(
    folder: Folder,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """The result in words, and where the page is.

    The page is one file that loads nothing: the front, what each technique bought and cost, failures and why.

    Example: automc report runs/demo --open
    """
    from automc.errors import RunError
    from automc.run import Run

    run = Run.open(folder)
    page = folder / "report.html"
    if not page.is_file():
        raise RunError(f"{folder}: has no report yet", next_step=f"automc resume {folder}")
    said = _in_words(run, run.finalists())
    if as_json:
        print_json({"report": str(page), "headline": said.headline, "sentences": list(said.sentences)})
    else:
        _print_words(said)
        typer.echo(f"report: {page}")
    if show:
        typer.launch(page.resolve().as_uri())


def _search(config: SearchConfig, data_root: Path | None, folder: Path | None, as_json: bool) -> None:
    from automc.cli.progress import ProgressDisplay
    from automc.search.loop import search as search_api

    with ProgressDisplay() as display:
        run = search_api(config, data_root=data_root, run_dir=folder, watch=display)
    _print_run(run, as_json)


def _print_run(run: Run, as_json: bool) -> None:
    """What a finished run came to: its finalists, the bundle and the report."""
    points = run.finalists()
    if as_json:
        print_json({"run": str(run.folder), "finalists": [point.to_json() for point in points]})
        return
    _print_points(run, points)
    typer.echo("")
    if (run.folder / "profile").is_dir():
        _print_words(_in_words(run, points))
    for what, name in (("bundle", "bundle"), ("report", "report.html")):
        if (run.folder / name).exists():
            typer.echo(f"{what}: {run.folder / name}")


def _print_points(run: Run, points: list[FrontPoint]) -> None:
    """One line a point, fastest first, and below them the conditions the numbers hold under."""
    from automc.constraints import limits_of, unmet

    limits = limits_of(run.config.constraints)
    rows = []
    for point in points:
        marks = ("chosen",) * point.chosen + (f"anchor {point.anchor}",) * (point.anchor is not None)
        marks += tuple(f"{limit.metric} over the limit" for limit in unmet(limits, point.figures))
        rows.append(
            (
                point.trial.candidate.id,
                _shown(point, "accuracy", ".4f"),
                _shown(point, "drop_points", "+.2f"),
                _shown(point, "latency_ms", ".4f"),
                _shown(point, "predicted_latency_ms", ".4f"),
                _shown(point, "speedup", ".2f", interval=True),
                _shown(point, "size_bytes", ",.0f"),
                _shown(point, "energy_mj", ".4g"),
                ", ".join(marks) or ("" if point.on_front else "beaten"),
                _steps(point),
            )
        )
    header = (
        "candidate", "accuracy", "drop", "ms", "predicted", "speed-up", "bytes", "mJ", "", "steps",
    )  # fmt: skip
    print_columns(header, rows)
    for line in _conditions(points[0]) if points else []:
        typer.echo(line)


def _shown(point: FrontPoint, name: str, form: str, *, interval: bool = False) -> str:
    """The figure in `form`, '?' where it is unknown: an unknown is never shown as a number."""
    figure = point.figures.get(name)
    if figure is None:
        return "?"
    bounds = f" ({figure.low:{form}} to {figure.high:{form}})" if interval else ""
    return f"{figure.value:{form}}{bounds}"


def _conditions(point: FrontPoint) -> list[str]:
    def said(name: str, text: str) -> list[str]:
        figure: Figure | None = point.figures.get(name)
        if figure is None:
            return []
        details = [figure.kind] + [f"n={figure.n}"] * (figure.n is not None) + [figure.split or "", figure.source or ""]
        return [f"{text}: {', '.join(part for part in details if part)}"]

    return [
        *said("accuracy", "accuracy"),
        *said("drop_points", "drop in points below the reference"),
        *said("latency_ms", "ms, 10th percentile"),
        *said("predicted_latency_ms", "predicted ms"),
        *said("speedup", "speed-up with its 95 % interval"),
        *said("energy_mj", "mJ"),
    ]


def _steps(point: FrontPoint) -> str:
    """The recipe, architecture first where there is any."""
    candidate = point.trial.candidate
    chosen = ", ".join(f"{key}={value}" for key, value in candidate.architecture.items())
    return " > ".join([chosen] * bool(chosen) + [str(candidate)] * bool(candidate.steps or not chosen))


def _in_words(run: Run, points: list[FrontPoint]) -> Said:
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


def _print_words(said: Said) -> None:
    typer.echo(said.headline)
    for sentence in said.sentences:
        typer.echo(f"  {sentence}")


def _overrides(executor: str | None, workers: int | None, seed: int | None) -> dict[str, JsonValue]:
    given: dict[str, JsonValue] = {"executor.kind": executor, "executor.workers": workers, "search.seed": seed}
    return {key: value for key, value in given.items() if value is not None}


def _free_folder(name: str) -> Path:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3, ... that is not there yet."""
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(path for path in (Path("runs") / name for name in names) if not path.exists())
