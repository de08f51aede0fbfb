"""CSV tables: columns, classes, regression, and what is refused by file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import JsonValue

from automc.errors import ConfigError
from automc.workloads import create_workload
from automc.workloads.table import Table
from automc.workloads.workload import SPLITS

MLP: dict[str, JsonValue] = {"model": "mlp", "model_args": {"inputs": 3, "hidden": [4], "outputs": 2}}


def text(count: int = 80, names: tuple[str, str] = ("no", "yes"), separator: str = ",") -> str:
    generator = np.random.default_rng(count)
    rows = [["height", "width", "weight", "verdict"]]
    for number in range(count):
        rows.append([*(f"{value:.6f}" for value in generator.normal(size=3)), names[number % 2]])
    return "\n".join(separator.join(row) for row in rows) + "\n"


def make(path: Path, content: str, **options: JsonValue) -> Table:
    path.write_text(content)
    made = create_workload("table", {"file": path.name, **MLP, **options}, path.parent)
    assert isinstance(made, Table)
    return made


def refusal(path: Path, content: str, **options: JsonValue) -> str:
    with pytest.raises(ConfigError) as caught:
        make(path, content, **options).split("train")
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.csv"


def test_rows_are_split_by_digest_and_classes_numbered_by_name(file: Path) -> None:
    workload = make(file, text())
    sizes = {name: len(workload.split(name)) for name in SPLITS}
    assert sizes["train"] + sizes["validation"] + sizes["test"] == 80
    assert workload.class_labels == ("no", "yes")
    first = float(text().splitlines()[1].split(",")[0])
    places = {name: np.flatnonzero(workload.split(name).inputs[:, 0] == np.float32(first)) for name in SPLITS}
    (name, (row, *_)) = next((name, found) for name, found in places.items() if len(found))
    assert workload.split(name).targets[row] == 0  # the first sample is a `no`
    assert make(file, text(names=("0", "1"))).class_labels == ()  # numbered already
    assert make(file, text(names=("10", "9"))).class_labels == ("9", "10")


def test_a_built_in_network_is_made_for_the_table(file: Path) -> None:
    file.write_text(text())
    workload = create_workload("table", {"file": file.name, "model": "mlp", "train_steps": 2}, file.parent)
    shapes = [tuple(tensor.shape) for key, tensor in workload.model().state_dict().items() if "weight" in key]
    assert shapes == [(64, 3), (64, 64), (2, 64)]
    two: dict[str, JsonValue] = {"file": file.name, "model": "mlp", "model_args": {"hidden": [5]}, "train_steps": 2}
    values = create_workload(
        "table", {**two, "task": "regression", "target": "width", "features": ["height"]}, file.parent
    )
    shapes = [tuple(tensor.shape) for key, tensor in values.model().state_dict().items() if "weight" in key]
    assert shapes == [(5, 1), (1, 5)]


def test_held_rows_are_halved_and_a_tsv_has_tabs(tmp_path: Path) -> None:
    (tmp_path / "held.tsv").write_text(text(41, separator="\t"))
    workload = make(tmp_path / "mine.tsv", text(separator="\t"), held="held.tsv")
    assert len(workload.split("train")) == 80
    assert len(workload.split("validation")) + len(workload.split("test")) == 41


def test_target_and_features_are_columns_by_heading(file: Path) -> None:
    options: dict[str, JsonValue] = {
        "target": "height", "features": ["weight", "width"], "task": "regression",
        "model_args": {"inputs": 2, "hidden": [4], "outputs": 1},
    }  # fmt: skip
    workload = make(file, text(), **options)
    batch = next(iter(workload.split("train").batches(2)))
    assert (batch.inputs[0].shape, batch.targets.shape) == ((2, 2), (2, 1))
    cells = [row.split(",") for row in text().splitlines()[1:]]
    line = min(cells, key=lambda row: abs(float(row[2]) - float(batch.inputs[0][0, 0])))
    assert float(batch.inputs[0][0, 1]) == pytest.approx(float(line[1]))
    assert float(batch.targets[0, 0]) == pytest.approx(float(line[0]))


def test_what_is_wrong_in_a_table_is_named_by_file_and_line(file: Path) -> None:
    good = text()
    lines = good.splitlines()
    assert "mine.csv: is empty" in refusal(file, "")
    assert "its first line holds numbers, not headings" in refusal(file, "1,2,3\n4,5,6\n")
    assert "two columns are called 'width'" in refusal(file, good.replace("height", "width"))
    assert "has 1 column" in refusal(file, good.replace(",", ";"))
    assert "mine.csv has no column 'verdit'; did you mean verdict?" in refusal(file, good, target="verdit")
    assert "verdict is the target" in refusal(file, good, features=["width", "verdict"])
    short = "\n".join([*lines[:5], lines[5].rpartition(",")[0], *lines[6:]])
    assert "mine.csv: line 6 has 3 cells, there are 4 headings" in refusal(file, short)
    word = "\n".join([*lines[:8], "tall,1,2,no", *lines[9:]])
    assert "mine.csv: line 9: height = 'tall' is no number" in refusal(file, word)
    assert "mine.csv: line 9: height is empty" in refusal(file, word.replace("tall", ""))
    assert "inputs hold NaN or infinity in 1 of" in refusal(file, word.replace("tall", "nan"))
    file.with_name("held.csv").write_text(text(20, names=("no", "yess")))
    assert "held.csv: line 3: verdict = 'yess', a class that" in refusal(file, good, held="held.csv")
    assert "verdict = 'no' is no number" in refusal(file, good, task="regression")
    file.write_bytes(b"\xff\xfe\x00a,b")
    with pytest.raises(ConfigError, match="cannot be read as a table"):
        create_workload("table", {"file": file.name, **MLP}, file.parent)
