"""What layers cost as part of a network: lowered by themselves, and priced beside everything the network moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import torch
    from torch import nn

    from automc.cost.kernels import KernelGraph, Precision
    from automc.cost.predictor import Costs
    from automc.techniques.plan import LayerSpec

_Part = tuple["Precision", "tuple[LayerSpec, ...]", tuple[int, ...]]
"""Layers in sequence on an input of a shape."""

Kernels = Callable[["nn.Module", "tuple[torch.Tensor, ...]", "Precision"], "KernelGraph"]


@dataclass(frozen=True)
class _Whole:
    """What a network moves, and the prices of layers beside it."""

    weight_bytes: int
    peak_activation_bytes: int
    prices: dict[_Part, float] = field(default_factory=dict)


class PartPrices:
    """Layers of equal shapes are lowered once, whatever network they are part of: only how full it is differs."""

    def __init__(self, kernels: Kernels, predict: Callable[[KernelGraph], Costs]) -> None:
        self._kernels = kernels
        self._predict = predict
        self._alone: dict[_Part, KernelGraph] = {}
        self._wholes: WeakKeyDictionary[nn.Module, dict[Precision, _Whole]] = WeakKeyDictionary()

    def milliseconds(
        self,
        network: nn.Module,
        inputs: tuple[torch.Tensor, ...],
        layers: tuple[LayerSpec, ...],
        shape: tuple[int, ...],
        precision: Precision,
    ) -> float:
        """Predicted time of `layers` in sequence on an input of `shape`, run by themselves as `network` leaves the
        caches (`inputs` are its own); a session is called for them, as for any others they are compared with.

        Raises UnseenOperatorError.
        """
        known = (precision, layers, shape)
        if known not in self._alone:
            self._alone[known] = self._lowered(layers, shape, precision)
        of_network = self._wholes.setdefault(network, {})
        if precision not in of_network:
            graph = self._kernels(network, inputs, precision)
            of_network[precision] = _Whole(graph.weight_bytes, graph.peak_activation_bytes)
        whole = of_network[precision]
        if known not in whole.prices:
            among = replace(
                self._alone[known], weight_bytes=whole.weight_bytes, peak_activation_bytes=whole.peak_activation_bytes
            )
            whole.prices[known] = self._predict(among).latency_ms.value
        return whole.prices[known]

    def _lowered(self, layers: tuple[LayerSpec, ...], shape: tuple[int, ...], precision: Precision) -> KernelGraph:
        import torch

        from automc.techniques.edits import build_layers

        meta = torch.device("meta")
        built = build_layers(layers, meta, torch.float32).eval()
        return self._kernels(built, (torch.empty(shape, device=meta),), precision)
