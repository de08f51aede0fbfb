"""`automc config init | schema | check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automc.cli.completion import workloads
from automc.cli.job import Job, config_of, plain_overrides, with_job
from automc.cli.output import AsJson, print_json
from automc.cli.schema_words import commented

if TYPE_CHECKING:
    from pydantic import BaseModel

    from automc.config import SearchConfig

commands = typer.Typer(
    help="The one file a search is told by.\n\nExample: automc config init > search.yaml",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="config")


@commands.command()
@with_job
def init(
    job: Job,
    workload: Annotated[
        str | None,
        typer.Option(
            help="Name of a workload, whose options are printed as well; default digits.", autocompletion=workloads
        ),
    ] = None,
) -> None:
    """Print a config with every key, its meaning, what is allowed and the default, ready to edit.

    With the options of `automc search` it prints the config that they stand for.

    Example: automc config init --model mypkg.net:build --data mypkg.data:splits --max-drop 1 > search.yaml
    """
    from automc.config import SearchConfig
    from automc.search.checking import told_by
    from automc.workloads.registry import options_model, workload_class

    usual = SearchConfig()
    chosen = usual if job.empty else _asked(job, workload)
    name = workload or chosen.workload.name
    told = None if workload is None else told_by(workload_class(name))
    if told is not None:  # one that scores its candidates itself: what it does not tell cannot be traded
        chosen = chosen.model_copy(update={"objectives": tuple(n for n in chosen.objectives if n in told)})
    lines = commented(SearchConfig, chosen.model_dump(mode="json"), defaults=usual.model_dump(mode="json"))
    if workload is not None or chosen is not usual:
        model = options_model(name)
        defaults = {} if model is None else _defaults(model)
        values = {**defaults, **chosen.workload.options}
        options = [] if model is None else commented(model, values, defaults=defaults, depth=2)
        lines[lines.index(f"  name: {chosen.workload.name}")] = f"  name: {name}"
        if options:
            place = next(number for number, line in enumerate(lines) if line.startswith("  options: "))
            lines[place : place + 1] = ["  options:", *options]
    typer.echo("# A search by automc. Every key may be left out; its default is said above it.")
    typer.echo("\n".join(lines))


def _asked(job: Job, workload: str | None) -> SearchConfig:
    """The config the options stand for; those that say nothing of model and data lie over the embedded demo."""
    from automc.config import lay_over, parse_config
    from automc.errors import ConfigError
    from automc.search.checking import check_names

    if job.model is not None or job.data is not None:
        if workload is not None:
            raise ConfigError(
                "--workload, and --model or --data, which say what the workload is", next_step="leave --workload out"
            )
        asked = config_of(job)
        check_names(asked, "the command line")
        return asked
    raw: dict[str, Any] = {}
    lay_over(raw, {"constraints.max_drop_points": 1.0, **plain_overrides(job)})
    asked = parse_config(raw, "the command line")
    check_names(asked, "the command line")
    return asked


def _defaults(model: type[BaseModel]) -> dict[str, object]:
    """The defaults of a model that may have required fields, as JSON."""
    fields = {key: field for key, field in model.model_fields.items() if not field.is_required()}
    made = {key: field.get_default(call_default_factory=True) for key, field in fields.items()}
    dumped: dict[str, object] = model.model_construct(**made).model_dump(mode="json")
    return dumped


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
    """Check everything that needs neither data nor training, and say what the config asks for.

    That is every key, the workload's options, the strategy, the search space and the profile; exit 2 where one is
    wrong. A network of your own (`package.module:factory`) is imported and built.

    Example: automc config check search.yaml
    """
    from automc.config import load_config
    from automc.search.checking import check_config

    loaded = load_config(config)
    checked = check_config(loaded, str(config))
    space = checked.space
    if as_json:
        print_json({**loaded.model_dump(mode="json"), "notes": list(checked.notes)})
        return
    rungs = ", ".join(f"{rung.candidates} at {rung.steps} steps" for rung in loaded.search.rungs)
    typer.echo(f"{config}: reads well")
    typer.echo(f"  workload {loaded.workload.name} on profile {loaded.profile}")
    typer.echo(
        f"  space {loaded.space}: {space.size:,} candidates of {', '.join(space.techniques) or 'architecture alone'}"
    )
    typer.echo(f"  {loaded.search.strategy}, seed {loaded.search.seed}: {rungs}; {loaded.search.finalists} finalists")
    for note in checked.notes:
        typer.echo(f"  note: {note}")
