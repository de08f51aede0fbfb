"""Outlines of chains on networks built to mislead them: exact ones are right, and none refuses what can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from example_networks import Lambda, context, scramble_norms, weights_cost
from torch import nn

from automc import pipeline
from automc.candidate import Step
from automc.cost.graph import graph_from_trace
from automc.errors import AutomcError

PICTURE = (torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)),)
DEPTH = Step.of("depth_pruning", ratio=0.8)
SOME = Step.of("depth_pruning", ratio=0.3)
NARROW = Step.of("channel_pruning", ratio=0.3)
SPLIT = Step.of("low_rank", rank_ratio=0.5, only_if_faster=False)
TUCKER = Step.of("tucker", rank_ratio=0.5, only_if_faster=False)


class Adds(nn.Module):
    """x + b(relu(a(before(x)))), of `channels`, of which `before` leaves `into`."""

    def __init__(self, before: nn.Module | None = None, into: int = 16, hidden: int = 8, groups: int = 1) -> None:
        super().__init__()
        self.before = before or nn.Identity()
        self.a = nn.Conv2d(into, hidden, 3, padding=1, groups=groups)
        self.b = nn.Conv2d(hidden, 16, 3, padding=1, groups=groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.b(F.relu(self.a(self.before(x))))


class AddsAndRectifies(Adds):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(super().forward(x))


class Holds(nn.Module):
    """Residual itself once the block inside it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(Adds())
        self.after = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.after(F.relu(self.inner(x)))


def share_a_layer() -> list[nn.Module]:
    first, second = Adds(), Adds()
    second.a = first.a
    return [first, second, Adds()]


class Network(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module], *, tap: bool = False) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 16, 3, 2, 1), nn.Sequential(*blocks)
        self.middle, self.head = nn.Conv2d(16, 24, 3, padding=1), nn.Linear(24, 10)
        self.tap = nn.Conv2d(16, 24, 1) if tap else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        if self.tap is None:
            return self.head(F.relu(self.middle(self.body(x))).mean((2, 3)))
        tapped = x
        for number, block in enumerate(self.body):
            x = block(x)
            tapped = x if number == 1 else tapped
        return self.head((F.relu(self.middle(x)) + self.tap(tapped)).mean((2, 3)))


BODIES: dict[str, Callable[[], Sequence[nn.Module]]] = {
    "selection inside": lambda: [Adds(Lambda(lambda x: x[:, ::2]), into=8, hidden=12), Adds()],
    "norm inside": lambda: [Adds(nn.GroupNorm(2, 16)), Adds()],
    "groups inside": lambda: [Adds(hidden=16, groups=2), Adds()],
    "only groups": lambda: [Adds(hidden=16, groups=2)],
    "only a norm": lambda: [Adds(nn.GroupNorm(2, 16))],
    "nested": lambda: [Holds(), Adds()],
    "only nested": lambda: [Holds()],
    "rectified after": lambda: [Adds(), AddsAndRectifies()],
    "shared layer": share_a_layer,
    "plain": lambda: [Adds(), Adds(), Adds(hidden=12)],
}
CHAINS = [
    (DEPTH, NARROW), (DEPTH, Step.of("channel_pruning", ratio=0.3, scope="global")), (DEPTH, DEPTH), (SOME, NARROW),
    (SOME, SPLIT), (SPLIT, SPLIT), (SPLIT, NARROW), (NARROW, SOME), (NARROW, SPLIT), (TUCKER, SOME), (TUCKER, NARROW),
    (SOME, TUCKER, NARROW), (NARROW, SPLIT, SOME),
]  # fmt: skip


def made(body: str) -> nn.Module:
    torch.manual_seed(0)
    model = Network(BODIES[body]()).eval()
    scramble_norms(model)
    return model


def kernels(model: nn.Module) -> tuple[list[object], int, int]:
    graph = graph_from_trace(model.eval(), PICTURE)
    return [replace(row, name="") for row in graph.rows], graph.weight_bytes, graph.peak_activation_bytes


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: " > ".join(map(str, chain)))
@pytest.mark.parametrize("body", BODIES)
def test_an_exact_outline_is_the_chain_itself_and_refuses_only_what_cannot_be(
    body: str, chain: tuple[Step, ...]
) -> None:
    model, where = made(body), context(cost=weights_cost, channel_multiple=1)
    sketch = pipeline.sketch_of(model)
    refused: AutomcError | None = None
    for step in chain:
        try:
            after = pipeline.sketched(sketch, step, where)
        except AutomcError as error:
            refused = error
            break
        if after is None:
            return  # planned on weights
        sketch = after
    if not sketch.exact:
        return  # a refusal is checked on weights, and costs are no promise
    if refused is not None:
        with pytest.raises(type(refused)):
            pipeline.apply(model, chain, where, None, 0)
        return
    assert kernels(sketch.shapes) == kernels(pipeline.apply(model, chain, where, None, 0).model)


@pytest.mark.parametrize("ratio", [0.2, 0.5])
def test_blocks_whose_results_are_read_in_between_are_not_alike(ratio: float) -> None:
    torch.manual_seed(0)
    model, where = Network([Adds() for _ in range(4)], tap=True).eval(), context(cost=weights_cost, channel_multiple=1)
    step = Step.of("depth_pruning", ratio=ratio)
    sketch = pipeline.sketched(pipeline.sketch_of(model), step, where)
    assert sketch is not None
    assert sketch.exact
    assert kernels(sketch.shapes) == kernels(pipeline.apply(model, (step,), where, None, 0).model)
