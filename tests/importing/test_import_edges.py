"""`automc profile import` where the table, the name or the place to write it to is not as it should be."""

from __future__ import annotations

import gzip
from pathlib import Path

import onnx
import pytest
from test_import_command import network, refused, run, write


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOMC_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def rows(home: Path) -> list[dict[str, object]]:
    """Ten networks of a made-up device, enough to rank by."""
    return [
        {"model": f"n{at}.onnx", "latency_ms": network(home / f"n{at}.onnx", 8 + 8 * (at % 4), 2 + at % 5, 12)}
        for at in range(10)
    ]


@pytest.mark.parametrize("place", ["a_file", "a_file/below", "/proc/nohome"])
def test_where_nothing_can_be_written_that_is_said(
    automc, home: Path, rows, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (home / "a_file").write_text("no folder")
    table = write(home / "board.csv", rows)
    inside = run(automc, table, "--folder", str(home / place))
    assert (inside.code, "next: give another --folder" in inside.err) == (2, True)
    monkeypatch.setenv("AUTOMC_HOME", str(home / place))
    for answer in (run(automc, table), automc("profile", "calibrate", "host", "--quick")):
        assert answer.code == 2
        assert "cannot be written" in answer.err
        assert "next: set AUTOMC_HOME to a folder of yours" in answer.err
    assert "epyc_genoa_1t" in automc("profile", "list").out
    answer = automc("predict", str(home / "n1.onnx"))
    assert (answer.code, "no hardware profile is called 'host'" in answer.err) == (2, True)


def test_a_name_longer_than_a_folders_may_be_is_none(automc, home: Path, rows) -> None:
    longest = "b" * 100
    table = write(home / "board.csv", rows)
    for answer in (
        run(automc, table, "--name", longest + "b"),
        automc("profile", "calibrate", 3 * longest, "--quick"),
    ):
        refused(answer, home, "cannot be a profile's name: up to 100 letters")
    for answer in (
        automc("profile", "show", 3 * longest),
        automc("predict", str(home / "n1.onnx"), "--profile", 3 * longest),
    ):
        refused(answer, home, "no hardware profile is called")
    assert run(automc, table, "--name", longest).code == 0


def test_a_column_that_is_there_twice_is_refused(automc, home: Path, rows) -> None:
    table = write(home / "board.csv", rows)
    lines = [f"{line},{'1.0' if at else ' latency_ms'}" for at, line in enumerate(table.read_text().splitlines())]
    table.write_text("\n".join(lines))
    refused(run(automc, table), home, "board.csv: row 1: the column latency_ms is there twice")
    table.write_text("\n".join([f"{lines[0].rpartition(',')[0]},,"] + [f"{line}," for line in lines[1:]]))
    assert run(automc, table).code == 0  # columns without a name, as spreadsheets leave them


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.encode("utf-16"), "seems to be text in UTF-16"),
        (lambda text: text.encode("utf-16-be"), "seems to be text in UTF-16"),
        (lambda text: text.replace("n3.onnx", "né.onnx").encode("latin-1"), "row 5: is not UTF-8; seems to be text in"),
        (lambda text: text.replace(".onnx,", ".onnx;").replace("model,", '"model"; ').encode(), "separated by semi"),
        (lambda text: text.replace(",", "\t").encode(), "separated by tabs"),
        (lambda text: b"PK\x03\x04" + text.encode(), "seems to be a spreadsheet's own file"),
    ],
)
def test_a_file_that_is_no_plain_csv_is_called_what_it_seems_to_be(automc, home: Path, rows, change, said: str) -> None:
    table = write(home / "board.csv", rows)
    table.write_bytes(change(table.read_text()))
    refused(run(automc, table), home, "board.csv: ", said, "next: save it as CSV")


def test_a_damaged_gzip_is_no_table(automc, home: Path, rows) -> None:
    table = home / "board.csv.gz"
    table.write_bytes(gzip.compress(write(home / "board.csv", rows).read_bytes())[:10] + b"\xff" * 20)
    refused(run(automc, table), home, "board.csv.gz: cannot be read as a table")


def test_a_model_that_cannot_be_read_is_named_with_its_row(automc, home: Path, rows) -> None:
    table, model = write(home / "board.csv", rows), home / "n3.onnx"
    whole = onnx.load(model)
    model.write_bytes(b"no model")
    refused(run(automc, table), home, f"board.csv: row 5: {model}: not an ONNX model")
    whole.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(whole, model)
    refused(run(automc, table), home, f"board.csv: row 5: {model}: input 'image' leaves more than the batch open")


@pytest.mark.parametrize("option", ["--device", "--runtime"])
@pytest.mark.parametrize("blank", ["", "  "])
def test_a_device_and_its_runtime_are_not_blank(automc, home: Path, rows, option: str, blank: str) -> None:
    refused(run(automc, write(home / "board.csv", rows), option, blank), home, f"{option} is blank")
