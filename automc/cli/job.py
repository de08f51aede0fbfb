"""The options that say what to search, shared by `search`, `doctor` and `config init`, and the config they make."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import wraps
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from automc.cli.completion import profiles, rules_of_config, spaces, strategies

if TYPE_CHECKING:
    from pydantic import JsonValue

    from automc.config import SearchConfig

PYTHON_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""package.module:attribute."""

SHARED = ("model", "model_args", "weights", "task")
"""Options that say which network and task, whatever the data are kept in."""

_EXAMPLES = {"--option": "size=32", "--set": "search.finalists=2"}

DATA_KEYS = {"own": "data", "images": "folder", "table": "file", "arrays": "file"}
"""Workload that reads the user's data -> its option that names them."""


@dataclass(frozen=True)
class Job:
    """What the command line says of a search; None where it says nothing."""

    model: Annotated[
        str | None, typer.Option(help="Your package.module:factory, the name of a built-in network, or an ONNX file.")
    ] = None
    weights: Annotated[
        str | None, typer.Option(help="File of its weights: safetensors, npz, or a state dict (.pt, tensors only).")
    ] = None
    data: Annotated[
        str | None,
        typer.Option(help="Your package.module:splits, a folder of pictures by class, a .csv or an .npz file."),
    ] = None
    task: Annotated[
        str | None, typer.Option(help="classification (default), regression, or your package.module:task.")
    ] = None
    option: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE of the workload, e.g. size=32; may be repeated. `config init` lists them."),
    ] = None
    set: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE of any other key of a config, e.g. search.finalists=2; may be repeated."),
    ] = None
    profile: Annotated[
        str | None,
        typer.Option(help="The device: a name of `automc profile list`, or a folder.", autocompletion=profiles),
    ] = None
    space: Annotated[
        str | None, typer.Option(help="What may vary: a shipped search space, or a file.", autocompletion=spaces)
    ] = None
    max_drop: Annotated[
        float | None, typer.Option(help="Accuracy points that may be lost against the reference (without a file: 1).")
    ] = None
    max_latency_ms: Annotated[float | None, typer.Option(help="Milliseconds of one inference.")] = None
    max_size_bytes: Annotated[float | None, typer.Option(help="Bytes of the ONNX file.")] = None
    max_energy_mj: Annotated[float | None, typer.Option(help="Millijoules of one inference.")] = None
    max_memory_mb: Annotated[float | None, typer.Option(help="MB (2^20 bytes) that one inference needs.")] = None
    insist: Annotated[
        bool | None, typer.Option("--insist", help="Judge limits also by a profile that only ranks networks.")
    ] = None
    minutes: Annotated[
        float | None,
        typer.Option(help="Time to search for: rungs are repeated while there is some, cut short where not."),
    ] = None
    strategy: Annotated[str | None, typer.Option(help="What proposes candidates.", autocompletion=strategies)] = None
    choose: Annotated[
        str | None,
        typer.Option(
            help="fastest, smallest, most_accurate, lowest_energy or knee: which one is bundled.",
            autocompletion=rules_of_config,
        ),
    ] = None
    name: Annotated[str | None, typer.Option(help="Of the run's folder below runs/.")] = None
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.")] = None

    @property
    def empty(self) -> bool:
        """Whether nothing was said at all."""
        return all(getattr(self, item.name) in (None, []) for item in fields(self))


_KEYS = {
    "profile": "profile",
    "space": "space",
    "max_drop": "constraints.max_drop_points",
    "max_latency_ms": "constraints.max_latency_ms",
    "max_size_bytes": "constraints.max_size_bytes",
    "max_energy_mj": "constraints.max_energy_mj",
    "max_memory_mb": "constraints.max_memory_mb",
    "insist": "insist",
    "minutes": "search.minutes",
    "strategy": "search.strategy",
    "choose": "choose",
    "name": "name",
    "seed": "search.seed",
}
"""Field of Job -> key of the config, for all that is one value in both."""


def with_job(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, whose parameter `job` the command line fills from the options of Job."""
    hints = get_type_hints(Job, include_extras=True)
    options = [
        inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=hints[item.name])
        for item in fields(Job)
    ]
    own = inspect.signature(command, eval_str=True)
    kept = [part.replace(kind=inspect.Parameter.KEYWORD_ONLY) for part in own.parameters.values() if part.name != "job"]
    first = [part for part in kept if not part.name.startswith("as_")]
    last = [part for part in kept if part not in first]

    @wraps(command)
    def called(**given: Any) -> None:
        job = Job(**{option.name: given.pop(option.name) for option in options})
        command(job=job, **given)

    parameters = [*first, *options, *last]
    called.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {part.name: part.annotation for part in parameters}
    return called


def config_of(
    job: Job, file: Path | None = None, data_root: Path | None = None, more: Mapping[str, JsonValue] | None = None
) -> SearchConfig:
    """The config in `file` with the job's options laid over it; without a file, what the options alone ask for.

    data_root: where data and weights that are not below the working folder are looked for; default $AUTOMC_DATA.
    more: further dotted keys, such as {"executor.kind": "inline"}. Raises ConfigError naming the option or key.
    """
    from automc.config import lay_over, load_config, parse_config
    from automc.errors import ConfigError

    if file is None and (job.model is None or job.data is None):
        missing = [f"--{name}" for name in ("model", "data") if getattr(job, name) is None]
        raise ConfigError(
            f"nothing to search: without a config file, {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} needed as well",
            next_step="automc search --model PACKAGE.MODULE:FACTORY --data PACKAGE.MODULE:SPLITS, or automc demo",
        )
    overrides = {**({} if file is not None else _unsaid(job)), **plain_overrides(job), **(more or {})}
    root = data_root or _environment_root()
    before = None if file is None else load_config(file)
    if any(getattr(job, name) for name in ("model", "weights", "data", "task", "option")):
        section = None if before is None else before.workload
        name, options = _workload(
            job, root, section.name if section else None, dict(section.options) if section else {}
        )
        overrides |= {"workload.name": name, "workload.options": options}
    if before is None:
        raw: dict[str, Any] = {}
        lay_over(raw, overrides)
        return parse_config(raw, "the command line")
    # a section that is written loses the default of the whole: a limit given here must not lift the one there
    overrides.setdefault("constraints.max_drop_points", before.constraints.max_drop_points)
    return load_config(file, overrides)


def said(job: Job, file: Path | None) -> str:
    """File and options as they would be typed again."""
    words = [] if file is None else [str(file)]
    for item in fields(Job):
        value = getattr(job, item.name)
        option = f"--{item.name.replace('_', '-')}"
        if value is True:
            words.append(option)
            continue
        for one in value if isinstance(value, list) else [] if value is None else [value]:
            words += [option, f"{one:g}" if isinstance(one, float) else str(one)]
    return shlex.join(words)


def plain_overrides(job: Job) -> dict[str, JsonValue]:
    """Dotted keys of a config for all that the job says, but for its workload."""
    return {
        **{key: getattr(job, name) for name, key in _KEYS.items() if getattr(job, name) is not None},
        **dict(_pair("--set", text) for text in job.set or []),
    }


def _unsaid(job: Job) -> dict[str, JsonValue]:
    """What holds without a config file where no option says otherwise."""
    model = str(job.model)
    usual: dict[str, JsonValue] = {"name": _run_name(model), "space": "cnn", "constraints.max_drop_points": 1.0}
    if model.lower().endswith(".onnx"):  # nothing in it can be trained: one rung, on the graph alone
        usual |= {"space": "graph", "search.rungs": [{"candidates": 24, "steps": 0}]}
    return usual


def _run_name(model: str) -> str:
    """mypkg.net:build -> mypkg; nets/model.onnx -> model; resnet20 -> resnet20."""
    stem = Path(model).stem if model.endswith(".onnx") else model.partition(":")[0].partition(".")[0]
    return re.sub(r"[^A-Za-z0-9._-]", "-", stem).lstrip("._-") or "search"


def _workload(
    job: Job, root: Path | None, name: str | None, options: dict[str, JsonValue]
) -> tuple[str, dict[str, JsonValue]]:
    """Name and options of the workload: those of the config file with what the job says laid over them."""
    if job.data is not None:
        kind, where = _data(job.data, root)
        if kind != name:
            options = {key: value for key, value in options.items() if key in SHARED}
        name = kind
        options[DATA_KEYS[kind]] = where
    if name is None:
        raise AssertionError("a job without a file has data")
    for key, value in (("model", job.model), ("weights", job.weights)):
        if value is not None:
            options[key] = _located(value, root)
    if job.task is not None:
        options["task"] = job.task
    for text in job.option or []:
        key, given = _pair("--option", text)
        options[key] = given
    if any(_only_below(Path.cwd(), options.get(key)) for key in ("model", "data", "task")):
        options.setdefault("code", str(Path.cwd()))  # a run is resumed, and its workers run, anywhere
    return name, options


def _only_below(folder: Path, name: JsonValue) -> bool:
    """Whether `name` is a package.module:attribute that only the Python files in `folder` hold."""
    if not isinstance(name, str) or not PYTHON_NAME.fullmatch(name):
        return False
    top = name.partition(":")[0].partition(".")[0]
    here = str(folder)
    beside = (folder / top).is_dir() or (folder / f"{top}.py").is_file()
    return beside and PathFinder.find_spec(top, [item for item in sys.path if item not in ("", here)]) is None


def _data(given: str, root: Path | None) -> tuple[str, str]:
    """(workload that reads it, its absolute path or Python name). Raises ConfigError where it is none of them."""
    from automc.errors import ConfigError

    if PYTHON_NAME.fullmatch(given):
        return "own", given
    path = _found(given, root)
    if path is not None and path.is_dir():
        return "images", str(path)
    kinds = {".csv": "table", ".tsv": "table", ".npz": "arrays"}
    kind = kinds.get(Path(given).suffix.lower())
    if kind is None or path is None:
        why = "there is no such file or folder" if path is None else f"{path.suffix or 'such'} files are not read"
        raise ConfigError(
            f"--data {given}: {why}",
            next_step="give package.module:splits, a folder of pictures by class, a .csv or an .npz file",
        )
    return kind, str(path)


def _located(given: str, root: Path | None) -> str:
    """The absolute path of a file that is there, else as it was given: a name, or a file that will be missed."""
    path = _found(given, root)
    return str(path) if path is not None and path.is_file() else given


def _found(given: str, root: Path | None) -> Path | None:
    """`given` below the working folder or the data folder, absolute; None where it is in neither."""
    places = [Path(given).expanduser(), *([root / given] if root is not None else [])]
    return next((path.resolve() for path in places if path.exists()), None)


def _environment_root() -> Path | None:
    named = os.environ.get("AUTOMC_DATA")
    return Path(named) if named else None


def _pair(option: str, text: str) -> tuple[str, JsonValue]:
    """KEY=VALUE, the value as YAML reads it: 3, true, [0.5, 0.5], {hidden: [64]}, text."""
    import yaml

    from automc.errors import ConfigError

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{option} {text}: is not KEY=VALUE", next_step=f"for example {option} {_EXAMPLES[option]}")
    if option == "--set" and key.strip().partition(".")[0] == "workload":
        inner = key.strip().removeprefix("workload.").removeprefix("options.")
        raise ConfigError(
            f"{option} {text}: what the workload is follows from --model and --data",
            next_step=f"give its options by --option {inner}=...",
        )
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{option} {text}: the value is not YAML: {error}", next_step=f"quote it: {option} 'key=\"value\"'"
        ) from error
