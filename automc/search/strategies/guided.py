"""Learns accuracy and costs from what was told and asks where the front should grow most.

Every objective has a surrogate (`_surrogate`: Gaussian processes, on a logit or log scale); where the
caller can price candidates before they are evaluated, the price is both a feature and what the surrogate corrects.
Of thousands of candidates the one with the highest expected hypervolume improvement is asked, times the probability
that it neither fails nor breaks a constraint. At least RANDOM_SHARE of the asks are uniform, the first START all are;
while the surrogates, cross-validated, rank no better than LEAST_CORRELATION, NSGA-II proposes instead.
Source: Emmerich et al. 2006 (expected hypervolume improvement).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from automc.candidate import Candidate
from automc.errors import InfeasibleCandidate
from automc.pareto import promote
from automc.search.strategies._encoding import Encoding, Rows
from automc.search.strategies._improvement import Boxes, boxes_beyond
from automc.search.strategies._outlook import Evidence, Forecast, Outlook, Pool
from automc.search.strategies.nsga2 import Nsga2Strategy
from automc.search.strategies.strategy import CostTeller, Screen, Strategy, everything
from automc.space import Assignment, SearchSpace
from automc.trial import Trial

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

Floats = npt.NDArray[np.float64]

_SAMPLES = 16  # of the forecast, behind each expectation
_HOPE = 1.0  # standard deviations above the mean at which a candidate is worth a closer look
_CLOSE = 128  # candidates looked at that closely
_QUEUE = 16  # best ones kept, for where the first are refused
_PARENTS = 32  # around which half of a sampled pool lies
_MARGIN = 0.01  # the reference point lies this share of the range beyond the worst told value
_LEARNED_FROM = 400  # told trials that surrogates take in at most
_REFIT = 10  # refit when told trials have grown by a tenth, and by 3


@dataclass(frozen=True)
class _Told:
    row: Rows
    trial: Trial
    objectives: tuple[float, ...] | None
    violation: float

    @property
    def good(self) -> bool:
        return self.objectives is not None and self.violation == 0


class GuidedStrategy(Strategy):
    name = "guided"
    summary = "learns accuracy and costs, asks where the front should grow most; needs the fewest trials"
    START = 10
    RANDOM_SHARE = 0.15
    LEAST_CORRELATION = 0.3
    WHOLE = 20_000
    """A space up to this size is considered candidate by candidate; of a larger one, POOL at a time."""
    POOL = 4096
    SHORT = 512
    """How many candidates, the most hopeful at the last refit, are compared between refits."""

    def __init__(
        self,
        space: SearchSpace,
        objectives: int,
        seed: int,
        screen: Screen = everything,
        costs: CostTeller | None = None,
    ) -> None:
        super().__init__(space, objectives, seed, screen, costs)
        self._encoding = Encoding(space)
        self._outlook = Outlook(objectives, seed)
        self._history: list[_Told] = []
        self._prices: dict[bytes, Floats] = {}
        self._waiting: dict[bytes, Rows] = {}
        self._gone: set[bytes] = set()
        self._asks = self._random_asks = 0
        self._whole: Pool | None = None
        self._short: Pool | None = None
        self._fitted_at = 0
        self._queue: deque[Rows] = deque()
        self._stale = True
        self._evolution: Nsga2Strategy | None = None
        self._source: Literal["random", "surrogate", "evolution"] = "random"
        self._deviates = _deviates(objectives)

    # --- asking -----------------------------------------------------------------------------------------------------

    def propose(self) -> Assignment:
        self._source = "random"
        if not self.space.dimensions:
            return {}
        if self._by_chance():
            return self.space.draw(self.rng)
        if self._stale:
            with one_thread():
                self._think()
            self._stale = False
        if self._outlook.rank_correlation < self.LEAST_CORRELATION:
            self._source = "evolution"
            return self._evolved().propose()
        while self._queue:
            row = self._queue.popleft()
            if row.tobytes() not in self._gone:
                self._source = "surrogate"
                return self._encoding.assignment(row)
        return self.space.draw(self.rng)

    def accepted(self, candidate: Candidate, assignment: Assignment) -> None:
        row = self._encoding.row(assignment)
        self._waiting[row.tobytes()] = row
        self._gone.add(row.tobytes())
        self._asks += 1
        self._random_asks += self._source == "random"
        if self._source == "evolution":
            self._evolved().accepted(candidate, assignment)
        self._source, self._stale = "random", True

    def rejected(self, assignment: Assignment) -> None:
        self._gone.add(self._encoding.row(assignment).tobytes())
        if self._source == "evolution":
            self._evolved().rejected(assignment)
        self._source = "random"

    def learn(self, trial: Trial, objectives: tuple[float, ...] | None, violation: float) -> None:
        assignment = self.space.assignment(trial.candidate)
        if assignment is None:
            return
        told = _Told(self._encoding.row(assignment), trial, objectives, violation)
        self._waiting.pop(told.row.tobytes(), None)
        self._gone.add(told.row.tobytes())
        self._history.append(told)
        if self._evolution is not None:
            self._evolution.tell(trial, objectives, violation)
        self._stale = True

    def _by_chance(self) -> bool:
        return self._scored() < self.START or self._random_asks < self.RANDOM_SHARE * (self._asks + 1)

    def _scored(self) -> int:
        return sum(told.objectives is not None for told in self._history)

    def _evolved(self) -> Nsga2Strategy:
        if self._evolution is None:
            self._evolution = Nsga2Strategy(self.space, self.objectives, self.seed)
            for told in self._history:
                self._evolution.tell(told.trial, told.objectives, told.violation)
        return self._evolution

    # --- thinking ---------------------------------------------------------------------------------------------------

    def _think(self) -> None:
        """Bring the surrogates up to date and queue the most promising candidates."""
        evidence, scored = self._evidence(), self._scored()
        if self._short is None or scored - self._fitted_at >= max(3, self._fitted_at // _REFIT):
            pool = self._pool()
            self._outlook.refit(evidence, pool)
            self._fitted_at = scored
            self._short = self._hopeful(pool)
        else:
            self._outlook.update(evidence)
        self._short = self._left(self._short)
        self._queue = deque(self._best(self._short))

    def _evidence(self) -> Evidence:
        """What was told: the good ones first to stay where there are more than surrogates take, then the latest."""
        told = self._history
        if len(told) > _LEARNED_FROM:
            scored = [(i, one.objectives) for i, one in enumerate(told) if one.objectives is not None]
            best = promote([objectives for _, objectives in scored], _LEARNED_FROM // 2)
            kept = {scored[int(i)][0] for i in best} | set(range(len(told) - _LEARNED_FROM // 2, len(told)))
            told = [told[i] for i in sorted(kept)]
        rows = np.array([one.row for one in told])
        failed = (np.nan,) * self.objectives
        return Evidence(
            self._encoding.features(rows),
            self._priced(rows),
            np.array([failed if one.objectives is None else one.objectives for one in told]),
            np.array([np.inf if one.objectives is None else one.violation for one in told]),
        )

    def _pool(self) -> Pool:
        """Every candidate not asked yet, or a sample: half of it uniform, half around the best so far."""
        if self.space.size <= self.WHOLE:
            if self._whole is None:
                rows = self._encoding.everything()
                self._whole = Pool(rows, self._encoding.features(rows), self._priced(rows))
            return self._left(self._whole)
        scored = [(told.row, told.objectives) for told in self._history if told.objectives is not None]
        parents = [scored[int(i)][0] for i in promote([objectives for _, objectives in scored], _PARENTS)]
        near = self._encoding.neighbours(np.array(parents), self.rng, self.POOL // 2)
        far = self._encoding.draw(self.rng, self.POOL - len(near))
        rows = np.concatenate([near, far])
        return self._left(Pool(rows, self._encoding.features(rows), self._priced(rows)))

    def _left(self, pool: Pool) -> Pool:
        """`pool` without what was asked, told or refused."""
        return pool.only(np.array([row.tobytes() not in self._gone for row in pool.rows], dtype=np.bool_))

    def _priced(self, rows: Rows) -> Floats:
        """(n, m) prices, each asked for once; NaN where unknown."""
        unknown = np.full(self.objectives, np.nan)
        if self.costs is None:
            return np.tile(unknown, (len(rows), 1))
        candidates = {}
        for row in rows:
            if row.tobytes() not in self._prices and row.tobytes() not in candidates:
                try:
                    candidates[row.tobytes()] = self.space.candidate(self._encoding.assignment(row))
                except InfeasibleCandidate:
                    self._gone.add(row.tobytes())
                    self._prices[row.tobytes()] = unknown
        if candidates:
            self._prices.update(zip(candidates, self.costs(list(candidates.values())), strict=True))
        return np.array([self._prices[row.tobytes()] for row in rows]).reshape(len(rows), self.objectives)

    # --- choosing ---------------------------------------------------------------------------------------------------

    def _hopeful(self, pool: Pool) -> Pool:
        """The SHORT candidates of `pool` that would gain most if they turned out better than expected."""
        if len(pool.rows) <= self.SHORT:
            return pool
        forecast = self._outlook.predict(pool)
        return pool.only(np.sort(_leading(self._gain(forecast, self._open(), _HOPE), self.SHORT)))

    def _best(self, pool: Pool) -> list[Rows]:
        """Rows of the highest expected gain, best first; none where nothing is expected to gain."""
        if not len(pool.rows):
            return []
        space, forecast = self._open(), self._outlook.predict(pool)
        close = _leading(self._gain(forecast, space, _HOPE), _CLOSE)
        gain = self._gain(forecast.only(close), space, None)
        return [pool.rows[close[i]] for i in _leading(gain, _QUEUE) if gain[i] > 0]

    def _open(self) -> Boxes | None:
        """What neither the front nor what is expected of asks without an answer covers; None while nothing is good."""
        good = np.array([told.objectives for told in self._history if told.good]).reshape(-1, self.objectives)
        if not len(good):
            return None
        reference = good.max(axis=0) + _MARGIN * np.maximum(np.ptp(good, axis=0), 1e-12)
        if self._waiting:
            rows = np.array(list(self._waiting.values()))
            waiting = Pool(rows, self._encoding.features(rows), self._priced(rows))
            good = np.concatenate([good, self._outlook.predict(waiting).at(np.zeros(self.objectives))])
        return boxes_beyond(good, reference)

    def _gain(self, forecast: Forecast, space: Boxes | None, hope: float | None) -> Floats:
        """(n,) growth of the hypervolume, at `hope` deviations or expected, times the chance to keep the limits."""
        if space is None:
            return forecast.chance
        if hope is not None:
            return space.improvement(forecast.at(np.full(self.objectives, -hope))) * forecast.chance
        gains = [space.improvement(forecast.at(deviates)) for deviates in self._deviates]
        expected: Floats = np.mean(gains, axis=0) * forecast.chance
        return expected


def _leading(values: Floats, count: int) -> npt.NDArray[np.int64]:
    """Indices of the largest, best first. What differs in the seventh digit ties: the first of them leads."""
    top = float(values.max(initial=0.0))
    return np.argsort(-np.round(values / (top or 1.0), 7), kind="stable")[:count]


def _deviates(objectives: int) -> Floats:
    """(_SAMPLES, m) standard normal deviates: the middle of equal shares in each objective, in an order of its own."""
    from scipy.stats import norm

    middles = norm.ppf((np.arange(_SAMPLES) + 0.5) / _SAMPLES)
    order = np.random.default_rng(0)
    return np.stack([order.permutation(middles) for _ in range(objectives)], axis=1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra on one thread: sums in another order could decide a replay otherwise."""
    with _threads().limit(limits=1, user_api="blas"):
        yield


@cache
def _threads() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401 - its library has to be loaded to be limited
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
