"""`automc doctor`: what a search will meet, said before it starts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automc.cli.job import Job, config_of, said, with_job
from automc.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from automc.doctor.diagnosis import Diagnosis

COLUMNS = 100  # where the width is not a terminal's


def register(app: typer.Typer) -> None:
    app.command()(doctor)


@with_job
def doctor(
    job: Job,
    config: Annotated[
        Path | None, typer.Argument(help="YAML file, which the options lie over; `automc config init` prints one.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data; default $AUTOMC_DATA.")] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Measure the operators the profile does not know, and add them to it."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Examine model, data, device and space before a search, within a minute or so.

    Says what traces and exports, what each technique can act on and what blocks the rest (module, line of your source),
    which operators the profile does not know, whether the constraints are in reach, how long a search takes, and
    whether splits leak. Nothing is trained but three steps, nothing is written but with --calibrate.

    Exit code 0: a search can run. 2: it cannot, or would throw every candidate away; what to mend is named. A limit
    that no candidate looked at meets is a warning, as not all of them were.

    It takes the options of `automc search`: model and data of your own need no config file.

    Example: automc doctor --model mypkg.net:build --data mypkg.data:splits --max-latency-ms 0.3
    """
    from automc.cli.progress import ProgressDisplay
    from automc.doctor.examine import examine

    with ProgressDisplay() as display:
        diagnosis = examine(
            config_of(job, config, data_root),
            data_root=data_root,
            calibrate=calibrate,
            watch=display,
            told=said(job, config),
        )
    if as_json:
        print_json(diagnosis.to_json())
    else:
        _print(diagnosis)
    if not diagnosis.searchable:
        raise typer.Exit(2)


def _print(diagnosis: Diagnosis) -> None:
    from rich.console import Console

    from automc.doctor.words import page_of

    console = Console(highlight=False, width=None if sys.stdout.isatty() else COLUMNS)
    with console.capture() as captured:
        for part in page_of(diagnosis):
            console.print(part)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
