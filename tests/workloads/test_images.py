"""Folders of pictures by class: how they are read, split and scaled, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import JsonValue

from automc.bundle.templates import run as runner
from automc.errors import ConfigError
from automc.workloads import create_workload
from automc.workloads.factory import build_network
from automc.workloads.images import Images
from automc.workloads.workload import SPLITS

LENET: dict[str, JsonValue] = {
    "model": "lenet", "model_args": {"in_channels": 3, "size": 8, "classes": 2}, "train_steps": 2,
}  # fmt: skip


def write(folder: Path, *, parts: dict[str, int], size: int = 8, classes: tuple[str, ...] = ("cat", "dog")) -> None:
    generator = np.random.default_rng(len(parts))
    for part, count in parts.items():
        for name in classes:
            inside = folder / part / name
            inside.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(inside / f"{number:03}.png")


def make(folder: Path, **options: JsonValue) -> Images:
    made = create_workload("images", {"folder": str(folder), **LENET, **options}, None)
    assert isinstance(made, Images)
    return made


def refusal(folder: Path, **options: JsonValue) -> str:
    with pytest.raises(ConfigError) as caught:
        make(folder, **options).split("train")
    return str(caught.value)


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        ({"train": 12, "held": 20}, {"train": 24}),
        ({"train": 12, "validation": 7, "test": 9}, {"train": 24, "validation": 14, "test": 18}),
        ({"": 40}, {}),
    ],
)
def test_folders_by_class_are_read_and_divided(tmp_path: Path, parts: dict[str, int], sizes: dict[str, int]) -> None:
    write(tmp_path, parts=parts)
    workload = make(tmp_path)
    found = {name: len(workload.split(name)) for name in SPLITS}
    assert sum(found.values()) - found["calibration"] == 2 * sum(parts.values())
    assert min(found.values()) > 5
    assert {name: found[name] for name in sizes} == sizes
    assert workload.class_labels == ("cat", "dog")


def test_pictures_become_what_the_bundle_says_they_become(tmp_path: Path) -> None:
    write(tmp_path, parts={"train": 6, "held": 20}, size=12)
    workload = make(tmp_path, size=8, mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.1])
    examples = workload.split("train")
    batch = next(iter(examples.batches(3)))
    assert batch.inputs[0].shape == (3, 3, 8, 8)
    assert workload.example_inputs()[0].shape == (1, 3, 8, 8)
    with Image.open(tmp_path / "train" / "cat" / "000.png") as picture:
        pixels = np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(examples.raw(np.array([0]))[0], pixels)
    spec = workload.preprocessing
    prepared = runner.prepare(runner.read_sample(tmp_path / "train" / "cat" / "000.png", spec)[None], spec)
    torch.testing.assert_close(torch.from_numpy(prepared), batch.inputs[0][:1])
    assert batch.targets.tolist() == [0, 0, 0]
    assert make(tmp_path, size=8, shift_pixels=2, mirror=True).split("train").augmentation is not None


def test_built_in_networks_are_made_for_the_pictures(tmp_path: Path) -> None:
    write(tmp_path, parts={"train": 6, "held": 20}, classes=("cat", "cow", "dog"))
    grey = create_workload(
        "images", {"folder": str(tmp_path), "model": "resnet20", "colour": "L", "train_steps": 1}, None
    ).model()
    assert (grey.conv1.weight.shape[1], grey.linear.weight.shape[0]) == (1, 3)
    lenet = create_workload("images", {"folder": str(tmp_path), "model": "lenet", "train_steps": 1}, None).model()
    assert lenet(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    torch.save(build_network("resnet20", {}).state_dict(), tmp_path / "w.pt")
    given = {"folder": str(tmp_path), "model": "resnet20", "weights": str(tmp_path / "w.pt")}
    assert create_workload("images", given, None).model().linear.weight.shape[0] == 10  # as its weights have it


def test_grey_pictures_have_one_channel(tmp_path: Path) -> None:
    write(tmp_path, parts={"train": 6, "held": 20})
    workload = make(tmp_path, colour="L", model_args={"in_channels": 1, "size": 8, "classes": 2}, mean=[0.5], std=[0.2])
    assert next(iter(workload.split("train").batches(5))).inputs[0].shape == (5, 1, 8, 8)


def test_what_is_no_folder_of_pictures_by_class_is_refused_by_name(tmp_path: Path) -> None:
    assert "gone: there is no such folder" in refusal(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "empty: holds 0 folders of classes" in refusal(tmp_path / "empty")
    write(tmp_path / "bare", parts={"": 2})
    for path in (tmp_path / "bare" / "dog").iterdir():
        path.unlink()
    assert "bare: its folder dog holds no picture" in refusal(tmp_path / "bare")
    write(tmp_path / "short", parts={"train": 2, "validation": 2})
    assert "short: holds train, validation, but no folder test" in refusal(tmp_path / "short")
    write(tmp_path / "both", parts={"train": 2, "validation": 2, "held": 2})
    assert "both: holds validation beside held" in refusal(tmp_path / "both")
    write(tmp_path / "odd", parts={"train": 2, "held": 2})
    (tmp_path / "odd" / "held" / "dog").rename(tmp_path / "odd" / "held" / "dogs")
    assert "train holds a class 'dog' that held has not; did you mean dogs?" in refusal(tmp_path / "odd")


def test_a_picture_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    write(tmp_path, parts={"train": 6, "held": 20})
    Image.new("RGB", (9, 8)).save(tmp_path / "train" / "dog" / "002.png")
    assert "dog/002.png: is 9x8, those before it are 8x8" in refusal(tmp_path)
    (tmp_path / "train" / "dog" / "002.png").write_bytes(b"no picture")
    assert "dog/002.png: is no readable picture" in refusal(tmp_path)
    (tmp_path / "train" / "dog" / "002.png").write_bytes((tmp_path / "held" / "dog" / "004.png").read_bytes())
    assert "is also sample" in refusal(tmp_path)


def test_undivided_pictures_beside_given_weights_are_refused(tmp_path: Path) -> None:
    write(tmp_path, parts={"": 20})
    torch.save(build_network("lenet", LENET["model_args"]).state_dict(), tmp_path / "w.pt")  # type: ignore[arg-type]
    assert "which samples have these weights seen?" in refusal(tmp_path, weights=str(tmp_path / "w.pt"))
