"""Removes whole residual blocks, those whose absence costs least.

A block may go if it only adds to what it is given: with every parameter inside it zero it hands its input on, exactly
(or the ReLU of an input that is never negative). Removing it is then the same as zeroing it. Which ones go is measured:
the rise of the loss on calibration data with that one block removed (as in Veit et al. 2016, "Residual Networks Behave
Like Ensembles of Relatively Shallow Networks", who remove blocks of trained networks one at a time).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from automc.errors import InfeasibleCandidate
from automc.nearest import nearest
from automc.sources import forward_site
from automc.techniques._evidence import Evidence, evidence_key, network_key, structure_key
from automc.techniques._probing import RUN_FAILURES, Call, probe_inputs, record_calls, run, zeroed_copy
from automc.techniques.edits import apply_edits, removed
from automc.techniques.plan import Plan, RemoveEdit, ReplaceEdit, is_in
from automc.techniques.reach import Blocked, Reach, Target, weight_layers
from automc.techniques.sketch import Outline, Sketch
from automc.techniques.technique import ModelTechnique, Params, PlanContext

if TYPE_CHECKING:
    from automc.workloads.workload import Examples, Task

Ratio = Annotated[float, Field(ge=0.0, le=0.8, json_schema_extra={"step": 0.1})]

_BATCHES = 2
_BATCH_SIZE = 64
_LOSSES: Evidence[float] = Evidence(capacity=1024)


class DepthPruningParams(Params):
    ratio: Ratio = Field(0.0, description="share of the removable residual blocks to remove")
    scope: Literal["per_stage", "global"] = Field(
        "per_stage", description="per_stage: the same share of every stage; global: the least needed of all blocks"
    )
    stage_ratios: dict[str, Ratio] = Field(
        default_factory=dict, description="share to remove of single stages, by the name of the stage"
    )


@dataclass(frozen=True)
class Stage:
    """Removable blocks of one shape, in the order they run. name: their common parent, else the first block's name."""

    name: str
    blocks: tuple[str, ...]


_STAGES: Evidence[tuple[Stage, ...]] = Evidence(capacity=256)


class DepthPruning(ModelTechnique[DepthPruningParams]):
    name = "depth_pruning"
    params = DepthPruningParams
    needs_data = True
    saves = frozenset({"latency", "energy", "memory", "download"})
    summary = "Removes whole residual blocks, those whose absence costs least"
    source = "Veit et al. 2016, 'Residual Networks Behave Like Ensembles of Relatively Shallow Networks'"

    def refuses(self, model: nn.Module) -> str | None:
        nested = any(
            name and any(True for _ in module.children()) and any(True for _ in module.parameters())
            for name, module in model.named_modules()
        )
        return None if nested else "depth pruning removes residual blocks and this network has no blocks inside it"

    def reach(self, model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> Reach:
        """Its removable blocks; of the others those that stand in a row, as members of a container, with the reason."""
        reason = self.refuses(model)
        if reason is not None:
            return Reach(reason, "block")
        calls, kept = _probed_blocks(model, example_inputs)
        names = [block for stage in _stages(calls, kept) for block in stage.blocks]
        weighted = [name for name, _ in weight_layers(model)]
        targets = [
            Target(block, tuple(layer for layer in weighted if layer.startswith(f"{block}."))) for block in names
        ]
        blocked = [
            Blocked(name, reason, forward_site(name, model.get_submodule(name)))
            for name, reason in kept.items()
            if _in_a_row(model, name) and not any(one.startswith(f"{name}.") for one in names)
        ]
        return Reach(None, "block", tuple(targets), tuple(blocked))

    def outline(self, sketch: Sketch, params: DepthPruningParams, context: PlanContext) -> Outline | None:
        """The first blocks of every pool, where those that may go are alike and stand in a row; of others those whose
        absence costs the base least."""
        if _asks_nothing(params):
            return Outline(Plan(technique=self.name))
        stages = _stages_in(sketch, context)
        if stages is None:
            return None
        _check_asked(params, stages)
        doomed, exact = list[str](), True
        for names, count in _wanted(params, stages):
            if 0 < count < len(names) and not _interchangeable(sketch, names, context):
                exact = not sketch.plans
                loss = _losses_of_base(sketch, context)
                effects = {block: loss.without(block) for block in names}
                names = tuple(sorted(names, key=effects.__getitem__))
            doomed += names[:count]
        return Outline(Plan(technique=self.name, edits=tuple(RemoveEdit(module=block) for block in doomed)), exact)

    def plan(self, model: nn.Module, params: DepthPruningParams, context: PlanContext) -> Plan:
        if _asks_nothing(params):
            return Plan(technique=self.name)
        stages = find_stages(model, context.example_inputs)
        _check_asked(params, stages)
        wanted = _wanted(params, stages)
        blocks = [block for names, count in wanted if count for block in names]
        loss = _Losses(model, context.calibration(), context.task)
        before = loss.without(None)
        effects = {block: loss.without(block) - before for block in blocks}
        doomed = {block for names, count in wanted if count for block in sorted(names, key=effects.__getitem__)[:count]}
        return Plan(
            technique=self.name,
            edits=tuple(RemoveEdit(module=block) for block in blocks if block in doomed),
            facts={
                "loss": before,
                "loss_rise_without": dict(effects),
                "samples": loss.samples,
                "stages": {stage.name: list(stage.blocks) for stage in stages},
            },
        )

    def apply(self, model: nn.Module, plan: Plan) -> nn.Module:
        return apply_edits(model, plan.edits)


def find_stages(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> tuple[Stage, ...]:
    """The removable residual blocks of `model` by shape, in the order they run.

    A block is a module that holds others, is called once, keeps the shape of its one input, and with all its parameters
    zero returns that input bit for bit, or its ReLU where the input is not negative. Of nested ones only the innermost.
    """
    return _STAGES.get(network_key(model, example_inputs), lambda: _stages(*_probed_blocks(model, example_inputs)))


def _probed_blocks(
    model: nn.Module, example_inputs: tuple[torch.Tensor, ...]
) -> tuple[dict[str, Call], dict[str, str]]:
    """Calls of every module that may be a block, in the order they run, and why those that may not go may not."""
    calls = record_calls(model, probe_inputs(example_inputs, seed=4, batch=2), lambda _, module: _may_be_block(module))
    reasons = {name: _why_not_residual(model, name, call) for name, call in calls.items()}
    kept = {name: reason for name, reason in reasons.items() if reason is not None}
    inputs, residual = probe_inputs(example_inputs, seed=4), [name for name in calls if name not in kept]
    innermost = [name for name in residual if not any(other.startswith(f"{name}.") for other in residual)]
    runs = set(innermost) if _why_not_without(model, innermost, inputs) is None else set()
    for name in residual:
        reason = None if name in runs else _why_not_without(model, [name], inputs)
        if reason is not None:
            kept[name] = reason
    return calls, kept


def _why_not_residual(model: nn.Module, name: str, call: Call) -> str | None:
    """Why the block is no residual one; None where it only adds to what it is given."""
    block = model.get_submodule(name)
    if call.count != 1:
        return f"is called {call.count} times"
    if call.input is None or call.output is None:
        return "does not take one tensor and give one"
    if call.input.shape != call.output.shape:
        return f"makes {list(call.output.shape[1:])} of {list(call.input.shape[1:])}, so what follows needs it"
    if not _is_residual(block, call.input):
        return "does not hand its input on unchanged when its parameters are zero"
    return None


def _why_not_without(model: nn.Module, blocks: Sequence[str], inputs: tuple[torch.Tensor, ...]) -> str | None:
    """Why the network does not run without `blocks`; None where it does."""
    try:
        with removed(model, blocks):
            run(model, inputs)
    except RUN_FAILURES as error:
        return f"is read by what holds it: without it the network does not run ({type(error).__name__}: {error})"
    return None


def _stages(calls: Mapping[str, Call], kept: Mapping[str, str]) -> tuple[Stage, ...]:
    removable = {
        name: tuple(call.input.shape[1:]) for name, call in calls.items() if name not in kept and call.input is not None
    }
    innermost = [name for name in removable if not any(other.startswith(f"{name}.") for other in removable)]
    by_shape: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for name in innermost:
        by_shape[name.rpartition(".")[0], removable[name]].append(name)
    parents = [parent for parent, _ in by_shape]
    order = list(calls)
    return tuple(
        Stage(parent if parent and parents.count(parent) == 1 else blocks[0], tuple(sorted(blocks, key=order.index)))
        for (parent, _), blocks in by_shape.items()
    )


def _in_a_row(model: nn.Module, name: str) -> bool:
    """Whether the module, no mere container itself, is one of several that a container lists."""
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    parent = model.get_submodule(name.rpartition(".")[0])
    return isinstance(parent, containers) and not isinstance(model.get_submodule(name), containers)


def _may_be_block(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and any(True for _ in module.parameters())


def _is_residual(block: nn.Module, seen: torch.Tensor) -> bool:
    zeroed = zeroed_copy(block)
    noise = torch.randn(seen.shape, generator=torch.Generator().manual_seed(5), dtype=seen.dtype)
    try:
        with torch.no_grad():
            output = zeroed(noise)
    except RUN_FAILURES:
        return False  # it cannot run alone: it leans on something outside it
    if not isinstance(output, torch.Tensor) or output.shape != noise.shape:
        return False
    if torch.equal(output, noise):
        return True
    return torch.equal(output, noise.relu()) and bool((seen >= 0).all())


def _asks_nothing(params: DepthPruningParams) -> bool:
    return params.ratio == 0 and not any(params.stage_ratios.values())


def _check_asked(params: DepthPruningParams, stages: tuple[Stage, ...]) -> None:
    """Raises InfeasibleCandidate where `params` would remove nothing of `stages`."""
    if not stages:
        raise InfeasibleCandidate("no block of this network hands its input on when its parameters are zero")
    _check_names(params, stages)
    if not any(count for _, count in _wanted(params, stages)):
        sizes = {stage.name: len(stage.blocks) for stage in stages}
        raise InfeasibleCandidate(f"depth_pruning removes nothing: no share asked for is half a block of {sizes}")


def _stages_in(sketch: Sketch, context: PlanContext) -> tuple[Stage, ...] | None:
    """The stages of the network that `sketch` stands for: those of its base.

    None where that cannot be told: where blocks of one parent differ in shape, which slices may change; where one was
    replaced; and where one was removed, for what it was in, or what came after it, may be removable now.
    """
    stages = sketch.origin.known(DepthPruning.name, lambda: find_stages(sketch.base, context.example_inputs))
    blocks = [block for stage in stages for block in stage.blocks]
    parents = [stage.blocks[0].rpartition(".")[0] for stage in stages]
    removed = any(isinstance(edit, RemoveEdit) for edit in sketch.edits)
    replaced = [edit.module for edit in sketch.edits if isinstance(edit, ReplaceEdit)]
    if removed or any(is_in(block, module) for module in replaced for block in blocks):
        return None
    return None if sketch.plans and len(set(parents)) < len(parents) else stages


def _interchangeable(sketch: Sketch, blocks: tuple[str, ...], context: PlanContext) -> bool:
    """Whether it shows nowhere but in the weights which of `blocks` are missing: they are alike, and neighbours in one
    nn.Sequential that is called as one, so that nothing else reads what one hands to the next."""
    model, parents = sketch.shapes, {block.rpartition(".")[0] for block in blocks}
    name = parents.pop()
    parent = model.get_submodule(name)
    if parents or type(parent) is not nn.Sequential or not _is_called(sketch, name, context):
        return False
    members, alike = list(parent), [model.get_submodule(block) for block in blocks]
    row = members[members.index(alike[0]) : members.index(alike[-1]) + 1]
    between = [item for item in row if item not in alike]
    return all(isinstance(item, nn.Identity) for item in between) and len(set(map(structure_key, alike))) == 1


def _is_called(sketch: Sketch, container: str, context: PlanContext) -> bool:
    """Whether the base calls `container`, once, instead of going through its members: those may hand on to others."""
    if not container:
        return True  # the network itself

    def find_out() -> bool:
        calls = record_calls(
            sketch.base, probe_inputs(context.example_inputs, seed=8), lambda name, _: name == container
        )
        return container in calls and calls[container].count == 1

    return sketch.origin.known((DepthPruning.name, "called", container), find_out)


def _losses_of_base(sketch: Sketch, context: PlanContext) -> _Losses:
    examples, task = context.calibration(), context.task
    key = (DepthPruning.name, "losses", examples.digest, type(task), task.name)
    return sketch.origin.known(key, lambda: _Losses(sketch.base, examples, task))


def _check_names(params: DepthPruningParams, stages: tuple[Stage, ...]) -> None:
    known = [stage.name for stage in stages]
    for name in params.stage_ratios:
        if name not in known:
            hint = nearest(name, known)
            raise InfeasibleCandidate(f"stage_ratios: no stage is called {name!r}{hint} (stages: {', '.join(known)})")


def _wanted(params: DepthPruningParams, stages: tuple[Stage, ...]) -> list[tuple[tuple[str, ...], int]]:
    """Pools of blocks and how many of each go; halves round up (0.5 of 3 blocks: 2)."""
    pools = [(stage.blocks, _share(len(stage.blocks), params.stage_ratios.get(stage.name, params.ratio)))
             for stage in stages if params.scope == "per_stage" or stage.name in params.stage_ratios]  # fmt: skip
    if params.scope == "global":
        rest = tuple(block for stage in stages if stage.name not in params.stage_ratios for block in stage.blocks)
        pools.append((rest, _share(len(rest), params.ratio)))
    return pools


def _share(count: int, ratio: float) -> int:
    return int(count * ratio + 0.5 + 1e-9)


class _Losses:
    """Mean loss over the first calibration batches, of a network and of it without a block; in eval mode."""

    def __init__(self, model: nn.Module, examples: Examples, task: Task) -> None:
        self.model, self.examples, self.task = model, examples, task
        self.key = evidence_key(model, examples, task)
        self.samples = min(len(examples), _BATCHES * _BATCH_SIZE)

    def without(self, block: str | None) -> float:
        """None: the whole network. Kept for the next candidate that starts from the same network."""
        return _LOSSES.get((self.key, block), lambda: self._measure(block))

    def _measure(self, block: str | None) -> float:
        edits = () if block is None else (RemoveEdit(module=block),)
        model = apply_edits(self.model, edits).eval()  # a copy: the examples may be labelled by the network itself
        total = 0.0
        with torch.no_grad():
            for batch in islice(self.examples.batches(_BATCH_SIZE), _BATCHES):
                loss = self.task.loss(self.task.forward(model, batch), batch.targets)
                total += float(loss) * len(batch.targets)
        return total / self.samples
