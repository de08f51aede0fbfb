"""run.py has its own numpy copy of what the workloads do: the two must agree to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from automc.bundle.templates import run as runner
from automc.bundle.templates import verify as shipped
from automc.workloads.examples import ArrayExamples, Preprocessing

COLOUR = Preprocessing((4, 6, 3), "HWC", "uint8", 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), colour="RGB")
GREY = Preprocessing((4, 4), "HW", "uint8", 16.0, (0.305,), (0.376,), repeat=2)
PLANES = Preprocessing((2, 3, 3), "CHW", "float32")
FEATURES = Preprocessing((5,), "features", "float32", 1.0, (0.1, 0.2, 0.3, 0.4, 0.5), (1.0, 2.0, 3.0, 4.0, 5.0))


@pytest.mark.parametrize("declared", [COLOUR, GREY, PLANES, FEATURES], ids=lambda item: item.raw_layout)
def test_the_shipped_script_prepares_samples_as_the_workload_does(declared: Preprocessing) -> None:
    raw = np.random.default_rng(0).integers(0, 200, size=(3, *declared.raw_shape)).astype(declared.raw_dtype)
    labels = np.array([0, 1, 2], dtype=np.int64)
    spec = declared.to_json()
    runner.check_preprocessing(spec)
    stored = runner.arrange(raw, spec)
    prepared = runner.prepare(raw, spec)
    assert prepared.dtype == np.float32
    assert np.array_equal(prepared, declared.apply(stored).numpy())
    assert list(prepared.shape[1:]) == list(declared.input_shape)
    assert shipped.samples_digest(stored, labels) == ArrayExamples(stored, labels, declared).digest


def test_a_picture_is_brought_to_the_scale_of_the_raw_samples(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.array([[0, 128], [51, 255]], np.uint8)).save(tmp_path / "p.png")
    spec = Preprocessing((2, 2), "HW", "uint8", 16.0).to_json()
    # 128 * 16 / 255 = 8.03, 51 * 16 / 255 = 3.2
    assert runner.read_sample(tmp_path / "p.png", spec).tolist() == [[0, 8], [3, 16]]
    wide = Preprocessing((1, 2, 3), "HWC", "uint8", 255.0).to_json()
    assert runner.read_sample(tmp_path / "p.png", wide).shape == (1, 2, 3)
    planes = Preprocessing((3, 2, 2), "CHW", "uint8", 255.0).to_json()
    assert runner.read_sample(tmp_path / "p.png", planes)[:, 1, 0].tolist() == [51, 51, 51]


def test_a_picture_is_refused_where_samples_are_no_pictures(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    with pytest.raises(runner.BundleInputError, match="raw samples are features arrays, not pictures"):
        runner.read_sample(tmp_path / "p.png", FEATURES.to_json())
