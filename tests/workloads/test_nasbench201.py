"""The tabular workload: values of the table, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from automc.candidate import Candidate, Step, canonical_json
from automc.errors import ConfigError, InfeasibleCandidate
from automc.workloads.nasbench201 import NasBench201, operations_of
from automc.workloads.registry import create_workload

CELL = ("nor_conv_3x3", "nor_conv_3x3", "avg_pool_3x3", "skip_connect", "nor_conv_3x3", "skip_connect")


def cell(operations: tuple[str, ...]) -> Candidate:
    return Candidate((), canonical_json({f"edge_{i}": operation for i, operation in enumerate(operations)}))


def test_the_six_operations_are_read_in_order_of_the_string() -> None:
    text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
    assert operations_of(text) == CELL


@pytest.mark.parametrize("text", ["", "|none~0|", "|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|"])
def test_a_string_that_is_no_cell_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a NAS-Bench-201 cell"):
        operations_of(text)


def test_without_a_data_folder_it_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data-root"):
        create_workload("nasbench201", {}, None)
    with pytest.raises(ConfigError, match="no such file"):
        create_workload("nasbench201", {}, tmp_path)
    with pytest.raises(ConfigError, match=r"seed is not an option of workload nasbench201 \(it takes: none\)"):
        create_workload("nasbench201", {"seed": 1}, tmp_path)


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "device_latency/pi5/hwnasbench360_pi5.parquet"
    table.parent.mkdir(parents=True)
    table.touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="pip install pyarrow"):
        NasBench201(tmp_path).score(cell(CELL), 0, 0)


@pytest.fixture(scope="module")
def cells(data_root: Path) -> NasBench201:
    return NasBench201(data_root)


@pytest.mark.data
def test_a_cell_has_the_figures_of_its_row(cells: NasBench201) -> None:
    """Row 1 of the table: 70.2933 % at 10.9087 ms and 16.6039 mJ under ONNX Runtime."""
    figures = cells.score(cell(CELL), 2, 0)
    assert figures["accuracy"].value == pytest.approx(0.702933, abs=1e-6)
    assert figures["latency_ms"].value == pytest.approx(10.908724, abs=1e-6)
    assert figures["energy_mj"].value == pytest.approx(16.603914, abs=1e-6)
    assert {figure.kind for figure in figures.values()} == {"measured"}
    assert {figure.rung for figure in figures.values()} == {2}
    assert "Raspberry Pi 5, ONNX Runtime" in str(figures["latency_ms"].source)
    # 1.96 * sqrt(0.702933 * 0.297067 / 10000) = 0.008957
    assert figures["accuracy"].high - figures["accuracy"].value == pytest.approx(0.008957, abs=1e-6)


@pytest.mark.data
def test_every_cell_of_the_space_is_in_the_table(cells: NasBench201) -> None:
    assert cells.space().size == 15_625
    assert sum("accuracy" in cells.score(candidate, 0, 0) for candidate in cells.space().candidates()) == 15_625


@pytest.mark.data
def test_what_is_no_cell_is_infeasible(cells: NasBench201) -> None:
    with pytest.raises(InfeasibleCandidate, match="no cell"):
        cells.score(Candidate(), 0, 0)
    with pytest.raises(InfeasibleCandidate, match="no cell"):
        cells.score(Candidate((Step("int8_ptq"),), cell(CELL).architecture_json), 0, 0)
