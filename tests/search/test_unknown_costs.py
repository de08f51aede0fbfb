"""A cost that nobody knows and nothing needs is absent, from the screen to the bundle; it stops nothing."""

from __future__ import annotations

import json

import onnx
import pytest
from onnx import TensorProto, helper
from whole_runs import save_classes, small_config

from automc.config import Constraints, parse_config
from automc.constraints import needed_of
from automc.errors import InfeasibleSearchError
from automc.run import Run
from automc.search.choice import choose
from automc.search.ending import UNPREDICTED
from automc.search.loop import search

PREDICTED = {"latency_ms", "energy_mj", "memory_mb"}


def relu_alone() -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 32]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "relu")], "relu", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on a device that knows no linear layer, of which objectives and limits ask no prediction."""
    folder = tmp_path_factory.mktemp("unknown")
    save_classes(folder)
    return search(small_config(folder, "classification", known=[relu_alone()]), run_dir=folder / "run")


def test_every_trial_succeeds_without_the_costs_nobody_knows(run: Run) -> None:
    trials = run.trials()
    assert len(trials) >= 6
    for trial in trials:
        assert trial.ok, trial.failure
        assert set(trial.figures or {}) == {"accuracy", "size_bytes"}


def test_finalists_have_a_measured_latency_and_no_predicted_one(run: Run) -> None:
    for point in run.finalists():
        assert point.figures["latency_ms"].kind == "measured"
        assert not {"predicted_latency_ms", "energy_mj", "memory_mb"} & point.figures.keys()


def test_the_bundle_verifies_and_says_that_nothing_was_predicted(run: Run) -> None:
    expected = json.loads((run.folder / "bundle" / "expected.json").read_text())
    assert expected["predicted"] == {}
    assert UNPREDICTED in (run.folder / "bundle" / "MODEL_CARD.md").read_text()


def test_the_report_calls_the_predictions_unknown(run: Run) -> None:
    page = (run.folder / "report.html").read_text()
    assert "no candidate was both screened and exported" in page
    assert '<span class="soft">unknown</span>' in page
    assert "Where the time goes" not in page


def test_what_objectives_limits_and_the_rule_rest_on_is_needed() -> None:
    def needed(**sections: object) -> frozenset[str]:
        return needed_of(
            parse_config({"objectives": ["accuracy", "size_bytes"], "choose": "smallest", **sections}, "c")
        )

    assert not needed(constraints={}) & PREDICTED
    assert needed(constraints={"max_memory_mb": 9.0}) & PREDICTED == {"memory_mb"}
    assert needed(choose="lowest_energy") & PREDICTED == {"energy_mj"}
    assert needed(objectives=["accuracy", "latency_ms"]) & PREDICTED == {"latency_ms"}
    assert not needed(choose="fastest") & PREDICTED  # by the measured latency


def test_a_rule_by_a_cost_that_no_finalist_has_chooses_nothing(run: Run) -> None:
    with pytest.raises(InfeasibleSearchError, match="lowest_energy chooses by energy_mj"):
        choose(run.finalists(), "lowest_energy", Constraints())
