"""Profiles that come with automc are whole, keep the promised accuracy, and price networks they never saw."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from automc.cost.calibration import load_calibration
from automc.cost.graph import graph_from_onnx
from automc.cost.predictor import load_predictor
from automc.measure.builder import GraphBuilder, Scheme
from automc.measure.families import FAMILIES, family_networks
from automc.profiles import calibration_text, load_profile, shipped_folder

FOLDERS = sorted(path.parent for path in shipped_folder("hardware_profiles").glob("*/profile.yaml"))
SHIPPED = [folder for folder in FOLDERS if load_profile(str(folder)).imported is None]
IMPORTED = [folder for folder in FOLDERS if folder not in SHIPPED]


def test_there_is_one() -> None:
    assert SHIPPED


def test_there_are_devices_of_many_kinds() -> None:
    kinds = {load_profile(str(folder)).imported.kind for folder in IMPORTED}
    assert kinds >= {"server CPU", "single-board computer", "phone", "embedded GPU"}
    assert len(IMPORTED) >= 12


@pytest.mark.parametrize("folder", IMPORTED, ids=lambda folder: folder.name)
def test_a_table_asks_a_device_nothing_so_its_calibration_is_stored_as_it_was_without_that(folder) -> None:
    calibration = load_calibration(load_profile(str(folder)), folder)
    assert calibration.probes is None
    assert calibration_text(calibration.as_json()) == (folder / "calibration.json").read_text()


@pytest.mark.parametrize("folder", IMPORTED, ids=lambda folder: folder.name)
def test_an_imported_one_says_where_it_comes_from_and_what_it_cannot(folder) -> None:
    profile = load_profile(str(folder))
    table = profile.imported
    assert profile.name == folder.name
    assert profile.calibration == "imported"
    assert table.licence == "BSD-3-Clause"
    assert "github.com/Tencent/ncnn" in table.source
    assert table.cannot
    (held,) = profile.held_out
    assert held.left_out == "one network"
    assert held.networks == len(held.families) == table.networks >= 20
    assert held.interval_coverage >= 0.7  # of 15 to 20 networks
    if table.use == "limits":
        assert held.rank_correlation >= 0.9
    predictor = load_predictor(profile, folder)  # the digest of the calibration is checked here
    assert predictor.level == "extended"
    for sample in family_networks(1, "fp32", 7):
        graph = graph_from_onnx(onnx.load_from_string(sample.model), level="extended")
        if sample.kind == "transformer":  # a single one is in the table: it is refused, not guessed
            assert {predictor.kind(row) for row in predictor.unseen(graph)} >= {"matrix"}
            continue
        latency = predictor.predict(graph).latency_ms
        assert 0 < latency.low < latency.value < latency.high, sample.name


def test_imported_ones_state_intervals_that_hold_what_they_say() -> None:
    """Of networks that the profile of four fifths of a table had not seen, in the mean over devices."""
    shares = [load_profile(str(folder)).held_out[0].interval_coverage for folder in IMPORTED]
    assert 0.85 <= sum(shares) / len(shares) <= 0.95


@pytest.mark.parametrize("folder", IMPORTED[:1], ids=lambda folder: folder.name)
def test_a_graph_in_this_hosts_layout_is_refused_by_an_imported_one(folder) -> None:
    predictor = load_predictor(load_profile(str(folder)), folder)
    sample = next(item for item in family_networks(1, "fp32", 7) if item.kind == "resnet")
    unseen = predictor.unseen(graph_from_onnx(onnx.load_from_string(sample.model)))
    assert "Conv" in {row.op for row in unseen if row.layout == "nchwc"}


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_its_held_out_error_keeps_the_promise(folder) -> None:
    profile = load_profile(str(folder))
    assert profile.name == folder.name
    assert profile.calibration == "full"
    assert {held.precision for held in profile.held_out} == set(profile.precisions) == {"fp32", "int8"}
    for held in profile.held_out:
        assert len(held.families) >= 8
        assert set(held.families) <= set(FAMILIES)
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
        judged = {family for held in profile.held_out for family in held.families}
        assert latency.coverage > (0.8 if sample.kind in judged else 0.5), sample.name


@pytest.mark.parametrize("folder", IMPORTED, ids=lambda folder: folder.name)
def test_no_device_of_a_table_reads_weights_faster_than_memory_can_be(folder) -> None:
    """Linear layers, of which some tables tell nothing: 1,024 to 2,048 to 1,024, 16.8 MB, one sample."""
    builder = GraphBuilder("fp32", np.random.default_rng(0))
    x = builder.gemm(builder.gemm(builder.input((1, 1024)), 2048, act="Relu"), 1024)
    graph = graph_from_onnx(onnx.load_from_string(builder.finish(x)), level="extended")
    latency = load_predictor(load_profile(str(folder)), folder).predict(graph).latency_ms
    assert graph.weight_bytes / 1e6 / latency.value < 200  # GB/s: several times what the fastest of these has
