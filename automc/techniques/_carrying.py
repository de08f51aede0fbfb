"""What is known of a network's channels, carried through edits, so that a chain's next step need not ask for it anew.

Coupling takes seconds to find and prove on a network; edits change it in ways that follow from the edits alone: slices
take units away, removed blocks their layers, and a layer replaced by several in sequence gives its inputs to the first
and its outputs to the last, with a group of its own between two neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from automc.techniques.coupling import Coupling, Group, Unit, is_producer
from automc.techniques.plan import Edit, RemoveEdit, ReplaceEdit, SliceEdit, is_in

_Members = dict[tuple[str, str], tuple[int, ...]]


def coupling_after(coupling: Coupling, edits: Iterable[Edit], shapes: nn.Module) -> Coupling | None:
    """The coupling of the network that `edits` leave of the one that `coupling` is of; shapes: what they leave.

    Groups are in module order, as `couple` gives them. None where channels do not follow from the edit: of convolutions
    in groups, whose inputs are counted over all groups and sliced per group, and where what was removed may have been
    the reason that channels are coupled, or refused.
    """
    groups = [[dict(unit.members) for unit in group.units] for group in coupling.groups]
    for edit in edits:
        match edit:
            case SliceEdit():
                if edit.axis == "in" and _in_groups(shapes, edit.module):
                    return None
                places = {channel: place for place, channel in enumerate(edit.keep)}
                for units in groups:
                    for members in units:
                        _slice(members, (edit.module, edit.axis), places)
            case RemoveEdit():
                if _may_be_the_reason(edit.module, groups, coupling):
                    return None
                for units in groups:
                    for members in units:
                        for key in [key for key in members if is_in(key[0], edit.module)]:
                            del members[key]
            case ReplaceEdit():
                if any(layer.groups > 1 for layer in edit.layers):
                    return None
                _replace(groups, edit)
            case _:
                return None
    order = {name: place for place, name in enumerate(name for name, _ in shapes.named_modules())}
    if any(name not in order for units in groups for members in units for name, _ in members):
        return None
    producing = {name for name, module in shapes.named_modules() if is_producer(module)}
    found = []
    for units in groups:
        kept = tuple(Unit(dict(sorted(members.items()))) for members in units if members)
        makers = {name for unit in kept for name, axis in unit.members if axis == "out" and name in producing}
        producers = tuple(sorted(makers, key=order.__getitem__))
        trained = [name for name in producers if shapes.get_submodule(name).get_parameter("weight").requires_grad]
        if len(kept) < 2 or not producers:
            continue
        group = Group((trained or producers)[0], producers, kept)
        if group.touched("in"):
            found.append(group)
    found.sort(key=lambda group: order[group.root])
    return replace(coupling, groups=tuple(found))


def channels_after(vectors: Mapping[str, torch.Tensor], edits: Iterable[Edit]) -> dict[str, torch.Tensor]:
    """Figures of every output channel (last axis) by module, as `edits` leave them; of layers replaced by several, the
    last makes the channels. What lies between them has none."""
    found = dict(vectors)
    for edit in edits:
        match edit:
            case SliceEdit(module=name, axis="out", keep=keep) if name in found:
                found[name] = found[name][..., list(keep)]
            case RemoveEdit(module=block):
                found = {name: vector for name, vector in found.items() if not is_in(name, block)}
            case ReplaceEdit(module=name, layers=layers) if name in found and len(layers) > 1:
                found[f"{name}.{len(layers) - 1}"] = found.pop(name)
    return found


def _may_be_the_reason(block: str, groups: list[list[_Members]], coupling: Coupling) -> bool:
    """Whether channels may be coupled to others of their layer, or refused, because of what is in `block`.

    A block that hands its input on couples each channel of that with one of its own; without it they stay coupled with
    what reads them.
    """
    for refusal in coupling.refusals.values():
        module = refusal.site.module if refusal.site is not None else ""
        if any(is_in(name, block) for name in (*refusal.layers, module) if name):
            return True
    return any(
        any(is_in(name, block) for name, _ in members)
        and any(axis == "out" and len(indices) > 1 for (_, axis), indices in members.items())
        for units in groups
        for members in units
    )


def _in_groups(shapes: nn.Module, name: str) -> bool:
    """Whether the module is still there and a convolution in groups."""
    module = dict(shapes.named_modules()).get(name)
    return isinstance(module, _ConvNd) and module.groups > 1


def _slice(members: _Members, key: tuple[str, str], places: Mapping[int, int]) -> None:
    if key not in members:
        return
    kept = tuple(places[channel] for channel in members[key] if channel in places)
    if kept:
        members[key] = kept
    else:
        del members[key]


def _replace(groups: list[list[_Members]], edit: ReplaceEdit) -> None:
    if len(edit.layers) == 1:
        return
    names = [f"{edit.module}.{place}" for place in range(len(edit.layers))]
    ends: Mapping[str, str] = {"in": names[0], "out": names[-1]}
    for units in groups:
        for members in units:
            for axis, name in ends.items():
                if (edit.module, axis) in members:
                    members[name, axis] = members.pop((edit.module, axis))
    groups += [_between(pair, layer.out_channels) for pair, layer in zip(pairwise(names), edit.layers, strict=False)]


def _between(pair: Sequence[str], width: int) -> list[_Members]:
    """Units of the channels that one layer makes and the next alone reads."""
    made, read = pair
    return [{(made, "out"): (channel,), (read, "in"): (channel,)} for channel in range(width)]
