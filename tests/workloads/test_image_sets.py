"""CIFAR-10 (JPEG) and MNIST from the data folder, and small copies of both made here."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from automc.errors import ConfigError
from automc.workloads import create_workload
from automc.workloads.cifar10 import TEST_FILE, TRAIN_FILES
from automc.workloads.examples import sample_digests
from automc.workloads.networks import cifar_resnet
from automc.workloads.workload import SPLITS, Workload, weights_digest


def write_pictures(path: Path, count: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        stream = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "JPEG", quality=90)
        files.append(np.frombuffer(stream.getvalue(), np.uint8))
    offsets = np.cumsum([0, *(len(item) for item in files)])
    np.savez(path, jpeg=np.concatenate(files), offsets=offsets, label=np.arange(count, dtype=np.uint8) % 10)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of the same form: 2 x 120 pictures to train on, 200 held out, random ResNet-20 weights."""
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate((*TRAIN_FILES, TEST_FILE)):
        write_pictures(root / name, 200 if name == TEST_FILE else 120, seed)
    weights = root / "models/cifar10_resnet/resnet20.npz"
    weights.parent.mkdir(parents=True)
    state = {key: tensor.numpy() for key, tensor in cifar_resnet(20).state_dict().items() if "tracked" not in key}
    np.savez(weights, **state)
    weights.with_name("LICENSE").write_text("BSD 2-Clause, somebody")
    return root


def test_the_held_out_pictures_are_halved_and_calibration_is_a_part_of_train(small: Path) -> None:
    workload = create_workload("cifar10", {"calibration_samples": 50}, small)
    parts = {name: set(sample_digests(workload.split(name).inputs)) for name in SPLITS}
    assert {name: len(part) for name, part in parts.items()} | {"validation": 0, "test": 0} == {
        "train": 240, "calibration": 50, "validation": 0, "test": 0,
    }  # fmt: skip
    assert len(parts["validation"]) + len(parts["test"]) == 200
    assert 70 <= len(parts["validation"]) <= 130  # 100 expected, standard deviation 7
    assert parts["calibration"] < parts["train"]
    assert not parts["validation"] & parts["test"]
    assert not (parts["validation"] | parts["test"]) & parts["train"]
    assert workload.seen_by_base == {"train", "calibration"}


def test_a_held_out_picture_that_was_trained_on_is_refused(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    write_pictures(tmp_path / TEST_FILE, 200, seed=1)  # as the second file of train, whose first 120 pictures they are
    with pytest.raises(ConfigError, match=r"sample \d+ of validation is also sample 12\d of train"):
        create_workload("cifar10", {}, tmp_path).split("validation")


def test_fewer_samples_are_the_same_ones_each_time_and_a_part_of_all(small: Path) -> None:
    few = create_workload("cifar10", {"train_samples": 100}, small)
    again = create_workload("cifar10", {"train_samples": 100}, small)
    every = create_workload("cifar10", {}, small)
    assert len(few.split("train")) == 100
    assert few.split("train").digest == again.split("train").digest
    assert set(sample_digests(few.split("train").inputs)) < set(sample_digests(every.split("train").inputs))
    assert few.split("validation").digest == every.split("validation").digest


def test_pictures_are_decoded_once_per_machine_and_come_back_the_same(
    small: Path, automc_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = create_workload("cifar10", {}, small).split("train")
    with np.load(small / TRAIN_FILES[0]) as stored:
        picture = np.asarray(Image.open(io.BytesIO(stored["jpeg"][: stored["offsets"][1]].tobytes())))
    assert np.array_equal(first.raw(np.array([0]))[0], picture)
    monkeypatch.setattr("automc.workloads.cifar10._decode", None)  # a second decoding would call None
    assert create_workload("cifar10", {}, small).split("train").digest == first.digest


def test_a_cache_that_cannot_be_written_costs_time_only(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = create_workload("cifar10", {}, small).split("test").digest
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("AUTOMC_HOME", str(tmp_path / "file"))
    assert create_workload("cifar10", {}, small).split("test").digest == expected


def test_the_notice_holds_the_licence_of_the_weights(small: Path) -> None:
    assert "BSD 2-Clause, somebody" in create_workload("cifar10", {}, small).licence_notice


def test_what_is_missing_or_misspelt_is_named(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"resnet21\.npz: no such file; did you mean resnet20\.npz"):
        create_workload("cifar10", {"weights": "models/cifar10_resnet/resnet21.npz"}, small)
    with pytest.raises(
        ConfigError, match="train_sample is not an option of workload cifar10; did you mean train_sampl"
    ):
        create_workload("cifar10", {"train_sample": 1000}, small)
    with pytest.raises(ConfigError, match="--data-root"):
        create_workload("cifar10", {}, None)
    with pytest.raises(ConfigError, match=r"mnist_63k\.npz: no such file"):
        create_workload("mnist", {}, tmp_path)


def test_a_damaged_picture_is_named_by_its_row(small: Path, tmp_path: Path) -> None:
    for name in (*TRAIN_FILES, TEST_FILE, "models/cifar10_resnet/resnet20.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((small / name).read_bytes())
    with np.load(tmp_path / TEST_FILE) as stored:
        arrays = {key: stored[key].copy() for key in stored.files}
    start, end = arrays["offsets"][3:5]
    arrays["jpeg"][start:end] = 0
    np.savez(tmp_path / TEST_FILE, **arrays)
    with pytest.raises(ConfigError, match="picture 3 is no readable JPEG"):
        create_workload("cifar10", {}, tmp_path).split("validation")


def accuracy(workload: Workload, split: str, samples: int) -> float:
    model, scores = workload.model(), list[np.ndarray]()
    with torch.no_grad():
        for batch in workload.split(split).batches(250):  # type: ignore[arg-type]
            scores.append(workload.task.score(model(*batch.inputs).numpy(), batch.targets.numpy()))
            if len(scores) * 250 >= samples:
                break
    return float(np.concatenate(scores).mean())


@pytest.mark.data
def test_the_given_resnet20_scores_on_the_jpeg_pictures_what_its_publisher_states(data_root: Path) -> None:
    # 81.03 % of all 10,000; 1,000 of them have a standard error of 1.24 points.
    workload = create_workload("cifar10", {"validation_samples": 1000}, data_root)
    assert [len(workload.split(name)) for name in ("train", "validation", "test")] == [50_000, 1000, 5063]
    assert accuracy(workload, "validation", 1000) == pytest.approx(0.8103, abs=0.03)


@pytest.mark.data
def test_weights_fine_tuned_elsewhere_and_the_deeper_sister_fit(data_root: Path) -> None:
    tuned = create_workload("cifar10", {"weights": "models/cifar10_resnet/resnet20_jpegft.npz"}, data_root)
    assert accuracy(tuned, "validation", 500) > 0.84  # 87.56 % of 10,000
    deep = create_workload("cifar10", {"model": "resnet56"}, data_root)
    assert sum(tensor.numel() for tensor in deep.model().parameters()) == 853_018
    with pytest.raises(ConfigError, match=r"resnet20\.npz: the weights do not fit .*missing: layer1\.3\.conv1\.weight"):
        create_workload(
            "cifar10", {"model": "resnet56", "weights": "models/cifar10_resnet/resnet20.npz"}, data_root
        ).model()


@pytest.mark.data
def test_mnist_trains_its_own_base_on_the_official_training_set(data_root: Path) -> None:
    options = {"train_samples": 4000, "train_steps": 60}
    workload = create_workload("mnist", options, data_root)  # type: ignore[arg-type]
    assert [len(workload.split(name)) for name in SPLITS] == [4000, 512, 1500, 1500]
    first = workload.model()
    assert accuracy(workload, "validation", 1500) > 0.85
    assert weights_digest(create_workload("mnist", options, data_root).model()) == weights_digest(first)  # type: ignore[arg-type]
    held = {digest for name in ("validation", "test") for digest in sample_digests(workload.split(name).inputs)}
    assert not held & set(sample_digests(workload.split("train").inputs))
