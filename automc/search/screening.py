"""Predicted costs of a candidate before any training: outlined on the base, the traced graph it leaves, the profile.

A step that follows others is outlined without the weights they leave. Where its shapes hang on those weights (which
blocks go of stages that are no longer alike, say), they are estimated from the base; such a candidate is refused only
after it was planned on the weights after all.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from automc import pipeline
from automc.candidate import Candidate, Step
from automc.constraints import PREDICTED, Limit
from automc.errors import AutomcError, CompressionError, ExportError, InfeasibleCandidate, UnseenOperatorError
from automc.techniques.sketch import Sketch
from automc.techniques.technique import Phase
from automc.threads import one_thread
from automc.trial import Failure, FailureKind, Metric

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from automc.cost.kernels import Precision
    from automc.cost.predictor import Costs
    from automc.evaluate import Evaluator
    from automc.techniques.technique import PlanContext

REMEMBERED_BYTES = 512 * 2**20
"""Networks between steps are kept while their weights fit in it: a chain differs from its neighbour in its tail."""

SKETCHES = 256
"""Sketches of networks between steps that are kept: shapes alone, and what was found out about them."""


_Key = tuple["Precision", tuple[Step, ...]]
"""The final precision and the structural steps: all that predicted costs depend on."""

_KINDS: dict[type[AutomcError], FailureKind] = {
    InfeasibleCandidate: "infeasible",
    CompressionError: "compression",
    ExportError: "export",
    UnseenOperatorError: "unknown_cost",
}


@dataclass(frozen=True)
class Screened:
    """Predicted costs, and why the candidate goes no further where it does not.

    No costs where they are unknown: without a failure where nothing needs them. exact: whether they are those of the
    network that the steps leave where none trains; else of the one that they would leave if what is important in the
    base still were.
    """

    costs: Costs | None = None
    failure: Failure | None = None
    exact: bool = True


class Screener:
    """Callable on candidates, in order; the same answer for the same candidate, whenever it is asked."""

    def __init__(self, evaluator: Evaluator, limits: Sequence[Limit], seed: int, needed: frozenset[Metric]) -> None:
        """needed: metrics without which a candidate cannot be judged; one whose costs are unknown lacks them."""
        self._evaluator = evaluator
        self._limits = limits
        self._seed = seed
        self._needed = needed
        self._networks: OrderedDict[_Key, nn.Module] = OrderedDict()
        self._sketches: OrderedDict[_Key, Sketch] = OrderedDict()
        self._prices: dict[tuple[_Key, bool], tuple[Costs | AutomcError, bool]] = {}
        self._answers: dict[str, Screened] = {}

    def __call__(self, candidates: Sequence[Candidate]) -> list[Screened]:
        answers = []
        with one_thread():  # as on workers: evidence gathered here must be to the bit what a worker would gather
            for candidate in candidates:
                with _collected_after():
                    answers.append(self._screen(candidate))
        return answers

    def weighed(self, candidate: Candidate) -> Screened:
        """The answer on the weights that every step leaves, whatever that takes: always exact."""
        with one_thread():
            return self._judge(candidate, weighed=True)

    def _screen(self, candidate: Candidate) -> Screened:
        if candidate.id not in self._answers:
            answer = self._judge(candidate, weighed=False)
            if answer.failure is not None and not answer.exact:
                answer = self._judge(candidate, weighed=True)
            self._answers[candidate.id] = answer
        return self._answers[candidate.id]

    def _judge(self, candidate: Candidate, *, weighed: bool) -> Screened:
        """weighed: on the weights that every step leaves, whatever that takes."""
        costs, exact = self._price(candidate, weighed=weighed)
        if isinstance(costs, UnseenOperatorError):
            failure = Failure("unknown_cost", costs.message) if self._needed & PREDICTED else None
            return Screened(failure=failure, exact=exact)
        if isinstance(costs, AutomcError):
            return Screened(failure=Failure(_KINDS[type(costs)], costs.message), exact=exact)
        for limit in self._limits:
            estimate = costs.by_metric().get(limit.metric)
            if estimate is not None and limit.certainly_broken(estimate):
                reason = (
                    f"predicted {limit.metric} {estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g}) "
                    f"{estimate.unit}, all beyond the limit of {limit.maximum:g}"
                )
                return Screened(costs, Failure("screened", reason), exact)
        return Screened(costs, exact=exact)

    def _price(self, candidate: Candidate, *, weighed: bool) -> tuple[Costs | AutomcError, bool]:
        """Predicted costs, or what kept them from being told, and whether they are exact.

        Recoveries and lossless graph steps change none, so candidates that differ in them share.
        """
        try:
            steps = self._structural(candidate)
        except InfeasibleCandidate as error:
            return error, True
        key = (pipeline.final_precision(candidate.steps), steps)
        if (key, weighed) not in self._prices:
            self._prices[key, weighed] = self._costs(key, weighed=weighed)
        return self._prices[key, weighed]

    def _costs(self, key: _Key, *, weighed: bool) -> tuple[Costs | AutomcError, bool]:
        precision, _ = key
        exact = True
        try:
            sketch = self._weighed(key) if weighed else self._outlined(key)
            exact = sketch.exact
            network = (
                sketch.shapes if sketch.plans else sketch.base
            )  # one that came as a graph has that with its weights
            try:
                return self._evaluator.cost(network, precision), sketch.exact
            except UnseenOperatorError:
                from automc.cost.lowering import lower

                operators = self._operators(self._network(key), precision)  # exported, where it can be
                return self._evaluator.predictor.predict(lower(operators, self._evaluator.predictor.level)), True
        except tuple(_KINDS) as error:
            beginnings = (self._sketches.get((precision, key[1][:end])) for end in range(len(key[1])))
            return error, weighed or (exact and all(known.exact for known in beginnings if known is not None))

    def operators(self, candidate: Candidate) -> onnx.ModelProto:
        """The op-level graph, of shapes alone, that the steps of `candidate` leave of the base, untrained.

        Raises InfeasibleCandidate, CompressionError, ExportError where it can neither be traced nor exported.
        """
        precision = pipeline.final_precision(candidate.steps)
        return self._operators(self._network((precision, self._structural(candidate))), precision)

    def _operators(self, network: nn.Module, precision: Precision) -> onnx.ModelProto:
        from automc.cost.graph import operators_of

        inputs, scheme = self._evaluator.workload.example_inputs(), self._evaluator.profile.int8
        return operators_of(network, inputs, precision=precision, scheme=scheme)

    def _structural(self, candidate: Candidate) -> tuple[Step, ...]:
        return tuple(item.step for item in pipeline.resolve(candidate.steps) if item.technique.phase is Phase.MODEL)

    def _sketch(self, key: _Key) -> Sketch:
        """What the steps leave, outlined, from the longest remembered beginning of them.

        The same steps may be planned differently for another final precision, where what pays is another matter.
        """
        if key not in self._sketches:
            self._sketches[key] = self._outlined(key) if key[1] else pipeline.sketch_of(self._evaluator.base)
            if len(self._sketches) > SKETCHES:
                self._sketches.popitem(last=False)
        self._sketches.move_to_end(key)
        return self._sketches[key]

    def _outlined(self, key: _Key) -> Sketch:
        """As `_sketch`, not to be remembered: most chains end here."""
        precision, steps = key
        if not steps:
            return self._sketch(key)
        after = pipeline.sketched(self._sketch((precision, steps[:-1])), steps[-1], self._context(precision))
        return self._weighed(key) if after is None else after

    def _weighed(self, key: _Key) -> Sketch:
        """What the steps leave, the last planned on the weights that those before it leave."""
        precision, steps = key
        if not steps:
            return self._sketch(key)
        return pipeline.sketch_planned(self._network((precision, steps[:-1])), steps[-1], self._context(precision))

    def _network(self, key: _Key) -> nn.Module:
        """The base after the structural steps, from the longest remembered beginning of them."""
        precision, steps = key
        if not steps:
            return self._evaluator.base
        if key not in self._networks:
            before = self._network((precision, steps[:-1]))
            self._networks[key] = pipeline.apply(before, steps[-1:], self._context(precision), None, 0).model
            while len(self._networks) > 1 and sum(map(_bytes_of, self._networks.values())) > REMEMBERED_BYTES:
                self._networks.popitem(last=False)
        self._networks.move_to_end(key)
        return self._networks[key]

    def _context(self, precision: Precision) -> PlanContext:
        return self._evaluator.plan_context(self._seed, precision)


@contextmanager
def _collected_after() -> Iterator[None]:
    """No garbage is looked for inside, in cycles of references; what there is waits for the next allocation after.

    A candidate is some ten thousand small objects that go as they come, and looks through all that is remembered of
    others, again and again for each, took a fifth of the time of screening chains.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _bytes_of(network: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))
