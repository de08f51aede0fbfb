"""`automc technique list | show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from automc.cli.completion import techniques
from automc.cli.output import AsJson, print_columns, print_json
from automc.cli.schema_words import allowed

if TYPE_CHECKING:
    from automc.techniques.technique import Technique

commands = typer.Typer(
    help="What automc can do to a model.\n\nExample: automc technique show channel_pruning",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="technique")


@commands.command("list")
def list_(as_json: AsJson = False) -> None:
    """Every technique, what it is and what it really saves.

    Example: automc technique list
    """
    from automc.techniques.registry import get_technique, technique_names

    found = [get_technique(name) for name in technique_names()]
    if as_json:
        print_json([_describe(item) for item in found])
        return
    print_columns(
        ("technique", "phase", "saves", "summary"),
        [(item.name, item.phase.value, ", ".join(sorted(item.saves)) or "-", item.summary) for item in found],
    )


@commands.command()
def show(
    name: Annotated[str, typer.Argument(help="As `automc technique list` prints it.", autocompletion=techniques)],
    as_json: AsJson = False,
) -> None:
    """One technique: its parameters with their ranges, what it needs, where it comes from.

    Example: automc technique show channel_pruning
    """
    from automc.techniques.registry import get_technique

    item = get_technique(name)
    described = _describe(item)
    if as_json:
        print_json(described)
        return
    for key in ("name", "summary", "phase", "saves", "source", "after", "excludes"):
        value = described[key]
        text = ", ".join(str(part) for part in value) if isinstance(value, list) else str(value)
        typer.echo(f"{key + ':':10} {text or '-'}")
    needs = [text for text, needed in (("data", item.needs_data), ("training", item.needs_training)) if needed]
    typer.echo(f"{'needs:':10} {', '.join(needs) or 'nothing but the model'}")
    rows = [
        (key, allowed(spec), _default(item, key), str(spec.get("description", "")))
        for key, spec in item.params.model_json_schema().get("properties", {}).items()
    ]
    if rows:
        typer.echo("")
        print_columns(("parameter", "allowed", "default", "meaning"), rows)


def _describe(item: Technique[Any]) -> dict[str, object]:
    return {
        "name": item.name,
        "summary": item.summary,
        "phase": item.phase.value,
        "saves": sorted(item.saves),
        "source": item.source,
        "after": sorted(item.after),
        "excludes": sorted(item.excludes),
        "needs_data": item.needs_data,
        "needs_training": item.needs_training,
        "params": item.params.model_json_schema(),
    }


def _default(item: Technique[Any], parameter: str) -> str:
    field = item.params.model_fields[parameter]
    return "required" if field.is_required() else str(field.get_default(call_default_factory=True))
