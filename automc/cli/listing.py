"""`automc runs`: what lies in a folder of runs, the latest first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automc.cli.output import AsJson, print_columns, print_json

if TYPE_CHECKING:
    from pydantic import JsonValue

    from automc.run import FrontPoint, Run

_SHOWN = {"latency_ms": "{:.4g} ms", "drop_points": "{:+.2f} points", "size_bytes": "{:,.0f} bytes"}


def register(app: typer.Typer) -> None:
    app.command()(runs)


def runs(
    folder: Annotated[Path, typer.Argument(help="Where runs lie, or a run.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Every run in a folder: its state, what it chose, and what to do next.

    Example: automc runs
    """
    from automc.errors import ConfigError
    from automc.run import LOCK

    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder", next_step="automc runs DIR, or begin one: automc demo")
    inside = folder.glob(f"*/{LOCK}") if not (folder / LOCK).is_file() else [folder / LOCK]  # a run itself: that one
    folders = sorted((path.parent for path in inside), key=_changed_unix_s, reverse=True)
    found = [_described(path) for path in folders]
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo(f"no run in {folder}; begin one: automc demo")
        return
    header = ("run", "changed", "workload", "state", "trials", "front", "chosen", "next")
    print_columns(header, [_row(entry) for entry in found])


def _changed_unix_s(folder: Path) -> float:
    from automc.run import LOCK

    return max(path.stat().st_mtime for path in (folder / LOCK, folder / "journal.jsonl") if path.exists())


def _described(folder: Path) -> dict[str, JsonValue]:
    """A run that cannot be read is listed with the reason: the others are not to blame."""
    from automc.errors import AutomcError
    from automc.run import Run, in_use

    entry: dict[str, JsonValue] = {
        "run": str(folder),
        "changed": datetime.fromtimestamp(_changed_unix_s(folder), UTC).isoformat(timespec="seconds"),
    }
    try:
        run = Run.open(folder)
        points = run.finalists() if run.has_finalists else []
    except AutomcError as error:
        return {**entry, "state": "damaged", "problem": error.message, "next": error.next_step}
    state = "finished" if run.finished else "running" if in_use(folder) else _unfinished(run, points)
    chosen = next((point for point in points if point.chosen), None)
    return {
        **entry,
        "workload": run.config.workload.name,
        "state": state,
        "trials": sum(1 for _ in run.journal.of("trial")),
        "front": sum(point.on_front for point in points),
        "chosen": None if chosen is None else _figures(chosen),
        "next": {
            "finished": f"automc report {folder} --open",
            "running": None,
            "nothing meets its limits": f"automc front {folder} --all",
        }.get(state, f"automc resume {folder}"),
    }


def _unfinished(run: Run, points: Sequence[FrontPoint]) -> str:
    """What a run without an end is: its finalists were measured, and none could be chosen, or it was cut off.

    One that was cut off after it had been given more time still has the finalists of before.
    """
    if not points or any(point.chosen for point in points):
        return "interrupted"
    front, journal = run.folder / "front.json", run.folder / "journal.jsonl"
    extended = run.journal.last("extended") is not None
    return "interrupted" if extended and front.stat().st_mtime < journal.stat().st_mtime else "nothing meets its limits"


def _figures(point: FrontPoint) -> dict[str, JsonValue]:
    return {
        "id": point.trial.candidate.id,
        **{name: point.figures[name].value for name in _SHOWN if name in point.figures},
    }


def _row(entry: dict[str, JsonValue]) -> Sequence[str]:
    if entry["state"] == "damaged":
        problem = str(entry["problem"]).splitlines()[0]
        return (
            str(entry["run"]), str(entry["changed"]), "", f"damaged: {problem}", "", "", "", str(entry["next"] or "")
        )  # fmt: skip
    chosen = entry["chosen"]
    said = ""
    if isinstance(chosen, dict):
        said = ", ".join(form.format(chosen[name]) for name, form in _SHOWN.items() if name in chosen)
    return (
        str(entry["run"]), str(entry["changed"]), str(entry["workload"]), str(entry["state"]), str(entry["trials"]),
        str(entry["front"]), said, str(entry["next"] or ""),
    )  # fmt: skip
