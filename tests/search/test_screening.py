"""What is decided before any training is decided as it will be on the worker, at the precision it will run in."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from digits_evaluator import SmallDigits, evaluator_in
from made_up_device import save_made_up
from torch import nn

from automc import pipeline
from automc.candidate import Candidate, Step
from automc.constraints import Limit
from automc.cost.graph import graph_from_trace
from automc.cost.kernels import KernelGraph, Precision
from automc.cost.predictor import Costs, Estimate, load_predictor
from automc.evaluate import Evaluator, Job
from automc.search.screening import Screened, Screener
from automc.techniques.sketch import Sketch
from automc.techniques.technique import PlanContext
from automc.trial import Metric

SPLIT, INT8 = Step.of("low_rank", rank_ratio=0.3), Step.of("int8_ptq")
FLOAT, INTEGER = Candidate((SPLIT,)), Candidate((SPLIT, INT8))


class ByPrecision:
    """In fp32 every multiply-accumulate costs; in int8 every kernel does, so two thin layers cost more than one."""

    level = "all"

    def predict(self, graph: KernelGraph) -> Costs:
        integer = any(row.precision == "int8" for row in graph.rows)
        value = float(len(graph.rows)) if integer else graph.macs / 1e6
        estimate = Estimate(value, value, value, "ms", 1.0)
        return Costs(estimate, estimate, estimate)


@pytest.fixture
def evaluator(tmp_path: Path) -> Evaluator:
    made = evaluator_in(tmp_path)
    made.predictor = ByPrecision()  # type: ignore[assignment]
    return made


@pytest.mark.parametrize("order", [(FLOAT, INTEGER), (INTEGER, FLOAT)])
def test_whether_a_split_layer_pays_is_asked_at_the_precision_it_will_run_in(
    evaluator: Evaluator, order: tuple[Candidate, ...]
) -> None:
    screen = Screener(evaluator, (), 0, frozenset({"latency_ms"}))
    answers = dict(zip(order, screen(order), strict=True))  # the network of one is not taken for the other's
    assert answers[FLOAT].costs is not None
    failure = answers[INTEGER].failure
    assert failure is not None
    assert failure.kind == "infeasible"
    assert "ms factorised" in failure.reason


def test_the_worker_plans_as_the_screen_did(evaluator: Evaluator) -> None:
    in_float = evaluator.evaluate(Job(FLOAT, rung=0, seed=0, steps=0))
    in_integers = evaluator.evaluate(Job(INTEGER, rung=0, seed=0, steps=0))
    assert in_float.ok, in_float.failure
    assert in_integers.failure is not None
    assert "low_rank replaces no layer" in in_integers.failure.reason


def test_a_candidate_that_ends_in_int8_is_screened_by_the_costs_of_its_int8_graph(tmp_path: Path) -> None:
    evaluator = evaluator_in(tmp_path)
    evaluator.predictor = ByPrecision()  # type: ignore[assignment]
    (answer,) = Screener(evaluator, (), 0, frozenset({"latency_ms"}))([Candidate((INT8,))])
    exported = evaluator.evaluate(Job(Candidate((INT8,)), rung=0, seed=0, steps=0))
    assert answer.costs is not None
    assert answer.costs.latency_ms.value == exported["latency_ms"].value


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    """On a device calibrated for the base and for what a split convolution becomes, in both precisions."""
    folder = tmp_path_factory.mktemp("calibrated")
    made, inputs = evaluator_in(folder), SmallDigits().example_inputs()
    split = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 1, 2)).eval()
    networks: list[nn.Module] = [SmallDigits().model(), split]
    both: tuple[Precision, ...] = ("fp32", "int8")
    graphs = [graph_from_trace(network, inputs, precision=one) for network in networks for one in both]
    profile = save_made_up(folder / "both", graphs)
    made.profile, made.predictor = profile, load_predictor(profile, folder / "both")
    return made


@pytest.mark.parametrize(
    "steps",
    [
        (Step.of("channel_pruning", ratio=0.5),),
        (Step.of("low_rank", rank_ratio=0.5, only_if_faster=False), INT8),
        (Step.of("channel_pruning", ratio=0.25), Step.of("low_rank", rank_ratio=0.5, only_if_faster=False), INT8),
    ],
    ids=lambda steps: " > ".join(step.technique for step in steps),
)
def test_costs_predicted_before_any_export_are_those_of_the_exported_graph(
    calibrated: Evaluator, steps: tuple[Step, ...]
) -> None:
    candidate = Candidate(steps)
    (answer,) = Screener(calibrated, (), 0, frozenset({"latency_ms"}))([candidate])
    evaluated = calibrated.evaluate(Job(candidate, rung=0, seed=0, steps=0))
    assert answer.costs is not None, answer.failure
    base = calibrated.cost(calibrated.base, "fp32")
    for screened, metric in (
        (answer.costs.latency_ms, "latency_ms"),
        (answer.costs.energy_mj, "energy_mj"),
        (answer.costs.memory_mb, "memory_mb"),
    ):
        figure = evaluated[metric]
        for name in ("value", "low", "high", "coverage"):
            assert getattr(screened, name) == pytest.approx(getattr(figure, name), rel=1e-9), f"{metric}.{name}"
    assert answer.costs.memory_mb.value < base.memory_mb.value  # the edits are in the graph that was priced


def test_candidates_that_differ_in_recovery_alone_are_priced_once(evaluator: Evaluator) -> None:
    asked = []
    honest = evaluator.predictor.predict

    def counted(graph: KernelGraph) -> Costs:
        asked.append(graph)
        return honest(graph)

    evaluator.predictor.predict = counted  # type: ignore[method-assign]
    narrow = Step.of("channel_pruning", ratio=0.5)
    bare = Candidate((narrow,))
    trained = [Candidate((narrow, Step.of("fine_tune"))), Candidate((narrow, Step.of("distillation", temperature=2.0)))]
    answers = Screener(evaluator, (), 0, frozenset({"latency_ms"}))([bare, *trained, Candidate((narrow, INT8))])
    assert answers[0].costs is not None
    assert answers[0].costs == answers[1].costs == answers[2].costs
    assert len(asked) == 2  # once in float, once in int8


HANGS_ON_WEIGHTS = Candidate(
    (Step.of("low_rank", rank_ratio=0.5, only_if_faster=False), Step.of("channel_pruning", ratio=0.5, scope="global"))
)


def test_shapes_that_hang_on_weights_are_estimated_and_refused_only_after_they_were_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = evaluator_in(tmp_path)
    made.predictor = ByPrecision()  # type: ignore[assignment]
    weighed: list[str] = []
    honest = pipeline.sketch_planned

    def noted(model: nn.Module, step: Step, context: PlanContext) -> Sketch:
        weighed.append(step.technique)
        return honest(model, step, context)

    monkeypatch.setattr(pipeline, "sketch_planned", noted)
    needed = frozenset[Metric]({"latency_ms"})
    (estimated,) = Screener(made, (), 0, needed)([HANGS_ON_WEIGHTS])
    assert estimated.costs is not None
    assert not estimated.exact
    assert weighed == []
    (refused,) = Screener(made, (Limit("latency_ms", 1e-6),), 0, needed)([HANGS_ON_WEIGHTS])
    assert weighed == ["channel_pruning"]
    assert refused.exact
    assert refused.failure is not None
    assert refused.failure.kind == "screened"
    evaluated = made.evaluate(Job(HANGS_ON_WEIGHTS, rung=0, seed=0, steps=0))
    assert refused.costs is not None
    assert refused.costs.latency_ms.value == evaluated["latency_ms"].value


@pytest.mark.parametrize("collecting", [True, False])
def test_garbage_is_collected_between_candidates_and_not_while_one_is_priced(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch, collecting: bool
) -> None:
    seen: list[bool] = []
    judge = Screener._judge

    def watched(self: Screener, candidate: Candidate, *, weighed: bool) -> Screened:
        seen.append(gc.isenabled())
        if candidate == INTEGER:
            raise KeyboardInterrupt  # at any moment
        return judge(self, candidate, weighed=weighed)

    monkeypatch.setattr(Screener, "_judge", watched)
    screen = Screener(evaluator, (), 0, frozenset({"latency_ms"}))
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with pytest.raises(KeyboardInterrupt):
            screen((FLOAT, INTEGER))
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if before else gc.disable)()
    assert seen == [False, False]
