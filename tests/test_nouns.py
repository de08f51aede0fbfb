"""The nouns of the design, one module each: whoever looks for a noun finds it where its name says."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

HOMES = {
    "HardwareProfile": "automc.profiles",
    "Workload": "automc.workloads.workload",
    "SearchSpace": "automc.space",
    "Candidate": "automc.candidate",
    "Technique": "automc.techniques.technique",
    "Plan": "automc.techniques.plan",
    "Predictor": "automc.cost.predictor",
    "Strategy": "automc.search.strategies.strategy",
    "Trial": "automc.trial",
    "Run": "automc.run",
    "Bundle": "automc.bundle",
}


@pytest.mark.parametrize(("noun", "home"), HOMES.items())
def test_a_noun_is_defined_in_the_module_that_bears_its_name(noun: str, home: str) -> None:
    assert home.rpartition(".")[2].removesuffix("s") in noun.lower()
    kind = getattr(import_module(home), noun)
    assert kind.__name__ == noun
    # a noun whose name is a whole package's lives in one of its files
    assert f"{kind.__module__}.".startswith(f"{home}.")
    assert (inspect.getdoc(kind) or "").strip()
