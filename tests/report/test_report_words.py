from __future__ import annotations

from dataclasses import replace

import pytest
from report_samples import DEPTH, INT8, PRUNE, SVD, TUNE, failed, point, report_data, trial

from automc.candidate import Candidate, Step
from automc.constraints import Limit
from automc.report.data import Spread, effects, faster, in_words, orders
from automc.run import FrontPoint
from automc.trial import DISTURBED, Figure, Trial


def changed(item: FrontPoint, **figures: Figure) -> FrontPoint:
    return replace(item, figures={**item.figures, **figures})


def times(value: float, low: float, high: float) -> Figure:
    return Figure(value, low, high, "times", "measured", n=240)


def test_a_drop_whose_interval_holds_zero_is_called_a_tie() -> None:
    said = in_words(report_data())
    assert said.headline == "3.25 times as fast, at an accuracy that ties with the reference"
    assert (
        "Speed-up 3.15 to 3.35, by blocks of runs that took turns; 10th percentiles 0.560 ms against 1.82 ms."
    ) in said.sentences
    # 1,082,400 / 199,900 = 5.41; 3.25 / 2.459 = 1.32
    assert "The file is 5.4 times smaller." in said.sentences
    assert "It is 1.32 times as fast as plain int8 of the reference, beyond the noise." in said.sentences


def test_a_drop_beyond_its_interval_is_called_a_drop() -> None:
    drop = Figure(3.06, 2.16, 3.96, "points", "measured", n=360, split="test")
    data = report_data(
        points=[changed(point("half_int8", chosen=True), test_drop_points=drop), point("reference", anchor="reference")]
    )
    assert in_words(data).headline == "5.52 times as fast, 3.1 points below the reference"


def test_of_an_error_more_is_worse_than_the_reference() -> None:
    def erring(item: FrontPoint, drop: float) -> FrontPoint:
        error = replace(item.figures["accuracy"], direction="min")
        moved = Figure(drop, drop - 0.5, drop + 0.5, "points", "measured", n=360, split="test")
        return changed(item, accuracy=error, test_accuracy=error, test_drop_points=moved)

    reference = erring(point("reference", anchor="reference"), 0.0)
    worse = in_words(report_data(points=[erring(point("half_int8", chosen=True), 3.06), reference]))
    assert worse.headline == "5.52 times as fast, 3.1 points worse than the reference"
    assert any(said.startswith("The error on the test split is 3.06 points worse than") for said in worse.sentences)
    better = in_words(report_data(points=[erring(point("half_int8", chosen=True), -3.06), reference]))
    assert better.headline == "5.52 times as fast, 3.1 points better than the reference"
    tie = in_words(report_data(points=[erring(point("half_int8", chosen=True), 0.1), reference]))
    assert tie.headline == "5.52 times as fast, at an error that ties with the reference"


def test_a_prediction_that_was_far_off_is_said_with_the_worst_of_them() -> None:
    def predicted(item: FrontPoint, ratio: float) -> FrontPoint:
        told = item.figures["latency_ms"].value / ratio
        return changed(item, predicted_latency_ms=Figure(told, told / 1.1, told * 1.1, "ms", "predicted"))

    fast, reference = point("half_int8", chosen=True), point("reference", anchor="reference")
    off = in_words(report_data(points=[predicted(fast, 1.05), predicted(reference, 3.0)])).sentences[-1]
    assert off.startswith("Latency was predicted wrongly for 1 of 2 finalists, at worst by a factor of 3.0 (fine_tune:")
    assert "calibrate in full" in off
    right = in_words(report_data(points=[predicted(fast, 1.05), predicted(reference, 1.25)])).sentences
    assert not any("predicted wrongly" in said for said in right)  # beyond its interval, and no great matter
    source = f"ONNX Runtime on this device, {DISTURBED}: too slow"
    slow = replace(reference.figures["latency_ms"], source=source)
    disturbed = in_words(report_data(points=[fast, predicted(changed(reference, latency_ms=slow), 3.0)])).sentences
    assert not any("predicted wrongly" in said for said in disturbed)


def test_nothing_beats_int8_by_more_than_the_noise_is_said() -> None:
    # 2.55 (2.47 to 2.63) against 2.46 (2.39 to 2.53): the intervals overlap
    close = changed(point("pruned_int8", chosen=True), speedup=times(2.55, 2.47, 2.63))
    data = report_data(points=[close, point("int8", anchor="int8"), point("reference", anchor="reference")])
    assert "Nothing that meets the constraints beats plain int8 by more than the noise." in in_words(data).sentences


def test_apart_intervals_within_the_noise_floor_do_not_count_as_faster() -> None:
    int8 = changed(point("int8"), speedup=times(2.0, 1.999, 2.001))
    assert not faster(changed(int8, speedup=times(2.04, 2.03, 2.05)), int8, noise_percent=2.5)  # 2.04 < 2.0 * 1.025
    assert faster(changed(int8, speedup=times(2.06, 2.05, 2.07)), int8, noise_percent=2.5)
    unknown = replace(int8, figures={})
    assert not faster(unknown, int8, noise_percent=2.5)


def test_a_disturbed_machine_proves_nothing_and_the_result_says_so() -> None:
    data = report_data()
    spoilt = []
    for item in data.points:
        latency = replace(item.figures["latency_ms"], source=f"ONNX Runtime on this device, {DISTURBED}: too slow")
        spoilt.append(changed(item, latency_ms=latency))
    said = in_words(report_data(points=spoilt))
    assert any("The machine was disturbed all the while" in sentence for sentence in said.sentences)
    assert "Nothing that meets the constraints beats plain int8 by more than the noise." in said.sentences


def test_a_faster_candidate_that_breaks_a_constraint_does_not_beat_int8() -> None:
    data = report_data(
        points=[
            point("half_int8"),  # 3.06 points below, 1 allowed
            point("int8", anchor="int8", chosen=True),
            point("reference", anchor="reference"),
        ]
    )
    assert "Nothing that meets the constraints beats plain int8 by more than the noise." in in_words(data).sentences


def test_int8_that_breaks_a_constraint_is_said() -> None:
    data = report_data(limits=[Limit("drop_points", 0.5), Limit("latency_ms", 1.5)])
    assert "Plain int8 of the reference does not meet the constraints." in in_words(data).sentences


def test_a_speed_up_within_the_noise_is_no_speed_up() -> None:
    slow = changed(point("pruned", chosen=True), speedup=times(1.02, 0.98, 1.06))
    data = report_data(points=[slow, point("reference", anchor="reference")])
    assert in_words(data).headline == "The chosen network is not faster than the reference by more than the noise"


def test_the_reference_itself_may_be_the_result() -> None:
    data = report_data(points=[point("int8", anchor="int8"), point("reference", anchor="reference", chosen=True)])
    assert in_words(data).headline == "Nothing within the constraints beats the reference"


def test_unmet_constraints_are_named_with_the_closest() -> None:
    points = [point("half_int8"), point("reference", anchor="reference")]
    said = in_words(report_data(points=points, limits=[Limit("latency_ms", 0.2), Limit("memory_mb", 5.0)]))
    assert said.headline == "No finalist meets every constraint"
    assert said.sentences == (
        "latency_ms should be at most 0.2; the best finalist has 0.33.",
        "memory_mb is unknown for every finalist, and unknown is not met.",
    )


def test_constraints_met_singly_but_never_together_are_said_so() -> None:
    points = [point("half_int8"), point("reference", anchor="reference")]
    said = in_words(report_data(points=points, limits=[Limit("latency_ms", 0.5), Limit("drop_points", 1.0)]))
    assert said.sentences == ("Each constraint is met by some finalist, but no finalist meets all.",)


def test_no_finalist_at_all_is_said() -> None:
    assert in_words(report_data(points=[])).headline == "No candidate reached the last rung"


def test_what_saves_only_download_is_named() -> None:
    chosen = point("sparse_int8", chosen=True)
    said = in_words(report_data(points=[chosen, point("reference", anchor="reference")]))
    assert "unstructured_pruning saves only download: a smaller coded file, no time and no memory." in said.sentences


def test_the_effect_of_a_technique_is_counted_over_pairs_that_differ_in_it_alone() -> None:
    names = ("reference", "int8", "pruned", "pruned_int8", "half_int8")
    found = {effect.technique: effect for effect in effects([[trial(name) for name in names]])}
    # int8 on the reference: 0.74 / 1.82 = -59.34 %, on the pruned: 0.56 / 1.31 = -57.25 %; median -58.30 %
    # accuracy 97.22 - 97.78 = -0.56 and 96.94 - 97.78 = -0.84 points
    assert found["int8_ptq"].pairs == 2
    assert found["int8_ptq"].latency == Spread(
        pytest.approx(-58.30, abs=0.01), pytest.approx(-59.34, abs=0.01), pytest.approx(-57.25, abs=0.01)
    )
    assert found["int8_ptq"].accuracy.low == pytest.approx(-0.84)
    # pruning: pruned / reference, pruned_int8 / int8, half_int8 / int8
    assert found["channel_pruning"].pairs == 3
    assert "fine_tune" not in found  # no candidate goes without it


def test_effects_come_from_the_highest_rung_with_a_pair_and_ignore_failures() -> None:
    low = [trial(name, 0) for name in ("reference", "int8", "int8_depth")]
    top = [trial("reference"), trial("int8"), failed("parity", "broke", DEPTH, TUNE, INT8, rung=1)]
    found = {effect.technique: (effect.rung, effect.pairs) for effect in effects([low, top])}
    assert found == {"int8_ptq": (1, 1), "depth_pruning": (0, 1)}
    assert effects([]) == []


def test_the_same_steps_in_another_order_are_grouped() -> None:
    def ordered(latency: float, *steps: Step) -> Trial:
        figures = {**(trial("pruned").figures or {}), "latency_ms": Figure(latency, 0.4, 0.6, "ms", "predicted")}
        return replace(trial("pruned"), candidate=Candidate(steps), figures=figures)

    one, two = ordered(0.6, SVD, PRUNE[0.25], TUNE), ordered(0.5, PRUNE[0.25], SVD, TUNE)
    other_ratio = ordered(0.4, PRUNE[0.5], SVD, TUNE)
    assert orders([[], [one, other_ratio, two, trial("int8")]]) == [[two, one]]
    assert orders([[one, other_ratio]]) == []


def test_an_anchor_that_wins_is_said_to_be_the_obvious() -> None:
    data = report_data(
        points=[point("int8_depth", anchor="int8_depth", chosen=True), point("reference", anchor="reference")]
    )
    said = "It is the anchor int8_depth: the search found nothing better than this obvious chain."
    assert said in in_words(data).sentences


def test_no_drop_at_all_is_neither_below_nor_above() -> None:
    none = Figure(0.0, 0.0, 0.0, "points", "measured", n=399, split="test")
    chosen = changed(point("pruned", chosen=True), test_drop_points=none)
    said = in_words(report_data(points=[chosen, point("reference", anchor="reference")]))
    assert (
        "Accuracy on the test split is the reference's (drop +0.00 to +0.00 at 95 %, paired over n 399)."
        in said.sentences
    )


def test_one_comparison_is_its_own_spread() -> None:
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
