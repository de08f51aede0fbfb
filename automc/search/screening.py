"""Predicted costs of a candidate before any training: plans on the base, the traced graph they leave, the profile."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from automc import pipeline
from automc.candidate import Candidate, Step
from automc.constraints import PREDICTED, Limit
from automc.errors import AutomcError, CompressionError, ExportError, InfeasibleCandidate, UnseenOperatorError
from automc.techniques.edits import shapes_alone
from automc.techniques.technique import Phase
from automc.threads import one_thread
from automc.trial import Failure, Metric

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from automc.cost.kernels import Precision
    from automc.cost.predictor import Costs
    from automc.evaluate import Evaluator

REMEMBERED_BYTES = 512 * 2**20
"""Networks between steps are kept while their weights fit in it: a chain differs from its neighbour in its tail."""


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
        self._networks: OrderedDict[tuple[Precision, tuple[Step, ...]], nn.Module] = OrderedDict()
        self._shapes_before: tuple[nn.Module, nn.Module] | None = None
        self._prices: dict[tuple[Precision, tuple[Step, ...]], Costs | AutomcError] = {}
        self._answers: dict[str, Screened] = {}

    def __call__(self, candidates: Sequence[Candidate]) -> list[Screened]:
        with one_thread():  # as on workers: evidence gathered here must be to the bit what a worker would gather
            return [self._screen(candidate) for candidate in candidates]

    def _screen(self, candidate: Candidate) -> Screened:
        if candidate.id not in self._answers:
            self._answers[candidate.id] = self._judge(candidate)
        return self._answers[candidate.id]

    def _judge(self, candidate: Candidate) -> Screened:
        try:
            costs = self._price(candidate)
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

    def _price(self, candidate: Candidate) -> Costs:
        """Predicted costs; recoveries and lossless graph steps change none, so candidates that differ in them share."""
        key = (pipeline.final_precision(candidate.steps), self._structural(candidate))
        if key not in self._prices:
            try:
                self._prices[key] = self._costs(*key)
            except (InfeasibleCandidate, CompressionError, ExportError, UnseenOperatorError) as error:
                self._prices[key] = error
        price = self._prices[key]
        if isinstance(price, AutomcError):
            raise price
        return price

    def _costs(self, precision: Precision, steps: tuple[Step, ...]) -> Costs:
        try:
            return self._evaluator.cost(self._shapes(steps, precision), precision)
        except UnseenOperatorError:
            from automc.cost.lowering import lower

            operators = self._operators(self._network(steps, precision), precision)  # exported, where it can be
            return self._evaluator.predictor.predict(lower(operators, self._evaluator.predictor.level))

    def operators(self, candidate: Candidate) -> onnx.ModelProto:
        """The op-level graph, of shapes alone, that the steps of `candidate` leave of the base, untrained.

        Raises InfeasibleCandidate, CompressionError, ExportError where it can neither be traced nor exported.
        """
        precision = pipeline.final_precision(candidate.steps)
        return self._operators(self._network(self._structural(candidate), precision), precision)

    def _operators(self, network: nn.Module, precision: Precision) -> onnx.ModelProto:
        from automc.cost.graph import operators_of

        inputs, scheme = self._evaluator.workload.example_inputs(), self._evaluator.profile.int8
        return operators_of(network, inputs, precision=precision, scheme=scheme)

    def _structural(self, candidate: Candidate) -> tuple[Step, ...]:
        return tuple(item.step for item in pipeline.resolve(candidate.steps) if item.technique.phase is Phase.MODEL)

    def _shapes(self, steps: tuple[Step, ...], precision: Precision) -> nn.Module:
        """Shapes alone of what `steps` leave: the last is outlined or planned on weights, and applied to none."""
        if not steps or (precision, steps) in self._networks:
            return self._network(steps, precision)
        before = self._network(steps[:-1], precision)
        context = self._evaluator.plan_context(self._seed, precision)
        if self._shapes_before is None or self._shapes_before[0] is not before:
            self._shapes_before = (before, shapes_alone(before).eval())  # `apply` leaves its input as it was
        return pipeline.shapes_after(before, steps[-1], context, self._shapes_before[1])

    def _network(self, steps: tuple[Step, ...], precision: Precision) -> nn.Module:
        """The base after the structural `steps`, from the longest remembered beginning of them.

        The same steps may be planned differently for another final `precision`, where what pays is another matter.
        """
        if not steps:
            return self._evaluator.base
        key = (precision, steps)
        if key not in self._networks:
            before = self._network(steps[:-1], precision)
            context = self._evaluator.plan_context(self._seed, precision)
            self._networks[key] = pipeline.apply(before, steps[-1:], context, None, 0).model
            while len(self._networks) > 1 and sum(map(_bytes_of, self._networks.values())) > REMEMBERED_BYTES:
                self._networks.popitem(last=False)
        self._networks.move_to_end(key)
        return self._networks[key]


def _bytes_of(network: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))
