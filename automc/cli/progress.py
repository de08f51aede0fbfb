"""Shows a running search: a live block on a terminal, a line now and then in a log. Writes to stderr alone."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from automc.search.progress import Progress

LOG_EVERY_S = 5.0
ALIVE_EVERY_S = 60.0  # however long one candidate trains, the log says that it does
BAR_WIDTH = 24
_CANNOT_REDRAW = ("", "dumb", "unknown")  # what an editor's shell or a recorder calls its terminal


class ProgressDisplay:
    """A watcher of `automc.search`. Enter it to start drawing; call it with every snapshot.

    stream: where to draw. live: redraw one block instead of writing lines; by default where the stream is a terminal
    that can. A line of a log has the date and time, the time since the command began, and no control characters.
    """

    def __init__(self, stream: TextIO | None = None, *, live: bool | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty() and os.environ.get("TERM") not in _CANNOT_REDRAW if live is None else live
        self._block: Live | None = None
        self._latest: Progress | None = None
        self._started = self._latest_at = time.monotonic()
        self._logged = float("-inf")
        self._logged_stage = ""
        self._shown: Progress | None = None
        self._left = threading.Event()
        self._alive = threading.Thread(target=self._say_alive, name="automc-progress", daemon=True)

    def __enter__(self) -> ProgressDisplay:
        self._started = time.monotonic()
        if self.live:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self.stream)
            self._block = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=False)
            self._block.start()
        else:
            self._alive.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if self._block is not None:
            self._block.stop()
            self._block = None
        elif self._latest is not None and self._latest is not self._shown:
            self._log(self._latest)

    def __call__(self, progress: Progress) -> None:
        self._latest, self._latest_at = progress, time.monotonic()
        if self._block is not None:
            return
        now = time.monotonic()
        if progress.stage != self._logged_stage or now - self._logged >= LOG_EVERY_S:
            self._log(progress)

    def _log(self, progress: Progress) -> None:
        line = " | ".join(part for part in (progress.stage, *self._parts(progress), progress.message) if part)
        line = "".join(letter for letter in " ".join(line.split()) if letter.isprintable())
        now, elapsed = time.strftime("%Y-%m-%d %H:%M:%S"), clock(time.monotonic() - self._started)
        print(f"{now} [{elapsed}] {line}", file=self.stream, flush=True)
        self._logged, self._logged_stage, self._shown = time.monotonic(), progress.stage, progress

    def _say_alive(self) -> None:
        while not self._left.wait(ALIVE_EVERY_S / 4):
            if self._latest is not None and time.monotonic() - self._logged >= ALIVE_EVERY_S:
                self._log(self._latest)

    def _parts(self, progress: Progress) -> list[str]:
        parts = []
        if progress.rung_total:
            parts.append(f"rung {progress.rung}: {progress.rung_done} of {progress.rung_total}")
        parts.append(
            f"{progress.evaluated} evaluated, {progress.screened} screened out, {progress.failed} failed"
            if progress.evaluated or progress.screened or progress.failed
            else ""
        )
        parts.append(f"best so far: {progress.best}" if progress.best else "")
        if progress.seconds_left is not None and progress.stage != "done":
            left = max(0.0, progress.seconds_left - (time.monotonic() - self._latest_at))
            parts.append(f"about {clock(left)} left")
        return parts

    def _render(self) -> Text:
        from rich.text import Text

        elapsed = clock(time.monotonic() - self._started)
        progress = self._latest
        if progress is None:
            return Text(f"{elapsed}  starting")
        head = Text(f"{elapsed}  {progress.stage:<11} ", style="bold")
        if progress.rung_total:
            done = round(BAR_WIDTH * min(1.0, progress.rung_done / progress.rung_total))
            head.append("━" * done, style="green")
            head.append("━" * (BAR_WIDTH - done), style="dim")
            head.append(" ")
        lines = [head, *(Text("       " + part) for part in (*self._parts(progress), progress.message) if part)]
        return Text("\n").join(lines)


def clock(seconds: float) -> str:
    """Minutes and seconds: 75 is 1:15."""
    whole = int(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
