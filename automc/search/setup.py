"""Everything a search needs before its first candidate: workload, calibrated profile, space, screener, baseline."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from automc.constraints import Limit, limits_of, needed_of
from automc.errors import (
    ConfigError,
    ExportError,
    MeasurementError,
    ParityError,
    RunError,
    StaleCalibrationError,
    UnseenOperatorError,
)
from automc.evaluate import Evaluator, SelfScored, TellsCosts, evaluator_of
from automc.run import Run
from automc.search.checking import check_limits
from automc.search.progress import Progress, Watcher
from automc.search.screening import Screener
from automc.sources import site_of_error

if TYPE_CHECKING:
    from torch import nn

    from automc.config import SearchConfig
    from automc.profiles import HardwareProfile
    from automc.space import SearchSpace
    from automc.workloads.workload import Workload

T = TypeVar("T")
TRIES = 3


@runtime_checkable
class HasDigests(Protocol):
    """A workload that reads data, and can say by sha256 which."""

    def digests(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class Prepared:
    """What the loop runs on. evaluator and screener are None for a workload that scores its candidates itself.

    costs: who predicts costs of many candidates at once; None where nobody does so cheaply.
    """

    space: SearchSpace
    limits: tuple[Limit, ...]
    evaluator: Evaluator | None
    screener: Screener | None
    costs: TellsCosts | None = None


def prepare(run: Run, watch: Watcher) -> Prepared:
    """Check what the user gave, calibrate where asked, lock what must not change. Resuming checks it is still so.

    Raises ConfigError, StaleCalibrationError, RunError (data or base changed since the run began).
    """
    from automc.space import SearchSpace

    config = run.config
    watch(Progress("preparing", "reading the model and its data"))
    workload = workload_of(run)
    space = SearchSpace.load(config.space)
    limits = limits_of(config.constraints)
    _lock_space(run, space)
    if isinstance(workload, HasDigests):
        _lock_data(run, workload)
    if isinstance(workload, SelfScored):
        return Prepared(space, limits, None, None, workload if isinstance(workload, TellsCosts) else None)
    _lock_profile(run, watch)
    evaluator = Evaluator(config, workload, run.artifacts, run.folder / "profile", run.folder / "cache")
    _measure_baseline(run, evaluator, watch)
    return Prepared(space, limits, evaluator, Screener(evaluator, limits, config.search.seed, needed_of(config)))


def _lock_space(run: Run, space: SearchSpace) -> None:
    locked = run.lock.get("space")
    if locked is None:
        run.lock_in("space", space.digest)
    elif locked != space.digest:
        raise RunError(
            f"{run.folder}: {space.where} changed since the run began (its digest differs)",
            next_step="restore it, or start a new run",
        )


def workload_of(run: Run) -> Workload:
    """The run's workload over the data folder of its lock file. Raises ConfigError where that is no longer there."""
    from automc.workloads.registry import create_workload

    section, root = run.config.workload, run.data_root
    try:
        return create_workload(section.name, section.options, root)
    except ConfigError as error:
        if root is None or root.is_dir():
            if run.lock.get("digests") is None:
                raise
            raise ConfigError(
                error.message,
                next_step=f"put it back, or name its new folder: automc resume {run.folder} --data-root DIR",
            ) from error
        raise ConfigError(
            f"{root}: is no longer there; the run {run.folder} read its data from it",
            next_step=f"automc resume {run.folder} --data-root DIR",
        ) from error


def move_data(run: Run, data_root: Path) -> None:
    """Have the run read its data from `data_root` from now on.

    Raises ConfigError where files are missing, or any digest differs from the lock file's; nothing is changed then.
    """
    from automc.workloads.registry import create_workload

    workload = create_workload(run.config.workload.name, run.config.workload.options, data_root)
    if run.lock.get("digests") is not None and isinstance(workload, HasDigests):
        changed = _changed(run, workload.digests())
        if changed:
            raise ConfigError(
                f"{data_root}: is not the data that {run.folder} began with: {', '.join(changed)} differ (sha256)",
                next_step="give the folder those data were moved to, or start a new run",
            )
    run.lock_in("data_root", str(data_root.resolve()))


def _lock_data(run: Run, workload: HasDigests) -> None:
    digests = workload.digests()
    if run.lock.get("digests") is None:
        run.lock_in("digests", dict(digests))
        return
    changed = _changed(run, digests)
    if changed:
        raise RunError(
            f"{run.folder}: {', '.join(changed)} changed since the run began (the digests differ)",
            next_step="restore them, or start a new run",
        )


def _changed(run: Run, digests: dict[str, str]) -> list[str]:
    """Names whose digest is not the one in the lock file."""
    locked = run.lock.get("digests")
    known = locked if isinstance(locked, dict) else {}
    return [key for key in sorted({*digests, *known}) if known.get(key) != digests.get(key)]


def _lock_profile(run: Run, watch: Watcher) -> None:
    """Copy the profile into the run, calibrating this host first where the config says so."""
    from automc.profiles import load_profile, profile_folder

    target = run.folder / "profile"
    if (target / "profile.yaml").is_file():
        _require_same_machine(run, load_profile(str(target)))
        return
    _usable_profile(run.config, watch)
    part = run.folder / ".profile.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for file in profile_folder(run.config.profile).iterdir():
        if file.is_file():
            shutil.copyfile(file, part / file.name)  # copytree would hide what the disk answered
    part.replace(target)
    run.journal.append("profile", digest=load_profile(str(target)).calibration_digest)


def _require_same_machine(run: Run, profile: HardwareProfile) -> None:
    """Raises StaleCalibrationError where this is not the machine the run began on: their figures would mix."""
    from automc.measure.fingerprint import check_fingerprint

    try:
        check_fingerprint(profile)
    except StaleCalibrationError as error:
        raise StaleCalibrationError(
            f"{run.folder}: {error.message}",
            next_step="resume it on the machine it began on, as that was, or start a new run",
        ) from error


def _usable_profile(config: SearchConfig, watch: Watcher) -> None:
    from automc.measure.calibrate import calibrate_host
    from automc.measure.fingerprint import check_fingerprint
    from automc.profiles import load_profile

    try:
        check_fingerprint(load_profile(config.profile))
        return
    except (ConfigError, StaleCalibrationError):
        if config.profile != "host" or config.calibrate == "never":
            raise
    watch(Progress("calibrating", f"measuring this host ({config.calibrate})"))
    made = calibrate_host(
        mode=config.calibrate, progress=lambda stage, share: watch(Progress("calibrating", f"{stage} {share:.0%}"))
    )
    use, why = made.good_for()
    check_limits(config)
    if use == "rank only":
        watch(Progress("calibrating", f"predictions will rank candidates and no more ({why}): this machine is busy"))


def _measure_baseline(run: Run, evaluator: Evaluator, watch: Watcher) -> None:
    """Journal the base as it came: accuracy, measured and predicted latency, size; the noise check of the machine."""
    if run.journal.last("baseline") is not None:
        return
    from automc.export import check_parity, export_onnx, onnx_bytes
    from automc.measure.timing import measure_interleaved

    watch(Progress("preparing", "exporting and measuring the base"))
    workload, profile = evaluator.workload, evaluator.profile
    batch = next(iter(workload.split("calibration").batches(8)))
    with _blamed(evaluator.base):
        graph = export_onnx(evaluator.base, workload.example_inputs())
        check_parity(evaluator.base, graph, batch.inputs)
    scores = evaluator.scores(graph, "validation")
    try:
        figures = evaluator.figures(graph, scores, 0)
    except UnseenOperatorError as error:
        raise UnseenOperatorError(
            error.message,
            next_step="automc doctor with the same config or options and --calibrate, which measures and adds them; "
            "or leave predicted costs out of objectives and constraints",
        ) from error
    content = onnx_bytes(graph)
    timing = patiently(lambda: measure_interleaved({"base": content}, profile, runs=profile.protocol.runs))["base"]
    run.journal.append(
        "baseline",
        figures={name: figure.to_json() for name, figure in figures.items()},
        measured_p10_ms=timing.p10_ms,
        measured_median_ms=timing.median_ms,
        onnx=run.artifacts.put(content),
    )


@contextmanager
def _blamed(base: nn.Module) -> Iterator[None]:
    """The base's own faults, which no candidate can be better than: the user's to mend, with their line."""
    try:
        yield
    except (ExportError, ParityError) as error:
        site = site_of_error(error, base)
        where = f" in {site}" if str(site) else ""
        code = f"\n    {site.code}" if site.code else ""
        raise ConfigError(
            f"workload: the network as given cannot be deployed{where}: {error.message.splitlines()[0]}{code}",
            next_step=f"{error.next_step or 'mend it'}; automc doctor says what else it will meet",
        ) from error


def patiently(measure: Callable[[], T]) -> T:
    """`measure()`, tried again where the machine was too noisy; the last MeasurementError passes."""
    for _ in range(TRIES - 1):
        try:
            return measure()
        except MeasurementError:
            continue
    return measure()


def data_root_of(given: Path | str | None) -> Path | None:
    """The data folder: as given, else $AUTOMC_DATA, else none. Raises ConfigError where it is not a folder."""
    import os

    chosen = given or os.environ.get("AUTOMC_DATA")
    if not chosen:
        return None
    path = Path(chosen)
    if not path.is_dir():
        raise ConfigError(f"{path}: is not a folder", next_step="give the folder of the data: --data-root DIR")
    return path


__all__ = ["Prepared", "data_root_of", "evaluator_of", "patiently", "prepare"]
