"""`automc config init | schema | check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automc.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from pydantic import BaseModel

commands = typer.Typer(help="The one file a search is told by.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="config")


@commands.command()
def init() -> None:
    """Print a config with every key, its default and its meaning, ready to edit.

    Example: automc config init > search.yaml
    """
    from automc.config import SearchConfig

    typer.echo("# A search by automc. Every key may be left out; what stands here is what it means when it is.")
    typer.echo("\n".join(_commented(SearchConfig(), 0)))


@commands.command()
def schema() -> None:
    """Print the JSON schema of a config, for editors that complete and check while you type.

    Example: automc config schema > search.schema.json
    """
    from automc.config import SearchConfig

    print_json(SearchConfig.model_json_schema())


@commands.command()
def check(
    config: Annotated[Path, typer.Argument(help="The YAML file.")],
    as_json: AsJson = False,
) -> None:
    """Read a config as a search would and say what it asks for; data and device are not touched.

    Example: automc config check search.yaml
    """
    from automc.config import load_config
    from automc.errors import ConfigError
    from automc.search.strategies.registry import get_strategy
    from automc.space import SearchSpace
    from automc.workloads.registry import workload_names

    loaded = load_config(config)
    get_strategy(loaded.search.strategy)
    space = SearchSpace.load(loaded.space)
    if loaded.workload.name not in workload_names():
        raise ConfigError(
            f"{config}: workload.name: no workload is called {loaded.workload.name!r}{_nearest(loaded.workload.name)}"
        )
    if as_json:
        print_json(loaded.model_dump(mode="json"))
        return
    rungs = ", ".join(f"{rung.candidates} at {rung.steps} steps" for rung in loaded.search.rungs)
    typer.echo(f"{config}: reads well")
    typer.echo(f"  workload {loaded.workload.name} on profile {loaded.profile}")
    typer.echo(
        f"  space {loaded.space}: {space.size:,} candidates of {', '.join(space.techniques) or 'architecture alone'}"
    )
    typer.echo(f"  {loaded.search.strategy}, seed {loaded.search.seed}: {rungs}; {loaded.search.finalists} finalists")


def _nearest(name: str) -> str:
    from automc.space_file import nearest
    from automc.workloads.registry import workload_names

    return nearest(name, workload_names()) or f" (known: {', '.join(workload_names())})"


def _commented(section: BaseModel, depth: int) -> list[str]:
    """YAML lines of `section`, each key with its meaning above it; sections nest by indentation."""
    import yaml
    from pydantic import BaseModel

    lines = []
    pad = "  " * depth
    dumped = section.model_dump(mode="json")
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            first = (type(value).__doc__ or "").strip().splitlines()
            lines += [f"{pad}# {first[0]}"] if first else []
            lines += [f"{pad}{key}:", *_commented(value, depth + 1)]
            continue
        if field.description:
            lines.append(f"{pad}# {field.description}")
        if isinstance(dumped[key], list | dict):
            text = f"{key}: " + yaml.safe_dump(dumped[key], sort_keys=False, default_flow_style=True, width=10_000)
        else:
            text = yaml.safe_dump({key: dumped[key]})
        lines.append(pad + text.rstrip())
    return lines
