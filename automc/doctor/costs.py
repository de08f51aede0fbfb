"""What candidates of the space would cost, seen without training any: limits, and kernels the profile does not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from automc import pipeline
from automc.candidate import Candidate
from automc.doctor.budget import Budget
from automc.doctor.diagnosis import LimitOutlook, SpaceOutlook
from automc.errors import CompressionError, ExportError, InfeasibleCandidate, PredictorError, UnseenOperatorError
from automc.techniques.technique import Phase
from automc.trial import Figure, Metric

if TYPE_CHECKING:
    import onnx

    from automc.constraints import Limit
    from automc.cost.kernels import KernelGraph, Precision
    from automc.cost.predictor import CalibratedPredictor, Estimate
    from automc.evaluate import Evaluator
    from automc.search.screening import Screener
    from automc.space import SearchSpace

MODELS_KEPT = 6
"""Kernels kept per unknown kind, of different shapes, to measure."""


@dataclass
class UnknownKind:
    """A kernel class without calibration: an example of it, how often it was met, and models of it alone."""

    operator: str
    shapes: str
    kernels: int
    candidates: int
    models: dict[tuple[object, ...], onnx.ModelProto]


@dataclass(frozen=True)
class Seen:
    """A candidate that was looked at: its graph and size, or why it cannot be."""

    candidate: Candidate
    graph: KernelGraph | None
    size_bytes: float
    refused: str = ""
    unpriced: str = ""


class Costing:
    """Costs networks on the profile; keeps what it met and did not know."""

    def __init__(self, evaluator: Evaluator, screener: Screener, size_factor: float) -> None:
        """size_factor: bytes of an exported file over bytes of its trace, as the base has it."""
        self.evaluator, self.screener, self.size_factor = evaluator, screener, size_factor
        self.unknown: dict[str, UnknownKind] = {}
        self.seen: list[Seen] = []
        self._base: tuple[KernelGraph, float] | None = None
        self.seconds = 0.0

    @property
    def predictor(self) -> CalibratedPredictor:
        from automc.cost.predictor import CalibratedPredictor

        predictor = self.evaluator.predictor
        assert isinstance(predictor, CalibratedPredictor)
        return predictor

    def note_base(self, operators: onnx.ModelProto, exported: onnx.ModelProto | None) -> str:
        """What the profile does not know of the base, in one precision: as costed before any training, and as exported.

        operators: fp32 at the first call. Returns where the two differ, in words; "" where they do not.
        """
        before = self._note(operators, base=exported is None)
        self._base = self._base or (before, operators.ByteSize() * self.size_factor)
        if exported is None:
            return ""
        after = self._note(exported, base=True)
        first, second = (Counter(self.predictor.kind(row) for row in graph.rows) for graph in (before, after))
        apart = sorted((kind for kind in first | second if first[kind] != second[kind]), key=lambda k: (first[k], k))
        told = [f"{second[kind]} x {kind} instead of {first[kind]}" for kind in apart[:3]]
        return ", ".join(told) + (f" and {len(apart) - 3} more" if len(apart) > 3 else "")

    def look(self, space: SearchSpace, budget: Budget, seed: int) -> None:
        """Cost candidates until the budget is used or the whole space was seen: anchors, extremes, then random ones."""
        deadline = budget.until(budget.space_s)
        started = budget.clock()
        done: set[tuple[object, ...]] = set()
        for candidate in candidates_of(space, seed):
            if self.seen and deadline.over():
                break
            key = shape_key(candidate)
            if key not in done:
                done.add(key)
                self.seen.append(self._look_at(candidate))
        self.seconds = budget.clock() - started

    def _look_at(self, candidate: Candidate) -> Seen:
        try:
            operators = self.screener.operators(candidate)
            graph = self._note(operators, base=False)
        except (InfeasibleCandidate, CompressionError, ExportError) as error:
            return Seen(candidate, None, 0.0, refused=error.message)
        except PredictorError as error:
            return Seen(candidate, None, 0.0, unpriced=error.message)
        return Seen(candidate, graph, operators.ByteSize() * self.size_factor)

    def _note(self, operators: onnx.ModelProto, *, base: bool) -> KernelGraph:
        """The kernels of an op-level graph; those of unknown kinds are kept alone, to be measured."""
        from automc.cost.lowering import kernels_alone, optimised, rows_of
        from automc.cost.predictor import shapes_of

        executed = optimised(operators)
        graph = rows_of(executed)
        unseen = {row.signature() for row in self.predictor.unseen(graph)}
        met: set[str] = set()
        if unseen:
            for row, model in kernels_alone(executed):
                if row.signature() not in unseen:
                    continue
                kind = self.predictor.kind(row)
                entry = self.unknown.setdefault(kind, UnknownKind(row.op, shapes_of(row), 0, 0, {}))
                entry.kernels += base
                entry.candidates += kind not in met and not base
                met.add(kind)
                if len(entry.models) < MODELS_KEPT:
                    entry.models.setdefault(row.signature(), model)
        return graph

    # --- what was seen ----------------------------------------------------------------------------------------------

    def outlook(self, space: SearchSpace, limits: Sequence[Limit]) -> tuple[SpaceOutlook, tuple[LimitOutlook, ...]]:
        """Lowest costs among the candidates seen, at what the profile knows now, and what that says of each limit."""
        figures: list[tuple[Candidate, dict[Metric, Figure]]] = []
        for seen in self.seen:
            if seen.graph is not None:
                figures.append((seen.candidate, self._figures(seen.graph, seen.size_bytes)))
        lowest: dict[Metric, tuple[Figure, str]] = {}
        for candidate, costs in figures:
            for metric, figure in costs.items():
                if metric not in lowest or figure.value < lowest[metric][0].value:
                    lowest[metric] = (figure, str(candidate))
        costly = [limit for limit in limits if limit.metric != "drop_points"]
        unknown = sum("latency_ms" not in costs for _, costs in figures) + sum(bool(s.unpriced) for s in self.seen)
        outlook = SpaceOutlook(
            size=space.size,
            looked_at=len(self.seen),
            seconds=self.seconds,
            infeasible=sum(bool(seen.refused) for seen in self.seen),
            unknown=unknown,
            within=sum(
                all(limit.metric in costs and costs[limit.metric].value <= limit.maximum for limit in costly)
                for _, costs in figures
            ),
            base={} if self._base is None else self._figures(*self._base),
            lowest=lowest,
            reasons=dict(Counter(s.refused or s.unpriced for s in self.seen if s.graph is None).most_common()),
        )
        return outlook, tuple(_judge(limit, lowest) for limit in limits)

    def _figures(self, graph: KernelGraph, size_bytes: float) -> dict[Metric, Figure]:
        size = Figure(size_bytes, size_bytes, size_bytes, "bytes", "predicted", source="the traced graph's size")
        found: dict[Metric, Figure] = {"size_bytes": size}
        try:
            costs = self.predictor.predict(graph)
        except UnseenOperatorError:
            return found
        predicted: dict[Metric, Estimate] = {
            "latency_ms": costs.latency_ms, "energy_mj": costs.energy_mj, "memory_mb": costs.memory_mb,
        }  # fmt: skip
        for metric, item in predicted.items():
            found[metric] = Figure(
                item.value, item.low, item.high, item.unit, "predicted", coverage=item.coverage, source=item.source
            )
        return found


def _judge(limit: Limit, lowest: dict[Metric, tuple[Figure, str]]) -> LimitOutlook:
    if limit.metric == "drop_points":
        return LimitOutlook(limit.metric, limit.maximum, "unknown", None, "", "known only after training")
    if limit.metric not in lowest:
        return LimitOutlook(limit.metric, limit.maximum, "unknown", None, "", "no candidate's could be predicted")
    figure, candidate = lowest[limit.metric]
    if figure.value <= limit.maximum:
        return LimitOutlook(limit.metric, limit.maximum, "reachable", figure, candidate)
    note = "" if limit.certainly_broken(figure) else "within the prediction's interval"
    return LimitOutlook(limit.metric, limit.maximum, "not seen reachable", figure, candidate, note)


def shape_key(candidate: Candidate) -> tuple[object, ...]:
    """What decides a candidate's costs: its structural steps in order and the precision; recoveries change neither."""
    precision: Precision = pipeline.final_precision(candidate.steps)
    structural = tuple(
        item.step for item in pipeline.model_steps(candidate.steps) if item.technique.phase is not Phase.RECOVERY
    )
    return (precision, structural, str(candidate.architecture))


def candidates_of(space: SearchSpace, seed: int) -> Iterator[Candidate]:
    """The anchors, then turn by turn one from the ends of every range and a random one; each feasible one may repeat.

    Ends without limit: whoever takes them decides when it is enough. A small space is gone through whole instead.
    """
    anchors = (candidate for anchor in space.anchors for candidate in anchor.candidates)
    if space.size <= SMALL:
        yield from chain(anchors, space.candidates())
        return
    yield from anchors
    generator = np.random.default_rng(seed)
    for _ in range(DRAWS):
        for end in (0, -1, None):
            drawn = space.draw(generator)
            for dimension in space.dimensions:
                if end is not None and "." in dimension.name:  # a parameter, not the chain
                    drawn[dimension.name] = dimension.choices[end if dimension.ordered else 0]
            try:
                yield space.candidate(drawn)
            except InfeasibleCandidate:
                continue


SMALL = 200
DRAWS = 400
"""Draws of three candidates each: more than any budget has time for."""
