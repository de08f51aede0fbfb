"""YAML as every file of the user's is read: no code, and nothing in it silently lost."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from automc.errors import ConfigError

_MERGE = "tag:yaml.org,2002:merge"
TO_FILL_IN = "<fill in>"
"""Stands where a template has no value to offer; whoever reads it back refuses it in words."""


def read_yaml(path: Path, *, next_step: str) -> object:
    """The document in `path`, None where it is empty. next_step: what an error tells the user to do.

    Raises ConfigError naming file and line where it is not one YAML document, or a key is written twice in a mapping,
    of which YAML itself would keep the last.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not YAML: it is no text in UTF-8 ({error})", next_step=next_step) from error
    except OSError as error:
        reason = "is a folder, not a YAML file" if path.is_dir() else f"cannot be read: {error.strerror}"
        raise ConfigError(f"{path}: {reason}", next_step=next_step) from error
    try:
        return yaml.load(text, _UniqueKeys)  # noqa: S506 - a SafeLoader that also refuses a key written twice
    except _WrittenTwice as error:
        raise ConfigError(f"{path}: {error}", next_step="keep one of the two lines, then run it again") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f"line {mark.line + 1}: "
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{path}: is not YAML: {line}{what}", next_step=next_step) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {error}", next_step=next_step) from error


class _WrittenTwice(Exception):
    pass


class _UniqueKeys(yaml.SafeLoader):
    """A SafeLoader that refuses a key written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[object, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                continue  # refused by the SafeLoader itself
            if key in lines:
                raise _WrittenTwice(f"line {line}: the key {key!r} is written twice (first in line {lines[key]})")
            lines[key] = line
        return super().construct_mapping(node, deep=deep)
