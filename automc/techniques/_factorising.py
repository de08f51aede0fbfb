"""What low_rank and tucker share: which layers can be replaced by thinner ones in sequence, and whether it pays."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from automc.errors import InfeasibleCandidate, UnseenOperatorError
from automc.sources import forward_site
from automc.techniques._dense import Dense, dense_layers, layers_after, why_not_dense
from automc.techniques._evidence import Evidence, base_key, network_key
from automc.techniques._probing import RUN_FAILURES, probe_inputs, run
from automc.techniques.edits import apply_edits, shapes_alone
from automc.techniques.plan import LayerSpec, Plan, ReplaceEdit
from automc.techniques.reach import Blocked, Reach, Target, weight_layers
from automc.techniques.sketch import Outline, Sketch

if TYPE_CHECKING:
    from automc.techniques.technique import PlanContext


@dataclass(frozen=True)
class Factorisation:
    """Layers in sequence that replace `dense`; macs per sample."""

    dense: Dense
    ranks: tuple[int, ...]
    layers: tuple[LayerSpec, ...]
    macs: int

    @property
    def edit(self) -> ReplaceEdit:
        return ReplaceEdit(module=self.dense.name, layers=self.layers)


def factorisable(
    model: nn.Module, example_inputs: tuple[torch.Tensor, ...], thinnest: Callable[[Dense], Factorisation | str]
) -> Reach:
    """The layers that can be replaced, and why the others cannot.

    thinnest: the factorisation of rank one of a layer, or why there is none.
    """
    weighted = dict(weight_layers(model))
    kept = {name: reason for name, module in weighted.items() if (reason := why_not_dense(module)) is not None}
    called = dense_layers(model, example_inputs)
    names = {layer.name for layer in called}
    kept.update({name: "its weight is read without calling it" for name in weighted if name not in {*names, *kept}})
    proposed = []
    for layer in called:
        found = thinnest(layer)
        if isinstance(found, str):
            kept[layer.name] = found
        else:
            proposed.append(found)
    fine = _of(proposed, _unread(model, proposed, example_inputs), kept)
    return Reach(
        None,
        "layer",
        tuple(Target(found.dense.name, (found.dense.name,)) for found in fine),
        tuple(Blocked(name, kept[name], forward_site(name, weighted[name])) for name in weighted if name in kept),
    )


def snap_rank(wanted: float, multiple: int, saves: Callable[[int], bool]) -> int | None:
    """The multiple nearest to `wanted` (ties up, at least one); `wanted` itself where only that saves; else None."""
    snapped = max(multiple, int(wanted / multiple + 0.5) * multiple)
    exact = max(1, round(wanted))
    return next((rank for rank in (snapped, exact) if saves(rank)), None)


def factorise(
    model: nn.Module,
    context: PlanContext,
    technique: str,
    factorise_one: Callable[[Dense], Factorisation | None],
    only_if_faster: bool,
) -> Plan:
    """The plan that replaces every layer for which `factorise_one` finds fewer MACs, and that runs, and that pays.

    Raises InfeasibleCandidate where no layer is left, or only_if_faster is asked without a predictor.
    """
    _check_priced(context, technique, only_if_faster)
    key = network_key(model, context.example_inputs)
    return _factorised(
        _LAYERS.get(key, lambda: dense_layers(model, context.example_inputs)),
        lambda proposed: _UNREAD.get(
            (key, _ways(proposed)), lambda: _unread(model, proposed, context.example_inputs)
        ),
        lambda: _SHAPES.get(key, lambda: shapes_alone(model).eval()),
        context, technique, factorise_one, only_if_faster,
    )  # fmt: skip


def outlined(
    sketch: Sketch,
    context: PlanContext,
    technique: str,
    factorise_one: Callable[[Dense], Factorisation | None],
    only_if_faster: bool,
) -> Outline | None:
    """`factorise` on the network that `sketch` stands for; `factorise_one` reads no weights, so that it is exact.

    None where its layers cannot be told from those of its base.
    """
    _check_priced(context, technique, only_if_faster)
    base, inputs = sketch.base, context.example_inputs
    key = base_key(sketch, inputs)
    called = _LAYERS.get(key, lambda: dense_layers(base, inputs))
    halves = [_in_two(layer) for layer in called]
    free = _UNREAD.get((key, _ways(halves)), lambda: _unread(base, halves, inputs))
    known = sketch.known("dense_layers", lambda: layers_after(called, sketch.edits, sketch.shapes))
    if known is None:
        return None
    read = {layer.name for layer in called} - free
    plan = _factorised(
        known,
        lambda proposed: frozenset(found.dense.name for found in proposed if found.dense.name not in read),
        lambda: sketch.shapes,
        context, technique, factorise_one, only_if_faster,
    )  # fmt: skip
    return Outline(plan)


def _in_two(dense: Dense) -> Factorisation:
    """The layer as it is and one more behind it, which changes no shape."""
    layer = dense.layer
    ones = (1,) * len(layer.kernel)
    behind = LayerSpec(type=layer.type, in_channels=layer.out_channels, out_channels=layer.out_channels, kernel=ones)
    return Factorisation(dense, (), (layer, behind), 0)


def _check_priced(context: PlanContext, technique: str, only_if_faster: bool) -> None:
    if only_if_faster and context.layers_ms is None:
        raise InfeasibleCandidate(
            f"{technique} keeps a layer only where it is predicted faster, and no predictor is calibrated for profile "
            f"{context.profile.name}",
            next_step="automc profile calibrate, or only_if_faster: false",
        )


def _ways(proposed: list[Factorisation]) -> Hashable:
    """What whether a network still runs depends on: the layers, and into how many each is split."""
    return tuple((found.dense.name, len(found.layers)) for found in proposed)


def _factorised(
    layers: tuple[Dense, ...],
    unread: Callable[[list[Factorisation]], frozenset[str]],
    shapes: Callable[[], nn.Module],
    context: PlanContext,
    technique: str,
    factorise_one: Callable[[Dense], Factorisation | None],
    only_if_faster: bool,
) -> Plan:
    """unread: layers of those proposed whose weight nothing else reads. shapes: the network's, on the meta device."""
    proposed = [found for found in map(factorise_one, layers) if found is not None and found.macs < found.dense.macs]
    kept: dict[str, str] = {
        layer.name: "no fewer multiply-accumulates"
        for layer in layers
        if layer.name not in {f.dense.name for f in proposed}
    }
    proposed = _of(proposed, unread(proposed), kept)
    if only_if_faster and proposed:
        proposed = _faster(shapes(), proposed, context, kept)
    if not proposed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in kept.items())
        raise InfeasibleCandidate(f"{technique} replaces no layer ({reasons or 'none can be factorised'})")
    return Plan(
        technique=technique,
        edits=tuple(found.edit for found in proposed),
        facts={
            "ranks": {found.dense.name: list(found.ranks) for found in proposed},
            "macs_before": sum(found.dense.macs for found in proposed),
            "macs_after": sum(found.macs for found in proposed),
            "kept": dict(kept),
        },
    )


_LAYERS: Evidence[tuple[Dense, ...]] = Evidence(capacity=256)
_UNREAD: Evidence[frozenset[str]] = Evidence(capacity=1024)
_SHAPES: Evidence[nn.Module] = Evidence(capacity=64)


def _of(proposed: list[Factorisation], unread: frozenset[str], kept: dict[str, str]) -> list[Factorisation]:
    """Those of `unread` layers; why the others stay is written into `kept`."""
    kept.update(
        {
            found.dense.name: "the network reads its weight elsewhere"
            for found in proposed
            if found.dense.name not in unread
        }
    )
    return [found for found in proposed if found.dense.name in unread]


def _unread(
    model: nn.Module, proposed: list[Factorisation], example_inputs: tuple[torch.Tensor, ...]
) -> frozenset[str]:
    """Layers without whose own weight the network still runs: some modules read the weight of a layer they hold."""
    inputs = probe_inputs(example_inputs, seed=7)

    def runs(some: list[Factorisation]) -> bool:
        try:
            run(apply_edits(model, [found.edit for found in some]), inputs)
        except RUN_FAILURES:
            return False
        return True

    if runs(proposed):
        return frozenset(found.dense.name for found in proposed)
    return frozenset(found.dense.name for found in proposed if runs([found]))


def _faster(
    shapes: nn.Module, proposed: list[Factorisation], context: PlanContext, kept: dict[str, str]
) -> list[Factorisation]:
    """Those that are predicted to take less time than the layer they replace, at the precision the network will run in.

    What cannot be predicted is not faster. Why the others stay is written into `kept`. shapes: the network's.
    """
    layers_ms = context.layers_ms
    if layers_ms is None:
        return proposed
    for found in proposed:
        given = found.dense.input_shape
        try:
            before, after = layers_ms(shapes, (found.dense.layer,), given), layers_ms(shapes, found.layers, given)
        except UnseenOperatorError as error:
            kept[found.dense.name] = f"its cost is unknown: {error.message}"
            continue
        if after >= before:
            kept[found.dense.name] = f"predicted {after:.4f} ms factorised, {before:.4f} ms as it is"
    return [found for found in proposed if found.dense.name not in kept]


def weights_of(module: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight in float64 and bias of a dense layer, detached."""
    if not isinstance(module, nn.Linear | nn.Conv2d):
        raise TypeError(f"{type(module).__name__} is no dense layer")
    return module.weight.detach().double(), None if module.bias is None else module.bias.detach()


def write_factors(new: nn.Module, factors: Mapping[int, torch.Tensor], bias: torch.Tensor | None) -> None:
    """Copy `factors` (by position in the sequence) and the bias of the last layer into freshly built layers."""
    layers = list(new) if isinstance(new, nn.Sequential) else [new]
    with torch.no_grad():
        for position, factor in factors.items():
            weight = layers[position].get_parameter("weight")
            weight.copy_(factor.reshape(weight.shape).to(weight.dtype))
        if bias is not None:
            layers[-1].get_parameter("bias").copy_(bias)
