"""A profile of another machine is refused, and the message names what differs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from bundle_samples import profile as paper_profile
from bundle_samples import tiny_model
from made_up_device import save_made_up

from automc.cost.graph import graph_from_onnx
from automc.errors import StaleCalibrationError
from automc.measure.fingerprint import (
    cache_bytes,
    check_fingerprint,
    host_fingerprint,
    known_anchor_ms,
    shared_cache_bytes,
)


def test_this_machine_is_the_same_machine_twice() -> None:
    here = host_fingerprint()
    assert here == host_fingerprint()
    assert here.runtime == "onnxruntime"
    assert here.cores >= 1
    assert here.cpu
    check_fingerprint(paper_profile().model_copy(update={"fingerprint": here}))


def test_every_difference_is_named_with_the_next_command() -> None:
    other = host_fingerprint().model_copy(update={"cpu": "abacus", "runtime_version": "0.1"})
    stale = paper_profile().model_copy(update={"name": "host", "fingerprint": other})
    with pytest.raises(StaleCalibrationError) as caught:
        check_fingerprint(stale)
    assert "cpu was 'abacus'" in caught.value.message
    assert "runtime_version was '0.1'" in caught.value.message
    assert "cores" not in caught.value.message
    assert caught.value.next_step == "automc profile calibrate host"


def test_a_core_has_a_cache_of_its_own() -> None:
    assert 2**14 <= cache_bytes() <= 2**28


def test_the_last_cache_is_what_a_third_level_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caches = [("1", "0", "32K"), ("1", "0", "48K"), ("2", "0", "1024K"), ("3", "0-7", "32768K")]
    monkeypatch.setattr("automc.measure.fingerprint.CACHES", tmp_path)
    assert (cache_bytes(default=7), shared_cache_bytes()) == (7, None)
    for number, entry in enumerate(caches):
        if entry[0] == "3":
            assert (cache_bytes(), shared_cache_bytes()) == (2**20, None)
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in zip(("level", "shared_cpu_list", "size"), entry, strict=True):
            (folder / name).write_text(f"{text}\n")
    assert (cache_bytes(), shared_cache_bytes()) == (2**20, 2**25)


def test_the_anchor_of_a_calm_machine_is_known_by_a_profile_of_this_very_machine_alone(tmp_path: Path) -> None:
    graphs = [graph_from_onnx(tiny_model())]
    assert known_anchor_ms(tmp_path / "none", 1) is None
    for name, where, known in (("own", host_fingerprint(), 0.03), ("other", None, None)):
        made = save_made_up(tmp_path / name, graphs, name, where)
        stored = yaml.safe_load((tmp_path / name / "profile.yaml").read_text()) | {"anchor_ms": 0.03}
        (tmp_path / name / "profile.yaml").write_text(yaml.safe_dump(stored))
        assert known_anchor_ms(tmp_path / name, made.threads) == known
        assert known_anchor_ms(tmp_path / name, made.threads + 1) is None
    (tmp_path / "own" / "profile.yaml").write_text("name: [\n")
    assert known_anchor_ms(tmp_path / "own", 1) is None
