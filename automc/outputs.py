"""What a network returns, whatever it is wrapped in: a tensor, a tuple, a dictionary, a library's record of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from automc.errors import CompressionError

if TYPE_CHECKING:
    import torch


def tensors_of(output: object) -> tuple[torch.Tensor, ...]:
    """Every tensor in what a forward returned, in the order of an exported graph's outputs; at least one.

    Raises CompressionError where there is none, or none that the exporter could find.
    """
    import torch
    from torch.utils._pytree import tree_leaves  # what torch.export takes networks' outputs apart with

    found = tuple(leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor))
    if not found:
        raise CompressionError(
            f"the network returns {type(output).__name__}, in which no tensor was found",
            next_step="let its forward return a tensor, or a tuple, list or dict of tensors",
        )
    return found


def records_of(output: object) -> tuple[str, ...]:
    """Classes of what is in a forward's answer and no export can hold, such as a decoder's cache; plain values do not
    count."""
    import torch
    from torch.utils._pytree import tree_leaves

    plain = (torch.Tensor, type(None), bool, int, float, str)
    return tuple(dict.fromkeys(type(leaf).__name__ for leaf in tree_leaves(output) if not isinstance(leaf, plain)))


def tensors_alone(forward: Callable[..., object]) -> Callable[..., tuple[torch.Tensor, ...]]:
    """`forward` with the same parameters, answering its tensors and nothing else."""

    @functools.wraps(forward)
    def answer(*args: object, **kwargs: object) -> tuple[torch.Tensor, ...]:
        return tensors_of(forward(*args, **kwargs))

    return answer


def first_tensor(output: object) -> torch.Tensor:
    """The tensor that is scored: the first in what a forward returned. Raises CompressionError as `tensors_of`."""
    return tensors_of(output)[0]
