"""Kernel rows of networks that tables name by their architecture, and the benchmark that is made of them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from automc.importing.spaces import (
    alive_edges,
    fbnet_rows,
    mlperf_tiny_rows,
    nasbench201_rows,
    ofa_rows,
    space_rows,
    totals,
)

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "b1_few_shot.py"


def test_a_cell_of_3x3_convolutions_has_the_published_work() -> None:
    # "NAS-Bench-201", the cell of six 3x3 convolutions: 220.1 MFLOPs as the authors count multiply-accumulates
    rows = nasbench201_rows(["nor_conv_3x3"] * 6)
    assert sum(row.macs for row in rows) / 1e6 == pytest.approx(220.1, rel=0.01)
    assert sum(row.op == "Conv" for row in rows) == 1 + 2 * 3 + 15 * 6
    assert sum(row.op == "Add" for row in rows) == 2 + 15 * 3  # of residual blocks; one at node 2, two at node 3


def test_edges_on_no_way_from_input_to_output_are_no_work() -> None:
    # node 1 is fed by nothing: the convolution from it to node 3 is dead, and so is that into node 2, which ends there
    cell = ["none", "nor_conv_3x3", "nor_conv_3x3", "skip_connect", "nor_conv_1x1", "none"]
    assert alive_edges(cell) == [False, False, False, True, False, False]


def test_a_skip_of_fbnet_costs_a_convolution_only_where_the_shape_changes() -> None:
    assert sum(row.op == "Conv" for row in fbnet_rows([8] * 22)) == 2 + 6  # stem and head; widths change six times
    one = fbnet_rows([2] + [8] * 21)  # k3_e3 on 16 channels at 32 x 32, and its sum
    extra = sum(row.macs for row in one) - sum(row.macs for row in fbnet_rows([8] * 22))
    assert extra == 32 * 32 * (16 * 48 + 9 * 48 + 48 * 16)


def test_deeper_and_larger_networks_of_once_for_all_have_more_kernels_and_work() -> None:
    small = ofa_rows([3] * 20, [3] * 20, [2] * 5, 128)
    deep = ofa_rows([3] * 20, [3] * 20, [4] * 5, 128)
    large = ofa_rows([3] * 20, [3] * 20, [2] * 5, 224)
    assert len(deep) > len(small) == len(large)
    assert sum(row.macs for row in large) > 2.5 * sum(row.macs for row in small)  # (224 / 128)^2 = 3.06, without heads


def test_the_four_networks_of_mlperf_tiny_have_their_published_work() -> None:
    # autoencoder: 2 x 640 x 128 + 6 x 128 x 128 + 2 x 128 x 8
    assert sum(row.macs for row in mlperf_tiny_rows("ad")) == 2 * 81_920 + 6 * 16_384 + 2 * 1_024
    # ResNet-8: stem 27 x 16 x 32 x 32 = 442,368; two of 9 x 16 x 16 x 1,024 = 2,359,296; then twice a strided one,
    # half of that, a whole one and a shortcut of 131,072; 64 x 10 at the end. Published: 12.5 million
    ic = 442_368 + 2 * 2_359_296 + 2 * (1_179_648 + 2_359_296 + 131_072) + 640
    assert sum(row.macs for row in mlperf_tiny_rows("ic")) == ic == 12_501_632
    # DS-CNN on 25 x 5 = 125 places: 40 x 64 x 125, four of (9 x 64 + 64 x 64) x 125, 64 x 12. Published: 2.7 million
    assert sum(row.macs for row in mlperf_tiny_rows("kws")) == 320_000 + 4 * 584_000 + 768
    # MobileNetV1 0.25 at 96 x 96, published: 7.5 million multiply-accumulates, 0.21 million weights
    vww = mlperf_tiny_rows("vww")
    assert sum(row.macs for row in vww) / 1e6 == pytest.approx(7.5, abs=0.05)
    assert sum(row.bytes_weights for row in vww) / 4e6 == pytest.approx(0.21, abs=0.01)
    assert sum(row.op == "Conv" for row in vww) == 1 + 2 * 13


def test_a_table_states_lists_as_lists_or_as_text() -> None:
    cell = {"ks": [3] * 20, "e": [4] * 20, "d": [2, 3, 4, 2, 3], "r": [160]}
    text = {**{key: str(value) for key, value in cell.items()}, "r": "160"}
    assert space_rows("ofa", cell) == space_rows("ofa", text)


def test_the_benchmark_ranks_an_additive_device_from_ten_samples(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(160):
        cell = rng.integers(0, 9, 22)
        found = totals(fbnet_rows(cell.tolist()))
        latency = 1.0 + 0.05 * found["Conv.pointwise:macs"] + 0.5 * found["Conv.depthwise:macs"]
        rows.append({"op_idx": " ".join(map(str, cell)), "board": latency * rng.uniform(0.99, 1.01)})
    rows[7]["board"] = 0.001  # no measurement
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["op_idx", "board"])
        writer.writeheader()
        writer.writerows(rows)
    command = [
        sys.executable, str(BENCHMARK), "--table", str(table), "--space", "fbnet", "--devices", "board",
        "--samples", "10,100", "--seeds", "2", "--json", str(tmp_path / "out.json"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["conditions"]["broken_rows"] == {"board": 1}
    assert found["published"].startswith("published (HELP")
    row = next(row for row in found["rows"] if row["samples"] == 10 and row["protocol"] == "all")
    assert set(row) == {
        "device", "samples", "protocol", "spearman", "within_5", "within_10", "ceiling_share", "coverage",
    }  # fmt: skip
    assert row["spearman"] > 0.95
    assert row["within_5"] > 0.9
    assert {item["protocol"] for item in found["rows"]} >= {"all", "help", "all, random samples"}
