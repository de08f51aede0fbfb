"""Constraints in three values, the declared rule, and what is said when nothing meets them."""

from __future__ import annotations

import pytest

from automc.candidate import Candidate, Step
from automc.config import Constraints
from automc.constraints import Limit, Verdict
from automc.errors import ConfigError, InfeasibleSearchError
from automc.run import FrontPoint
from automc.search.choice import Prospect, choose
from automc.trial import Figure, Trial


def point(name: str, *, accuracy: float, latency: float, drop: float, size: float = 100.0) -> FrontPoint:
    figures = {
        "accuracy": Figure(accuracy, accuracy, accuracy, "fraction", "measured", n=10),
        "drop_points": Figure(drop, drop - 1, drop + 1, "points", "measured", n=10),
        "latency_ms": Figure(latency, latency, latency, "ms", "measured", n=10),
        "size_bytes": Figure(size, size, size, "bytes", "measured", n=1),
    }
    trial = Trial(Candidate((Step.of(name),)), 2, 0, figures=figures)  # type: ignore[arg-type]
    return FrontPoint(trial, None, True, False, figures)


ACCURATE = point("a", accuracy=0.95, latency=4.0, drop=0.0)
MIDDLE = point("b", accuracy=0.945, latency=2.0, drop=0.5)
FAST = point("c", accuracy=0.90, latency=1.0, drop=5.0)


def test_a_limit_is_met_broken_or_unknown() -> None:
    limit = Limit("latency_ms", 2.0)
    assert limit.judge(MIDDLE.figures["latency_ms"]) is Verdict.MET
    assert limit.judge(ACCURATE.figures["latency_ms"]) is Verdict.BROKEN
    assert limit.judge(None) is Verdict.UNKNOWN


def test_only_a_whole_interval_beyond_the_limit_is_certainly_broken() -> None:
    limit = Limit("drop_points", 1.0)
    assert not limit.certainly_broken(Figure(1.5, 0.9, 2.1, "points", "predicted"))
    assert limit.certainly_broken(Figure(2.0, 1.1, 2.9, "points", "predicted"))


def test_the_fastest_within_the_drop_is_chosen_by_the_point_estimate() -> None:
    assert choose([ACCURATE, MIDDLE, FAST], "fastest", Constraints(max_drop_points=0.5)) is MIDDLE
    assert choose([ACCURATE, MIDDLE, FAST], "fastest", Constraints()) is FAST
    assert choose([ACCURATE, MIDDLE, FAST], "most_accurate", Constraints()) is ACCURATE


def test_of_two_alike_in_what_the_rule_chooses_by_the_smaller_then_the_one_predicted_faster_is_taken() -> None:
    large = point("a", accuracy=0.9, latency=0.5, drop=0.0)
    small = point("b", accuracy=0.9, latency=1.0, drop=0.0, size=50.0)
    fast = point("c", accuracy=0.9, latency=1.0, drop=0.0, size=50.0)
    fast.figures["predicted_latency_ms"] = Figure(0.4, 0.3, 0.5, "ms", "predicted")
    assert choose([large, small], "most_accurate", Constraints()) is small
    assert choose([large, small, fast], "most_accurate", Constraints()) is fast
    assert choose([small, fast], "smallest", Constraints()) is fast


def test_the_knee_lies_nearest_to_the_best_of_both() -> None:
    # scaled (latency, loss): a (1, 0), b (1/3, 0.1), c (0, 1): squared distances 1, 0.121, 1
    assert choose([ACCURATE, MIDDLE, FAST], "knee", Constraints()) is MIDDLE


def test_an_id_chooses_itself_whatever_the_limits() -> None:
    assert choose([ACCURATE, FAST], FAST.trial.candidate.id, Constraints(max_drop_points=0.1)) is FAST


def test_an_unknown_figure_never_meets_a_limit() -> None:
    with pytest.raises(InfeasibleSearchError, match="energy_mj"):
        choose([MIDDLE], "fastest", Constraints(max_energy_mj=1.0))


def test_nothing_feasible_names_the_binding_limit_by_how_much_and_the_closest() -> None:
    with pytest.raises(InfeasibleSearchError) as caught:
        choose([ACCURATE, MIDDLE], "fastest", Constraints(max_latency_ms=1.5))
    message = str(caught.value)
    assert "latency_ms <= 1.5" in message
    assert "0.5 too much" in message  # 2.0 - 1.5
    assert MIDDLE.trial.candidate.id in message
    assert caught.value.exit_code == 3


def prospect(name: str, latency: float) -> Prospect:
    figure = Figure(latency, latency - 0.1, latency + 0.1, "ms", "predicted")
    return Prospect(Candidate((Step.of(name),)), {"latency_ms": figure}, "screened out before training")


def test_a_candidate_screened_out_that_is_predicted_closer_than_any_finalist_is_named_with_its_prediction() -> None:
    limits = Constraints(max_latency_ms=0.5)
    known = [prospect("far", 1.2), prospect("near", 0.75), prospect("nearer", 0.7)]
    with pytest.raises(InfeasibleSearchError) as caught:
        choose([MIDDLE, FAST], "fastest", limits, prospects=lambda: known)
    assert FAST.trial.candidate.id in caught.value.message
    assert known[2].candidate.id in caught.value.message
    assert "screened out before training, is predicted to have 0.7 (0.6 to 0.8), 0.2 too much" in caught.value.message
    assert known[0].candidate.id not in caught.value.message  # 1.2 is farther than FAST's 1.0
    with pytest.raises(InfeasibleSearchError) as caught:
        choose([MIDDLE, FAST], "fastest", limits, prospects=lambda: known[:1])
    assert "screened" not in caught.value.message


def test_prospects_say_nothing_of_a_limit_they_have_no_figure_for() -> None:
    with pytest.raises(InfeasibleSearchError) as caught:
        choose([FAST], "fastest", Constraints(max_drop_points=1.0), prospects=lambda: [prospect("near", 0.1)])
    assert "screened" not in caught.value.message


def test_a_rule_may_be_spelt_with_hyphens() -> None:
    assert choose([ACCURATE, FAST], "most-accurate", Constraints()) is ACCURATE


def test_a_rule_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="quickest"):
        choose([MIDDLE], "quickest", Constraints())
