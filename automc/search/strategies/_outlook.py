"""What every objective of a candidate will be, and whether it will do at all: one surrogate for each question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from automc.search.strategies._scales import Scale
from automc.search.strategies._surrogate import Surrogate

Floats = npt.NDArray[np.float64]

_EXACT = 1e-6  # a price whose logarithm is off by no more is no prediction, it is what will be told
_OUTLYING = 4.0  # median deviations
_LEAST_CHANCE = 1e-4
_LEAST_DOUBT = 0.1  # of a mark that is 1 for what keeps all limits and 0 for what does not
_STEEPNESS = 5.0  # a limit exceeded by a fifth leaves e^-1, while nothing keeps all limits


@dataclass(frozen=True)
class Evidence:
    """Told candidates. blocks: features (n, f) each. prices, values: (n, m), less is better, NaN where there is none.

    violation: (n,) by how much limits are exceeded; infinite for a failed one.
    """

    blocks: list[Floats]
    prices: Floats
    values: Floats
    violation: Floats


@dataclass(frozen=True)
class Pool:
    """Candidates under consideration: choices, features, prices."""

    rows: npt.NDArray[np.int16]
    blocks: list[Floats]
    prices: Floats

    def only(self, kept: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Pool:
        return Pool(self.rows[kept], [block[kept] for block in self.blocks], self.prices[kept])


@dataclass(frozen=True)
class Forecast:
    """mean, deviation: (n, m) on `scales`, deviation 0 where a price is exact. chance: (n,) to keep all limits."""

    mean: Floats
    deviation: Floats
    scales: tuple[Scale, ...]
    chance: Floats

    def only(self, kept: npt.NDArray[np.int64]) -> Forecast:
        return Forecast(self.mean[kept], self.deviation[kept], self.scales, self.chance[kept])

    def at(self, deviates: Floats) -> Floats:
        """(n, m) objectives, `deviates` (m,) standard deviations from the mean."""
        scaled = self.mean + deviates * self.deviation
        return np.stack([scale.back(column) for scale, column in zip(self.scales, scaled.T, strict=True)], axis=1)


class Outlook:
    """Surrogates of the objectives and of keeping the limits, refitted or updated from evidence.

    An objective whose price is known for every candidate is that price, corrected by what was told (`priced`); any
    other is learned from the features and the prices of the others.
    rank_correlation: the lowest, cross-validated, of the objectives that are learned; 1 where none is.
    """

    def __init__(self, objectives: int, seed: int) -> None:
        self._learned = [Surrogate(seed + 2 * j) for j in range(objectives)]
        self._corrected = [Surrogate(seed + 2 * j + 1) for j in range(objectives)]
        self._sound = Surrogate(seed + 2 * objectives)
        self._roles: list[Literal["learned", "corrected", "exact", "constant"]] = []
        self._priced: npt.NDArray[np.bool_] = np.zeros(objectives, dtype=np.bool_)
        self._level = np.zeros(objectives)
        self._spread = np.ones(objectives)
        self._offset = np.zeros(objectives)
        self._scales: tuple[Scale, ...] = ()
        self._doubtful = False
        self.rank_correlation = 0.0

    def refit(self, evidence: Evidence, pool: Pool) -> None:
        """Choose every setting anew; `pool` tells which objectives have a price for every candidate."""
        scored = np.isfinite(evidence.values).all(axis=1)
        prices = np.concatenate([evidence.prices, pool.prices])
        self._priced = np.asarray(np.isfinite(prices).all(axis=0), dtype=np.bool_)
        logs = _logs(evidence.prices)
        self._level = np.where(self._priced, logs.mean(axis=0), 0.0)
        self._spread = np.where(self._priced, np.maximum(logs.std(axis=0), 1e-9), 1.0)
        self._roles = []
        for j, values in enumerate(evidence.values[scored].T):
            if self._priced[j]:
                off = np.std(np.log(values) - logs[scored, j]) if (values > 0).all() else np.inf
                self._roles.append("exact" if off < _EXACT else "corrected")
            else:
                self._roles.append("constant" if np.ptp(values) == 0 else "learned")
        self._doubtful = bool((evidence.violation > 0).any())
        self._fit(evidence, anew=True)
        correlations = [
            one.rank_correlation for one, role in zip(self._learned, self._roles, strict=True) if role == "learned"
        ]
        self.rank_correlation = min(correlations, default=1.0)

    def update(self, evidence: Evidence) -> None:
        """Take in what was told since, with every setting as it is."""
        if not self._doubtful and (evidence.violation > 0).any():
            self._doubtful = True
            self._sound.refit(self._with_prices(evidence.blocks, evidence.prices), _soundness(evidence.violation))
        self._fit(evidence, anew=False)

    def predict(self, pool: Pool) -> Forecast:
        blocks = self._with_prices(pool.blocks, pool.prices)
        mean, deviation = np.zeros((2, len(pool.rows), len(self._roles)))
        logs = _logs(pool.prices)
        for j, role in enumerate(self._roles):
            if role == "learned":
                mean[:, j], deviation[:, j] = self._learned[j].predict(blocks)
            elif role == "corrected":
                off, deviation[:, j] = self._corrected[j].predict(blocks)
                mean[:, j] = logs[:, j] + off
            else:
                mean[:, j] = self._offset[j] + (logs[:, j] if role == "exact" else 0.0)
        chance = np.ones(len(pool.rows))
        if self._doubtful:
            from scipy.special import ndtr

            sound, doubt = self._sound.predict(blocks)
            chance = np.maximum(ndtr((sound - 0.5) / np.maximum(doubt, _LEAST_DOUBT)), _LEAST_CHANCE)
        return Forecast(mean, deviation, self._scales, chance)

    def _fit(self, evidence: Evidence, *, anew: bool) -> None:
        scored = np.isfinite(evidence.values).all(axis=1)
        values, logs = evidence.values[scored], _logs(evidence.prices)[scored]
        everything = self._with_prices(evidence.blocks, evidence.prices)
        blocks = [block[scored] for block in everything]
        self._scales = tuple(Scale.of(column, squash=not self._priced[j]) for j, column in enumerate(values.T))
        for j, role in enumerate(self._roles):
            scaled = self._scales[j].forward(values[:, j])
            if role in ("exact", "constant"):
                self._offset[j] = float((scaled - (logs[:, j] if role == "exact" else 0.0)).mean())
                continue
            one = self._learned[j] if role == "learned" else self._corrected[j]
            (one.refit if anew else one.update)(blocks, scaled if role == "learned" else _tamed(scaled - logs[:, j]))
        if self._doubtful:
            (self._sound.refit if anew else self._sound.update)(everything, _soundness(evidence.violation))

    def _with_prices(self, blocks: list[Floats], prices: Floats) -> list[Floats]:
        if not self._priced.any():
            return blocks
        return [*blocks, ((_logs(prices) - self._level) / self._spread)[:, self._priced]]


def _logs(prices: Floats) -> Floats:
    """Prices are positive; NaN stays NaN."""
    logs: Floats = np.log(np.maximum(prices, 1e-300))
    return logs


def _tamed(off: Floats) -> Floats:
    """`off` without its outliers: a price that is off by several times for a few says nothing about the others."""
    middle = np.median(off)
    far = _OUTLYING * max(float(np.median(np.abs(off - middle))), 1e-9)
    tamed: Floats = np.clip(off, middle - far, middle + far)
    return tamed


def _soundness(violation: Floats) -> Floats:
    """1 where all limits are kept, 0 where not; while none keeps them, the nearer the higher."""
    if (violation == 0).any():
        return np.asarray(violation == 0, dtype=np.float64)
    nearness: Floats = np.exp(-_STEEPNESS * violation)
    return nearness
