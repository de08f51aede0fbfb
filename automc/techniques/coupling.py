"""Which channels of a network only come off together, found through Torch-Pruning and proved by running the network.

Torch-Pruning's dependency graph (Fang et al. 2023, "DepGraph") says which channels of which modules follow from pruning
one layer; joining what it says of every layer gives the atoms of structured pruning. What it says is then checked: a
group is offered only if slicing its channels off gives what zeroing every weight that reads them gives.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from automc.errors import CompressionError
from automc.sources import Site, site_of_error
from automc.techniques._following import Followed, follow
from automc.techniques._probing import RUN_FAILURES, probe_inputs, run
from automc.techniques.edits import apply_edits, channels, is_depthwise
from automc.techniques.plan import SliceEdit

_TOLERANCE = 1e-4  # of the largest output: float32 sums over other channel counts round differently

_LIBRARY_FAILURES = (*RUN_FAILURES, RecursionError, ZeroDivisionError)
"""What Torch-Pruning raises on a network that its index arithmetic does not fit."""

Channel = tuple[str, str, int]
"""Module, axis ("in" or "out"), index; inputs of grouped convolutions are counted over all groups."""


@dataclass(frozen=True)
class Unit:
    """Channels that only come off together: indices per (module, axis)."""

    members: Mapping[tuple[str, str], tuple[int, ...]]

    def width(self, producers: Collection[str]) -> int:
        """Output channels it takes from each of `producers` it belongs to (the largest number)."""
        return max(
            len(indices) for (name, axis), indices in self.members.items() if axis == "out" and name in producers
        )


@dataclass(frozen=True)
class Group:
    """Layers whose output channels are coupled. root: the first trained one of `producers`, in module order."""

    root: str
    producers: tuple[str, ...]
    units: tuple[Unit, ...]

    def touched(self, axis: str) -> tuple[str, ...]:
        """Modules whose `axis` the group's channels are on, sorted."""
        return tuple(sorted({name for unit in self.units for name, at in unit.members if at == axis}))

    @cached_property
    def classes(self) -> tuple[tuple[int, ...], ...]:
        """Positions of units that touch the same modules alike; a width is snapped within each class."""
        found: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for position, unit in enumerate(self.units):
            shape = tuple((key, len(indices)) for key, indices in sorted(unit.members.items()) if key[1] == "out")
            found[shape].append(position)
        return tuple(tuple(positions) for positions in found.values())


@dataclass(frozen=True)
class Refusal:
    """Why coupled channels cannot be cut. layers: modules that have them as outputs.

    site: the module that stands in the way, and the user's line where that is known; the layer's own by default.
    """

    reason: str
    layers: tuple[str, ...] = ()
    site: Site | None = None


@dataclass(frozen=True)
class Coupling:
    """Groups that can be pruned, and why the others (by root) cannot."""

    groups: tuple[Group, ...]
    refusals: Mapping[str, Refusal] = field(default_factory=dict)

    @property
    def refused(self) -> dict[str, str]:
        """Reasons alone, by root."""
        return {root: refusal.reason for root, refusal in self.refusals.items()}


def couple(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> Coupling:
    """The coupled channels of `model`, which is left as it was.

    Output and input channels of the network, and channels that anything but convolutions, linear layers, batch norms,
    instance norms and PReLUs indexes, are refused. Raises CompressionError (chained) where Torch-Pruning cannot trace.
    """
    joined, reasons, order = _trace(model, example_inputs)
    groups, refused = _assemble(model, joined, reasons, order)
    if groups and _why_not(model, groups, example_inputs) is not None:
        sound = []
        for group in groups:
            refusal = _why_not(model, (group,), example_inputs)
            if refusal is None:
                sound.append(group)
            else:
                refused[group.root] = refusal
        groups = tuple(sound)
        refusal = _why_not(model, groups, example_inputs) if groups else None
        if refusal is not None:
            raise CompressionError(f"groups that can be pruned alone cannot be pruned together: {refusal.reason}")
    return Coupling(groups, refused)


def removal_edits(
    model: nn.Module, groups: Collection[Group], removed: Mapping[str, Collection[int]]
) -> tuple[SliceEdit, ...]:
    """Slices that take the units at the positions `removed` (by root) of `groups` off every module they touch."""
    gone: dict[tuple[str, str], set[int]] = defaultdict(set)
    for group in groups:
        for position in removed.get(group.root, ()):
            for key, indices in group.units[position].members.items():
                gone[key].update(indices)
    edits = []
    for name, module in model.named_modules():
        for axis in ("in", "out"):
            lost_over_groups = gone.get((name, axis), set())
            if not lost_over_groups:
                continue
            width = channels(module, axis)
            lost = {
                index % width for index in lost_over_groups
            }  # same channels in every group of a grouped convolution
            edits.append(SliceEdit(module=name, axis=axis, keep=tuple(i for i in range(width) if i not in lost)))
    return tuple(edits)


def masked_copy(
    model: nn.Module, groups: Collection[Group], removed: Mapping[str, Collection[int]], side: str = "in"
) -> nn.Module:
    """A copy with the channels zeroed instead of sliced: side "in": weights that read them; "out": that make them."""
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for group in groups:
            for position in removed.get(group.root, ()):
                for (name, axis), indices in group.units[position].members.items():
                    if axis == side:
                        _zero(masked.get_submodule(name), axis, indices)
    return masked


def _zero(module: nn.Module, axis: str, indices: tuple[int, ...]) -> None:
    weight = module.weight
    if not isinstance(weight, torch.Tensor):
        return
    width = channels(module, axis)
    places = sorted({index % width for index in indices})
    if axis == "in":
        dim = 0 if isinstance(module, _ConvTransposeNd) else 1
    else:
        dim = 1 if isinstance(module, _ConvTransposeNd) else 0
    weight.index_fill_(dim, torch.tensor(places), 0.0)
    bias = getattr(module, "bias", None)
    if axis == "out" and bias is not None:
        bias[places] = 0.0


class _Joined:
    """Disjoint sets of channels."""

    def __init__(self) -> None:
        self.parent: dict[Channel, Channel] = {}

    def find(self, channel: Channel) -> Channel:
        self.parent.setdefault(channel, channel)
        root = channel
        while self.parent[root] != root:
            root = self.parent[root]
        while self.parent[channel] != root:
            self.parent[channel], channel = root, self.parent[channel]
        return root

    def join(self, left: Channel, right: Channel) -> None:
        first, second = sorted((self.find(left), self.find(right)))
        self.parent[second] = first


def is_producer(module: nn.Module) -> bool:
    """Whether its output channels are its own: linear layers, and convolutions that are not depthwise."""
    return isinstance(module, nn.Linear) or (isinstance(module, _ConvNd) and not is_depthwise(module))


def _trace(
    model: nn.Module, example_inputs: tuple[torch.Tensor, ...]
) -> tuple[_Joined, dict[Channel, Refusal], tuple[str, ...]]:
    """Channels joined by Torch-Pruning, why some cannot be cut, and the producers it saw, in module order."""
    import torch_pruning

    traced = copy.deepcopy(model).eval()
    for parameter in traced.parameters():
        parameter.requires_grad_(True)
    names = {module: name for name, module in traced.named_modules()}
    with torch.enable_grad():
        traced(*example_inputs)  # a model that does not run is the user's error, not Torch-Pruning's
        graph = torch_pruning.DependencyGraph()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                graph.build_dependency(traced, example_inputs=example_inputs, verbose=False)
            except _LIBRARY_FAILURES as error:
                site = site_of_error(error, model)
                at = f" (at {site})" if site.file else ""
                raise CompressionError(f"Torch-Pruning cannot trace this network{at}: {error!r}") from error
    joined, reasons = _Joined(), dict[Channel, Refusal]()
    order = []
    for module, name in names.items():
        if not is_producer(module):
            continue
        order.append(name)
        if module not in graph.module2node:
            reasons[(name, "out", 0)] = Refusal("no gradient of the output reaches it, so its readers are unknown")
            joined.find((name, "out", 0))
            continue
        width = channels(module, "out")
        for index in range(width):
            joined.find((name, "out", index))
        try:
            followed = follow(graph, module, width)
        except CompressionError as error:
            reasons[(name, "out", 0)] = Refusal(error.message)
            continue
        except _LIBRARY_FAILURES as error:
            reasons[(name, "out", 0)] = Refusal(f"Torch-Pruning cannot follow it: {error!r}")
            continue
        for item in followed:
            _join_item(joined, reasons, names, name, item)
    for name in order:
        _tie_convolution_groups(joined, name, traced.get_submodule(name))
    return joined, reasons, tuple(order)


def _join_item(
    joined: _Joined,
    reasons: dict[Channel, Refusal],
    names: Mapping[nn.Module, str],
    root: str,
    item: Followed,
) -> None:
    target, root_indices = item.dependency.target.module, item.roots
    name = names.get(target) if isinstance(target, nn.Module) else None
    if name is None:
        if isinstance(target, nn.Parameter):
            refusal = Refusal("a free parameter shares its channels")
            reasons.update({(root, "out", index): refusal for index in root_indices})
        return
    if is_producer(target):
        axis = "out" if item.dependency.handler.__name__ == "prune_out_channels" else "in"
    elif is_depthwise(target) or isinstance(target, _BatchNorm | nn.InstanceNorm1d | nn.InstanceNorm2d):
        axis = "out"
    elif isinstance(target, nn.PReLU):
        if target.num_parameters == 1:
            return
        axis = "out"
    else:
        refusal = Refusal(f"{type(target).__name__} {name} works across its channels", site=Site(name))
        reasons.update({(root, "out", index): refusal for index in root_indices})
        return
    for index, root_index in zip(item.indices, root_indices, strict=True):
        joined.join((root, "out", root_index), (name, axis, index))


def _tie_convolution_groups(joined: _Joined, name: str, module: nn.Module) -> None:
    """A grouped convolution keeps the same channels in each of its groups, so that the groups stay equal."""
    if not isinstance(module, _ConvNd) or module.groups == 1:
        return
    for axis, total in (("in", module.in_channels), ("out", module.out_channels)):
        size = total // module.groups
        for index in range(size, total):
            joined.join((name, axis, index % size), (name, axis, index))


def _assemble(
    model: nn.Module, joined: _Joined, reasons: Mapping[Channel, Refusal], order: tuple[str, ...]
) -> tuple[tuple[Group, ...], dict[str, Refusal]]:
    sets: dict[Channel, list[Channel]] = defaultdict(list)
    for channel in joined.parent:
        sets[joined.find(channel)].append(channel)
    rank = {name: position for position, name in enumerate(order)}
    producers_of = {
        key: sorted({name for name, axis, _ in members if axis == "out" and name in rank}, key=rank.__getitem__)
        for key, members in sets.items()
    }
    leader = {name: name for name in order}  # first producer of the group a producer belongs to

    def lead(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for names in producers_of.values():
        for name in names[1:]:
            first, second = sorted((lead(names[0]), lead(name)), key=rank.__getitem__)
            leader[second] = first
    units: dict[str, list[Unit]] = defaultdict(list)
    refused: dict[str, Refusal] = {}
    why = {joined.find(channel): reason for channel, reason in reasons.items()}
    for key in sorted(sets, key=lambda item: (rank.get(item[0], -1), item)):
        if not producers_of[key]:
            continue  # input channels of the network
        root = lead(producers_of[key][0])
        if key in why:
            refused[root] = why[key]
        members: dict[tuple[str, str], list[int]] = defaultdict(list)
        for name, axis, index in sets[key]:
            members[(name, axis)].append(index)
        units[root].append(Unit({pair: tuple(sorted(found)) for pair, found in sorted(members.items())}))
    groups = []
    for root, found_units in units.items():
        producers = tuple(name for name in order if lead(name) == root)
        trained = [name for name in producers if model.get_submodule(name).weight.requires_grad]
        group = Group((trained or producers)[0], producers, tuple(found_units))
        layers = group.touched("out")
        if root in refused:
            refused[root] = replace(refused[root], layers=layers)
        elif not group.touched("in"):
            refused[root] = Refusal("nothing reads its channels: they are an output of the network", layers)
        elif len(found_units) < 2:
            refused[root] = Refusal("all its channels are one unit", layers)
        else:
            groups.append(group)
    return tuple(sorted(groups, key=lambda group: rank[group.root])), refused


def _why_not(model: nn.Module, groups: tuple[Group, ...], example_inputs: tuple[torch.Tensor, ...]) -> Refusal | None:
    """Why slicing units of `groups` is not the same as zeroing what reads them; None where it is.

    Every other unit, and one alone: heads of attention take any width that is a multiple of theirs, and near uniform
    attention hides that their channels were dealt out anew.
    """
    every_other = {group.root: range(1, len(group.units), 2) for group in groups}
    one = {group.root: range(1) for group in groups}
    return _differs(model, groups, example_inputs, every_other) or _differs(model, groups, example_inputs, one)


def _differs(
    model: nn.Module,
    groups: tuple[Group, ...],
    example_inputs: tuple[torch.Tensor, ...],
    removed: Mapping[str, Collection[int]],
) -> Refusal | None:
    layers = tuple(sorted({name for group in groups for name in group.touched("out")}))
    inputs = probe_inputs(example_inputs, seed=3, batch=2)
    expected = run(masked_copy(model, groups, removed), inputs)
    try:
        actual = run(apply_edits(model, removal_edits(model, groups, removed)), inputs)
    except (CompressionError, *RUN_FAILURES) as error:
        reason = f"the network does not run without some of its channels ({type(error).__name__}: {error})"
        return Refusal(reason, layers, site_of_error(error, model))
    if [tensor.shape for tensor in actual] != [tensor.shape for tensor in expected]:
        return Refusal("its channels are an output of the network", layers)
    for cut, zeroed in zip(actual, expected, strict=True):
        if zeroed.numel() and float((cut - zeroed).abs().max()) > _TOLERANCE * max(float(zeroed.abs().max()), 1e-6):
            return Refusal("slicing its channels is not the same as zeroing them", layers)
    return None
