"""`automc demo | search | resume`."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automc.cli.completion import run_folders
from automc.cli.job import Job, config_of, said, with_job
from automc.cli.output import AsJson, print_json
from automc.cli.results import print_run

if TYPE_CHECKING:
    from pydantic import JsonValue

    from automc.config import SearchConfig

Folder = Annotated[Path, typer.Argument(help="Folder of the run.", autocompletion=run_folders)]
NewFolder = Annotated[Path | None, typer.Option("--run", help="Folder to write; default runs/ and the config's name.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the data; default $AUTOMC_DATA.")]
Executor = Annotated[str | None, typer.Option(help="inline (this process) or ray (workers).")]
Workers = Annotated[int | None, typer.Option(help="Ray workers.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random choice.")]
Minutes = Annotated[
    float | None, typer.Option(help="Time to search for: rungs are repeated while there is some, cut short where not.")
]


def register(app: typer.Typer) -> None:
    for command in (demo, search, resume):
        app.command()(command)


def demo(
    run: NewFolder = None,
    executor: Executor = None,
    workers: Workers = None,
    seed: Seed = None,
    minutes: Minutes = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole line on an embedded default.

    Calibrates this machine, compresses a digits classifier for it and ends in a verified bundle: at most six minutes on
    two cores. Data, model and config are part of automc.

    Example: automc demo
    """
    from automc.config import load_config

    config = load_config(None, _overrides(executor, workers, seed, minutes))
    _search(config, None, _free_folder(config.name) if run is None else run, as_json)


@with_job
def search(
    job: Job,
    config: Annotated[
        Path | None, typer.Argument(help="YAML file, which the options lie over; `automc config init` prints one.")
    ] = None,
    data_root: DataRoot = None,
    run: NewFolder = None,
    executor: Executor = None,
    workers: Workers = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search, and end in a verified bundle.

    Calibrates where needed, searches, re-measures the finalists, chooses by the config's rule, bundles, verifies and
    reports. Model and data of your own need no config file.

    Example: automc search --model mypkg.net:build --weights w.safetensors --data mypkg.data:splits --max-drop 1
    """
    resolved = config_of(job, config, data_root, _overrides(executor, workers))
    folder = _free_folder(resolved.name) if run is None and config is None else run
    if not dry_run:
        _search(resolved, data_root, folder, as_json)
        return
    from automc.cli.plan import plan_of, print_plan
    from automc.cli.progress import ProgressDisplay

    with ProgressDisplay() as display:
        plan = plan_of(resolved, data_root, folder, display)
    if as_json:
        print_json(plan)
    else:
        print_plan(plan, said(job, config) + (f" --data-root {data_root}" if data_root is not None else ""))


def resume(
    folder: Folder,
    data_root: Annotated[
        Path | None, typer.Option(help="Where the data have been moved to; default where the run began with them.")
    ] = None,
    minutes: Annotated[
        str | None,
        typer.Option(help="More time, +30 or 30: a finished run too goes on for so long, with new candidates."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Go on with an interrupted run, or with a finished one for some more minutes.

    Finished trials are kept and none is evaluated twice. Data in another folder than at the start are taken only where
    their digests are those in the run's lock file.

    Example: automc resume runs/demo --minutes +30    (after automc demo)
    """
    from automc.cli.progress import ProgressDisplay
    from automc.search.loop import resume as resume_run

    with ProgressDisplay() as display:
        run = resume_run(folder, data_root=data_root, minutes=_more(minutes), watch=display)
    print_run(run, as_json)


def _search(config: SearchConfig, data_root: Path | None, folder: Path | None, as_json: bool) -> None:
    from automc.cli.progress import ProgressDisplay
    from automc.search.loop import search as search_api

    with ProgressDisplay() as display:
        run = search_api(config, data_root=data_root, run_dir=folder, watch=display)
    print_run(run, as_json)


def _more(minutes: str | None) -> float | None:
    if minutes is None:
        return None
    try:
        return float(minutes)
    except ValueError:
        raise typer.BadParameter(f"{minutes!r} is no number of minutes", param_hint="--minutes") from None


def _overrides(
    executor: str | None, workers: int | None, seed: int | None = None, minutes: float | None = None
) -> dict[str, JsonValue]:
    given: dict[str, JsonValue] = {
        "executor.kind": executor,
        "executor.workers": workers,
        "search.seed": seed,
        "search.minutes": minutes,
    }
    return {key: value for key, value in given.items() if value is not None}


def _free_folder(name: str) -> Path:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3, ... that is not there yet."""
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(path for path in (Path("runs") / name for name in names) if not path.exists())
