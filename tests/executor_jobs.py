"""Functions that executors' workers run; a module of its own, so that they can be imported there."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from automc.errors import CompressionError, ConfigError, MeasurementError


@dataclass(frozen=True)
class Job:
    """do: what the worker does with `number`. mark: a file that counts attempts, one byte each."""

    number: int
    do: str = "square"
    mark: str = ""


@dataclass(frozen=True)
class Factory:
    """Made once per worker: appends a byte to `mark` when it is called."""

    mark: str = ""

    def __call__(self) -> Callable[[Job], int]:
        if self.mark:
            _count(self.mark)
        return work


@dataclass(frozen=True)
class BrokenFactory:
    def __call__(self) -> Callable[[Job], int]:
        raise ConfigError("no such data", next_step="look for it")


def work(job: Job) -> int:
    attempts = _count(job.mark) if job.mark else 0
    match job.do:
        case "nap":
            time.sleep(0.4)
        case "die" | "die once" if job.do == "die" or attempts == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        case "noisy" | "noisy once" if job.do == "noisy" or attempts == 1:
            raise MeasurementError("the device is noisy")
        case "break":
            raise CompressionError("cannot cut here", next_step="cut elsewhere")
        case "bug":
            return _divide(job.number)
        case "threads":
            import torch

            return int(torch.get_num_threads())
        case "environment":
            return int(os.environ["OMP_NUM_THREADS"])
        case "warn":
            warnings.warn("deprecated", DeprecationWarning, stacklevel=2)
        case "imported":
            return int("ray" in sys.modules)
    return job.number * job.number


def _divide(number: int) -> int:
    return number // 0


def _count(mark: str) -> int:
    with Path(mark).open("ab") as file:
        file.write(b".")
    return Path(mark).stat().st_size


def forever() -> None:
    """A main process with two workers that are busy for minutes; prints its Ray processes' ids."""
    import psutil

    from automc.executor import RayExecutor

    executor: RayExecutor[float, None] = RayExecutor(Sleeper())
    executor.submit(300.0)
    executor.submit(300.0)
    time.sleep(1.0)
    children = psutil.Process().children(recursive=True)
    print(" ".join(str(child.pid) for child in children), flush=True)
    executor.next()


@dataclass(frozen=True)
class Sleeper:
    def __call__(self) -> Callable[[float], None]:
        return time.sleep


if __name__ == "__main__":
    forever()
