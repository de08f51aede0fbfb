"""The whole examination: what is found, said and left undone, on networks that are fine and on those that are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import odd_networks
import pytest
import yaml
from examinations import CLASSES, SHORT, config_of, labels, pictures, save_data, saved
from odd_networks import line_of

import automc
from automc.config import SearchConfig
from automc.doctor.budget import Budget
from automc.doctor.diagnosis import Diagnosis, Stage
from automc.errors import ConfigError
from automc.profiles import load_profile


def stage(diagnosis: Diagnosis, name: str) -> Stage:
    return next(item for item in diagnosis.stages if item.name == name)


def texts(diagnosis: Diagnosis, level: str) -> list[str]:
    return [finding.text for finding in diagnosis.findings if finding.level == level]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Diagnosis:
    folder = tmp_path_factory.mktemp("plain")
    limits = {"max_drop_points": 1.0, "max_latency_ms": 0.15, "max_size_bytes": 1000}
    known = (odd_networks.Plain, odd_networks.FactorisedPlain)
    return automc.doctor(config_of(folder, "Plain", known, constraints=limits), budget=SHORT)


def test_a_healthy_network_passes_every_stage_and_can_be_searched(plain: Diagnosis) -> None:
    assert [(item.name, item.ok) for item in plain.stages] == [
        ("runs", True), ("traced", True), ("exported", True), ("parity", True),
    ]  # fmt: skip
    assert plain.searchable
    assert plain.next_step.startswith("automc search")
    assert plain.parameters == 224 + 1168 + 68
    # 8 x 8 positions of 3 * 9 * 8, then 4 x 4 of 8 * 9 * 16, then 16 * 4
    assert plain.macs == 64 * 216 + 16 * 1152 + 64
    assert "over 8 samples" in stage(plain, "parity").detail


def test_what_each_technique_can_act_on_is_listed_with_its_share(plain: Diagnosis) -> None:
    found = {entry.technique: entry for entry in plain.techniques}
    assert len(found["channel_pruning"].reach.targets) == 2
    assert found["int8_ptq"].parameters_share == 1.0
    assert not found["tucker"].in_space


def test_a_limit_is_judged_by_the_lowest_prediction_that_was_seen(plain: Diagnosis) -> None:
    outlook = {limit.metric: limit for limit in plain.limits}
    assert outlook["drop_points"].outlook == "unknown"
    latency, size = outlook["latency_ms"], outlook["size_bytes"]
    assert latency.lowest is not None
    assert (latency.outlook == "reachable") == (latency.lowest.value <= 0.15)
    assert size.outlook == "not seen reachable"  # 1460 parameters are 1460 bytes in int8
    assert size.lowest is not None
    assert size.lowest.value > 1000
    (warning,) = [text for text in texts(plain, "warn") if "size_bytes" in text]
    assert "no candidate of the" in warning
    assert plain.space is not None
    assert plain.space.looked_at > 3
    assert plain.space.within == 0


def test_a_limit_that_a_search_would_not_let_the_profile_judge_stands_in_its_way(tmp_path: Path) -> None:
    config = config_of(tmp_path, "Plain", constraints={"max_latency_ms": 1.0})
    file = Path(config.profile) / "profile.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"noise_floor_percent": 60.0}))
    found = automc.doctor(config, budget=SHORT)
    assert not found.searchable
    assert any("max_latency_ms cannot be judged" in text for text in texts(found, "stop"))
    assert automc.doctor(config.model_copy(update={"insist": True}), budget=SHORT).searchable


def test_a_predicted_size_is_near_that_of_the_file(plain: Diagnosis) -> None:
    assert plain.space is not None
    assert plain.size_bytes is not None
    assert plain.space.base["size_bytes"].value == pytest.approx(plain.size_bytes, rel=0.02)


def test_the_run_time_is_added_up_from_what_was_measured(plain: Diagnosis) -> None:
    effort = plain.effort
    assert effort is not None
    assert effort.step_s > 0
    first, second, end = effort.arithmetic
    assert first.startswith("rung 0: (4 candidates + 2 anchors) x (plan ")
    assert second.startswith("rung 1: (2 candidates + 2 anchors) x (20 steps x ")
    assert end.startswith("the end: 4 finalists")
    assert effort.memory_mb > 100


def test_everything_is_in_the_json(plain: Diagnosis) -> None:
    stored = json.loads(json.dumps(plain.to_json(), allow_nan=False))
    assert set(stored) == set(Diagnosis.__dataclass_fields__) | {"searchable", "verdict"}
    assert stored["stages"][0]["name"] == "runs"
    assert stored["layers"][0]["blocked"].keys() <= {entry["technique"] for entry in stored["techniques"]}
    assert stored["space"]["lowest"]["latency_ms"][0]["value"] > 0
    assert stored["data"]["splits"][0]["classes"] == {str(label): 20 for label in range(CLASSES)}


def test_control_flow_on_values_names_module_and_line_and_the_rest_is_answered(tmp_path: Path) -> None:
    config = config_of(tmp_path, "Branching", known=(odd_networks.Plain,))
    found = automc.doctor(config, budget=SHORT)
    for name in ("traced", "exported"):
        failed = stage(found, name)
        assert failed.ok is False
        assert failed.site.module == "blocks.0"
        assert failed.site.where.endswith(line_of("if y.mean() > 0:"))
        assert failed.possible
    assert stage(found, "parity").ok is None
    assert not found.searchable
    assert "cannot be exported in blocks.0" in found.verdict
    assert {entry.technique for entry in found.techniques} >= {"low_rank", "channel_pruning"}
    assert found.data.compared == 160
    assert found.effort is None


def test_a_network_the_trace_cannot_follow_is_costed_by_its_export(tmp_path: Path) -> None:
    found = automc.doctor(config_of(tmp_path, "Recurrent", known=(odd_networks.Plain,)), budget=SHORT)
    assert stage(found, "traced").ok is False
    assert stage(found, "traced").site.where.endswith(
        line_of("y, _ = self.rnn(x.flatten(2).transpose(1, 2).reshape(-1, 8, 24))")
    )
    assert stage(found, "parity").ok is True
    assert "GRU.fp32" in [item.kind for item in found.unknown]
    assert any("cannot be traced in rnn" in text for text in texts(found, "warn"))


def test_an_error_of_the_users_own_kind_is_a_failed_stage_with_its_line(tmp_path: Path) -> None:
    found = automc.doctor(config_of(tmp_path, "Complains"), budget=SHORT)
    failed = stage(found, "runs")
    assert failed.ok is False
    assert failed.detail == "Complaint: one at a time"
    assert failed.site.where.endswith(line_of('raise Complaint("one at a time")'))


def test_a_network_that_does_not_run_is_asked_nothing_else_but_its_data_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, "Plain")

    def broken(self: odd_networks.Plain, x: object) -> object:
        raise KeyError("nothing of that name")

    monkeypatch.setattr(odd_networks.Plain, "forward", broken)
    monkeypatch.setattr("automc.workloads.arrays.Arrays._outputs", lambda self: CLASSES)
    found = automc.doctor(config, budget=SHORT)
    assert [item.ok for item in found.stages] == [False, None, None, None]
    assert found.stages[0].detail == "KeyError: 'nothing of that name'"
    assert found.techniques == ()
    assert found.data.compared == 160


def test_a_bug_of_ours_is_not_the_users_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("automc.export.export_onnx", bug)
    with pytest.raises(ZeroDivisionError):
        automc.doctor(config_of(tmp_path, "Plain"), budget=SHORT)


def test_samples_in_two_splits_are_counted_and_stop_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaking = pictures(40, 1)
    leaking[[3, 5, 9]] = pictures(80, 0)[[10, 11, 12]]
    save_data(tmp_path, validation_x=leaking)
    refused = automc.doctor(config_of(tmp_path, "Plain"), budget=SHORT)
    (stop,) = texts(refused, "stop")
    assert "sample 3 of validation is also sample 10 of train (and 2 more of validation" in stop
    assert stop.startswith("train, calibration, validation, test cannot be read")
    # a workload that does not look itself
    monkeypatch.setattr("automc.workloads._stored.check_disjoint", lambda *_: None)
    found = automc.doctor(config_of(tmp_path, "Plain"), budget=SHORT)
    (leak,) = found.data.leaks
    assert (leak.inside, leak.of, leak.samples, leak.first) == ("validation", "train", 3, (3, 10))
    assert not found.searchable


def test_a_held_out_split_that_repeats_itself_is_a_warning(tmp_path: Path) -> None:
    once = pictures(40, 1)
    save_data(tmp_path, validation_x=np.concatenate([once[:20], once[:20]]))
    found = automc.doctor(config_of(tmp_path, "Plain"), budget=SHORT)
    assert [note for note in texts(found, "warn") if "repeats itself" in note] == [
        "validation repeats itself: 40 samples looked at, 20 of them different, so its intervals are narrower than "
        "they should be"
    ]
    assert found.searchable


def test_missing_classes_and_a_base_that_knows_its_validation_are_warnings(tmp_path: Path) -> None:
    held = labels(40)
    held[held == 3] = 0
    save_data(tmp_path, validation_y=held)
    found = automc.doctor(config_of(tmp_path, "Plain"), budget=SHORT)
    assert "validation holds no sample of class 3, which train has" in found.data.notes
    assert found.searchable


def test_an_accuracy_beyond_the_interval_on_train_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(workload: object, examples: object, *_: object) -> np.ndarray:
        return np.ones(100) if len(examples) == 80 else np.zeros(100)  # type: ignore[arg-type]

    monkeypatch.setattr("automc.doctor.data._scores", scores)
    found = automc.doctor(config_of(tmp_path, "Plain"), budget=SHORT)
    assert any("differ beyond their intervals" in text for text in texts(found, "warn"))


def test_a_technique_of_the_space_with_nothing_to_do_is_named(tmp_path: Path) -> None:
    space = {
        "name": "deep",
        "techniques": {"depth_pruning": {"ratio": [0.2, 0.4]}, "int8_ptq": {}},
        "recovery": {"fine_tune": {}},
        "anchors": [{"name": "reference", "steps": ["recovery"]}],
    }
    found = automc.doctor(config_of(tmp_path, "Plain", space=space), budget=SHORT)
    assert any(text.startswith("depth_pruning of the space finds nothing") for text in texts(found, "warn"))


class Ticking:
    """A clock that moves on by one second whenever it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_a_part_ends_when_its_seconds_are_used_and_says_how_far_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automc.doctor.data._BATCH", 10)
    monkeypatch.setattr("automc.doctor.costs.SMALL", 0)
    config = config_of(tmp_path, "Plain")
    brief = automc.doctor(config, budget=Budget(leaks_s=6.0, accuracy_s=2.0, space_s=4.0, clock=Ticking()))
    assert brief.space is not None
    # the deadline is asked for once a candidate, from the second one on, and is over at the fourth second
    assert brief.space.looked_at <= 5
    # validation has 4 batches of 10: at the fifth batch, and at once for what comes then, 6 seconds are over
    assert brief.data.compared < brief.data.samples == 160
    long = automc.doctor(config, budget=Budget(leaks_s=600.0, accuracy_s=2.0, space_s=8.0, clock=Ticking()))
    assert long.data.compared == 160
    assert long.space is not None
    assert long.space.looked_at > brief.space.looked_at


def test_without_a_profile_costs_are_unknown_and_the_rest_is_answered(tmp_path: Path) -> None:
    config = config_of(tmp_path, "Plain", constraints={"max_latency_ms": 1.0})
    found = automc.doctor(config.model_copy(update={"profile": "host"}), budget=SHORT)
    assert found.space is None
    assert [limit.outlook for limit in found.limits] == ["unknown"]
    assert any("costs are unknown" in text for text in texts(found, "warn"))
    assert found.effort is not None
    assert found.searchable  # a search calibrates first


def test_a_table_of_figures_has_no_model_to_examine() -> None:
    config = SearchConfig.model_validate({"workload": {"name": "noop"}, "space": "noop"})
    with pytest.raises(ConfigError, match="no model to examine"):
        automc.doctor(config)


def test_unknown_operators_are_listed_and_priced_when_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # on a shared machine nothing may be calm; what is tested here is the way, not the figures
    monkeypatch.setattr("automc.measure.anchor.CALM_RATIO", 1e9)
    config = config_of(tmp_path, "Hybrid", known=(odd_networks.Plain,))
    with monkeypatch.context() as busy:
        busy.setattr("automc.measure.missing.measure_batch", lambda *_, **__: {})
        disturbed = automc.doctor(config, budget=SHORT, calibrate=True)
    assert {item.problem for item in disturbed.unknown} == {"the machine was too busy to time it"}
    assert any("the machine was too busy to time it" in finding.text for finding in disturbed.findings)
    assert disturbed.next_step.endswith(" --calibrate")  # there is nothing to mend: once more
    before = automc.doctor(config, budget=SHORT)
    kinds = {item.kind for item in before.unknown}
    assert "InstanceNormalization.fp32" in kinds
    assert all(item.kernels or item.candidates for item in before.unknown)
    assert before.next_step.endswith(" --calibrate")
    assert before.space is not None
    assert "latency_ms" not in before.space.lowest
    digest = load_profile(config.profile).calibration_digest
    after = automc.doctor(config, budget=SHORT, calibrate=True)
    left = [item for item in after.unknown if not item.calibrated]
    assert not left, left
    assert after.space is not None
    assert after.space.lowest["latency_ms"][0].value > 0
    assert load_profile(config.profile).calibration_digest != digest
    again = automc.doctor(config, budget=SHORT)
    priced = {item.kind for item in after.unknown}  # before may have had the time to look at more candidates
    assert "InstanceNormalization.fp32" in priced
    assert not {item.kind for item in again.unknown} & priced
    assert replace(again.stages[0], seconds=0.0) == replace(after.stages[0], seconds=0.0)


def test_the_command_prints_a_page_and_json_and_leaves_with_2_where_no_search_can_run(automc, tmp_path: Path) -> None:
    fine, broken = tmp_path / "fine", tmp_path / "broken"
    fine.mkdir()
    broken.mkdir()
    known = (odd_networks.Plain, odd_networks.FactorisedPlain)
    page = automc("doctor", saved(config_of(fine, "Plain", known), fine))
    assert page.code == 0
    lines = page.out.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    assert "\nnext: automc search" in page.out  # the path of the config may come on a line of its own
    assert "verdict: a search can run" in page.out
    answer = automc("doctor", saved(config_of(broken, "Branching", known=(odd_networks.Plain,)), broken), "--json")
    assert answer.code == 2
    assert answer.json["searchable"] is False  # type: ignore[index]
    assert "Traceback" not in answer.err
