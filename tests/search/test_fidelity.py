"""Who goes up a rung: rank then crowding, one candidate per network, anchors whatever their rank."""

from __future__ import annotations

from dataclasses import replace

import pytest

from automc.candidate import Candidate, Step
from automc.errors import ConfigError
from automc.search.fidelity import best_of_group, distinct, objectives_of, promoted, rank_correlation
from automc.space import Anchor
from automc.trial import Failure, Figure, Trial

OBJECTIVES = ("accuracy", "latency_ms")


def trial(name: str, accuracy: float, latency: float, *, onnx: str | None = None, rung: int = 0) -> Trial:
    figures = {
        "accuracy": Figure(accuracy, accuracy, accuracy, "fraction", "measured", n=10),
        "latency_ms": Figure(latency, latency, latency, "ms", "predicted"),
    }
    return Trial(Candidate((Step.of(name),)), rung, 0, figures=figures, artifacts={"onnx": onnx or name})  # type: ignore[arg-type]


def failed(name: str) -> Trial:
    return Trial(Candidate((Step.of(name),)), 0, 0, failure=Failure("export", "no"))


def ids(trials: list[Trial]) -> list[str]:
    return [item.candidate.steps[0].technique for item in trials]


def test_accuracy_is_negated_so_that_all_objectives_are_minimised() -> None:
    assert objectives_of(trial("a", 0.9, 2.0), OBJECTIVES) == (-0.9, 2.0)


def erring(item: Trial) -> Trial:
    """The same with its accuracy read as an error."""
    return replace(item, figures={**(item.figures or {}), "accuracy": replace(item["accuracy"], direction="min")})


def test_an_error_is_minimised_as_it_is() -> None:
    assert objectives_of(erring(trial("a", 0.9, 2.0)), OBJECTIVES) == (0.9, 2.0)
    worse, better = erring(trial("worse", 0.9, 1.0)), erring(trial("better", 0.1, 1.0))
    assert ids(promoted([worse, better], 1, OBJECTIVES, frozenset())) == ["better"]


def test_the_best_of_an_anchor_group_errs_little_more_than_the_reference() -> None:
    reference = erring(trial("reference", 0.10, 4.0))
    members = [erring(trial("slow", 0.10, 3.0)), erring(trial("fast", 0.105, 2.0)), erring(trial("broken", 0.5, 1.0))]
    anchor = Anchor("int8_depth", tuple(item.candidate for item in members))
    by_id = {item.candidate.id: item for item in members}
    assert best_of_group(anchor, by_id, reference, max_drop=1.0) == members[1].candidate.id  # 0.105 <= 0.10 + 0.01
    only = {key: item for key, item in by_id.items() if item is not members[0] and item is not members[1]}
    assert best_of_group(anchor, only, reference, max_drop=1.0) == members[2].candidate.id


def test_where_no_latency_is_known_the_smallest_within_the_drop_is_the_best() -> None:
    def sized(name: str, size: float) -> Trial:
        made = trial(name, 0.9, 1.0)
        figures = {"accuracy": made["accuracy"], "size_bytes": Figure(size, size, size, "bytes", "measured")}
        return replace(made, figures=figures)  # type: ignore[arg-type]

    members = [sized("large", 20.0), sized("small", 10.0)]
    anchor = Anchor("int8_depth", tuple(item.candidate for item in members))
    by_id = {item.candidate.id: item for item in members}
    assert best_of_group(anchor, by_id, members[0], max_drop=1.0) == members[1].candidate.id


def test_a_missing_objective_is_an_error_not_a_zero() -> None:
    with pytest.raises(ConfigError, match="energy_mj is asked for"):
        objectives_of(trial("a", 0.9, 2.0), ("accuracy", "energy_mj"))


def test_dominated_failed_and_repeated_networks_stay_below() -> None:
    trials = [
        trial("front_a", 0.9, 2.0),
        trial("dominated", 0.8, 3.0),
        failed("failed"),
        trial("front_b", 0.7, 1.0),
        trial("same_as_a", 0.9, 2.0, onnx="front_a"),
    ]
    assert ids(promoted(trials, 2, OBJECTIVES, frozenset())) == ["front_a", "front_b"]
    assert ids(distinct(trials)) == ["front_a", "dominated", "front_b"]


def test_within_a_front_the_lonely_go_up_before_the_crowded() -> None:
    """All four are on one front. Its ends first; of the middle ones the one whose neighbours are farther apart."""
    # in ranges of 0.8 and 8 ms: near (0.9 - 0.8) / 0.8 + (9 - 7) / 8 = 0.375, far (0.88 - 0.1) / 0.8 + (8.5 - 1) / 8
    trials = [
        trial("near", 0.88, 8.5), trial("best", 0.9, 9.0), trial("far", 0.8, 7.0), trial("fastest", 0.1, 1.0),
    ]  # fmt: skip
    assert ids(promoted(trials, 3, OBJECTIVES, frozenset())) == ["best", "fastest", "far"]


def test_equal_networks_that_will_be_trained_differently_are_both_kept() -> None:
    def twin(name: str, recovery: str) -> Trial:
        made = trial(name, 0.9, 2.0, onnx="same")
        facts = {"recoveries": [[0, recovery]]}
        return Trial(made.candidate, 0, 0, figures=made.figures, artifacts=made.artifacts, facts=facts)  # type: ignore[arg-type]

    twins = [twin("a", "fine_tune"), twin("b", "distillation"), twin("c", "fine_tune")]
    assert ids(distinct(twins)) == ["a", "b"]


def test_an_anchor_goes_up_in_addition_whatever_its_rank() -> None:
    anchor = trial("anchor", 0.1, 9.0)
    going = promoted([trial("a", 0.9, 2.0), anchor], 1, OBJECTIVES, frozenset({anchor.candidate.id}))
    assert ids(going) == ["anchor", "a"]


def test_a_failed_anchor_does_not_go_up() -> None:
    anchor = failed("anchor")
    assert promoted([anchor], 1, OBJECTIVES, frozenset({anchor.candidate.id})) == []


def test_the_best_of_an_anchor_group_is_the_fastest_within_the_drop() -> None:
    reference = trial("reference", 0.90, 4.0)
    members = [trial("slow", 0.90, 3.0), trial("fast", 0.895, 2.0), trial("broken", 0.5, 1.0)]
    anchor = Anchor("int8_depth", tuple(item.candidate for item in members))
    by_id = {item.candidate.id: item for item in members}
    assert best_of_group(anchor, by_id, reference, max_drop=1.0) == members[1].candidate.id
    assert best_of_group(anchor, by_id, reference, max_drop=0.1) == members[0].candidate.id
    only = {members[2].candidate.id: members[2]}
    assert best_of_group(anchor, only, reference, max_drop=1.0) == members[2].candidate.id
    assert best_of_group(anchor, {}, reference, max_drop=1.0) is None


def test_rank_correlation_says_whether_the_cheap_rung_told_the_truth() -> None:
    lower = {name: trial(name, accuracy, 1.0) for name, accuracy in (("a", 0.1), ("b", 0.2), ("c", 0.3))}
    upper = {name: trial(name, accuracy, 1.0) for name, accuracy in (("a", 0.7), ("b", 0.8), ("c", 0.9))}
    turned = {name: trial(name, accuracy, 1.0) for name, accuracy in (("a", 0.9), ("b", 0.8), ("c", 0.7))}
    assert rank_correlation(lower, upper, "accuracy") == pytest.approx(1.0)
    assert rank_correlation(lower, turned, "accuracy") == pytest.approx(-1.0)
    assert rank_correlation({"a": lower["a"]}, upper, "accuracy") is None
    assert rank_correlation(lower, {k: trial(k, 0.5, 1.0) for k in "abc"}, "accuracy") is None
