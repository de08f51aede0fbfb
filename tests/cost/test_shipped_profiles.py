"""Profiles that come with automc are whole, keep the promised accuracy, and price networks they never saw."""

from __future__ import annotations

import onnx
import pytest

from automc.cost.graph import graph_from_onnx
from automc.cost.predictor import load_predictor
from automc.measure.builder import Scheme
from automc.measure.families import FAMILIES, family_networks
from automc.profiles import load_profile, shipped_folder

SHIPPED = sorted(path.parent for path in shipped_folder("hardware_profiles").glob("*/profile.yaml"))


def test_there_is_one() -> None:
    assert SHIPPED


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_its_held_out_error_keeps_the_promise(folder) -> None:
    profile = load_profile(str(folder))
    assert profile.name == folder.name
    assert profile.calibration == "full"
    assert {held.precision for held in profile.held_out} == set(profile.precisions) == {"fp32", "int8"}
    for held in profile.held_out:
        assert set(held.families) == set(FAMILIES)
        assert held.networks >= 60
        assert held.within_15_percent >= 0.9


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_prices_networks_of_every_family(folder, precision: str) -> None:
    profile = load_profile(str(folder))
    predictor = load_predictor(profile, folder)  # the digest of the calibration is checked here
    scheme: Scheme = "fp32"
    if precision == "int8":
        scheme = "u8s8" if profile.int8.activation_type == "uint8" else "s8s8"
    for sample in family_networks(1, scheme, 7):
        graph = graph_from_onnx(onnx.load_from_string(sample.model))
        assert predictor.unseen(graph) == [], sample.name
        latency = predictor.predict(graph).latency_ms
        assert 0 < latency.low < latency.value < latency.high
        assert latency.coverage > 0.8, sample.name
