"""What of a config can be refused before a run folder exists, and most of it before any data is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from automc.errors import ConfigError, StaleCalibrationError
from automc.evaluate import SelfScored
from automc.nearest import nearest
from automc.techniques import get_technique

if TYPE_CHECKING:
    from automc.config import SearchConfig
    from automc.space import SearchSpace


@dataclass(frozen=True)
class Checked:
    """space: as the config names it. notes: what the user should know and a search is not refused for."""

    space: SearchSpace
    notes: tuple[str, ...]


def check_config(config: SearchConfig, source: str) -> Checked:
    """Everything that needs neither data nor training: names, options, space, profile. source: what errors call it.

    Where `workload.options.model` names the user's own factory, it is imported and called. Raises ConfigError with
    `source` and the key.
    """
    from automc.search.strategies.registry import get_strategy
    from automc.space import SearchSpace
    from automc.workloads.registry import check_options, workload_class

    section = config.workload
    with _at(source, "workload.name"):
        kind = workload_class(section.name)
    with _at(source):
        check_options(section.name, section.options)
    with _at(source, "search.strategy"):
        get_strategy(config.search.strategy)
    with _at(source, "space"):
        space = SearchSpace.load(config.space)
    if kind is not None and issubclass(kind, SelfScored):
        with _at(source):
            _check_told(config, kind)
        return Checked(space, ())
    with _at(source):
        _check_reference(config, space)
    with _at(source, "energy"):
        _check_meter(config)
    with _at(source, "profile"):
        return Checked(space, _profile_notes(config))


def check_names(config: SearchConfig, source: str) -> None:
    """Strategy, space and profile are there, or the profile is to be made.

    Raises ConfigError with `source`, the key and the nearest name.
    """
    from automc.profiles import profile_folder
    from automc.search.strategies.registry import get_strategy
    from automc.space import SearchSpace

    with _at(source, "search.strategy"):
        get_strategy(config.search.strategy)
    with _at(source, "space"):
        SearchSpace.load(config.space)
    if not _calibrates(config):
        with _at(source, "profile"):
            profile_folder(config.profile)


def check(config: SearchConfig, data_root: Path | None) -> None:
    """As a search does before its run folder exists: the workload is made, so files are looked for as well.

    Raises ConfigError; StaleCalibrationError where the profile is another machine's and may not be calibrated anew.
    """
    from automc.search.strategies.registry import get_strategy
    from automc.space import SearchSpace
    from automc.workloads.registry import create_workload

    workload = create_workload(config.workload.name, config.workload.options, data_root)
    space = SearchSpace.load(config.space)
    get_strategy(config.search.strategy)
    if isinstance(workload, SelfScored):
        _check_told(config, workload)
        return
    _check_reference(config, space)
    with _at("", "energy"):
        _check_meter(config)
    problem = _profile_problem(config)
    if problem is None:
        check_limits(config)
    elif not _calibrates(config):
        raise problem


def check_limits(config: SearchConfig) -> None:
    """Raises ConfigError where predictions of a profile that only ranks networks would decide limits."""
    from automc.profiles import load_profile

    limits = [key for key in ("max_latency_ms", "max_energy_mj") if getattr(config.constraints, key) is not None]
    profile = load_profile(config.profile)
    use, why = profile.good_for()
    if limits and use == "rank only" and not config.insist:
        raise ConfigError(
            f"constraints: {' and '.join(limits)} cannot be judged by profile {config.profile}, which ranks networks "
            f"and no more: {why}",
            next_step=f"automc profile calibrate {profile.name} on a calm machine; leave the limit out and choose "
            "by what finalists measured (automc front RUN --max-latency-ms MS); or insist with --insist",
        )


def _check_told(config: SearchConfig, workload: SelfScored | type) -> None:
    """A workload that scores itself tells every objective: it would be found out at the first trial."""
    told = told_by(workload)
    for name in config.objectives:
        if told is not None and name not in told:
            raise ConfigError(
                f"objectives: {name} is asked for, but workload {config.workload.name} does not tell it "
                f"(it tells: {', '.join(sorted(told))})",
                next_step=f"leave {name} out of `objectives`",
            )


def told_by(workload: object) -> frozenset[str] | None:
    """The figures that a workload, or its class, tells where it scores candidates itself; None: it does not say."""
    told: frozenset[str] | None = getattr(workload, "tells", None)
    return told


def _check_reference(config: SearchConfig, space: SearchSpace) -> None:
    """Drops have something to be counted from, and whoever needs a teacher has one."""
    reference = next((anchor for anchor in space.anchors if anchor.name == "reference"), None)
    if reference is None:
        raise ConfigError(
            f"{space.where}: has no anchor `reference`, which drops and speed-ups are counted from",
            next_step="list a technique under `recovery`, for example fine_tune",
        )
    taught = [name for name in space.techniques if getattr(get_technique(name), "needs_teacher", False)]
    if config.teacher == "none" and taught:
        raise ConfigError(
            f"{space.where}: {', '.join(taught)} needs a teacher, and the config has `teacher: none`",
            next_step="set `teacher: reference`, or leave it out of the space",
        )
    own = [step.technique for step in reference.candidates[0].steps if step.technique in taught]
    if config.teacher == "reference" and own:
        raise ConfigError(
            f"{space.where}: the reference would be trained by {own[0]}, whose teacher is the reference itself",
            next_step="list fine_tune first under `recovery`: the reference is recovered by the first one",
        )


def _check_meter(config: SearchConfig) -> None:
    """A power meter's file is one, and has readings in it: hours later would be late to find out."""
    if config.energy in ("auto", "model"):
        return
    from automc.measure.meter import MeterFile

    if not Path(config.energy).is_file():
        raise ConfigError(
            f"{config.energy}: no such file{nearest(config.energy, ('auto', 'model'))}",
            next_step="write auto, model, or the CSV file that a power meter is writing (see `automc bench --help`)",
        )
    MeterFile(Path(config.energy))


def _calibrates(config: SearchConfig) -> bool:
    """Whether a search may calibrate its profile itself."""
    return config.profile == "host" and config.calibrate != "never"


def _profile_problem(config: SearchConfig) -> ConfigError | StaleCalibrationError | None:
    from automc.measure.fingerprint import check_fingerprint
    from automc.profiles import load_profile

    try:
        check_fingerprint(load_profile(config.profile))
    except (ConfigError, StaleCalibrationError) as error:
        return error
    return None


def _profile_notes(config: SearchConfig) -> tuple[str, ...]:
    """Raises ConfigError where there is no such profile and none will be made.

    One of another machine is a note: the config may be meant for that machine.
    """
    problem = _profile_problem(config)
    if problem is None:
        check_limits(config)
        return ()
    if _calibrates(config):
        return (f"profile {config.profile} is calibrated first ({config.calibrate}): {problem.message}",)
    if isinstance(problem, ConfigError):
        raise problem
    return (f"a search on this machine would be refused: {problem.message}",)


@contextmanager
def _at(source: str, key: str = "") -> Iterator[None]:
    """Names the file, and the key, in front of a ConfigError that does not."""
    try:
        yield
    except ConfigError as error:
        where = ": ".join(part for part in (source, key) if part)
        raise ConfigError(f"{where}: {error.message}", next_step=error.next_step) from error
