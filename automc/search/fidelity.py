"""Rungs: what is compared within one, and who goes up to the next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from automc.candidate import canonical_json
from automc.errors import ConfigError
from automc.trial import Metric, Trial, to_minimise

if TYPE_CHECKING:
    from automc.config import Objective
    from automc.space import Anchor


def objectives_of(trial: Trial, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """The trial's objectives to be minimised, in order. Raises ConfigError where the workload does not tell one."""
    for name in objectives:
        if name not in (trial.figures or {}):
            raise ConfigError(
                f"objectives: {name} is asked for, but this workload does not tell it "
                f"(it tells: {', '.join(trial.figures or {})})",
                next_step=f"leave {name} out of `objectives`",
            )
    return tuple(to_minimise(name, trial[name]) for name in objectives)


def distinct(trials: Iterable[Trial]) -> list[Trial]:
    """Successful trials, one for each evaluated network: of two orders that made the same one the first stays.

    Candidates that will be trained differently are different, though rung 0, where nothing trains, cannot tell them.
    """
    seen: set[object] = set()
    kept = []
    for trial in trials:
        key = (trial.artifacts.get("onnx") or trial.candidate.id, canonical_json(trial.facts.get("recoveries")))
        if trial.ok and key not in seen:
            seen.add(key)
            kept.append(trial)
    return kept


def promoted(
    trials: Sequence[Trial], count: int, objectives: Sequence[Objective], always: frozenset[str]
) -> list[Trial]:
    """The trials of one rung that go up: by non-dominated rank, then crowding, `count` of them, after those `always`.

    always: candidate ids of anchors, which go up in addition. Ties are broken by the order given.
    """
    from automc.pareto import promote

    carried = [trial for trial in trials if trial.ok and trial.candidate.id in always]
    taken = {trial.candidate.id for trial in carried}
    rest = [trial for trial in distinct(trials) if trial.candidate.id not in taken]
    if not rest:
        return carried
    chosen = promote([objectives_of(trial, objectives) for trial in rest], count)
    return carried + [rest[int(index)] for index in chosen]


def best_of_group(anchor: Anchor, trials: Mapping[str, Trial], reference: Trial, max_drop: float) -> str | None:
    """Candidate id of the anchor group's best member at one rung; None where every member failed.

    Best is the fastest within `max_drop` points below the reference at the same rung (the smallest, where no latency is
    known), else the most accurate.
    """
    members = [trials[c.id] for c in anchor.candidates if c.id in trials and trials[c.id].ok]
    if not members:
        return None
    worst = _error(reference) + max_drop / 100
    close = [trial for trial in members if _error(trial) <= worst]
    timed = [trial for trial in close if math.isfinite(predicted_ms(trial))]
    if timed:
        return min(timed, key=predicted_ms).candidate.id
    if close:
        return min(close, key=lambda trial: trial["size_bytes"].value).candidate.id
    return min(members, key=_error).candidate.id


def _error(trial: Trial) -> float:
    return to_minimise("accuracy", trial["accuracy"])


def predicted_ms(trial: Trial) -> float:
    """Latency of a successful trial, to put trials in order: infinite, so last, where it is unknown."""
    figure = (trial.figures or {}).get("latency_ms")
    return math.inf if figure is None else figure.value


def rank_correlation(lower: Mapping[str, Trial], upper: Mapping[str, Trial], metric: Metric) -> float | None:
    """Spearman correlation of `metric` between two rungs over the candidates in both; None below three of them."""
    import numpy as np
    from scipy.stats import spearmanr

    shared = sorted(key for key in lower.keys() & upper.keys() if lower[key].ok and upper[key].ok)
    if len(shared) < 3:
        return None
    first = np.array([lower[key][metric].value for key in shared])
    second = np.array([upper[key][metric].value for key in shared])
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)
