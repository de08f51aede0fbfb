"""Costs are read from the graph, never from a technique's parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle_samples import tiny_model
from digits_evaluator import boast, evaluator_in  # noqa: F401

from automc.candidate import Candidate, Step
from automc.cost.graph import graph_from_onnx
from automc.evaluate import Job
from automc.search.screening import Screener


def test_a_graph_with_nine_tenths_of_its_weights_zero_costs_what_it_cost_before() -> None:
    dense, sparse = tiny_model(), tiny_model()
    for tensor in sparse.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).copy()
        values.ravel()[np.arange(values.size) % 10 != 0] = 0.0
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    assert [row.signature() for row in graph_from_onnx(sparse).rows] == [
        row.signature() for row in graph_from_onnx(dense).rows
    ]


@pytest.mark.usefixtures("boast")
def test_a_technique_that_claims_a_ratio_but_removes_nothing_gains_nothing(tmp_path: Path) -> None:
    evaluator = evaluator_in(tmp_path)
    base = evaluator.evaluate(Job(Candidate(), rung=0, seed=0, steps=0))
    boasted = evaluator.evaluate(Job(Candidate((Step.of("boast", ratio=0.9),)), rung=0, seed=0, steps=0))
    assert boasted.ok, boasted.failure
    assert boasted.artifacts["onnx"] != base.artifacts["onnx"]  # it did something, to the weights
    for metric in ("latency_ms", "energy_mj", "memory_mb"):
        assert boasted[metric].value == base[metric].value


@pytest.mark.usefixtures("boast")
def test_screening_sees_the_network_and_not_the_claim(tmp_path: Path) -> None:
    screener = Screener(evaluator_in(tmp_path), (), seed=0, needed=frozenset({"latency_ms"}))
    base, boasted = screener([Candidate(), Candidate((Step.of("boast", ratio=0.9),))])
    assert base.costs is not None
    assert base.costs == boasted.costs
