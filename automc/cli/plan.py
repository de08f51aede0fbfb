"""`automc search --dry-run`: what a search would do, said without doing any of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pydantic import JsonValue

    from automc.config import SearchConfig
    from automc.search.progress import Watcher
    from automc.space import SearchSpace

_LOOK_S = 2.0  # for what the time of a search hardly depends on

Outline = dict[str, "JsonValue"]


def plan_of(config: SearchConfig, data_root: Path | None, folder: Path | None, watch: Watcher) -> Outline:
    """The plan of a search, one entry a subject. Nothing is written; raises what the search would refuse to start for.

    folder: as --run; default runs/ and the config's name. The time is predicted from one export, one scoring and three
    training steps, which take a few seconds.
    """
    from automc.evaluate import SelfScored
    from automc.search.checking import check
    from automc.search.setup import data_root_of
    from automc.space import SearchSpace
    from automc.workloads.registry import create_workload
    from automc.workloads.workload import SPLITS

    root = data_root_of(data_root)
    check(config, root)
    space = SearchSpace.load(config.space)
    plan: Outline = {"run": _run(folder or Path("runs") / config.name)}
    workload = create_workload(config.workload.name, config.workload.options, root)
    if isinstance(workload, SelfScored):
        plan["workload"] = f"{config.workload.name}, which scores candidates itself"
    else:
        model = workload.model()
        parameters = sum(parameter.numel() for parameter in model.parameters())
        plan["model"] = f"{config.workload.name}: {type(model).__name__}, {parameters:,} parameters"
        plan["data"] = ", ".join(f"{name} {len(workload.split(name)):,}" for name in SPLITS)
        plan["device"] = _device(config)
    limits = {key: value for key, value in config.constraints.model_dump().items() if value is not None}
    plan["objectives"] = ", ".join(config.objectives)
    plan["limits"] = ", ".join(f"{key} {value:g}" for key, value in limits.items()) or "none"
    plan["space"] = _space(space)
    plan["search"] = f"{config.search.strategy}, seed {config.search.seed}, {config.search.parallel} at a time"
    for index, rung in enumerate(config.search.rungs):
        anchors = sum(len(anchor.candidates) for anchor in space.anchors) if index < 2 else len(space.anchors)
        plan[f"rung {index}"] = f"{rung.candidates} candidates and {anchors} anchors, {rung.steps} optimiser steps each"
    plan["time"] = _time(config, root, watch, trains=not isinstance(workload, SelfScored))
    executor = config.executor
    plan["executor"] = "this process" if executor.kind == "inline" else f"ray, {executor.workers} workers"
    plan["end"] = f"{config.search.finalists} finalists and the anchors re-measured; bundled: {config.choose}"
    return plan


def print_plan(plan: Outline, arguments: str) -> None:
    """arguments: what `automc search` and `automc doctor` are given."""
    for key, value in plan.items():
        typer.echo(f"{key + ':':12} {value}")
    typer.echo(f"nothing was written; whether it can work, and what stands in the way: automc doctor {arguments}")


def _time(config: SearchConfig, root: Path | None, watch: Watcher, *, trains: bool) -> str:
    """How long the search will take, as far as that can be told."""
    from automc.doctor.budget import Budget
    from automc.doctor.effort import clock_text
    from automc.doctor.examine import examine

    once = "next to none, as nothing is trained"
    if trains:
        short = Budget(leaks_s=0.0, accuracy_s=_LOOK_S, space_s=_LOOK_S)
        effort = examine(config, data_root=root, budget=short, watch=watch).effort
        once = "unknown, the network cannot be tried: automc doctor says why"
        if effort is not None:
            once = (
                f"about {clock_text(effort.seconds)} (a training step {effort.step_s:.3g} s, an export "
                f"{effort.export_s:.3g} s, a scoring {effort.scoring_s:.3g} s, here and now)"
            )
    if config.search.minutes is None:
        return once
    return (
        f"{config.search.minutes:g} minutes of searching: the rungs again and again, or cut short; once through: {once}"
    )


def _run(folder: Path) -> str:
    taken = folder.is_dir() and any(folder.iterdir())
    return f"{folder}" + (", which holds a run already: a search would be refused, give --run DIR" if taken else "")


def _device(config: SearchConfig) -> str:
    from automc.errors import AutomcError
    from automc.measure.fingerprint import check_fingerprint
    from automc.profiles import load_profile

    try:
        profile = load_profile(config.profile)
        check_fingerprint(profile)
    except AutomcError as error:  # `check` let it pass: it is calibrated first
        return f"{config.profile}, calibrated first ({config.calibrate}): {error.message}"
    errors = ", ".join(f"{item.precision} {item.within_10_percent:.0%}" for item in profile.held_out)
    return f"{config.profile}: {profile.fingerprint.cpu}, predictions within 10 % on unseen networks: {errors}"


def _space(space: SearchSpace) -> str:
    names = ", ".join(sorted(space.techniques)) or "architectures alone"
    return f"{space.name}: {space.size:,} candidates of {names}"
