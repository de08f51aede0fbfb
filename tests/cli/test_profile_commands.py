from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from bundle_samples import profile, tiny_model
from made_up_device import save_made_up

from automc.cost.calibration import Int8Probe, Probes, WidthProbe, load_calibration
from automc.cost.graph import graph_from_onnx
from automc.profiles import HeldOut, Imported, calibration_text, load_profile, save_profile


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOMC_HOME", str(tmp_path))
    held = HeldOut(
        precision="fp32", networks=30, families=("wide", "deep"), within_5_percent=0.7, within_10_percent=0.95,
        within_15_percent=0.99, mape_percent=3.5, rank_correlation=0.999, interval_coverage=0.91,
    )  # fmt: skip
    made = profile().model_copy(update={"held_out": (held,)})
    save_profile(made, {}, tmp_path / "profiles" / "bench-board")
    return tmp_path


def test_list_names_device_runtime_and_held_out_error(automc, home: Path) -> None:
    lines = automc("profile", "list").out.splitlines()
    line = next(line for line in lines if line.startswith("bench-board"))
    assert "made up" in line
    assert "onnxruntime 1" in line
    assert "fp32 3.5 % (n=30)" in line
    names = [item["name"] for item in automc("profile", "list", "--json").json]
    assert "bench-board" in names


@pytest.mark.parametrize(
    ("error", "noise", "use", "why"),
    [
        (8.8, 3.7, "limits", "8.8 % mean error"),
        (52.6, 3.7, "rank only", "fp32 networks left out are 53 % off in the mean"),
        (8.8, 75.7, "rank only", "two timings of one network differed by 76 %"),
    ],
)
def test_a_calibration_of_busy_neighbours_is_said_to_rank_and_no_more(
    automc, home: Path, monkeypatch: pytest.MonkeyPatch, error: float, noise: float, use: str, why: str
) -> None:
    told = load_profile("bench-board")
    held = told.held_out[0].model_copy(update={"mape_percent": error})
    made = told.model_copy(update={"held_out": (held,), "noise_floor_percent": noise})
    save_profile(made, {}, home / "profiles" / "bench-board")
    line = next(line for line in automc("profile", "list").out.splitlines() if line.startswith("bench-board"))
    assert f"  {use}  " in line
    shown = automc("profile", "show", "bench-board").out
    assert any(line.startswith("good for:") and use in line and why in line for line in shown.splitlines())
    monkeypatch.setattr("automc.measure.calibrate.calibrate_host", lambda *_, **__: made)
    err = automc("profile", "calibrate", "bench-board", "--quick").err
    assert ("ranks networks and no more" in err) == (use == "rank only")


def test_show_tells_what_calibration_found_and_how_wrong_it_is(automc, home: Path) -> None:
    answer = automc("profile", "show", "bench-board")
    assert answer.code == 0
    for part in ("multiples of 8 pay", "uint8 activations", "0.999", "95%", "wide, deep", "energy per MAC and byte"):
        assert part in answer.out
    assert automc("profile", "show", "bench-board", "--json").json["channel_multiple"] == 8


def test_show_of_a_table_without_spreads_knows_no_noise_and_wraps_its_networks(
    automc, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = load_profile("bench-board")
    names = tuple(f"exports/of-a-table/network_{at}.onnx" for at in range(24))
    held = told.held_out[0].model_copy(update={"families": names, "left_out": "one network"})
    table = Imported(
        kind="phone", source="s", licence="l", networks=24, use="limits", reason="r", cannot=("energy",)
    )  # fmt: skip
    made = told.model_copy(update={
        "imported": table, "held_out": (held,), "noise_floor_percent": 0.0, "noise_floor_ms": 0.0,
    })  # fmt: skip
    save_profile(made, {}, home / "profiles" / "bench-board")
    monkeypatch.setenv("COLUMNS", "90")
    lines = automc("profile", "show", "bench-board").out.splitlines()
    assert "noise:        not known" in lines
    at = next(number for number, line in enumerate(lines) if line.startswith("precision"))
    assert lines[at].endswith("in interval")
    assert lines[at + 2].startswith("networks of fp32: exports/of-a-table/network_0.onnx, ")
    told_names = " ".join(line.strip() for line in lines[at + 2 : lines.index("", at)])
    assert told_names.removeprefix("networks of fp32: ").split(", ") == list(names)
    assert max(map(len, lines[at : lines.index("", at)])) <= 90
    noisy = made.model_copy(update={"noise_floor_percent": 0.4, "noise_floor_ms": 0.02})
    save_profile(noisy, {}, home / "profiles" / "bench-board")
    assert "noise:        0.4 %, 0.0200 ms" in automc("profile", "show", "bench-board").out


def test_a_misspelt_profile_gets_the_nearest_name(automc, home: Path) -> None:
    answer = automc("profile", "show", "bench-bord")
    assert answer.code == 2
    assert "did you mean bench-board?" in answer.err


def test_a_damaged_profile_is_named_with_its_file(automc, home: Path) -> None:
    path = home / "profiles" / "bench-board" / "profile.yaml"
    path.write_text("name: [\n")
    answer = automc("profile", "show", "bench-board")
    assert answer.code == 2
    assert str(path) in answer.err


@pytest.mark.parametrize("text", [b"name: [\n", b"name: odd\n", b"\xff\xfe\x00"])
def test_a_damaged_profile_is_warned_of_and_hides_no_other(automc, home: Path, text: bytes) -> None:
    folder = home / "profiles" / "odd"
    folder.mkdir()
    (folder / "profile.yaml").write_bytes(text)
    for more in ((), ("--json",)):
        answer = automc("profile", "list", *more)
        assert answer.code == 0
        assert "warning: left out odd: " in answer.err
        assert answer.err.endswith(f"\n  next: delete {folder}, then calibrate or import it again\n")
        assert answer.err.count("\n") == 2
    assert "bench-board" in {item["name"] for item in answer.json}
    assert "odd" not in {item["name"] for item in answer.json}


def test_show_draws_what_was_asked_and_lacks_the_drawing_where_that_was_not_kept(automc, tmp_path: Path) -> None:
    made = save_made_up(tmp_path / "old", [graph_from_onnx(tiny_model())])
    bare = automc("profile", "show", str(tmp_path / "old"))
    assert bare.code == 0
    assert "#" not in bare.out
    assert "cannot predict" not in bare.out
    assert automc("profile", "show", str(tmp_path / "old"), "--json").json["probes"] is None
    probes = Probes(
        widths=(WidthProbe(width=40, latency_ms=0.2), WidthProbe(width=44, latency_ms=0.3)),
        int8=(Int8Probe(width=32, size=16, fp32_ms=0.4, uint8_ms=0.1, int8_ms=0.8),),
    )
    stored = load_calibration(made, tmp_path / "old").model_copy(update={"probes": probes}).as_json()
    digest = hashlib.sha256(calibration_text(stored).encode()).hexdigest()
    save_profile(made.model_copy(update={"calibration_digest": digest}), stored, tmp_path / "new")
    out = automc("profile", "show", str(tmp_path / "new")).out
    assert "0.2000 ms  multiple of 8" in out  # 40 = 5 x 8 and 44 is not
    assert "0.3000 ms\n" in out
    assert "  4.00  0.4000 to 0.1000 ms" in out
    assert "  0.50  0.4000 to 0.8000 ms" in out
    asked = automc("profile", "show", str(tmp_path / "new"), "--json").json["probes"]
    assert asked["widths"][1] == {"width": 44, "latency_ms": 0.3}


def test_show_of_a_profile_whose_calibration_is_not_its_own_says_that_it_cannot_predict(automc, home: Path) -> None:
    answer = automc("profile", "show", "bench-board")
    assert answer.code == 0
    assert "it cannot predict: " in answer.out
    assert "next: automc profile calibrate" in answer.out


def test_an_interrupted_calibration_says_that_it_can_be_gone_on_with(automc, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("automc.measure.calibrate.calibrate_host", interrupted)
    answer = automc("profile", "calibrate", "--quick")
    assert answer.code == 5
    assert "kept for an hour" in answer.err
    assert "next: the same command again goes on from it" in answer.err
