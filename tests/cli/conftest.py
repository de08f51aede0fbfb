"""Runs the command line in this process, as a user would."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Answer:
    """What one command left behind: its exit code and both of its streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return json.loads(self.out)


Automc = Callable[..., Answer]


@pytest.fixture
def automc(capsys: pytest.CaptureFixture[str]) -> Automc:
    """automc("technique", "list") -> Answer."""
    from automc.cli.main import main

    def call(*arguments: str) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        streams = capsys.readouterr()
        return Answer(int(left.value.code or 0), streams.out, streams.err)

    return call
