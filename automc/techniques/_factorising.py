"""What low_rank and tucker share: which layers can be replaced by thinner ones in sequence, and whether it pays."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize

from automc.errors import InfeasibleCandidate, UnseenOperatorError
from automc.sources import forward_site
from automc.techniques._evidence import Evidence, base_key, network_key
from automc.techniques._probing import RUN_FAILURES, probe_inputs, record_calls, run
from automc.techniques.edits import apply_edits, channels, shapes_alone
from automc.techniques.plan import Edit, LayerSpec, Plan, RemoveEdit, ReplaceEdit
from automc.techniques.reach import Blocked, Reach, Target, weight_layers
from automc.techniques.sketch import Outline, Sketch

if TYPE_CHECKING:
    from automc.techniques.technique import PlanContext


@dataclass(frozen=True)
class Dense:
    """A layer that may be factorised. kernel, stride, padding, dilation: () for linear layers.

    positions_in, positions_out: input and output positions per sample (height, width; () for linear: tokens).
    """

    name: str
    out_channels: int
    in_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    bias: bool
    positions_in: tuple[int, ...]
    positions_out: tuple[int, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates per sample."""
        return self.out_channels * self.in_channels * prod(self.kernel) * prod(self.positions_out)

    @property
    def layer(self) -> LayerSpec:
        """The layer as it is."""
        return LayerSpec(
            type="conv2d" if self.kernel else "linear", in_channels=self.in_channels, out_channels=self.out_channels,
            kernel=self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation, bias=self.bias,
        )  # fmt: skip

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample, a batch of one first."""
        if self.kernel:
            return (1, self.in_channels, *self.positions_in)
        return (1, self.in_channels) if self.positions_in == (1,) else (1, *self.positions_in, self.in_channels)

    @property
    def is_pointwise(self) -> bool:
        return prod(self.kernel) == 1


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


def dense_layers(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> tuple[Dense, ...]:
    """Linear layers and ungrouped 2-d convolutions of `model` in the order they run, those that are really called.

    A layer whose weights another module reads without calling it (the output of nn.MultiheadAttention) is not called.
    """
    wanted = record_calls(model, probe_inputs(example_inputs, seed=6), lambda _, module: _is_dense(module))
    found = []
    for name, call in wanted.items():
        module = model.get_submodule(name)
        if call.input is None or call.output is None:
            continue
        if isinstance(module, nn.Linear):
            tokens = (call.output[0].numel() // module.out_features,)
            none: tuple[int, ...] = ()
            found.append(
                Dense(
                    name, module.out_features, module.in_features, none, none, none, none, module.bias is not None,
                    tokens, tokens,
                )
            )  # fmt: skip
        elif isinstance(module, nn.Conv2d):
            found.append(
                Dense(
                    name, module.out_channels, module.in_channels, module.kernel_size, module.stride, _padding(module),
                    module.dilation, module.bias is not None, tuple(call.input.shape[2:]), tuple(call.output.shape[2:]),
                )
            )  # fmt: skip
    return tuple(found)


def _is_dense(module: nn.Module) -> bool:
    return _why_not_dense(module) is None


def _why_not_dense(module: nn.Module) -> str | None:
    """Why the layer cannot be factorised, or None."""
    if not isinstance(module, nn.Linear | nn.Conv2d):
        return f"{type(module).__name__}: linear layers and 2-d convolutions can be factorised"
    if parametrize.is_parametrized(module):
        return "its weight is computed by a parametrization"
    if not module.weight.requires_grad:
        return "its weight is frozen"  # on purpose: the selection that stands for an option-A shortcut must stay exact
    if isinstance(module, nn.Linear):
        return None
    if type(module) is not nn.Conv2d:
        return f"{type(module).__name__} is a convolution of its own kind"
    if module.groups > 1:
        return f"a convolution in {module.groups} groups is thin already"
    if module.padding_mode != "zeros":
        return f"its padding ({module.padding_mode}) is not of zeros"
    return None if _even(module) else "its padding is not the same on both sides"


def factorisable(
    model: nn.Module, example_inputs: tuple[torch.Tensor, ...], thinnest: Callable[[Dense], Factorisation | str]
) -> Reach:
    """The layers that can be replaced, and why the others cannot.

    thinnest: the factorisation of rank one of a layer, or why there is none.
    """
    weighted = dict(weight_layers(model))
    kept = {name: reason for name, module in weighted.items() if (reason := _why_not_dense(module)) is not None}
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


def _even(module: nn.Conv2d) -> bool:
    """Padding that is the same on both sides: "same" with an even kernel pads unequally."""
    pads = module._reversed_padding_repeated_twice
    return all(pads[i] == pads[i + 1] for i in range(0, len(pads), 2))


def _padding(module: nn.Conv2d) -> tuple[int, ...]:
    pads = module._reversed_padding_repeated_twice  # last axis first, both sides
    return (pads[2], pads[0])


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
) -> Outline:
    """`factorise` on the network that `sketch` stands for; `factorise_one` reads no weights, so that it is exact."""
    _check_priced(context, technique, only_if_faster)
    base, inputs = sketch.base, context.example_inputs
    key = base_key(sketch, inputs)
    called = _LAYERS.get(key, lambda: dense_layers(base, inputs))
    halves = [_in_two(layer) for layer in called]
    free = _UNREAD.get((key, _ways(halves)), lambda: _unread(base, halves, inputs))
    known = sketch.known("dense_layers", lambda: layers_after(called, sketch.edits, sketch.shapes))
    read = {layer.name for layer in called} - free
    plan = _factorised(
        known,
        lambda proposed: frozenset(found.dense.name for found in proposed if found.dense.name not in read),
        lambda: sketch.shapes,
        context, technique, factorise_one, only_if_faster,
    )  # fmt: skip
    return Outline(plan)


def layers_after(layers: Iterable[Dense], edits: Iterable[Edit], shapes: nn.Module) -> tuple[Dense, ...]:
    """`dense_layers` of the network that `edits` leave of the one that has `layers`; shapes: what they leave.

    No edit changes how many positions a layer works on, and layers in sequence stand where the one was.
    """
    found = list(layers)
    for edit in edits:
        if isinstance(edit, ReplaceEdit):
            parts = [_in_sequence(layer, edit.layers) if layer.name == edit.module else [layer] for layer in found]
            found = [layer for some in parts for layer in some]
        elif isinstance(edit, RemoveEdit):
            found = [layer for layer in found if not f"{layer.name}.".startswith(f"{edit.module}.")]
    modules = dict(shapes.named_modules())
    return tuple(
        replace(layer, out_channels=channels(module, "out"), in_channels=channels(module, "in"))
        for layer, module in ((layer, modules[layer.name]) for layer in found)
        if _is_dense(module)
    )


def _in_sequence(layer: Dense, specs: tuple[LayerSpec, ...]) -> list[Dense]:
    """The layers that stand for `layer`, by their specs."""
    found, positions = list[Dense](), layer.positions_in
    for place, spec in enumerate(specs):
        before, name = positions, layer.name if len(specs) == 1 else f"{layer.name}.{place}"
        if spec.kernel:
            size = len(spec.kernel)
            stride, padding, dilation = spec.stride or (1,) * size, spec.padding or (0,) * size, spec.dilation
            dilation = dilation or (1,) * size
            positions = tuple(
                (extent + 2 * pad - gap * (taps - 1) - 1) // step + 1
                for extent, taps, step, pad, gap in zip(before, spec.kernel, stride, padding, dilation, strict=True)
            )
            geometry = (spec.kernel, stride, padding, dilation)
        else:
            geometry = ((), (), (), ())
        found.append(Dense(name, spec.out_channels, spec.in_channels, *geometry, spec.bias, before, positions))
    return found


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
