"""`automc front | report`: what a run came to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automc.cli.completion import profiles, rules, run_folders
from automc.cli.output import AsJson, print_json
from automc.cli.results import in_words_of, print_points, print_rescored, print_rungs, print_words, rungs_of

if TYPE_CHECKING:
    from automc.run import Run

Folder = Annotated[Path, typer.Argument(help="Folder of the run.", autocompletion=run_folders)]


def register(app: typer.Typer) -> None:
    for command in (front, report):
        app.command()(command)


def front(
    folder: Folder,
    every: Annotated[bool, typer.Option("--all", help="Every finalist, also those beaten in all respects.")] = False,
    profile: Annotated[
        str | None, typer.Option(help="Judge for this device: a profile's name or folder.", autocompletion=profiles)
    ] = None,
    max_drop: Annotated[float | None, typer.Option(help="Points below the reference; inf lifts the limit.")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Milliseconds of one inference.")] = None,
    max_size_bytes: Annotated[float | None, typer.Option(help="Bytes of the ONNX file.")] = None,
    max_energy_mj: Annotated[float | None, typer.Option(help="Millijoules of one inference.")] = None,
    max_memory_mb: Annotated[float | None, typer.Option(help="MB of one inference.")] = None,
    rung: Annotated[int | None, typer.Option(min=0, help="Candidates of this rung; default the highest.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time the candidates here; the profile must be of this machine.")
    ] = False,
    insist: Annotated[
        bool, typer.Option("--insist", help="Judge limits also by a profile that only ranks networks.")
    ] = False,
    pick: Annotated[
        str | None,
        typer.Option(
            help="Bundle one: knee, fastest, smallest, most-accurate, lowest-energy, or an id.", autocompletion=rules
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of that bundle; default in the run's folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """The Pareto front of a run; with a profile or limits, chosen again without searching again.

    Alone: the finalists of a finished run, latency as re-measured on the device at the end, accuracy as evaluated in
    ONNX Runtime. With any other option the stored ONNX files are judged anew, in seconds: for another device by its
    profile (every candidate of the highest rung, predicted), for other limits, or timed here. Limits on accuracy and
    size stay the run's unless given; those on latency, energy and memory hold for its own device. --pick bundles one;
    exit 3 where nothing meets the limits.

    Example: automc front runs/demo --profile epyc_genoa_1t --max-latency-ms 4 --pick knee    (after automc demo)
    """
    from automc.run import Run

    run = Run.open(folder)
    limits = {
        "max_drop_points": max_drop,
        "max_latency_ms": max_latency_ms,
        "max_size_bytes": max_size_bytes,
        "max_energy_mj": max_energy_mj,
        "max_memory_mb": max_memory_mb,
    }
    given = {key: None if value == math.inf else value for key, value in limits.items() if value is not None}
    if given or measure or any(option is not None for option in (profile, rung, pick, out)):
        _choose_again(run, profile, given, rung, measure, insist, every, pick, out, as_json)
        return
    points = run.finalists() if every else run.front()
    if as_json:
        print_json([point.to_json() for point in points])
        return
    print_points(points, run.config.constraints)


def _choose_again(
    run: Run,
    profile: str | None,
    limits: Mapping[str, float | None],
    rung: int | None,
    measure: bool,
    insist: bool,
    every: bool,
    pick: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    from automc.cli.progress import ProgressDisplay
    from automc.errors import InfeasibleSearchError
    from automc.search.rescoring import rescore

    with ProgressDisplay() as display:
        found = rescore(run, profile, limits, rung=rung, measure=measure, insist=insist, watch=display)
    infeasible = None
    try:
        chosen = found.choose(pick)
    except InfeasibleSearchError as error:
        infeasible, chosen = error, None
    points = [replace(point, chosen=point is chosen) for point in found.points if every or point.on_front]
    if chosen is not None and not any(point.chosen for point in points):  # picked by its id, though beaten
        points.append(replace(chosen, chosen=True))
    bundle = None
    if chosen is not None and (pick is not None or out is not None):
        bundle = found.bundle(chosen, out)
        bundle.verify()
    if as_json:
        print_json(
            {
                "run": str(run.folder),
                "profile": None if found.profile is None else found.profile.name,
                "rung": found.rung,
                "constraints": found.constraints.model_dump(mode="json"),
                "points": [point.to_json() for point in points],
                "unknown": dict(found.unknown),
                "notes": list(found.notes),
                "picked": None if chosen is None else chosen.trial.candidate.id,
                "bundle": None if bundle is None else str(bundle.folder),
            }
        )
    else:
        print_rescored(found, points)
        if bundle is not None:
            typer.echo(f"bundle: {bundle.folder}, verified")
            if chosen is not None and chosen.anchor == "reference":
                typer.echo("this is the reference, uncompressed: by this rule and these limits nothing is better")
        elif chosen is not None:
            typer.echo(f"to bundle the chosen one: --pick {pick or run.config.choose.replace('_', '-')}")
    if infeasible is not None:
        raise infeasible


def report(
    folder: Folder,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """The result in words, and where the page is.

    The page is one file that loads nothing: the front, what each technique bought and cost, failures and why. Both say
    how well each rung foretold the next: near 1, the cheap evaluations told the truth; near 0, they told nothing.

    Example: automc report runs/demo --open
    """
    import webbrowser

    from automc.errors import AutomcError, RunRefused
    from automc.run import Run

    run = Run.open(folder)
    finalists, page = run.finalists(), folder / "report.html"
    if not page.is_file():
        raise RunRefused(f"{folder}: has no report yet", next_step=f"automc resume {folder}")
    said, rungs = in_words_of(run, finalists), rungs_of(run)
    if as_json:
        print_json(
            {"report": str(page), "headline": said.headline, "sentences": list(said.sentences), "rungs": list(rungs)}
        )
    else:
        print_words(said)
        print_rungs(rungs)
        typer.echo(f"report: {page}")
    if show and not webbrowser.open(page.resolve().as_uri()):
        raise AutomcError(
            f"{page}: no browser could be started here", next_step="copy the page to where there is one: it is one file"
        )
