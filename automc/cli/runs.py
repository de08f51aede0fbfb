"""`automc front | report`: what a run came to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from automc.cli.output import AsJson, print_json
from automc.cli.results import in_words_of, print_points, print_words

Folder = Annotated[Path, typer.Argument(help="Folder of the run.")]


def register(app: typer.Typer) -> None:
    for command in (front, report):
        app.command()(command)


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
    print_points(run, points)


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
    said = in_words_of(run, run.finalists())
    if as_json:
        print_json({"report": str(page), "headline": said.headline, "sentences": list(said.sentences)})
    else:
        print_words(said)
        typer.echo(f"report: {page}")
    if show:
        typer.launch(page.resolve().as_uri())
