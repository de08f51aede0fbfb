"""Who evaluates: this process, or long-lived Ray workers. The only file that imports Ray.

Both give the same results in the end, not in the same order: `next` hands out whichever job finished first.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from automc.errors import MeasurementError, RunError, RunInterrupted

J = TypeVar("J")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

RETRIES = 2
"""How often a job is started again after its worker died or its device was too noisy."""
_OBJECT_STORE_BYTES = 100 * 2**20  # jobs and trials are a few kB; Ray's floor is 75 MB
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_POLL_S = 0.5  # how long a wait may hold up Ctrl-C
_CPUS_WITHIN_S = 5.0  # a worker that was just stopped gives its processor back within a second or two
_REACH_WITHIN_S = 5.0
_FOLDER_PREFIX = "amc-"
_LONGEST_FOLDER = 40  # characters; Ray's socket names add 60, and a Unix socket's may have 107


@dataclass(frozen=True)
class WorkerInfo:
    """Who did a job and when. seconds: within the worker, without transport."""

    worker: str
    host: str
    pid: int
    started_unix_s: float
    seconds: float


class Executor(Protocol[J, R_co]):
    """Evaluates jobs. The function that does so is made once per worker, by a factory that can be pickled.

    A job whose worker dies (a signal, out of memory) or which raises MeasurementError is started again, RETRIES times
    at most, then RunError is raised. Whatever else it raises is raised by `next`, with the worker's traceback chained.
    """

    workers: int

    def submit(self, job: J) -> None:
        """Queue `job`; it starts as soon as a worker is free."""
        ...

    def next(self) -> tuple[J, R_co, WorkerInfo]:
        """Wait for any submitted job to finish. Raises RunError where none is left."""
        ...

    def close(self) -> None:
        """Stop the workers; what is unfinished is lost. May be called twice."""
        ...


class WorkerTraceback(Exception):
    """The traceback of an error as its worker saw it; the cause of what `next` raises."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class InlineExecutor(Generic[J, R]):
    """One worker, this process: jobs run one after the other, within `next`. For tests and debugging."""

    workers = 1

    def __init__(self, factory: Callable[[], Callable[[J], R]], threads: int = 1) -> None:
        """threads: of torch while jobs run, as a Ray worker would have, so that both compute the same."""
        self._worker = _Worker(factory, threads, "inline")
        self._jobs: deque[J] = deque()

    def submit(self, job: J) -> None:
        self._jobs.append(job)

    def next(self) -> tuple[J, R, WorkerInfo]:
        if not self._jobs:
            raise RunError("no job was submitted that is not finished")
        job = self._jobs.popleft()
        for attempt in range(RETRIES + 1):
            try:
                with _threads_of_torch(self._worker.threads):
                    return (job, *self._worker.run(job))
            except MeasurementError as error:
                if attempt == RETRIES:
                    raise _gave_up(job, error.message) from error
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._jobs.clear()


class RayExecutor(Generic[J, R]):
    """Long-lived Ray workers on a local Ray that it starts and stops by itself, or on the cluster at `address`.

    A local Ray listens on 127.0.0.1 alone, asks for a token made for this process, reports nothing to anyone and writes
    nothing but a temporary folder. A Ray that this process already runs is used as it is and left running.
    """

    def __init__(
        self,
        factory: Callable[[], Callable[[J], R]],
        workers: int = 2,
        threads: int = 1,
        address: str | None = None,
    ) -> None:
        """threads: of torch and OpenMP in each worker. Raises RunError where Ray cannot be started or reached."""
        self.workers = workers
        self._factory, self._threads = factory, threads
        self._waiting: deque[_Attempt[J]] = deque()
        self._running: dict[Any, tuple[_Attempt[J], int]] = {}
        self._actors: dict[int, Any] = {}
        self._idle: deque[int] = deque(range(workers))
        self._session = _RaySession(workers * threads, address)
        if not self._session.owned or address is not None:
            _require_cpus(workers * threads, self._session)

    def submit(self, job: J) -> None:
        self._waiting.append(_Attempt(job))
        self._start()

    def next(self) -> tuple[J, R, WorkerInfo]:
        import ray

        while self._running:
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=_POLL_S)
            if not ready:
                self._session.require_node()
                continue
            attempt, number = self._running.pop(ready[0])
            self._idle.append(number)
            try:
                result, info = ray.get(ready[0])
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                if not isinstance(cause, MeasurementError):
                    self._start()
                    raise _from_worker(error) from WorkerTraceback(_COLOUR.sub("", str(error)))
                self._again(attempt, cause.message, cause)
            except (
                ray.exceptions.RayActorError,
                ray.exceptions.WorkerCrashedError,
                ray.exceptions.OutOfMemoryError,
            ) as error:
                self._kill(number)
                self._again(attempt, f"its worker died: {error}", error)
            else:
                self._start()
                return attempt.job, result, info
        raise RunError("no job was submitted that is not finished")

    def close(self) -> None:
        with undisturbed():
            if self._session.open:
                for number in list(self._actors):
                    self._kill(number)
            self._waiting.clear()
            self._running.clear()
            self._session.close()

    def _start(self) -> None:
        while self._waiting and self._idle:
            attempt, number = self._waiting.popleft(), self._idle.popleft()
            if number not in self._actors:
                self._actors[number] = self._hire(number)
            self._running[self._actors[number].run.remote(attempt.job)] = (attempt, number)

    def _hire(self, number: int) -> Any:
        import ray

        kind = ray.remote(num_cpus=self._threads, max_restarts=0, max_task_retries=0)(_Worker)
        return kind.remote(self._factory, self._threads, f"ray-{number}")

    def _kill(self, number: int) -> None:
        import ray

        ray.kill(self._actors.pop(number))

    def _again(self, attempt: _Attempt[J], reason: str, error: BaseException) -> None:
        attempt.failures += 1
        if attempt.failures > RETRIES:
            raise _gave_up(attempt.job, reason) from error
        self._waiting.appendleft(attempt)
        self._start()


@dataclass
class _Attempt(Generic[J]):
    job: J
    failures: int = 0


class _Worker(Generic[J, R]):
    """What lives in a worker: the function that evaluates, made when the first job comes and kept."""

    def __init__(self, factory: Callable[[], Callable[[J], R]], threads: int, name: str) -> None:
        self.threads, self._factory, self._name = threads, factory, name
        self._evaluate: Callable[[J], R] | None = None
        if name != "inline":  # its own process; before torch is imported there
            for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
                os.environ[variable] = str(threads)

    def run(self, job: J) -> tuple[R, WorkerInfo]:
        started, clock = time.time(), time.perf_counter()
        if self._evaluate is None:
            self._evaluate = self._factory()
        torch = sys.modules.get("torch")
        if torch is not None and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        result = self._evaluate(job)
        seconds = time.perf_counter() - clock
        return result, WorkerInfo(self._name, socket.gethostname(), os.getpid(), started, seconds)


def _gave_up(job: object, reason: str) -> RunError:
    return RunError(
        f"gave up after {RETRIES + 1} attempts at {job}: {reason}",
        next_step="mend the cause (free memory, a quiet device), then resume the run; finished trials are kept",
    )


def _from_worker(error: Any) -> BaseException:
    """The error as it was raised in the worker; Ray's own wrapper where it could not be carried over."""
    cause = error.cause
    return cause if isinstance(cause, BaseException) else error


@contextmanager
def _threads_of_torch(threads: int) -> Iterator[None]:
    """Give torch, where it is imported, its own number of threads back afterwards."""
    torch = sys.modules.get("torch")
    before = None if torch is None else torch.get_num_threads()
    try:
        yield
    finally:
        if torch is not None and before is not None:
            torch.set_num_threads(before)


# --- Ray as a guest in this process ---------------------------------------------------------------------------------

_TOKEN = ""


def _token() -> str:
    """Ray keeps the first token a process gave it, so there is one per process; it never touches the disk."""
    global _TOKEN
    _TOKEN = _TOKEN or secrets.token_hex(32)
    return _TOKEN


class _RaySession:
    """A Ray that runs while it is open: started here, joined at an address, or found running (and then left alone)."""

    def __init__(self, cpus: int, address: str | None) -> None:
        self._folder: Path | None = None
        self._environment: dict[str, str | None] = {}
        self.open = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's own, about itself
            if address is None and not _ray_is_running():
                self._begin_environment()
            import ray

            self.owned = not ray.is_initialized()
            if self.owned:
                try:
                    self._join(address) if address is not None else self._begin(cpus)
                except KeyboardInterrupt:
                    with undisturbed():
                        self._end()
                    raise
                except (ConnectionError, RuntimeError, OSError, ValueError) as error:
                    self._end()
                    raise RunError(
                        f"Ray could not be {'reached at ' + address if address else 'started'}: {error}",
                        next_step="run without it: executor.kind: inline",
                    ) from error
        self.open = True

    def require_node(self) -> None:
        """Raises RunError where no node is left: Ray itself would wait for ever for what runs there."""
        import ray

        if not any(node["Alive"] for node in ray.nodes()):  # type: ignore[no-untyped-call]
            self.open = False  # nothing answers any more; `close` must not wait for it either
            self._end()
            raise RunInterrupted(
                "Ray died, and every worker with it (out of memory, or something stopped its processes)",
                next_step="automc resume RUN: finished trials are kept",
            )

    def close(self) -> None:
        """Stop what was started here."""
        if self.open:
            self.open = False
            self._end()

    def _end(self) -> None:
        if self.owned:
            import ray

            ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._environment.clear()

    def _begin_environment(self) -> None:
        """What Ray and its processes read from the environment; the old values come back on close."""
        wanted = {
            # Ray turns a loopback address into that of a network interface, unless it thinks that clusters are off.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": _token(),  # else Ray makes one and writes it into the home folder
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_enable_metrics_collection": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "PYTHONPATH": os.pathsep.join(_import_folders()),
            "PYTHONWARNINGS": "",
        }
        for name in ("RAY_CLIENT_MODE", "PYTHONBREAKPOINT"):  # Ray sets them itself, once its nodes are asked for
            self._environment[name] = os.environ.get(name)
        for name, value in wanted.items():
            self._environment[name] = os.environ.get(name)
            os.environ[name] = value

    def _begin(self, cpus: int) -> None:
        import ray

        _sweep_temporary_folder()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{os.getpid()}-", dir=_short_temporary_folder()))
        with _signals_kept():
            ray.init(
                num_cpus=cpus,
                num_gpus=0,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                configure_logging=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(self._folder),
            )
        found = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        if not ipaddress.ip_address(found).is_loopback:
            raise RuntimeError(f"it listens on {found}, not on the loopback address alone (Ray was imported before)")

    def _join(self, address: str) -> None:
        import ray

        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host and port.isdigit():  # Ray itself would try for a minute and then abort the process
            socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_WITHIN_S).close()
        with _signals_kept():
            ray.init(address=address, log_to_driver=False, configure_logging=False)


def _require_cpus(wanted: int, session: _RaySession) -> None:
    """Raises RunError where the Ray at hand has too few free processors: workers would wait for ever, in silence."""
    import ray

    deadline = time.monotonic() + _CPUS_WITHIN_S
    while True:
        free = ray.available_resources().get("CPU", 0.0)  # type: ignore[no-untyped-call]
        if free >= wanted:
            return
        if time.monotonic() > deadline:
            session.close()
            raise RunError(
                f"{wanted} processors are wanted (workers x threads), but the Ray in use has {free:g} free",
                next_step="lower executor.workers, or leave executor.address out to use this machine",
            )
        time.sleep(_POLL_S)


def _ray_is_running() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _import_folders() -> list[str]:
    """Where this process imports from besides Python's own folders, so that workers find the same modules."""
    own = (sys.prefix, sys.base_prefix)
    return [folder for folder in (entry or str(Path.cwd()) for entry in sys.path) if not folder.startswith(own)]


def _short_temporary_folder() -> str:
    usual = tempfile.gettempdir()
    return usual if len(usual) <= _LONGEST_FOLDER or not Path("/tmp").is_dir() else "/tmp"


def _sweep_temporary_folder() -> None:
    """Remove what runs that were killed left behind: folders that name a process which is no more."""
    for folder in Path(_short_temporary_folder()).glob(f"{_FOLDER_PREFIX}*-*"):
        number = folder.name.split("-")[1]
        if number.isdigit() and not Path("/proc", number).exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """While Ray starts: its SIGTERM handler does not replace ours, and Ctrl-C, which a callback may swallow, waits."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    terminate, interrupt, seen = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), list[int]()
    if callable(interrupt):  # else the process ignores it, as one in the background may
        signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGINT, interrupt)
    if seen:
        raise KeyboardInterrupt


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C, by somebody who finds that stopping takes long, must not leave half of Ray running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
