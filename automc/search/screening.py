"""Predicted costs of a candidate before any training: plans on the base, the traced graph they leave, the profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from automc import pipeline
from automc.candidate import Candidate, Step
from automc.constraints import PREDICTED, Limit
from automc.errors import CompressionError, ExportError, InfeasibleCandidate, UnseenOperatorError
from automc.techniques.technique import Phase
from automc.threads import one_thread
from automc.trial import Failure, Metric

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from automc.cost.kernels import Precision
    from automc.cost.predictor import Costs
    from automc.evaluate import Evaluator

REMEMBERED = 64  # networks kept by what made them (precision, steps); a chain differs from its neighbour in its tail


@dataclass(frozen=True)
class Screened:
    """Predicted costs, and why the candidate goes no further where it does not.

    No costs where they are unknown: without a failure where nothing needs them.
    """

    costs: Costs | None = None
    failure: Failure | None = None


class Screener:
    """Callable on candidates, in order; the same answer for the same candidate, whenever it is asked."""

    def __init__(self, evaluator: Evaluator, limits: Sequence[Limit], seed: int, needed: frozenset[Metric]) -> None:
        """needed: metrics without which a candidate cannot be judged; one whose costs are unknown lacks them."""
        self._evaluator = evaluator
        self._limits = limits
        self._seed = seed
        self._needed = needed
        self._networks: dict[tuple[Precision, tuple[Step, ...]], nn.Module] = {}
        self._answers: dict[str, Screened] = {}

    def __call__(self, candidates: Sequence[Candidate]) -> list[Screened]:
        with one_thread():  # as on workers: evidence gathered here must be to the bit what a worker would gather
            return [self._screen(candidate) for candidate in candidates]

    def _screen(self, candidate: Candidate) -> Screened:
        if candidate.id not in self._answers:
            self._answers[candidate.id] = self._judge(candidate)
        return self._answers[candidate.id]

    def _judge(self, candidate: Candidate) -> Screened:
        from automc.cost.lowering import lower

        try:
            costs = self._evaluator.predictor.predict(lower(self.operators(candidate)))
        except InfeasibleCandidate as error:
            return Screened(failure=Failure("infeasible", error.message))
        except CompressionError as error:
            return Screened(failure=Failure("compression", error.message))
        except ExportError as error:
            return Screened(failure=Failure("export", error.message))
        except UnseenOperatorError as error:
            return Screened(failure=Failure("unknown_cost", error.message) if self._needed & PREDICTED else None)
        for limit in self._limits:
            estimate = costs.by_metric().get(limit.metric)
            if estimate is not None and limit.certainly_broken(estimate):
                reason = (
                    f"predicted {limit.metric} {estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g}) "
                    f"{estimate.unit}, all beyond the limit of {limit.maximum:g}"
                )
                return Screened(costs, Failure("screened", reason))
        return Screened(costs=costs)

    def operators(self, candidate: Candidate) -> onnx.ModelProto:
        """The op-level graph, of shapes alone, that the steps of `candidate` leave of the base, untrained.

        Raises InfeasibleCandidate, CompressionError, ExportError where it can neither be traced nor exported.
        """
        from automc.cost.graph import operators_of

        precision = pipeline.final_precision(candidate.steps)
        network = self._network(tuple(item.step for item in pipeline.model_steps(candidate.steps)), precision)
        inputs, scheme = self._evaluator.workload.example_inputs(), self._evaluator.profile.int8
        return operators_of(network, inputs, precision=precision, scheme=scheme)

    def _network(self, steps: tuple[Step, ...], precision: Precision) -> nn.Module:
        """The base after the structural ones of `steps`, from the longest remembered beginning of them.

        The same steps may be planned differently for another final `precision`, where what pays is another matter.
        """
        structural = tuple(item.step for item in pipeline.resolve(steps) if item.technique.phase is Phase.MODEL)
        if not structural:
            return self._evaluator.base
        key = (precision, structural)
        if key not in self._networks:
            before = self._network(structural[:-1], precision)
            context = self._evaluator.plan_context(self._seed, precision)
            compressed = pipeline.apply(before, structural[-1:], context, None, 0)
            while len(self._networks) >= REMEMBERED:
                self._networks.pop(next(iter(self._networks)))
            self._networks[key] = compressed.model
        return self._networks[key]
