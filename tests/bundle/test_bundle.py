from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle_samples import PREPROCESSING, contents, samples, tiny_model
from onnx import numpy_helper

from automc.bundle.templates import run as runner
from automc.bundle.templates import verify as shipped
from automc.bundle.verify import Bundle
from automc.bundle.write import write_bundle
from automc.errors import BundleError, ConfigError
from automc.trial import Figure

EVERY_FILE = [
    "MODEL_CARD.md", "NOTICE", "expected.json", "golden.npz", "io.json", "manifest.json", "manifest.sha256",
    "model.onnx", "preprocess.json", "quantization.json", "recipe.yaml", "requirements.txt", "run.py", "session.json",
    "verify.py",
]  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("run") / "bundle", contents())


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(bundle.folder, tmp_path / "copy"))


def run_script(folder: Path, script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def rehash(folder: Path) -> None:
    """What a forger would do: make manifest and its hash agree with the files again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        path = folder / name
        manifest["files"][name] = {"sha256": shipped.sha256(path), "size_bytes": path.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "manifest.sha256").write_text(f"{shipped.sha256(folder / 'manifest.json')}  manifest.json\n")


def restate(folder: Path, **changes: object) -> None:
    """Rewrite keys of expected.json, hashes included."""
    expected = json.loads((folder / "expected.json").read_text())
    (folder / "expected.json").write_text(json.dumps(expected | changes))
    rehash(folder)


def test_a_bundle_holds_exactly_the_files_of_the_design(bundle: Bundle) -> None:
    assert sorted(path.name for path in bundle.folder.iterdir()) == EVERY_FILE


def test_a_fresh_bundle_verifies_and_leaves_no_file_behind(bundle: Bundle) -> None:
    done = run_script(bundle.folder, "verify.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal bit by bit" in done.stdout
    assert done.stdout.endswith("\nVERIFIED\n")
    assert bundle.verify().ok
    assert sorted(path.name for path in bundle.folder.iterdir()) == EVERY_FILE


def test_the_model_is_written_byte_for_byte(bundle: Bundle) -> None:
    assert (bundle.folder / "model.onnx").read_bytes() == tiny_model().SerializeToString()


@pytest.mark.parametrize("name", EVERY_FILE)
def test_one_flipped_byte_in_any_file_fails_verification(name: str, copy: Path) -> None:
    flip_byte(copy / name)
    assert run_script(copy, "verify.py").returncode != 0
    assert shipped.check_files(copy)["status"] == "failed"


def test_a_damaged_file_is_named_and_the_exit_code_is_four(copy: Path) -> None:
    flip_byte(copy / "model.onnx")
    done = run_script(copy, "verify.py", "--json")
    assert done.returncode == 4
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    assert "model.onnx was changed" in answer["checks"][0]["detail"]
    with pytest.raises(BundleError, match=r"model\.onnx was changed") as caught:
        Bundle(copy).verify()
    assert caught.value.exit_code == 4


def test_files_that_are_missing_extra_or_links_fail(copy: Path) -> None:
    (copy / "recipe.yaml").unlink()
    (copy / "payload.py").write_text("")
    (copy / "NOTICE").rename(copy.parent / "NOTICE")
    (copy / "NOTICE").symlink_to(copy.parent / "NOTICE")
    detail = shipped.check_files(copy)["detail"]
    assert "recipe.yaml is missing" in detail
    assert "payload.py is not part of the bundle" in detail
    assert "NOTICE is not a plain file" in detail


def test_a_manifest_that_points_out_of_the_folder_is_refused(copy: Path) -> None:
    outside = copy.parent / "outside"
    outside.write_text("x")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["../outside"] = {"sha256": shipped.sha256(outside), "size_bytes": 1}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / "manifest.sha256").write_text(f"{shipped.sha256(copy / 'manifest.json')}  manifest.json\n")
    assert shipped.check_files(copy)["detail"] == "../outside is missing"


def test_other_weights_under_right_hashes_fail_the_golden_outputs(copy: Path) -> None:
    model = onnx.load(copy / "model.onnx")
    bias = numpy_helper.to_array(model.graph.initializer[2]).copy()
    bias[0] += 1e-4
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(bias, "fc.bias"))
    onnx.save(model, copy / "model.onnx")
    rehash(copy)
    done = run_script(copy, "verify.py")
    assert done.returncode == 4
    assert "must be equal bit by bit" in done.stdout


def test_on_another_device_golden_outputs_have_the_stated_tolerance(copy: Path) -> None:
    golden = json.loads((copy / "expected.json").read_text())["golden"]
    elsewhere = golden | {"device": golden["device"] | {"cpu": "another"}}
    with np.load(copy / "golden.npz") as stored:
        arrays = {key: stored[key] for key in stored.files}
    span = float(np.ptp(arrays["output_0"]))
    for share, status in ((0.0005, "ok"), (0.002, "failed")):  # 0.001 of the range is allowed to a float network
        moved = arrays | {"output_0": arrays["output_0"] + np.float32(share * span)}
        np.savez(copy / "golden.npz", **moved)
        restate(copy, golden=elsewhere)
        assert [check.status for check in Bundle(copy).examine().checks] == ["ok", status]


def test_a_bundle_without_its_promised_preprocessing_fails(copy: Path) -> None:
    spec = json.loads((copy / "preprocess.json").read_text())
    spec["steps"][1]["by"] = 256.0
    (copy / "preprocess.json").write_text(json.dumps(spec))
    rehash(copy)
    assert "preprocessing" in Bundle(copy).examine().checks[1].detail


def labels_for(bundle: Path, right: int) -> np.ndarray:
    """Labels of the six golden samples of which `right` are what the model says and the others are not."""
    with np.load(bundle / "golden.npz") as stored:
        said = stored["output_0"].argmax(axis=1)
    return np.where(np.arange(len(said)) < right, said, (said + 1) % 4).astype(np.int64)


@pytest.mark.parametrize(
    ("right", "same_samples", "status"),
    [
        (4, True, "ok"),  # 4 of 6 promised, 4 of 6 delivered
        (3, True, "failed"),  # 50 % where 66.7 % were promised on these very samples
        (3, False, "ok"),  # Wilson: 3 of 6 is 18.8 to 81.2 %, promised 60 to 72 %: they overlap
        (0, False, "failed"),  # Wilson: 0 of 6 is 0 to 39.0 %, all below 60 %
    ],
)
def test_accuracy_is_proved_again_from_data(
    right: int, same_samples: bool, status: str, copy: Path, tmp_path: Path
) -> None:
    data, y = tmp_path / "test.npz", labels_for(copy, right)
    np.savez(data, x=samples(), y=y)
    arranged = np.ascontiguousarray(samples().transpose(0, 3, 1, 2))
    promised = Figure(4 / 6, 0.6, 0.72, "fraction", "measured", n=600, split="test").to_json()
    digest = shipped.samples_digest(arranged, y) if same_samples else "0" * 64
    restate(copy, figures={"accuracy": promised}, data_digests={"test": digest})
    check = Bundle(copy).examine(data).checks[2]
    assert (check.name, check.status) == ("accuracy", status), check.detail
    assert check.delivered is not None
    assert check.delivered["value"] == pytest.approx(right / 6)


@pytest.mark.parametrize(
    ("off_by", "same_samples", "status"),
    [
        (0.0, True, "ok"),
        (1e-3, True, "failed"),  # twice a distance of 1 and 0.001 more: about 0.2 % where a thousandth is allowed
        (-0.5, True, "ok"),  # a smaller error than promised breaks no promise
        (2.0, False, "failed"),  # every sample errs by 9 where at most 1.1 was promised
    ],
)
def test_an_error_is_proved_again_and_may_be_smaller(
    off_by: float, same_samples: bool, status: str, copy: Path, tmp_path: Path
) -> None:
    with np.load(copy / "golden.npz") as stored:
        y = (stored["output_0"] + 1 + off_by).astype(np.float32)
    np.savez(tmp_path / "test.npz", x=samples(), y=y)
    promised = Figure(1.0, 0.9, 1.1, "score", "measured", n=6, split="test", direction="min").to_json()
    digest = shipped.samples_digest(np.ascontiguousarray(samples().transpose(0, 3, 1, 2)), y) if same_samples else ""
    restate(copy, metric="squared_error", figures={"accuracy": promised}, data_digests={"test": digest})
    check = Bundle(copy).examine(tmp_path / "test.npz").checks[2]
    assert check.status == status, check.detail
    assert check.delivered is not None
    assert check.delivered["value"] == pytest.approx((1 + off_by) ** 2, rel=1e-5)


def test_data_without_samples_or_targets_say_which(bundle: Bundle, tmp_path: Path) -> None:
    np.savez(tmp_path / "named.npz", images=np.zeros((2, 1)), y=np.zeros(2))
    with pytest.raises(ConfigError, match="holds no x"):
        bundle.examine(tmp_path / "named.npz")


def test_data_of_another_shape_is_a_wrong_call_not_a_failed_bundle(bundle: Bundle, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 9, 9, 3), np.uint8), y=np.zeros(2))
    with pytest.raises(ConfigError, match=r"a raw sample has shape \[8, 8, 3\]"):
        bundle.examine(tmp_path / "d.npz")
    assert run_script(bundle.folder, "verify.py", "--data", tmp_path / "missing.npz").returncode == 2


def test_latency_is_timed_again_and_judged_on_the_same_device_only(copy: Path) -> None:
    fast = Figure(1e-6, 1e-6, 1e-6, "ms", "measured", n=200).to_json()
    slow = Figure(1e3, 1e3, 1e3, "ms", "measured", n=200).to_json()
    device = shipped.device()
    for promised, where, allowed in (
        (slow, device, {"ok"}),
        (fast, device, {"failed", "unknown"}),  # by what else this machine is doing
        (slow, device | {"runtime_version": "0.1"}, {"unknown"}),
    ):
        restate(copy, figures={"latency_ms": promised}, device=where)
        found = Bundle(copy).examine(latency=True)
        assert [check.status for check in found.checks[:2]] == ["ok", "ok"]
        assert found.checks[2].status in allowed
        assert found.ok == (allowed == {"ok"})  # an unknown is not a success
    assert run_script(copy, "verify.py", "--latency").returncode == 4  # nor for the script


@pytest.mark.parametrize(
    ("load", "status", "said"),
    [(0.3, "failed", "repeat on an idle machine"), (4.0, "unknown", "the machine is busy (load average 4.0)")],
)
def test_a_latency_that_is_too_high_on_a_busy_machine_is_unknown(
    copy: Path, monkeypatch: pytest.MonkeyPatch, load: float, status: str, said: str
) -> None:
    fast = Figure(1e-6, 1e-6, 1e-6, "ms", "measured", n=200).to_json()
    restate(copy, figures={"latency_ms": fast}, device=shipped.device())
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    runner = shipped.load_runner()
    found = shipped.check_latency(copy, runner, runner.read_json(copy, "expected.json"), pause_s=0.0)
    assert found["status"] == status
    assert said in found["detail"]


def test_wilson_interval_by_hand() -> None:
    # 5 of 10, z = 1.96: (0.5 + 0.19207 -+ 1.96 * sqrt(0.025 + 0.0096036)) / 1.38415 = 0.2366, 0.7634
    assert shipped.wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_nan_is_never_right_and_the_first_of_equal_outputs_counts() -> None:
    outputs = np.array([[1.0, 1.0], [np.nan, 0.0], [0.0, 2.0]])
    assert shipped.score("accuracy", outputs, np.array([0, 0, 1])).tolist() == [True, False, True]
    assert shipped.score("squared_error", np.array([[1.0], [3.0]]), np.array([[2.0], [1.0]])).tolist() == [1.0, 4.0]


def test_one_value_to_be_met_may_be_stored_flat_and_another_number_of_values_is_refused() -> None:
    outputs = np.array([[1.0], [3.0]])
    # (1 - 2)^2 = 1, (3 - 1)^2 = 4; broadcast to (2, 2) it would be (1 + 0) / 2 and (1 + 4) / 2
    assert shipped.score("squared_error", outputs, np.array([2.0, 1.0])).tolist() == [1.0, 4.0]
    with pytest.raises(ValueError, match="y holds 2 values per sample, the model gives 1"):
        shipped.score("squared_error", outputs, np.zeros((2, 2)))


def test_preprocessing_by_hand() -> None:
    raw = np.zeros((1, 8, 8, 3), np.uint8)
    raw[0, 2, 5] = (255, 51, 0)
    prepared = runner.prepare(raw, PREPROCESSING)
    assert prepared.shape == (1, 3, 8, 8)
    # (1 - 0.5) / 0.2 = 2.5, (0.2 - 0.4) / 0.25 = -0.8, (0 - 0.3) / 0.3 = -1
    assert prepared[0, :, 2, 5] == pytest.approx([2.5, -0.8, -1.0], abs=1e-6)
    grey = {"steps": [{"op": "add_channel_axis"}, {"op": "repeat_pixels", "times": 2}]}
    assert runner.prepare(np.array([[[1, 2]]]), grey).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]


def test_run_prints_the_largest_output_by_name(bundle: Bundle, tmp_path: Path) -> None:
    np.save(tmp_path / "sample.npy", samples()[0])
    with np.load(bundle.folder / "golden.npz") as stored:
        logits = stored["output_0"][0]
    done = run_script(bundle.folder, "run.py", tmp_path / "sample.npy", "--top", "1")
    assert done.stdout == f"{('cat', 'dog', 'fish', 'newt')[logits.argmax()]}\t{logits.max():.6g}\n", done.stderr
    done = run_script(bundle.folder, "run.py", tmp_path / "sample.npy", "--json")
    assert json.loads(done.stdout) == {"logits": logits.tolist()}


def test_run_reads_pictures_where_pillow_is_installed(bundle: Bundle, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(samples()[0]).save(tmp_path / "sample.png")
    np.save(tmp_path / "sample.npy", samples()[0])
    outputs = [run_script(bundle.folder, "run.py", tmp_path / f"sample.{end}").stdout for end in ("png", "npy")]
    assert outputs[0] == outputs[1] != ""


def test_run_says_what_it_expects(bundle: Bundle, tmp_path: Path) -> None:
    np.save(tmp_path / "sample.npy", samples()[0].astype(np.float32))
    done = run_script(bundle.folder, "run.py", tmp_path / "sample.npy")
    assert (done.returncode, done.stderr) == (2, "run.py: raw samples must be uint8, these are float32\n")


@pytest.mark.parametrize("script", ["run.py", "verify.py"])
def test_the_shipped_scripts_import_numpy_and_onnxruntime_alone(script: str, bundle: Bundle) -> None:
    tree = ast.parse((bundle.folder / script).read_text())
    nodes = list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    outside = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert outside <= {"numpy", "onnxruntime", "PIL"}


def test_the_card_says_what_saves_only_download(bundle: Bundle) -> None:
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    assert "`unstructured_pruning`: saves only download" in card
    assert "`channel_pruning`: saves latency, memory, download" in card
    assert "| speed-up | 2.00 times | 1 | measured, repeats [1.9 to 2.1], n 200, interleaved blocks |" in card
    assert "| latency, 10th percentile | 1000 ms | 2000 ms | measured, repeats [900 to 1100], n 200, p10 |" in card


def test_the_card_says_of_every_interval_what_it_is(tmp_path: Path) -> None:
    predicted = {
        "latency_ms": Figure(950.0, 800.0, 1200.0, "ms", "predicted", coverage=1.0, source="test: quick calibration"),
        "energy_mj": Figure(2.0, 1.0, 4.0, "mJ", "predicted", coverage=1.0, source="a model"),
    }
    figures = contents().figures | {
        "latency_ms": Figure(1000.0, 1000.0, 1100.0, "ms", "measured", n=200),  # the lowest pass is the figure itself
        "drop_points": Figure(1.0, 0.5, 1.5, "points", "measured", n=6, split="test"),
    }
    bundle = write_bundle(tmp_path / "bundle", contents(figures=figures, predicted=predicted))
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    assert "| 1000 ms | 2000 ms | measured, repeats [1000 to 1100], n 200 |" in card
    assert (
        "\n- latency, 10th percentile, measured: repeats, no confidence interval: from the lowest to the highest "
        in card
    )
    assert "\n- latency, 10th percentile, predicted: 90 % interval, the ratios of measured to predicted" in card
    assert "\n- accuracy, measured: 95 % interval, of the mean over the samples" in card
    assert "\n- drop from the reference, measured: 95 % interval, of the mean difference" in card
    assert "\n- speed-up, measured: repeats, the 95 % interval of the median over blocks" in card
    assert "\n- energy per inference, predicted: assumed range, a factor of two" in card
    table = card.partition("The reference is")[0]
    brackets = [line for line in table.splitlines() if "[" in line]
    assert len(brackets) == 6
    assert all(re.search(r"(95 % interval|90 % interval|repeats|assumed range) \[", line) for line in brackets)
    explained = card.partition("What the square")[2].partition("Latency belongs")[0]
    assert "memory" not in explained  # not stated, so not explained


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        write_bundle(tmp_path / "bundle", contents())
    assert list((tmp_path / "bundle").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(tmp_path / "file" / "bundle", contents())


def external_data() -> onnx.ModelProto:
    model = tiny_model()
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "weights.bin")
    return model


def blocked_layout() -> onnx.ModelProto:
    model = tiny_model()
    model.graph.node[0].domain = "com.microsoft.nchwc"
    return model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": external_data()}, "'conv.weight' lies outside the model file"),
        ({"model": blocked_layout()}, "layout of one machine"),
        ({"preprocessing": {"steps": [{"op": "sharpen"}]}}, r"steps\[0\].op = 'sharpen'; allowed: transpose, "),
        ({"preprocessing": {"steps": [{"op": "divide"}]}}, r"takes exactly \['by'\]"),
        ({"golden_raw": samples()[:, ::-1]}, "does not turn golden_raw into golden_inputs"),
        ({"golden_inputs": ()}, "1 arrays of equally many samples"),
        ({"golden_inputs": (np.full((1, 3, 8, 8), np.nan, np.float32),), "golden_raw": None}, "NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_left(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=message):
        write_bundle(tmp_path / "bundle", contents(**changes))
    assert os.listdir(tmp_path) == []  # noqa: PTH208 (dot files too)


def test_a_licence_given_with_the_source_is_shipped_word_for_word(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", contents(licence="BSD 3-Clause\n(c) somebody")).folder
    assert (folder / "LICENSE").read_text() == "BSD 3-Clause\n(c) somebody\n"
    assert not (folder / "NOTICE").exists()


def test_writing_twice_gives_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    again = write_bundle(tmp_path / "again", contents())
    assert (again.folder / "manifest.sha256").read_bytes() == (bundle.folder / "manifest.sha256").read_bytes()


def test_inspect_gives_what_the_files_state_and_refuses_damage(copy: Path) -> None:
    found = Bundle(copy).inspect()
    assert found["expected"]["figures"]["latency_ms"]["value"] == 1000.0  # type: ignore[index, call-overload]
    assert found["recipe"]["candidate"]["steps"][1]["technique"] == "unstructured_pruning"  # type: ignore[index, call-overload]
    flip_byte(copy / "recipe.yaml")
    with pytest.raises(BundleError, match=r"recipe\.yaml was changed"):
        Bundle(copy).inspect()
