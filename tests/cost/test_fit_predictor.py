"""A stored calibration predicts the same in any process, and refuses what it was not calibrated for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from made_up_device import save_made_up

from automc.cost.calibration import Interval, MemoryFit, load_calibration
from automc.cost.kernels import KernelGraph, KernelRow
from automc.cost.predictor import CalibratedPredictor, load_predictor
from automc.errors import StaleCalibrationError, UnseenOperatorError
from automc.profiles import HardwareProfile, load_profile


def gemm(features_in: int, features_out: int = 64, op: str = "Gemm") -> KernelRow:
    return KernelRow(
        "g", op, "fp32", "nchw", ((1, features_in),), (1, features_out), features_in * features_out,
        features_in * 4, features_out * 4, features_in * features_out * 4,
    )  # fmt: skip


def network(*rows: KernelRow) -> KernelGraph:
    return KernelGraph(rows, sum(row.bytes_weights for row in rows), 4096)


CALIBRATED = [network(*[gemm(size)] * count) for size in (64, 256, 1024) for count in (1, 2, 4)]


@pytest.fixture
def profile(tmp_path: Path) -> HardwareProfile:
    return save_made_up(tmp_path, CALIBRATED)


@pytest.fixture
def predictor(profile: HardwareProfile, tmp_path: Path) -> CalibratedPredictor:
    return load_predictor(profile, tmp_path)


def test_kernels_sum_to_the_network(predictor: CalibratedPredictor) -> None:
    graph = network(gemm(128), gemm(512), gemm(64))
    parts = predictor.kernels(graph)
    assert [part.row for part in parts] == list(graph.rows)
    costs = predictor.predict(graph)
    assert sum(part.latency_ms.value for part in parts) == pytest.approx(costs.latency_ms.value, rel=1e-12)
    assert sum(part.energy_mj.value for part in parts) == pytest.approx(costs.energy_mj.value, rel=1e-12)


def test_the_interval_holds_the_value_and_is_the_stored_one(predictor: CalibratedPredictor) -> None:
    latency = predictor.predict(network(gemm(256))).latency_ms
    assert latency.coverage == 1.0
    assert latency.low == pytest.approx(0.9 * latency.value)
    assert latency.high == pytest.approx(1.1 * latency.value)


def test_beyond_the_calibrated_range_coverage_falls_and_the_interval_widens(predictor: CalibratedPredictor) -> None:
    latency = predictor.predict(network(gemm(65536))).latency_ms
    assert latency.coverage == 0.0
    assert latency.high == pytest.approx(2 * 1.1 * latency.value)
    assert latency.low == pytest.approx(0.9 / 2 * latency.value)


def test_an_operator_never_calibrated_is_named_with_its_shape(predictor: CalibratedPredictor) -> None:
    graph = network(gemm(64), gemm(64, op="Einsum"))
    assert [row.op for row in predictor.unseen(graph)] == ["Einsum"]
    with pytest.raises(UnseenOperatorError, match=r"Einsum.*\[1, 64\] -> \[1, 64\]"):
        predictor.predict(graph)
    with pytest.raises(UnseenOperatorError):
        predictor.kernels(graph)


def test_memory_counts_weights_activations_and_the_runtime(predictor: CalibratedPredictor) -> None:
    graph = KernelGraph((gemm(256),), 3 << 20, 2 << 20)
    memory = predictor.predict(graph).memory_mb
    assert (memory.low, memory.value, memory.high) == (13.0, 15.0, 20.0)  # 10 MB of runtime; at most both twice


def test_memory_that_was_measured_is_predicted_with_what_the_fit_missed(
    profile: HardwareProfile, predictor: CalibratedPredictor, tmp_path: Path
) -> None:
    found = MemoryFit(
        runtime_mb=50.0, per_weight=3.0, per_live=2.0, per_kernel_mb=0.5, interval=Interval(low=0.8, high=1.25),
        networks=24,
    )  # fmt: skip
    calibration = load_calibration(profile, tmp_path).model_copy(update={"memory": found})
    memory = CalibratedPredictor(profile, calibration).predict(KernelGraph((gemm(256),), 3 << 20, 2 << 20)).memory_mb
    # beyond the runtime 3 x 3 + 2 x 2 + 0.5 = 13.5 MB, and 1 MB that errors count from
    assert (memory.low, memory.value, memory.high) == pytest.approx((49 + 0.8 * 14.5, 63.5, 49 + 1.25 * 14.5))


def test_another_process_predicts_the_same_number(
    predictor: CalibratedPredictor, profile: HardwareProfile, tmp_path: Path
) -> None:
    code = (
        "import sys; from automc.cost.kernels import *; from automc.cost.predictor import load_predictor;"
        "from automc.profiles import load_profile; from pathlib import Path; f = Path(sys.argv[1]);"
        "r = KernelRow('g', 'Gemm', 'fp32', 'nchw', ((1, 300),), (1, 64), 19200, 1200, 256, 76800);"
        "print(repr(load_predictor(load_profile(str(f)), f).predict(KernelGraph((r,), 76800, 4096)).latency_ms.value))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    here = predictor.predict(KernelGraph((gemm(300),), 76800, 4096)).latency_ms.value
    assert float(done.stdout) == here


def test_a_changed_calibration_is_refused(profile: HardwareProfile, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(StaleCalibrationError, match="is not what profile") as caught:
        load_predictor(load_profile(str(tmp_path)), tmp_path)
    assert caught.value.next_step == f"automc profile calibrate {profile.name}"


def test_a_missing_calibration_is_refused(profile: HardwareProfile, tmp_path: Path) -> None:
    (tmp_path / "calibration.json").unlink()
    with pytest.raises(StaleCalibrationError, match="no such file"):
        load_predictor(profile, tmp_path)
