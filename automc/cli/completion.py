"""What a shell offers when Tab is pressed: names of profiles, strategies, spaces, techniques, rules and runs.

Names of files and entry points alone are read: nothing is imported that trains or measures, so a shell answers in a
few tenths of a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def profiles(incomplete: str) -> list[str]:
    from automc.profiles import profile_folders

    return _starting(incomplete, profile_folders())


def spaces(incomplete: str) -> list[str]:
    from automc.space_file import shipped_spaces

    return _starting(incomplete, shipped_spaces())


def strategies(incomplete: str) -> list[str]:
    from automc.search.strategies.registry import strategy_names

    return _starting(incomplete, strategy_names())


def techniques(incomplete: str) -> list[str]:
    from automc.techniques.registry import technique_names

    return _starting(incomplete, technique_names())


def workloads(incomplete: str) -> list[str]:
    from automc.workloads.registry import workload_names

    return _starting(incomplete, workload_names())


def rules(incomplete: str) -> list[str]:
    from automc.search.choice import RULES

    return _starting(incomplete, (name.replace("_", "-") for name in RULES))


def rules_of_config(incomplete: str) -> list[str]:
    from automc.search.choice import RULES

    return _starting(incomplete, RULES)


def run_folders(incomplete: str) -> list[str]:
    """Folders that hold a run: beside what is typed, and in runs/ where nothing is typed yet."""
    from automc.run import LOCK

    typed = Path(incomplete)
    parent = typed if incomplete.endswith("/") else typed.parent
    places = [parent, Path("runs")] if not incomplete else [parent]
    found = (path.parent for place in places for path in place.glob(f"*/{LOCK}"))
    deeper = (path.parent for path in parent.glob(f"{typed.name}*/*/{LOCK}")) if not incomplete.endswith("/") else ()
    return _starting(incomplete, map(str, (*found, *deeper)))


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})
