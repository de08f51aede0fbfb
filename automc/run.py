"""A run: the directory with its resolved config, append-only journal, artifacts by content, report and bundle."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import yaml
from pydantic import JsonValue

from automc.config import SearchConfig, dump_config, parse_config
from automc.errors import ConfigError, RunError, RunInterrupted, RunRefused
from automc.journal import Journal
from automc.nearest import nearest
from automc.trial import Figure, Trial

if TYPE_CHECKING:
    from automc.bundle.verify import Bundle
    from automc.config import Rule
    from automc.search.rescoring import Rescored

LOCK = "config.lock.yaml"
_HELD_FOR_A_LOOK_S = 0.2


class ArtifactStore:
    """Files named by the sha256 of their content: writing twice is writing once, and a reader sees all or nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, content: bytes) -> str:
        """Store `content`, durably: once its sha256 (hex) is returned, it survives a power failure.

        A file of that name whose content is damaged is written again. Raises RunError where it cannot be written.
        """
        name = hashlib.sha256(content).hexdigest()
        path = self.folder / name
        try:
            if _digest_of(path) != name:
                _make_folder(self.folder)
                write_durably(path, content)
        except OSError as error:
            raise RunInterrupted(
                f"{path}: cannot be written: {error.strerror}",
                next_step=f"make room, then: automc resume {self.folder.parent}",
            ) from error
        return name

    def get(self, name: str) -> bytes:
        """The content; raises RunError where it is missing or no longer has its hash."""
        path = self.folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RunError(
                f"{path}: artifact is missing: {error.strerror}",
                next_step="restore it, or run the search again: automc search CONFIG --run ANOTHER",
            ) from error
        if hashlib.sha256(content).hexdigest() != name:
            raise RunError(
                f"{path}: artifact is damaged, its sha256 is not its name",
                next_step="restore it, or run the search again: automc search CONFIG --run ANOTHER",
            )
        return content


@dataclass(frozen=True)
class FrontPoint:
    """A finalist with every figure it has: predicted in the search, re-measured on the device, on the test split.

    figures: accuracy and drop_points (validation), test_accuracy, test_drop_points, latency_ms (measured, 10th
    percentile), latency_median_ms, speedup (interleaved with the reference), predicted_latency_ms, energy_mj,
    memory_mb, size_bytes. on_front: no other finalist is at least as good in every objective and better in one.
    """

    trial: Trial
    anchor: str | None
    on_front: bool
    chosen: bool
    figures: Mapping[str, Figure]

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "trial": self.trial.to_json(),
            "anchor": self.anchor,
            "on_front": self.on_front,
            "chosen": self.chosen,
            "figures": {name: figure.to_json() for name, figure in self.figures.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FrontPoint:
        return cls(
            Trial.from_json(value["trial"]), value["anchor"], value["on_front"], value["chosen"],
            {name: Figure(**figure) for name, figure in value["figures"].items()},
        )  # fmt: skip


class Run:
    """One run directory. Hold it open to write (`with Run.create(...)`, `with Run.open(..., writable=True)`)."""

    def __init__(self, folder: Path, config: SearchConfig, lock: Mapping[str, JsonValue], *, writable: bool) -> None:
        self.folder = folder
        self.config = config
        self.lock = lock
        self.artifacts = ArtifactStore(folder / "artifacts")
        self._held: TextIO | None = None
        if writable:
            self._hold()
        try:
            self.journal = Journal(folder / "journal.jsonl", writable=writable)
            if writable:
                _sync_folder(folder)  # the journal's own name: its lines are synced one by one
        except (RunError, OSError):
            if self._held is not None:
                self._held.close()
            raise

    @classmethod
    def create(cls, folder: Path, config: SearchConfig, *, data_root: Path | None) -> Run:
        """A new run directory. Raises RunError where it exists, ConfigError where it cannot be written."""
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder}: is a file, not a folder", next_step="give another folder: --run DIR")
        if folder.exists() and any(folder.iterdir()):
            raise RunRefused(
                f"{folder}: holds a run already; a second run would mix with it",
                next_step=f"automc resume {folder}    (or give another folder: --run {folder}-2)",
            )
        lock: dict[str, JsonValue] = {"data_root": None if data_root is None else str(data_root.resolve())}
        try:
            _make_folder(folder)
            _write_lock(folder, config, lock)
        except OSError as error:
            raise ConfigError(
                f"{folder}: cannot be written: {error.strerror}", next_step="give a writable folder: --run DIR"
            ) from error
        return cls(folder, config, lock, writable=True)

    @classmethod
    def open(cls, folder: Path | str, *, writable: bool = False) -> Run:
        """An existing run. Raises ConfigError where there is none, RunError where it is damaged or another holds it."""
        folder = Path(folder)
        path = folder / LOCK
        if not path.is_file():
            why = f"no {LOCK} in it" if folder.is_dir() else "there is no such folder"
            raise ConfigError(f"{folder}: is not a run ({why})", next_step=_runs_near(folder))
        try:
            documents = list(yaml.safe_load_all(path.read_text()))
            raw, lock = documents
        except (yaml.YAMLError, ValueError) as error:
            raise RunError(
                f"{path}: is damaged: {error}",
                next_step="restore it, or run the search again: automc search CONFIG --run ANOTHER",
            ) from error
        run = cls(folder, parse_config(raw, str(path)), lock, writable=writable)
        if (folder / "front.json").is_file() and not run.journal.events:
            run.close()
            raise RunError(
                f"{folder}: has a front but an empty or missing journal, so nothing proves its figures",
                next_step="restore journal.jsonl, or run the search again: automc search CONFIG --run ANOTHER",
            )
        return run

    @property
    def data_root(self) -> Path | None:
        root = self.lock.get("data_root")
        return Path(root) if isinstance(root, str) else None

    def lock_in(self, key: str, value: JsonValue) -> None:
        """Record in the lock file something that must not change before the run ends."""
        self.lock = {**self.lock, key: value}
        _write_lock(self.folder, self.config, self.lock)

    def trials(self) -> list[Trial]:
        """Every finished trial in the order of completion, without those set aside to be evaluated once more."""
        found: list[Trial] = []
        for record in self.journal.events:
            if record["event"] == "trial":
                found.append(Trial.from_json(_mapping(record["trial"])))
            elif record["event"] == "retrying" and isinstance(record["keys"], list):
                again = record["keys"]
                found = [item for item in found if [item.candidate.id, item.rung, item.seed] not in again]
        return found

    def latest_trial(self) -> Trial:
        """The trial journalled last, as a resumed run would read it."""
        record = self.journal.last("trial")
        if record is None:
            raise RunRefused(f"{self.folder}: no trial yet", next_step=f"automc resume {self.folder}")
        return Trial.from_json(_mapping(record["trial"]))

    @property
    def finished(self) -> bool:
        """Whether all was done that the run was given time for."""
        return self.journal.last("end", after="extended") is not None

    @property
    def missing(self) -> list[str]:
        """What a finished run should hold and does not: it is made anew from the journal and the artifacts."""
        made = ["front.json"]
        if self.journal.last("bundle") is not None:
            made += ["bundle/manifest.json", "report.html"]
        return [name for name in made if not (self.folder / name).is_file()]

    @property
    def has_finalists(self) -> bool:
        """Whether the run has come to an end, this time or before it was extended."""
        return (self.folder / "front.json").is_file()

    def finalists(self) -> list[FrontPoint]:
        """Every re-measured candidate, fastest first. Raises RunError where the run has not come that far."""
        path = self.folder / "front.json"
        if not self.has_finalists:
            going_on = self._held is None and in_use(self.folder)
            raise RunRefused(
                f"{self.folder}: has not ended" + (", another process is running it" if going_on else ""),
                next_step=f"automc runs {self.folder.parent}" if going_on else f"automc resume {self.folder}",
            )
        try:
            return [FrontPoint.from_json(item) for item in json.loads(path.read_text())["points"]]
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path}: is damaged: {error}", next_step=f"delete it, then: automc resume {self.folder}"
            ) from error

    def front(self) -> list[FrontPoint]:
        """The Pareto front over re-measured finalists, fastest first."""
        return [point for point in self.finalists() if point.on_front]

    def choose(self, rule: Rule | str | None = None) -> Trial:
        """The trial that `rule` (None: the config's; or a candidate id) picks among the finalists.

        Raises InfeasibleSearchError naming the binding constraint where none meets them all.
        """
        from automc.search.choice import choose

        return choose(self.finalists(), rule or self.config.choose, self.config.constraints).trial

    def bundle(self, trial: Trial | str, folder: Path | str | None = None) -> Bundle:
        """Write the deployment bundle of a finalist (its own folder under bundle-<id>, unless given).

        trial: the finalist, its id, or a rule as `choose` takes it.
        """
        from automc.search.ending import write_bundle_of

        trial = self.choose(trial) if isinstance(trial, str) else trial
        folder = None if folder is None else Path(folder)
        return write_bundle_of(self, trial, folder or self.folder / f"bundle-{trial.candidate.id}")

    def rescore(
        self,
        profile: str | None = None,
        *,
        rung: int | None = None,
        measure: bool = False,
        insist: bool = False,
        **limits: float | None,
    ) -> Rescored:
        """The run's candidates judged for another device (a profile's name or folder) or other limits, in seconds.

        limits: max_latency_ms=4 and so on, laid over the run's; None lifts one. As `automc.search.rescoring.rescore`.
        """
        from automc.search.rescoring import rescore

        return rescore(self, profile, limits, rung=rung, measure=measure, insist=insist)

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the run whole or not at all."""
        path = self.folder / name
        write_durably(path, text.encode())
        return path

    def close(self) -> None:
        self.journal.close()
        if self._held is not None:
            self._held.close()
            self._held = None

    def discard(self) -> None:
        """Remove the folder of a run in which nothing has happened yet."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _hold(self) -> None:
        """One writer per run: an advisory lock that dies with its process."""
        self._held = (self.folder / ".lock").open("w")
        deadline = time.monotonic() + _HELD_FOR_A_LOOK_S
        while True:
            try:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if time.monotonic() < deadline:  # `in_use` holds it for the moment that it looks
                    time.sleep(0.01)
                    continue
                self._held.close()
                raise RunRefused(
                    f"{self.folder}: another process is running it",
                    next_step=f"wait until it has ended; automc runs {self.folder.parent} shows how far it is",
                ) from error


def in_use(folder: Path) -> bool:
    """Whether a process, this one or another, is writing the run in `folder`."""
    try:
        with (folder / ".lock").open() as held:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _digest_of(path: Path) -> str | None:
    """sha256 (hex) of the file, None where there is none."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Write whole or not at all, whatever interrupts it; on return it survives a power failure. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:  # Ctrl-C among them
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a new name in `folder` last: it is on disk only once the folder itself is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_run(folder: Path | str) -> Run:
    """The run in `folder`, for reading. Raises ConfigError where there is none, RunError where it is damaged."""
    return Run.open(folder)


def _runs_near(folder: Path) -> str:
    """What to type for want of a run in `folder`: the nearest beside it, else the runs there are."""
    roots = [folder, folder.parent, Path("runs")]
    runs = list(dict.fromkeys(path.parent for root in roots for path in sorted(root.glob(f"*/{LOCK}"))))
    if not runs:
        return "automc search CONFIG    (or give the folder of a run: ls runs/)"
    near = nearest(folder.name, [path.name for path in runs])
    shown = ", ".join(str(path) for path in runs[:5])
    return f"give the folder of a run, such as {shown}{near}"


def _write_lock(folder: Path, config: SearchConfig, lock: Mapping[str, JsonValue]) -> None:
    text = dump_config(config) + "---\n" + yaml.safe_dump(dict(lock), sort_keys=False)
    write_durably(folder / LOCK, text.encode())


def _mapping(value: JsonValue) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise RunError("journal: a trial is not an object")
    return value
