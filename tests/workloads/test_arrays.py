"""The user's own arrays: splits, built-in and own networks, given and trained weights, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import JsonValue

from automc.errors import ConfigError
from automc.workloads import create_workload
from automc.workloads.examples import sample_digests
from automc.workloads.factory import build_network
from automc.workloads.workload import SPLITS, Workload, weights_digest

Make = Callable[..., Workload]
MLP: dict[str, JsonValue] = {
    "model": "mlp",
    "model_args": {"inputs": 4, "hidden": [8], "outputs": 3},
    "train_steps": 20,
}


def rows(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes, four features around the class number."""
    labels = np.arange(count) % 3
    return np.random.default_rng(seed).normal(labels[:, None], 0.3, (count, 4)).astype(np.float32), labels


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def create(arrays: dict[str, Any], **options: JsonValue) -> Workload:
        np.savez(tmp_path / "mine.npz", **arrays)
        return create_workload("arrays", {"file": "mine.npz", **MLP, **options}, tmp_path)

    return create


def held(**changes: np.ndarray) -> dict[str, np.ndarray]:
    train, held_out = rows(60), rows(40, seed=1)
    return {"train_x": train[0], "train_y": train[1], "held_x": held_out[0], "held_y": held_out[1], **changes}


def refusal(make: Make, arrays: dict[str, Any], **options: JsonValue) -> str:
    with pytest.raises(ConfigError) as caught:
        make(arrays, **options).split("train")
    return str(caught.value)


def test_the_held_out_part_is_halved_into_validation_and_test(make: Make) -> None:
    workload = make(held())
    sizes = {name: len(workload.split(name)) for name in SPLITS}
    assert sizes["train"] == sizes["calibration"] == 60
    assert sizes["validation"] + sizes["test"] == 40
    assert min(sizes.values()) > 8
    parts = [set(sample_digests(workload.split(name).inputs)) for name in ("validation", "test")]
    assert not parts[0] & parts[1]


def test_one_array_is_split_by_digest_whatever_its_order(make: Make) -> None:
    x, y = rows(200)
    first = {name: set(sample_digests(make({"x": x, "y": y}).split(name).inputs)) for name in SPLITS}
    again = {name: set(sample_digests(make({"x": x[::-1], "y": y[::-1]}).split(name).inputs)) for name in SPLITS}
    assert again["validation"] == first["validation"]
    assert again["test"] == first["test"]
    assert 100 <= len(first["train"]) <= 140  # 120 expected, standard deviation 7


def test_one_array_beside_given_weights_is_refused(make: Make, tmp_path: Path) -> None:
    x, y = rows(60)
    model = build_network("mlp", {"inputs": 4, "hidden": [8], "outputs": 3})
    np.savez(tmp_path / "w.npz", **{key: tensor.numpy() for key, tensor in model.state_dict().items()})
    assert "which samples have these weights seen" in refusal(make, {"x": x, "y": y}, weights="w.npz")


def test_a_base_is_trained_once_and_kept(make: Make, automc_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = make(held(), learning_rate=0.1, train_steps=60)
    base = workload.model()
    batch = next(iter(workload.split("validation").batches(100)))
    assert workload.task.score(base(*batch.inputs).detach().numpy(), batch.targets.numpy()).mean() > 0.9
    kept = list((automc_home / "bases").glob("*.safetensors"))
    monkeypatch.setattr("automc.recovery.training.train", None)  # a second training would call None
    assert weights_digest(make(held(), learning_rate=0.1, train_steps=60).model()) == weights_digest(base)
    assert list((automc_home / "bases").glob("*.safetensors")) == kept


def test_a_base_is_trained_to_the_same_weights_on_any_number_of_threads(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is resumed where there is another cache, or none: its base must be the one it began with."""
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        seen: list[int] = []
        monkeypatch.setenv("AUTOMC_HOME", str(tmp_path / f"home{threads}"))
        torch.set_num_threads(threads)
        workload = make(held(), learning_rate=0.1, train_steps=30)
        forward = type(workload.task).forward

        def watched(self: object, *given: object, seen: list[int] = seen, forward: Any = forward) -> object:
            seen.append(torch.get_num_threads())
            return forward(self, *given)

        with monkeypatch.context() as patch:
            patch.setattr(type(workload.task), "forward", watched)
            found.append(weights_digest(workload.model()))
        assert set(seen) == {1}
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert found[0] == found[1]


def test_given_weights_are_used(make: Make, tmp_path: Path) -> None:
    model = build_network("mlp", {"inputs": 4, "hidden": [8], "outputs": 3})
    torch.save(model.state_dict(), tmp_path / "w.pt")
    assert weights_digest(make(held(), weights="w.pt").model()) == weights_digest(model)
    with pytest.raises(ConfigError, match=r"w\.pt: the weights do not fit .*wrong shape: 0\.weight is \(8, 4\)"):
        make(held(), weights="w.pt", model_args={"inputs": 4, "hidden": [9], "outputs": 3}).model()


def test_a_regression_needs_no_classes(make: Make) -> None:
    _, y = rows(60)
    arrays = held(train_y=np.stack([y, -y, 2 * y], axis=1) * 0.5, held_y=rows(40, 1)[0][:, :3])
    workload = make(arrays, task="regression")
    assert workload.split("train").targets.dtype == np.float32
    assert workload.task.direction == "min"
    assert "1 values per label, the model gives 3" in refusal(make, held(), task="regression")


def test_pictures_are_normalised_and_augmented_as_declared(make: Make) -> None:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (90, 1, 8, 8), dtype=np.uint8)
    workload = make(
        {"x": x, "y": np.arange(90) % 2}, model="lenet", model_args={"in_channels": 1, "size": 8, "classes": 2},
        divide=255.0, mean=[0.5], std=[0.25], shift_pixels=1,
    )  # fmt: skip
    batch = next(iter(workload.split("train").batches(4)))
    stored = workload.split("train").inputs[:4].astype(np.float32)
    assert np.allclose(batch.inputs[0].numpy(), (stored / 255 - 0.5) / 0.25)
    assert workload.preprocessing["raw"] == {"shape": [1, 8, 8], "layout": "CHW", "dtype": "uint8"}
    assert workload.example_inputs()[0].shape == (1, 1, 8, 8)


def test_the_user_s_own_factory_is_called_with_its_arguments(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "from torch import nn\ndef small(width):\n    return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 3))\n"
    )
    (tmp_path / "my_networks.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    model = make(held(), model="my_networks:small", model_args={"width": 5}).model()
    assert model[0].weight.shape == (5, 4)
    with pytest.raises(ConfigError, match="my_networks has no function or class 'smal'; did you mean small"):
        build_network("my_networks:smal", {})
    with pytest.raises(ConfigError, match="model_args do not fit my_networks:small"):
        build_network("my_networks:small", {"depth": 2})


def test_a_factory_or_module_that_fails_is_the_users_and_its_error_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_networks.py").write_text("def small(width):\n    raise RuntimeError(f'no width {width}')\n")
    (tmp_path / "broken_networks.py").write_text("def small(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"small failed at .*failing_networks\.py:2: RuntimeError: no width 3"):
        build_network("failing_networks:small", {"width": 3})
    with pytest.raises(ConfigError, match=r"do not fit failing_networks:small.*\n  next: .*\(width\)"):
        build_network("failing_networks:small", {})
    with pytest.raises(
        ConfigError, match=r"broken_networks cannot be imported at .*broken_networks\.py:1: SyntaxError"
    ):
        build_network("broken_networks:small", {})


def test_a_network_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no network is called 'resnet2'; did you mean resnet20"):
        build_network("resnet2", {})
    with pytest.raises(ConfigError, match="No module named 'no_such_module'"):
        build_network("no_such_module:net", {})


def test_what_cannot_be_used_is_refused_by_file_and_name(make: Make) -> None:
    x, y = rows(60)
    assert "mine.npz, train: the split is empty" in refusal(make, held(train_x=x[:0], train_y=y[:0]))
    assert "mine.npz, train: all 60 samples have label 1" in refusal(make, held(train_y=np.ones(60, np.int64)))
    assert "label 5 of sample 0 is out of range, the model has 3 classes" in refusal(make, held(train_y=y + 5))
    broken = x.copy()
    broken[17, 2] = np.nan
    assert "train: inputs hold NaN or infinity in 1 of 60 samples, first in sample 17" in refusal(
        make, held(train_x=broken)
    )
    assert "train_x holds 60 samples but there are 59 labels" in refusal(make, held(train_y=y[:59]))
    assert "is also sample 3 of train" in refusal(make, held(held_x=np.concatenate([rows(39, 1)[0], x[3:4]])))
    assert "no array is called 'held_y'; did you mean held_x" in refusal(
        make, {key: value for key, value in held().items() if key != "held_y"}
    )
    assert "mlp does not take samples of shape (5,)" in refusal(
        make, held(train_x=np.zeros((60, 5), np.float32) + np.arange(60)[:, None], held_x=np.ones((40, 5), np.float32))
    )


def test_a_sample_of_train_in_a_given_test_split_is_refused(make: Make) -> None:
    parts = {name: rows(30, seed) for seed, name in enumerate(("train", "validation", "test"))}
    arrays = {f"{name}_{kind}": pair[k] for name, pair in parts.items() for k, kind in enumerate("xy")}
    assert {name: len(make(arrays).split(name)) for name in SPLITS} == dict.fromkeys(SPLITS, 30)
    arrays["test_x"] = np.concatenate([arrays["test_x"][:29], arrays["train_x"][7:8]])
    assert "sample 29 of test is also sample 7 of train" in refusal(make, arrays)


def test_options_that_do_not_fit_are_refused_by_name(make: Make) -> None:
    assert "lerning_rate is not an option of workload arrays; did you mean learning_rate?" in refusal(
        make, held(), lerning_rate=0.1
    )
    assert "mean has 2 values and std 0" in refusal(make, held(), mean=[0.5, 0.5])
    assert "mean has 2 values, samples of" in refusal(make, held(), mean=[0.5, 0.5], std=[1.0, 1.0])
    assert "shift_pixels and mirror need pictures" in refusal(make, held(), mirror=True)
    with pytest.raises(ConfigError, match="model is required by workload arrays"):
        create_workload("arrays", {"file": "mine.npz"}, None)


def test_a_file_that_is_not_there_is_named_with_the_nearest(make: Make, tmp_path: Path) -> None:
    make(held())
    with pytest.raises(ConfigError, match=r"mime\.npz: no such file; did you mean mine\.npz"):
        create_workload("arrays", {"file": "mime.npz", **MLP}, tmp_path)
    with pytest.raises(ConfigError, match="no data folder was given"):
        create_workload("arrays", {"file": "mine.npz", **MLP}, None)
    with pytest.raises(ConfigError, match="no such folder"):
        create_workload("arrays", {"file": "mine.npz", **MLP}, tmp_path / "nowhere")
    create_workload("arrays", {"file": str(tmp_path / "mine.npz"), **MLP}, None)
    (tmp_path / "words.npz").write_text("only words")
    with pytest.raises(ConfigError, match=r"words\.npz: not a readable npz file"):
        create_workload("arrays", {"file": "words.npz", **MLP}, tmp_path)


def test_labels_that_are_python_objects_are_refused(make: Make) -> None:
    said = refusal(make, held(train_y=np.array(["cat", "dog"] * 30, dtype=object)))
    assert "train_y cannot be read" in said
    assert "array of numbers" in said
    words = refusal(make, held(train_y=np.array(["cat", "dog"] * 30)))
    assert "train_y holds <U3, not numbers" in words


def test_other_names_are_answered_by_both_forms(make: Make) -> None:
    x, y = rows(60)
    said = refusal(make, {"images": x, "labels": y})
    assert "holds neither x, y nor train_x, train_y" in said
    assert "images, labels" in said


def test_a_file_that_is_missing_here_is_not_a_matter_of_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.npz").write_bytes(b"")
    (tmp_path / "data").mkdir()
    for name, said in (
        ("weigths.npz", "weigths.npz: no such file; did you mean weights.npz?"),
        ("data/mine.npz", "data/mine.npz: no such file"),
        (str(tmp_path / "data"), "is a folder, not a file"),
    ):
        with pytest.raises(ConfigError) as caught:
            create_workload("arrays", {"file": name, **MLP}, None)
        assert said in str(caught.value)
        assert "--data-root" not in str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_damaged_inside_is_refused(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "mine.npz"
    save(path, **held())
    whole = bytearray(path.read_bytes())
    at = whole.index(b"train_x.npy") + 300  # within the first array
    whole[at] ^= 255
    path.write_bytes(bytes(whole))
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        create_workload("arrays", {"file": "mine.npz", **MLP}, tmp_path).split("train")
    assert str(path) in str(caught.value)
