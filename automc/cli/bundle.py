"""`automc bundle build | verify | inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from automc.cli.completion import rules, run_folders
from automc.cli.output import AsJson, print_columns, print_json

Folder = Annotated[Path, typer.Argument(help="Folder of the bundle.")]

commands = typer.Typer(
    help="The deployable result, which proves its own numbers.\n\nExample: automc bundle verify runs/demo/bundle",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="bundle")


@commands.command()
def build(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", autocompletion=run_folders)],
    choose: Annotated[
        str | None,
        typer.Option(
            help="A rule (fastest, smallest, ...) or a finalist's id; default the config's rule.", autocompletion=rules
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default RUN/bundle-ID.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the bundle of one finalist and verify it.

    Example: automc bundle build runs/demo --choose smallest
    """
    from automc.constraints import limits_of, unmet
    from automc.run import Run

    opened = Run.open(run)
    trial = opened.choose(choose)
    bundle = opened.bundle(trial, out)
    found = bundle.verify()
    if as_json:
        print_json({"candidate": trial.candidate.id, **found.to_json()})
        return
    typer.echo(f"{bundle.folder}: {trial.candidate} ({trial.candidate.id}), {len(found.checks)} checks passed")
    point = next(item for item in opened.finalists() if item.trial.candidate.id == trial.candidate.id)
    for limit in unmet(limits_of(opened.config.constraints), point.figures):
        typer.echo(f"note: it does not meet the run's limit on {limit.metric}: at most {limit.maximum:g}", err=True)


@commands.command()
def verify(
    folder: Folder,
    data: Annotated[
        Path | None, typer.Option(help="npz with x (raw samples) and y (labels): re-proves the accuracy.")
    ] = None,
    latency: Annotated[bool, typer.Option("--latency", help="Time it again; only counts on the same device.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check every hash, the golden outputs and, where asked, accuracy and latency; exit 4 where anything is off.

    Example: automc bundle verify runs/demo/bundle --latency
    """
    from automc.bundle.verify import Bundle
    from automc.errors import BundleError

    found = Bundle(folder).examine(data, latency=latency)
    if as_json:
        print_json(found.to_json())
    else:
        print_columns(("check", "result", "detail"), [(item.name, item.status, item.detail) for item in found.checks])
    wrong = [f"{item.name} {item.status}" for item in found.checks if item.status != "ok"]
    if wrong:
        only_slow = all(item.status == "ok" or item.name == "latency" for item in found.checks)
        again = f"automc bundle verify {folder} --latency    (on an idle machine)"
        raise BundleError(
            f"{folder} is not verified: {', '.join(wrong)}", next_step=again if only_slow else "automc bundle build RUN"
        )


@commands.command()
def inspect(folder: Folder, as_json: AsJson = False) -> None:
    """What the bundle states: its figures, how they were got, its steps.

    Example: automc bundle inspect runs/demo/bundle
    """
    import yaml

    from automc.bundle.verify import Bundle

    found = Bundle(folder).inspect()
    if as_json:
        print_json(found)
        return
    expected = found["expected"]
    assert isinstance(expected, dict)
    for section in ("figures", "predicted", "reference"):
        figures = expected[section]
        if isinstance(figures, dict) and figures:
            typer.echo(f"{section}:")
            print_columns(
                ("  figure", "value", "interval", "how"),
                [(f"  {name}", *_figure(name, figure)) for name, figure in figures.items() if isinstance(figure, dict)],
            )
    recipe = found["recipe"]
    assert isinstance(recipe, dict)
    typer.echo(f"\nrecipe of {recipe['candidate_id']} on {recipe['base']}:")
    typer.echo(yaml.safe_dump(recipe["candidate"], sort_keys=False).rstrip())


def _figure(name: str, figure: Mapping[str, object]) -> tuple[str, str, str]:
    """Value with unit, what kind of interval and which, and how it was got, of a Figure as JSON."""
    from automc.bundle.card import interval_words

    how = [str(figure["kind"])]
    if figure.get("n") is not None:
        how.append(f"n={figure['n']}")
    how += [str(figure[key]) for key in ("split", "source") if figure.get(key)]
    value, low, high = (f"{float(str(figure[key])):.5g}" for key in ("value", "low", "high"))
    label, _ = interval_words(name, str(figure["kind"]), str(figure.get("source", ""))) or ("", "")
    interval = "" if low == high else f"{low} to {high} ({label or 'as the source states'})"
    return f"{value} {figure['unit']}", interval, ", ".join(how)
