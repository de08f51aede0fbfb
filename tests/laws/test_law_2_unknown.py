"""Unknown is not satisfied."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from bundle_samples import tiny_model
from digits_evaluator import evaluator_in
from made_up_device import save_made_up

from automc.candidate import Candidate
from automc.config import Constraints
from automc.constraints import Limit, Verdict, limits_of
from automc.cost.graph import graph_from_onnx
from automc.cost.predictor import load_predictor
from automc.errors import InfeasibleSearchError, UnseenOperatorError
from automc.profiles import load_profile
from automc.run import FrontPoint
from automc.search.choice import choose
from automc.search.screening import Screener
from automc.trial import Figure, Trial

LATENCY = Figure(1.0, 0.9, 1.1, "ms", "measured", n=200)
ACCURACY = Figure(0.9, 0.88, 0.92, "fraction", "measured", n=400)


def test_a_limit_on_a_cost_nobody_knows_is_neither_met_nor_broken() -> None:
    assert Limit("energy_mj", 5.0).judge(None) is Verdict.UNKNOWN
    assert Limit("latency_ms", 1.0).judge(LATENCY) is Verdict.MET  # 1.0 <= 1.0
    assert Limit("latency_ms", 0.99).judge(LATENCY) is Verdict.BROKEN


def test_a_finalist_whose_energy_is_unknown_is_not_chosen_under_an_energy_limit() -> None:
    figures = {"accuracy": ACCURACY, "latency_ms": LATENCY, "drop_points": Figure(0, 0, 0, "points", "measured", n=400)}
    point = FrontPoint(
        Trial(Candidate(), 2, 0, figures={"accuracy": ACCURACY}), None, on_front=True, chosen=False, figures=figures
    )
    assert choose([point], "fastest", Constraints(max_drop_points=1.0)) is point
    with pytest.raises(InfeasibleSearchError, match="energy_mj"):
        choose([point], "fastest", Constraints(max_drop_points=1.0, max_energy_mj=5.0))


def test_an_operator_without_calibration_raises_with_its_shape_and_costs_nothing_in_silence(tmp_path: Path) -> None:
    profile = save_made_up(tmp_path / "paper", [graph_from_onnx(tiny_model())])
    predictor = load_predictor(profile, tmp_path / "paper")
    model = tiny_model()
    model.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["shares"], "softmax"))
    model.graph.output[0].name = "shares"
    with pytest.raises(UnseenOperatorError, match=r"(?i)softmax.*\[1, 4\]"):
        predictor.predict(graph_from_onnx(model))


def test_screening_calls_a_candidate_of_unknown_cost_unknown_and_drops_it(tmp_path: Path) -> None:
    evaluator = evaluator_in(tmp_path)
    save_made_up(tmp_path / "other", [graph_from_onnx(tiny_model())])  # never saw what digits needs
    evaluator.predictor = load_predictor(load_profile(str(tmp_path / "other")), tmp_path / "other")
    limits = limits_of(Constraints(max_latency_ms=9.0))
    (answer,) = Screener(evaluator, limits, 0, frozenset({"latency_ms"}))([Candidate()])
    assert answer.costs is None
    assert answer.failure is not None
    assert answer.failure.kind == "unknown_cost"
