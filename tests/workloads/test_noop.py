"""The workload that costs nothing: its arithmetic."""

from __future__ import annotations

import pytest

from automc.candidate import Candidate, canonical_json
from automc.errors import ConfigError
from automc.workloads.registry import create_workload


def test_scores_follow_from_the_candidate() -> None:
    """x = (0.1, 0.5): u = 0.3, v = (0.4 + 0) / 2 = 0.2."""
    workload = create_workload("noop", {}, None)
    figures = workload.score(Candidate((), canonical_json({"x_0": 0.1, "x_1": 0.5})), 1, 0)  # type: ignore[attr-defined]
    assert figures["accuracy"].value == pytest.approx(0.8)
    assert figures["latency_ms"].value == pytest.approx(3.7)
    assert figures["energy_mj"].value == pytest.approx(2.45)
    assert figures["size_bytes"].value == pytest.approx(1300)
    assert all("not a device" in figure.source for figure in figures.values())


def test_its_space_holds_ten_million_points() -> None:
    assert create_workload("noop", {}, None).space().size == 10_000_000  # type: ignore[attr-defined]


def test_it_takes_no_options() -> None:
    with pytest.raises(ConfigError, match="speed is not an option of workload noop"):
        create_workload("noop", {"speed": 1}, None)
