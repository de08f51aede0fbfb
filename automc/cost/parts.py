"""What layers cost as part of a network: lowered by themselves, and priced beside everything the network moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from automc.cost.kernels import KernelGraph, Precision
    from automc.cost.predictor import Costs
    from automc.techniques.plan import LayerSpec

Kernels = Callable[["nn.Module", "tuple[torch.Tensor, ...]", "Precision"], "KernelGraph"]


class PartPrices:
    """Layers of equal shapes are lowered once, whatever network they are part of: only how full it is differs."""

    def __init__(self, kernels: Kernels, predict: Callable[[KernelGraph], Costs]) -> None:
        self._kernels = kernels
        self._predict = predict
        self._alone: dict[tuple[Precision, tuple[LayerSpec, ...], tuple[int, ...]], KernelGraph] = {}
        self._whole: tuple[nn.Module, Precision, KernelGraph] | None = None
        self._prices: dict[tuple[Precision, tuple[LayerSpec, ...], tuple[int, ...]], float] = {}

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
        if self._whole is None or self._whole[0] is not network or self._whole[1] != precision:
            self._whole = (network, precision, self._kernels(network, inputs, precision))
            self._prices = {}
        if known not in self._prices:
            whole = self._whole[2]
            among = replace(
                self._alone[known], weight_bytes=whole.weight_bytes, peak_activation_bytes=whole.peak_activation_bytes
            )
            self._prices[known] = self._predict(among).latency_ms.value
        return self._prices[known]

    def _lowered(self, layers: tuple[LayerSpec, ...], shape: tuple[int, ...], precision: Precision) -> KernelGraph:
        import torch

        from automc.techniques.edits import build_layers

        meta = torch.device("meta")
        built = build_layers(layers, meta, torch.float32).eval()
        return self._kernels(built, (torch.empty(shape, device=meta),), precision)
