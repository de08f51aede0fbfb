"""Choosing again from a run's stored ONNX files: for another device, other limits, another rung."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
import yaml
from made_up_device import save_made_up
from test_unknown_costs import relu_alone
from whole_runs import save_classes, small_config

from automc.config import Constraints, dump_config
from automc.cost.graph import graph_from_onnx
from automc.cost.kernels import KernelGraph
from automc.errors import ConfigError, InfeasibleSearchError, RunInterrupted, StaleCalibrationError
from automc.measure.fingerprint import host_fingerprint
from automc.profiles import Int8Facts, load_profile
from automc.run import Run
from automc.search.loop import search
from automc.search.progress import Progress
from automc.search.rescoring import NOT_TESTED
from automc.trial import Trial


def graphs_of(run: Run) -> list[KernelGraph]:
    models = (run.artifacts.get(trial.artifacts["onnx"]) for trial in run.trials() if trial.ok)
    return [graph_from_onnx(onnx.load_model_from_string(model)) for model in models]


def ten_times_slower(graph: KernelGraph) -> float:
    return 1.0 + graph.macs / 1e5


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose top rung holds more than its finalists, and profiles beside it.

    other: ten times slower, another processor, signed int8 activations. twin: as slow, but this very machine.
    blind: knows no linear layer.
    """
    folder = tmp_path_factory.mktemp("again")
    save_classes(folder)
    config = small_config(
        folder, "classification", objectives=["accuracy", "latency_ms", "size_bytes"],
        constraints={"max_latency_ms": 50.0, "max_drop_points": 60.0},
        search={
            "strategy": "random", "finalists": 1,
            "rungs": [{"candidates": 6, "steps": 0}, {"candidates": 4, "steps": 20}],
        },
    )  # fmt: skip
    run = search(config, run_dir=folder / "run")
    graphs = graphs_of(run)
    save_made_up(folder / "other", graphs, "other", latency_ms=ten_times_slower)
    other = load_profile(str(folder / "other"))
    scheme = other.model_copy(update={"int8": Int8Facts(activation_type="int8")})
    (folder / "other" / "profile.yaml").write_text(json.dumps(scheme.model_dump(mode="json")))
    save_made_up(folder / "twin", graphs, "twin", host_fingerprint(), ten_times_slower)
    save_made_up(folder / "blind", [graph_from_onnx(relu_alone())], "blind")
    return folder


@pytest.fixture
def run(home: Path) -> Run:
    return Run.open(home / "run")


def imported(home: Path, folder: Path, use: str, of: str = "other") -> str:
    """The profile `of` in `folder`, as if it came from a table that is good for `use`."""
    shutil.copytree(home / of, folder)
    told = {
        "kind": "phone", "source": "made up", "licence": "none", "networks": 9, "use": use, "reason": "9 networks",
        "cannot": [],
    }  # fmt: skip
    profile = yaml.safe_load((folder / "profile.yaml").read_text()) | {"imported": told}
    (folder / "profile.yaml").write_text(json.dumps(profile))
    return str(folder)


def test_a_profile_that_only_ranks_judges_no_limit_unless_the_user_insists(run: Run, home: Path, tmp_path) -> None:
    profile = imported(home, tmp_path / "board", "rank only")
    with pytest.raises(
        ConfigError, match="--max-latency-ms cannot be judged: other is good for ranking only: 9 networks"
    ):
        run.rescore(profile, max_latency_ms=4)
    assert run.rescore(profile, max_latency_ms=4, insist=True).constraints.max_latency_ms == 4
    notes = "\n".join(run.rescore(profile).notes)  # ranking is what it is good for
    assert "other is good for ranking only: 9 networks" in notes


def test_a_calibration_of_busy_neighbours_judges_no_limit_either(run: Run, home: Path, tmp_path) -> None:
    shutil.copytree(home / "other", tmp_path / "busy")
    profile = json.loads((tmp_path / "busy" / "profile.yaml").read_text()) | {"noise_floor_percent": 75.7}
    (tmp_path / "busy" / "profile.yaml").write_text(json.dumps(profile))
    busy = str(tmp_path / "busy")
    with pytest.raises(ConfigError, match="good for ranking only: two timings of one network differed by 76 %"):
        run.rescore(busy, max_latency_ms=4)
    assert run.rescore(busy, max_latency_ms=4, insist=True).constraints.max_latency_ms == 4
    assert run.rescore(busy, max_memory_mb=400).constraints.max_memory_mb == 400
    assert any("good for ranking only" in note for note in run.rescore(busy).notes)
    assert run.rescore(str(home / "other"), max_latency_ms=4).constraints.max_latency_ms == 4  # a calm one does


def test_a_table_of_latencies_judges_them_but_neither_memory_nor_energy(run: Run, home: Path, tmp_path) -> None:
    profile = imported(home, tmp_path / "board", "limits")
    assert run.rescore(profile, max_latency_ms=4).constraints.max_latency_ms == 4
    for key in ("max_memory_mb", "max_energy_mj"):
        with pytest.raises(ConfigError, match="comes from a table of latencies alone"):
            run.rescore(profile, **{key: 4.0})


def with_energies(folder: Path, networks: int, high: float) -> None:
    """Measured energies for the profile in `folder`: so many, nine in ten at most `high` times what was predicted."""
    stored = json.loads((folder / "calibration.json").read_text())
    stored["measured_energy"] = {
        "coefficients": {}, "power_w": 2.0, "interval": {"low": 0.9, "high": high}, "networks": networks,
        "within_10_percent": 0.9, "mape_percent": 5.0, "constant_power_mape_percent": 5.0, "rank_correlation": 0.97,
        "interval_coverage": 0.9,
    }  # fmt: skip
    text = json.dumps(stored)
    (folder / "calibration.json").write_text(text)
    profile = json.loads((folder / "profile.yaml").read_text())
    profile["calibration_digest"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "profile.yaml").write_text(json.dumps(profile))


def test_energies_that_were_measured_judge_limits_when_they_are_told_well_enough(
    run: Run, home: Path, tmp_path
) -> None:
    profile = imported(home, tmp_path / "board", "limits")
    with_energies(tmp_path / "board", networks=25, high=1.2)
    found = run.rescore(profile, max_energy_mj=4)
    assert found.constraints.max_energy_mj == 4
    latency, energy = (found.points[0].figures[name] for name in ("latency_ms", "energy_mj"))
    assert (energy.value, energy.high) == pytest.approx((2 * latency.value, 2.4 * latency.value))
    with pytest.raises(ConfigError, match=r"--max-memory-mb cannot be judged: .* latencies and energies alone"):
        run.rescore(profile, max_memory_mb=4)
    for networks, high, why in ((9, 1.2, "9 networks are too few"), (25, 9.0, "within a factor of 10.0, not of 3")):
        with_energies(tmp_path / "board", networks, high)
        with pytest.raises(ConfigError, match=f"energies of other are good for ranking only: .*{why}"):
            run.rescore(profile, max_energy_mj=4)
        assert run.rescore(profile, max_energy_mj=4, insist=True).constraints.max_energy_mj == 4


def trials_at(run: Run, rung: int) -> Sequence[Trial]:
    return [trial for trial in run.trials() if trial.rung == rung and trial.ok]


def test_every_candidate_of_the_top_rung_is_predicted_for_the_other_device_and_nothing_of_the_own_one_is_shown(
    home: Path, run: Run
) -> None:
    found = run.rescore(str(home / "other"))
    assert len(found.points) > len(run.finalists())
    assert {point.trial.candidate.id for point in found.points} <= {t.candidate.id for t in trials_at(run, 1)}
    assert {point.trial.rung for point in found.points} == {1}
    for point in found.points:
        costs = [point.figures[name] for name in ("latency_ms", "energy_mj", "memory_mb", "speedup")]
        assert {figure.kind for figure in costs} == {"predicted"}
        assert "other: " in (point.figures["latency_ms"].source or "")
        assert point.figures["latency_ms"].low < point.figures["latency_ms"].value < point.figures["latency_ms"].high
        assert "latency_median_ms" not in point.figures
        assert point.trial["latency_ms"] == point.figures["latency_ms"]
    # on this device time is 1 ms and a hundred thousandth of the MACs: ten times that of the own one
    assert all(point.figures["latency_ms"].value > 0.9 for point in found.points)


def test_test_figures_are_those_of_the_finalists_and_nobody_else_has_any(home: Path, run: Run) -> None:
    known = {point.trial.candidate.id: point.figures["test_accuracy"] for point in run.finalists()}
    for point in run.rescore(str(home / "other")).points:
        assert point.figures.get("test_accuracy") == known.get(point.trial.candidate.id)


def test_limits_of_the_own_device_are_left_out_and_said_to_be_and_others_stay(home: Path, run: Run) -> None:
    found = run.rescore(str(home / "other"))
    assert found.constraints.max_latency_ms is None
    assert found.constraints.max_drop_points == 60.0
    assert any("max_latency_ms of 50" in note for note in found.notes)
    given = run.rescore(str(home / "other"), max_latency_ms=4, max_drop_points=None)
    assert (given.constraints.max_latency_ms, given.constraints.max_drop_points) == (4, None)
    assert run.rescore(max_size_bytes=9e9).constraints.max_latency_ms == 50.0


def test_what_the_other_device_does_otherwise_is_said(home: Path, run: Run, tmp_path: Path) -> None:
    notes = "\n".join(run.rescore(str(home / "other")).notes)
    assert "other has other instruction sets" in notes
    assert "read these predictions as a ranking" in notes
    assert "activation_type uint8 and not int8" in notes
    assert not any("int8" in note or "ranking" in note for note in run.rescore(str(home / "twin")).notes)
    of_a_table = run.rescore(imported(home, tmp_path / "board", "limits")).notes
    assert not any("int8 candidates" in note for note in of_a_table)  # nothing of how int8 is fast there


def test_a_limit_nothing_meets_leaves_with_the_binding_one_by_how_much_and_the_closest(home: Path, run: Run) -> None:
    found = run.rescore(str(home / "other"), max_latency_ms=0.5)
    best = min(found.points, key=lambda point: point.figures["latency_ms"].value)
    with pytest.raises(InfeasibleSearchError, match=r"latency_ms <= 0\.5") as none:
        found.choose("fastest")
    assert best.trial.candidate.id in none.value.message
    assert f"{best.figures['latency_ms'].value - 0.5:.4g} too much" in none.value.message


def test_an_operator_the_device_does_not_know_is_unknown_and_never_met(home: Path, run: Run) -> None:
    found = run.rescore(str(home / "blind"), max_latency_ms=1000)
    assert set(found.unknown) == {point.trial.candidate.id for point in found.points}
    assert all("Gemm" in why for why in found.unknown.values())
    assert not any("latency_ms" in point.figures or point.on_front for point in found.points)
    for rule, limits in (("smallest", {"max_latency_ms": 1000}), ("fastest", {})):
        with pytest.raises(InfeasibleSearchError, match=r"no candidate can be priced on blind: .*Gemm") as none:
            run.rescore(str(home / "blind"), **limits).choose(rule)
        assert "--profile blind --calibrate; or choose for another --profile" in str(none.value.next_step)
    assert run.rescore(str(home / "blind")).choose("smallest").figures["size_bytes"].value > 0
    with pytest.raises(InfeasibleSearchError, match=r"drop_points <= -90") as none:  # no matter of prices
        run.rescore(str(home / "blind"), max_drop_points=-90).choose("smallest")
    assert "give wider limits" in str(none.value.next_step)


def test_where_a_table_knows_no_candidate_its_next_step_is_another_table(run: Run, home: Path, tmp_path: Path) -> None:
    profile = imported(home, tmp_path / "board", "limits", of="blind")
    with pytest.raises(InfeasibleSearchError, match=r"no candidate can be priced on blind: .*Gemm") as none:
        run.rescore(profile).choose("knee")
    assert none.value.next_step == (
        "measure networks with these operators there and import them; or choose for another --profile"
    )


def test_a_speed_up_of_two_predictions_says_what_its_interval_assumes(run: Run, home: Path) -> None:
    found = run.rescore(str(home / "other"))
    assert "the worst case, one of them erring high and the other low" in str(found.points[0].figures["speedup"].source)


def test_the_bundle_for_another_device_promises_nothing_that_was_measured_elsewhere(
    home: Path, run: Run, tmp_path: Path
) -> None:
    found = run.rescore(str(home / "other"))
    untested = next(point for point in found.points if "test_accuracy" not in point.figures)
    bundle = found.bundle(untested, tmp_path / "bundle")
    bundle.verify()
    expected = json.loads((bundle.folder / "expected.json").read_text())
    assert set(expected["figures"]) == {"accuracy", "drop_points", "size_bytes"}
    assert expected["figures"]["accuracy"]["split"] == "validation"
    assert set(expected["predicted"]) == {"latency_ms", "energy_mj", "memory_mb"}
    assert expected["speedup"] is None
    assert expected["profile"]["name"] == "other"
    assert expected["device"]["cpu"] == load_profile(str(home / "other")).fingerprint.cpu
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    assert NOT_TESTED in card
    assert "Nothing was timed on other" in card
    latency = next(item for item in bundle.examine(latency=True).checks if item.name == "latency")
    assert (latency.status, "another device" in latency.detail) == ("unknown", True)
    tested = next(point for point in found.points if "test_accuracy" in point.figures)
    second = found.bundle(tested, tmp_path / "second")
    assert json.loads((second.folder / "expected.json").read_text())["figures"]["accuracy"]["split"] == "test"


def test_measuring_needs_this_very_machine_and_then_figures_are_measured(home: Path, run: Run, tmp_path: Path) -> None:
    with pytest.raises(StaleCalibrationError, match="other"):
        run.rescore(str(home / "other"), measure=True)
    found = run.rescore(str(home / "twin"), measure=True)
    assert {point.figures["latency_ms"].kind for point in found.points} == {"measured"}
    assert all(point.figures["predicted_latency_ms"].value > 0.9 for point in found.points)
    bundle = found.bundle(found.points[0], tmp_path / "bundle")
    expected = json.loads((bundle.folder / "expected.json").read_text())
    assert expected["figures"]["latency_ms"]["kind"] == "measured"
    assert expected["speedup"] is not None


def test_a_prediction_for_this_very_machine_is_judged_by_timing_the_bundle(
    home: Path, run: Run, tmp_path: Path
) -> None:
    """The made-up device claims milliseconds for what takes microseconds: outside the interval, so it fails."""
    found = run.rescore(str(home / "twin"))
    bundle = found.bundle(found.points[0], tmp_path / "bundle")
    latency = next(item for item in bundle.examine(latency=True).checks if item.name == "latency")
    assert latency.status == "failed"
    assert "outside the interval of the prediction" in latency.detail


def test_other_limits_alone_judge_what_the_finalists_measured(run: Run) -> None:
    found = run.rescore(max_latency_ms=1e-6)
    assert [point.trial.candidate.id for point in found.points] == [p.trial.candidate.id for p in run.finalists()]
    assert {point.figures["latency_ms"].kind for point in found.points} == {"measured"}
    with pytest.raises(InfeasibleSearchError, match="1e-06"):
        found.choose("knee")
    assert run.rescore().choose("most-accurate") == run.rescore().choose("most_accurate")


def test_predicted_energies_of_finalists_judge_no_limit_where_the_device_only_ranks(run: Run, tmp_path: Path) -> None:
    copied = Run.open(shutil.copytree(run.folder, tmp_path / "run"))
    file = copied.folder / "profile" / "profile.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"noise_floor_percent": 60.0}))
    with pytest.raises(ConfigError, match="max-energy-mj cannot be judged: energies are predicted"):
        copied.rescore(max_energy_mj=1e6)
    assert copied.rescore(max_energy_mj=1e6, insist=True).points
    assert copied.rescore(max_latency_ms=1e6).points  # finalists were timed


def test_a_lower_rung_is_shown_alone_and_labelled(home: Path, run: Run) -> None:
    found = run.rescore(str(home / "other"), rung=0)
    assert {point.trial.rung for point in found.points} == {0}
    assert any("candidates of rung 0: they had 0 of 20 optimiser steps" in note for note in found.notes)
    assert not any("test_accuracy" in point.figures for point in found.points)
    with pytest.raises(ConfigError, match="rung 7"):
        run.rescore(str(home / "other"), rung=7)


def test_where_nothing_at_the_top_meets_a_limit_a_closer_candidate_further_down_is_named(home: Path, run: Run) -> None:
    top = run.rescore(str(home / "other"))
    below = run.rescore(str(home / "other"), rung=0)
    best = min(point.figures["latency_ms"].value for point in top.points)
    closer = [point for point in below.points if point.figures["latency_ms"].value < best]
    with pytest.raises(InfeasibleSearchError) as none:
        run.rescore(str(home / "other"), max_latency_ms=0.1).choose("fastest")
    assert ("which went no further than rung 0" in none.value.message) == bool(closer)


def test_an_interrupted_run_is_rescored_from_what_came_through(home: Path, tmp_path: Path) -> None:
    config = Run.open(home / "run").config

    def stop(progress: Progress) -> None:
        if progress.trial is not None and progress.trial.rung == 1 and progress.rung_done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(RunInterrupted):
        search(config, run_dir=tmp_path / "run", watch=stop)
    found = Run.open(tmp_path / "run").rescore(str(home / "other"))
    assert found.rung == 1
    assert any("has not ended" in note for note in found.notes)
    assert found.choose("knee") in found.points
    own = Run.open(tmp_path / "run").rescore()
    assert {point.figures["latency_ms"].kind for point in own.points} == {"predicted"}


def test_the_command_prints_predictions_and_bundles_the_pick(automc, home: Path, tmp_path: Path) -> None:
    folder, out = home / "run", tmp_path / "bundle"
    answer = automc(
        "front", folder, "--profile", home / "other", "--max-latency-ms", "4", "--pick", "most-accurate", "--out", out
    )
    assert answer.code == 0, answer.err
    assert "ms (predicted)" in answer.out
    assert "profile other; rung 1 of 1 (20 optimiser steps)" in answer.out
    assert "limits: at most 60 points worse than the reference; latency at most 4 ms" in answer.out
    assert "note: These candidates were found, cut and trained for paper" in answer.out
    assert f"bundle: {out}, verified" in answer.out
    shutil.rmtree(out)
    machine = automc("front", folder, "--profile", home / "other", "--pick", "knee", "--out", out, "--json").json
    assert machine["bundle"] == str(out)
    assert machine["picked"] in {point["trial"]["id"] for point in machine["points"] if point["chosen"]}
    infeasible = automc("front", folder, "--profile", home / "other", "--max-latency-ms", "0.1")
    assert infeasible.code == 3
    assert "latency_ms over the limit" in infeasible.out
    assert "latency_ms <= 0.1" in infeasible.err
    assert automc("front", folder, "--profile", "nowhere").code == 2
    assert automc("front", folder, "--max-latency-ms", "-1").code == 2


def test_a_run_without_onnx_files_takes_limits_but_no_other_device(automc, home: Path, tmp_path: Path) -> None:
    from noop_runs import config_in

    file = tmp_path / "search.yaml"
    file.write_text(dump_config(config_in(tmp_path)))
    automc("search", file, "--run", tmp_path / "noop")
    answer = automc("front", tmp_path / "noop", "--profile", home / "other")
    assert answer.code == 2
    assert "no ONNX files" in answer.err
    assert automc("front", tmp_path / "noop", "--max-latency-ms", "5").code == 0


def test_a_search_nothing_meets_names_a_screened_candidate_that_is_predicted_closer_than_any_finalist(
    home: Path, run: Run, tmp_path: Path
) -> None:
    """A device on paper a thousand times as fast as this one: what is measured here is far from what is predicted."""
    save_made_up(tmp_path / "device", graphs_of(run), "fast", host_fingerprint(), lambda graph: 1e-4 + graph.macs / 1e9)
    config = run.config.model_copy(
        update={"profile": str(tmp_path / "device"), "constraints": Constraints(max_latency_ms=1e-6)}
    )
    with pytest.raises(InfeasibleSearchError, match=r"latency_ms <= 1e-06") as none:
        search(config, run_dir=tmp_path / "run")
    assert "the closest finalist" in none.value.message
    assert "screened out before training, is predicted to have 0.0001" in none.value.message
