"""The structural techniques on the CIFAR-10 ResNets and images of the data folder."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from example_networks import profile
from torch import nn

from automc.export import check_parity, export_onnx
from automc.pipeline import replay
from automc.techniques._importance import Criterion, channel_figures, taylor_effects, unit_scores
from automc.techniques.channel_pruning import ChannelPruning, ChannelPruningParams
from automc.techniques.coupling import Group, couple, removal_edits
from automc.techniques.depth_pruning import DepthPruning, DepthPruningParams, find_stages
from automc.techniques.edits import apply_edits
from automc.techniques.plan import Plan, RemoveEdit, ReplaceEdit
from automc.techniques.shortcuts import fill_selection, find_selections
from automc.techniques.technique import PlanContext
from automc.workloads.registry import create_workload
from automc.workloads.workload import Workload

pytestmark = pytest.mark.data


def workload(data_root: Path, name: str) -> Workload:
    options = {"model": name, "calibration_samples": 128}
    if name == "resnet20":
        options["weights"] = "models/cifar10_resnet/resnet20_jpegft.npz"
    return create_workload("cifar10", options, data_root)  # type: ignore[arg-type]


def context(work: Workload, channel_multiple: int = 8) -> PlanContext:
    return PlanContext(
        example_inputs=work.example_inputs(),
        profile=profile(channel_multiple),
        task=work.task,
        calibration=lambda: work.split("calibration"),
        cost=None,
        seed=0,
    )


def pictures(work: Workload) -> torch.Tensor:
    return next(iter(work.split("calibration").batches(16))).inputs[0]


@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_the_shortcuts_are_rewritten_without_changing_a_bit(data_root: Path, name: str) -> None:
    work = workload(data_root, name)
    model = work.model()
    sources = {found.module: found.sources for found in find_selections(model, work.example_inputs())}
    assert sorted(sources) == ["layer2.0.shortcut", "layer3.0.shortcut"]

    def fill(_old: nn.Module, edit: ReplaceEdit, new: nn.Module) -> None:
        fill_selection(new, sources[edit.module])

    rewritten = apply_edits(model, [s.edit for s in find_selections(model, work.example_inputs())], fill)
    with torch.no_grad():
        assert torch.equal(rewritten(pictures(work)), model(pictures(work)))


def test_half_the_channels_of_resnet20_come_off_and_the_export_has_the_planned_shapes(data_root: Path) -> None:
    work = workload(data_root, "resnet20")
    model = work.model()
    plan = ChannelPruning().plan(model, ChannelPruningParams(ratio=0.5), context(work))
    pruned = ChannelPruning().apply(model, plan)
    # per layer (in / 2) * (out / 2) * 9: a quarter of the convolutions' weights
    weights = sum(m.weight.numel() for n, m in pruned.named_modules() if isinstance(m, nn.Conv2d) and "short" not in n)
    # conv1 8*3*9; stage 1: 6 of 8*8*9; stage 2: 16*8*9 and 5 of 16*16*9; stage 3: 32*16*9 and 5 of 32*32*9
    assert weights == 216 + 6 * 576 + 1152 + 5 * 2304 + 4608 + 5 * 9216
    inputs = (pictures(work),)
    graph = export_onnx(pruned, inputs)
    check_parity(pruned, graph, inputs)
    stored = Plan.model_validate_json(plan.model_dump_json())
    rebuilt = replay(work.model(), [stored])
    rebuilt.load_state_dict(pruned.state_dict())
    with torch.no_grad():
        assert torch.equal(rebuilt(*inputs), pruned(*inputs))
    meta = ChannelPruning().apply(work.model().to("meta"), stored)
    exported = sorted(tuple(w.dims) for w in graph.graph.initializer if len(w.dims) == 4)
    assert exported == sorted(tuple(m.weight.shape) for m in meta.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("criterion", ["l1", "fpgm", "taylor", "bn_scale"])
def test_what_a_criterion_calls_unimportant_is_missed_less_than_what_it_calls_important(
    data_root: Path, criterion: Criterion
) -> None:
    """A quarter of the filters inside every block of ResNet-20 comes off: the lowest, or the highest scores."""
    work = workload(data_root, "resnet20")
    model = work.model()
    inner = [group for group in couple_inner(model, work) if group.root.endswith(".conv1")]
    assert len(inner) == 9
    effects = taylor_effects(copy.deepcopy(model), work.split("calibration"), work.task)
    figures = channel_figures(model, inner, criterion, effects)
    lowest, highest = {}, {}
    for group in inner:
        scores = unit_scores(model, group, criterion, figures)
        assert scores is not None
        order = sorted(range(len(scores)), key=scores.__getitem__)
        lowest[group.root], highest[group.root] = order[: len(order) // 4], order[-len(order) // 4 :]
    batch = next(iter(work.split("validation").batches(256)))

    def loss(removed: dict[str, list[int]]) -> float:
        with torch.no_grad():
            pruned = apply_edits(model, removal_edits(model, inner, removed))
            return float(work.task.loss(pruned(*batch.inputs), batch.targets))

    assert loss(lowest) < loss(highest)


def couple_inner(model: nn.Module, work: Workload) -> tuple[Group, ...]:
    """Groups inside the blocks: they never meet a shortcut, so none has to be rewritten."""
    return couple(model, work.example_inputs()).groups


def test_the_four_criteria_choose_differently(data_root: Path) -> None:
    work = workload(data_root, "resnet20")
    model = work.model()
    plans = [
        ChannelPruning().plan(model, ChannelPruningParams(ratio=0.5, criterion=criterion), context(work))
        for criterion in ("l1", "fpgm", "taylor", "bn_scale")
    ]
    assert len({plan.edits for plan in plans}) == 4


def test_the_blocks_of_resnet56_the_loss_misses_least_cost_less_than_the_others(data_root: Path) -> None:
    work = workload(data_root, "resnet56")
    model = work.model()
    stages = find_stages(model, work.example_inputs())
    # 9 blocks a stage; the first of stages 2 and 3 changes the shape
    assert [(stage.name, len(stage.blocks)) for stage in stages] == [("layer1", 9), ("layer2", 8), ("layer3", 8)]
    plan = DepthPruning().plan(model, DepthPruningParams(stage_ratios={"layer3": 0.3}), context(work))
    effects = plan.facts["loss_rise_without"]
    assert isinstance(effects, dict)
    removed = [edit.module for edit in plan.edits if isinstance(edit, RemoveEdit)]
    assert len(removed) == 2  # 0.3 of 8: 2.4
    gone = [float(effects[block]) for block in stages[2].blocks if block in removed]  # type: ignore[arg-type]
    kept = [float(effects[block]) for block in stages[2].blocks if block not in removed]  # type: ignore[arg-type]
    assert max(gone) <= min(kept)
