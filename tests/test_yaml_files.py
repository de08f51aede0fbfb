from __future__ import annotations

from pathlib import Path

import pytest

from automc.errors import ConfigError
from automc.yaml_files import read_yaml


def read(tmp_path: Path, text: str) -> object:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    return read_yaml(file, next_step="do this")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is written twice (first in line 1)"),
        ("a:\n  - {b: 1}\n  - {b: 1, c: 2, b: 3}\n", "line 3: the key 'b' is written twice (first in line 3)"),
        ("1: a\ntrue: b\n", "line 2: the key True is written twice (first in line 1)"),  # equal in Python: one is lost
        ("a: [1\nb: 2\n", "is not YAML: line "),
        ("[a]: 1\n", "is not YAML: line 1: "),
        ("a: 1\n---\nb: 2\n", "is not YAML: line "),
        ("a: !!python/name:os.system\n", "is not YAML: line 1: "),
    ],
)
def test_what_would_be_lost_or_is_no_yaml_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path / 'file.yaml'}: ")
    assert said in caught.value.message
    assert caught.value.next_step is not None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: {b: 1}\nc: {b: 1}\n", {"a": {"b": 1}, "c": {"b": 1}}),  # one key in two mappings is no repetition
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\n", {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}}),
    ],
)
def test_what_is_said_once_is_read(tmp_path: Path, text: str, value: object) -> None:
    assert read(tmp_path, text) == value


def test_a_folder_and_a_file_that_is_no_text_are_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder, not a YAML file"):
        read_yaml(tmp_path, next_step="do this")
    (tmp_path / "file.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="no text in UTF-8"):
        read_yaml(tmp_path / "file.yaml", next_step="do this")
