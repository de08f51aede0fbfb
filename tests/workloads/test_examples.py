"""Batches, preprocessing, augmentation, and the samples that are refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import automc.bundle
from automc.errors import ConfigError
from automc.workloads.examples import (
    ArrayExamples,
    Augmentation,
    Preprocessing,
    check_classification,
    check_disjoint,
    digest_share,
    sample_digests,
)

PIXELS = Preprocessing((2, 2), "HW", divide=4.0, mean=(0.5,), std=(0.25,), repeat=2)
COLOUR = Preprocessing((4, 6, 3), "HWC", divide=255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def examples(count: int = 5, augmentation: Augmentation | None = None) -> ArrayExamples:
    inputs = np.arange(count * 4, dtype=np.uint8).reshape(count, 1, 2, 2)
    return ArrayExamples(inputs, np.arange(count) % 2, PIXELS, augmentation)


def test_pixels_are_divided_normalised_and_repeated_in_that_order() -> None:
    # (2 / 4 - 0.5) / 0.25 = 0; 4 -> 2; 0 -> -2; 1 -> -1. Each pixel becomes 2 x 2.
    done = PIXELS.apply(np.array([[[[2, 4], [0, 1]]]], dtype=np.uint8))
    assert done.tolist() == [[[[0, 0, 2, 2], [0, 0, 2, 2], [-2, -2, -1, -1], [-2, -2, -1, -1]]]]
    assert tuple(done.shape[1:]) == PIXELS.input_shape


@pytest.mark.parametrize(
    ("preprocessing", "stored"),
    [
        (PIXELS, (7, 1, 2, 2)),
        (COLOUR, (7, 3, 4, 6)),
        (Preprocessing((5,), "features", "float32", mean=(0.1,) * 5, std=(0.3,) * 5), (7, 5)),
        (Preprocessing((2, 3, 3), "CHW", "uint8", divide=7.0), (7, 2, 3, 3)),
    ],
)
def test_the_bundle_s_run_py_does_the_same_from_the_declaration_alone(
    preprocessing: Preprocessing, stored: tuple[int, ...]
) -> None:
    generator = np.random.default_rng(0)
    values = generator.integers(0, 256, stored).astype(preprocessing.raw_dtype)
    held = ArrayExamples(values, np.arange(7), preprocessing)
    path = Path(automc.bundle.__file__).parent / "templates" / "run.py"
    spec = importlib.util.spec_from_file_location("bundle_run", path)
    assert spec is not None
    assert spec.loader is not None
    runner = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runner)
    declared = preprocessing.to_json()
    runner.check_preprocessing(declared)
    theirs = runner.prepare(held.raw(np.arange(7)), declared)
    assert np.array_equal(theirs, preprocessing.apply(values).numpy())


def test_the_stored_samples_stay_as_they_are() -> None:
    values = np.array([[1.0, 2.0]], dtype=np.float32)
    Preprocessing((2,), "features", "float32", divide=2.0).apply(values)
    assert values.tolist() == [[1.0, 2.0]]


def test_batches_cover_each_sample_once_and_the_last_may_be_short() -> None:
    batches = list(examples().batches(2))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert [batch.targets.tolist() for batch in batches] == [[0, 1], [0, 1], [0]]
    shuffled = np.concatenate([batch.indices for batch in examples().batches(2, seed=1)])
    assert sorted(shuffled.tolist()) == [0, 1, 2, 3, 4]


def test_a_shuffle_belongs_to_its_seed_and_keeps_samples_with_their_labels() -> None:
    first = [batch.indices.tolist() for batch in examples(40).batches(8, seed=1)]
    assert first == [batch.indices.tolist() for batch in examples(40).batches(8, seed=1)]
    assert first != [batch.indices.tolist() for batch in examples(40).batches(8, seed=2)]
    for batch in examples(40).batches(8, seed=1):
        pixel = batch.inputs[0][:, 0, 0, 0] * 0.25 * 4 + 0.5 * 4  # undo the normalisation
        assert torch.equal(pixel.round().long() // 4, torch.from_numpy(batch.indices))
        assert torch.equal(batch.targets, torch.from_numpy(batch.indices % 2))


def test_the_digest_sees_every_byte_and_label_and_no_batch_size() -> None:
    reference = examples().digest
    list(examples().batches(3))
    assert examples().digest == reference
    changed = examples()
    changed.inputs[4, 0, 1, 1] += 1
    assert changed.digest != reference
    relabelled = examples()
    relabelled.targets[0] = 1
    assert relabelled.digest != reference


def test_shifts_bring_in_zeros_and_reach_every_offset() -> None:
    # One lit pixel in the middle of 3 x 3: shifts by up to one put it on all nine places, always alone.
    picture = np.zeros((400, 1, 3, 3), np.uint8)
    picture[:, :, 1, 1] = 9
    moved = Augmentation(pad=1, flip=False).apply(picture, np.random.default_rng(0))
    assert (moved.reshape(400, -1).sum(axis=1) == 9).all()
    assert set(moved.reshape(400, -1).argmax(axis=1).tolist()) == set(range(9))


def test_half_of_the_pictures_are_mirrored_left_to_right() -> None:
    picture = np.tile(np.array([[1, 2], [3, 4]], np.uint8), (400, 1, 1, 1))
    done = Augmentation(pad=0, flip=True).apply(picture, np.random.default_rng(0))
    mirrored = (done == np.array([[2, 1], [4, 3]])).all(axis=(1, 2, 3))
    kept = (done == picture).all(axis=(1, 2, 3))
    assert (mirrored | kept).all()
    assert 160 < mirrored.sum() < 240  # 200, standard deviation 10


def test_augmentation_follows_the_seed_and_needs_one() -> None:
    given = examples(20, Augmentation(pad=1, flip=True))
    first, again, other = (next(given.batches(20, seed=seed, augment=True)).inputs[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with pytest.raises(ValueError, match="give a seed"):
        given.batches(4, augment=True)


def test_splitting_by_digest_keeps_equal_samples_together_and_ignores_the_rest() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (50, 4), dtype=np.uint8)
    share = digest_share(sample_digests(rows))
    assert ((share >= 0) & (share < 1)).all()
    assert np.array_equal(digest_share(sample_digests(rows[::-1])), share[::-1])
    assert np.array_equal(digest_share(sample_digests(np.concatenate([rows, rows[:1]])))[[0, -1]], share[[0, 0]])


def refusal(inputs: np.ndarray, targets: np.ndarray, classes: int = 3) -> str:
    with pytest.raises(ConfigError) as caught:
        check_classification("data.npz, train", inputs, targets, classes)
    return str(caught.value)


def test_what_cannot_be_trained_on_is_refused_by_name() -> None:
    good = np.ones((4, 2), np.float32)
    labels = np.array([0, 1, 2, 0])
    check_classification("data.npz, train", good, labels, 3)
    assert "data.npz, train: the split is empty" in refusal(good[:0], labels[:0])
    assert "all 4 samples have label 2" in refusal(good, np.full(4, 2))
    assert "4 inputs but 3 labels" in refusal(good, labels[:3])
    assert "label 2 of sample 2 is out of range, the model has 2 classes (0 to 1)" in refusal(good, labels, classes=2)
    assert "label -1 of sample 0 is out of range" in refusal(good, labels - 1)
    assert "whole numbers" in refusal(good, labels.astype(np.float32))
    for value in (np.nan, np.inf, -np.inf):
        broken = good.copy()
        broken[[1, 3], 0] = value
        assert "inputs hold NaN or infinity in 2 of 4 samples, first in sample 1" in refusal(broken, labels)


def test_a_sample_in_two_splits_is_refused_and_one_twice_in_a_split_is_not() -> None:
    train = np.array([[1, 2], [3, 4], [1, 2]], np.uint8)
    check_disjoint("data.npz", {"train": train, "validation": np.array([[5, 6]], np.uint8)})
    with pytest.raises(ConfigError, match="sample 1 of validation is also sample 1 of train"):
        check_disjoint("data.npz", {"train": train, "validation": np.array([[5, 6], [3, 4]], np.uint8)})
