"""A bug is not a bad candidate."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import automc
from automc.candidate import Candidate
from automc.errors import CompressionError, InfeasibleCandidate, MeasurementError, UnseenOperatorError
from automc.evaluate import Evaluator, Job
from automc.trial import Trial

JOB = Job(Candidate(), rung=0, seed=0, steps=0)


class Breaks(Evaluator):
    """An evaluator of which every candidate raises the same."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def _evaluate(self, job: Job, *_: object) -> Trial:
        raise self.error


@pytest.mark.parametrize(
    "bug", [ZeroDivisionError("1/0"), KeyError("weights"), RuntimeError("shapes"), MeasurementError("noisy")], ids=repr
)
def test_what_is_no_candidate_error_stops_the_run(bug: Exception) -> None:
    with pytest.raises(type(bug)):
        Breaks(bug).evaluate(JOB)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CompressionError("no"), "compression"),
        (InfeasibleCandidate("no"), "infeasible"),
        (UnseenOperatorError("no"), "unknown_cost"),
    ],
    ids=repr,
)
def test_a_named_candidate_error_is_recorded(error: Exception, kind: str) -> None:
    trial = Breaks(error).evaluate(JOB)
    assert trial.failure is not None
    assert trial.failure.kind == kind


def test_candidate_errors_are_caught_in_one_place() -> None:
    """Everywhere in automc, handlers that would swallow a candidate's error: exactly one, in evaluate.py."""
    root = Path(automc.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler) and _swallows(node):
                found.append(path.relative_to(root).as_posix())
    assert found == ["evaluate.py"]


def _swallows(handler: ast.ExceptHandler) -> bool:
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else {"bare"}
    ends_raising = isinstance(handler.body[-1], ast.Raise)
    return bool(names & {"bare", "Exception", "BaseException", "CandidateError"}) and not ends_raising
