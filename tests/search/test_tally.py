"""What a watcher is told, and how long it is said to take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from automc.candidate import Candidate, Step
from automc.config import Rung
from automc.search.progress import Tally
from automc.search.provenance import _overlap
from automc.trial import Failure, Figure, Provenance, Trial


def done(name: str, rung: int, seconds: float, steps: int, accuracy: float = 0.5) -> Trial:
    figures = {"accuracy": Figure(accuracy, accuracy, accuracy, "fraction", "measured", n=10)}
    spent = Provenance("w", "h", 1, 0.0, seconds, steps)
    return Trial(Candidate((Step.of(name),)), rung, 0, figures=figures, provenance=spent)  # type: ignore[arg-type]


def test_time_left_is_unknown_until_every_pace_has_been_seen() -> None:
    tally = Tally((Rung(candidates=4, steps=0), Rung(candidates=2, steps=100)), workers=2, rung_total=4)
    assert tally.progress().seconds_left is None
    tally.add(done("a", 0, 3.0, 0))
    assert tally.progress().seconds_left is None
    tally.add(done("reference", 1, 20.0, 100))
    # 3 untrained ones at 3 s, 2 at 100 steps of 0.2 s, on two workers: (9 + 40) / 2
    assert tally.progress().seconds_left == pytest.approx(24.5)


def test_a_rung_that_is_repeated_expects_what_is_new_besides_what_it_has_had() -> None:
    tally = Tally((Rung(candidates=4, steps=0), Rung(candidates=2, steps=100)), workers=1)
    for name in ("a", "b"):
        tally.add(done(name, 1, 1.0, 100))
    tally.rung = 1
    tally.expect(1, 3)  # a second round: `a` stays, three are new
    for name in ("c", "d", "e"):
        tally.add(done(name, 1, 1.0, 100))
    assert (tally.progress().rung_done, tally.progress().rung_total) == (5, 5)


def test_failures_and_the_best_of_the_highest_rung_are_counted() -> None:
    tally = Tally((Rung(candidates=4, steps=0), Rung(candidates=2, steps=100)), workers=1)
    tally.add(done("a", 0, 1.0, 0, accuracy=0.9))
    tally.add(done("b", 1, 1.0, 100, accuracy=0.7))
    tally.add(Trial(Candidate(), 0, 0, failure=Failure("export", "no")))
    snapshot = tally.progress()
    assert (snapshot.evaluated, snapshot.failed) == (3, 1)
    assert snapshot.best == "rung 1: accuracy 0.7000"


def test_the_best_of_errors_is_the_least() -> None:
    tally = Tally((Rung(candidates=4, steps=0),), workers=1)
    for name, error in (("a", 0.4), ("b", 0.2), ("c", 0.3)):
        made = done(name, 0, 1.0, 0, accuracy=error)
        tally.add(replace(made, figures={"accuracy": replace(made["accuracy"], direction="min")}))
    assert tally.progress().best == "rung 0: error 0.2000"


def test_overlap_counts_seconds_with_two_or_more_workers_busy() -> None:
    # 0..4 and 2..6 overlap for 2 s; a third inside adds nothing; 10..11 is alone
    assert _overlap([(0, 4), (2, 6), (2.5, 3), (10, 11)]) == pytest.approx(2.0)
    assert _overlap([(0, 1), (1, 2)]) == 0
