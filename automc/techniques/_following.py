"""Follows a layer's channels through Torch-Pruning's dependency graph, for as long as that leads anywhere.

Torch-Pruning's own `get_pruning_group` goes on while the indices it maps change. Where it maps them wrongly (attention
over shared keys, whose heads are repeated) they change for ever, so that here every edge is taken a few times at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from automc.errors import CompressionError

if TYPE_CHECKING:
    from torch import nn

_TIMES = 64
"""How often an edge may be taken with other channels, each time with as many as the first. Between 8 and 12 times is
needed where queries, keys and values come from one layer; attention over repeated heads had not settled after 3,000
steps, and behind the transposed halves of a channel shuffle every round carries more channels than the last."""


class Followed(NamedTuple):
    """An edge of the graph: `dependency` acts on the channels `indices` of its target, which come from `roots`."""

    dependency: Any
    indices: list[int]
    roots: list[int]


def follow(graph: Any, module: nn.Module, width: int) -> list[Followed]:
    """Everything that goes with the `width` output channels of `module`, itself first, in the order it is found.

    graph: a built torch_pruning.DependencyGraph. Raises CompressionError where an edge would be taken without end, and
    whatever Torch-Pruning's index mappings raise.
    """
    from torch_pruning._helpers import _HybridIndex, to_plain_idxs, to_root_idxs
    from torch_pruning.dependency import Dependency, index_mapping

    index_mapping.update_index_mapping(graph)
    node, prune = graph.module2node[module], graph.get_pruner_of_module(module).prune_out_channels
    start = Dependency(prune, prune, source=node, target=node)
    waiting = [(start, [_HybridIndex(idx=index, root_idx=index) for index in range(width)])]
    found = [Followed(start, list(range(width)), list(range(width)))]
    taken: dict[int, set[tuple[object, ...]]] = {}
    left: dict[int, int] = {}  # channels that an edge may still carry
    while waiting:
        dependency, indices = waiting.pop()
        for following in dependency.target.dependencies:
            if not following.is_triggered_by(dependency.handler):
                continue
            mapped = indices
            for mapping in following.index_mapping:
                if mapping is not None:
                    mapped = mapping(mapped)
            seen = taken.setdefault(id(following), set())
            if not mapped or tuple(mapped) in seen:
                continue
            seen.add(tuple(mapped))
            left[id(following)] = left.get(id(following), _TIMES * len(mapped)) - len(mapped)
            if left[id(following)] < 0:
                raise CompressionError(
                    f"Torch-Pruning follows its channels round in circles, at {following.target.name}"
                )
            found.append(Followed(following, to_plain_idxs(mapped), to_root_idxs(mapped)))
            waiting.append((following, mapped))
    return found
