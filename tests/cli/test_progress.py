from __future__ import annotations

import io
import time
from datetime import datetime, timedelta

import pytest

from automc.cli.progress import ProgressDisplay, clock
from automc.search.progress import Progress

SNAPSHOT = Progress(
    stage="searching", message="ran 3f2a", rung=1, rung_done=3, rung_total=12, evaluated=43, screened=7, failed=2,
    best="97.1 % at 0.41 ms", seconds_left=75.0,
)  # fmt: skip


def lines_of(*snapshots: Progress) -> list[str]:
    stream = io.StringIO()
    with ProgressDisplay(stream) as display:
        for snapshot in snapshots:
            display(snapshot)
    return stream.getvalue().splitlines()


def test_a_log_line_tells_counts_best_and_time_left() -> None:
    first = lines_of(SNAPSHOT)[0]
    stamp, searching, rest = first.partition(" [0:00] searching | ")
    assert searching
    assert abs(datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S") - datetime.now()) < timedelta(minutes=1)
    assert rest.startswith("rung 1: 3 of 12 | 43 evaluated, 7 screened out, 2 failed | ")
    assert "best so far: 97.1 % at 0.41 ms" in first
    assert "about 1:15 left" in first or "about 1:14 left" in first
    assert first.endswith("ran 3f2a")


def test_a_log_holds_no_control_characters_whatever_a_message_holds() -> None:
    (line,) = lines_of(Progress("measuring", "\x1b[31mnoisy\x1b[0m:\n  twice\tas slow\r"))
    assert line.endswith("measuring | [31mnoisy[0m: twice as slow")
    assert line.isprintable()


def test_a_terminal_that_cannot_redraw_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    for name, live in (("xterm-256color", True), ("dumb", False)):
        monkeypatch.setenv("TERM", name)
        assert ProgressDisplay(stream).live is live


def test_a_log_is_not_flooded_but_every_stage_is_named() -> None:
    many = [SNAPSHOT] * 1000
    lines = lines_of(Progress("calibrating"), *many, Progress("measuring"))
    stages = [line.split("] ")[1].split(" | ")[0] for line in lines]
    assert stages == ["calibrating", "searching", "measuring"]


def test_a_log_says_now_and_then_that_a_long_training_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automc.cli.progress.ALIVE_EVERY_S", 0.04)
    stream = io.StringIO()
    with ProgressDisplay(stream) as display:
        display(SNAPSHOT)
        deadline = time.monotonic() + 5
        while stream.getvalue().count("\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    lines = stream.getvalue().splitlines()
    assert len(lines) >= 3
    assert all("3 of 12" in line for line in lines)


def test_the_last_state_is_written_on_leaving() -> None:
    lines = lines_of(Progress("searching", rung_total=4, rung_done=1), Progress("searching", rung_total=4, rung_done=3))
    assert [line.split(" | ")[1] for line in lines] == ["rung 0: 1 of 4", "rung 0: 3 of 4"]


def test_unknown_time_left_is_not_a_number() -> None:
    assert not any("left" in line for line in lines_of(Progress("searching", rung_total=4)))


def test_a_terminal_gets_one_block_with_everything_in_it() -> None:
    stream = io.StringIO()
    with ProgressDisplay(stream, live=True) as display:
        display(SNAPSHOT)
    drawn = stream.getvalue()
    for part in ("searching", "━", "43 evaluated, 7 screened out, 2 failed", "best so far", "left", "ran 3f2a"):
        assert part in drawn


def test_clock_is_minutes_and_seconds() -> None:
    assert [clock(0), clock(59.9), clock(75), clock(3600)] == ["0:00", "0:59", "1:15", "60:00"]
