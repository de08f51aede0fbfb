"""Splits a convolution into 1 x 1, a thinner k x k, and 1 x 1 by a Tucker-2 decomposition of its weight.

Kim et al. 2016, "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications": the
modes of input and output channels are decomposed, the kernel's axes are left whole. Decomposed by Tensorly's partial
Tucker (higher-order orthogonal iteration). Ranks: a share of the channels, the singular values that hold a share of the
energy of each unfolding, or the analytic variational Bayesian solution (Nakajima et al. 2013, "Global Analytic Solution
of Fully-observed Variational Bayesian Matrix Factorization", the empirical one), as Kim et al. choose them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from automc.errors import CompressionError
from automc.techniques._dense import Dense
from automc.techniques._factorising import (
    Factorisation,
    factorisable,
    factorise,
    outlined,
    snap_rank,
    weights_of,
    write_factors,
)
from automc.techniques.edits import apply_edits
from automc.techniques.plan import LayerSpec, Plan, ReplaceEdit
from automc.techniques.reach import Reach
from automc.techniques.sketch import Outline, Sketch
from automc.techniques.technique import ModelTechnique, Params, PlanContext

RankRatio = Annotated[float, Field(ge=0.1, le=1.0, json_schema_extra={"step": 0.1})]

_ITERATIONS = 10
_TOLERANCE = 1e-4
"""Change of the relative error that ends the orthogonal iteration. ResNet-20's weights at half their ranks, one thread:
mean relative error 0.5559 in 0.6 s; with 50 iterations and 1e-6 it is 0.5559 in 3.6 s."""


class TuckerParams(Params):
    ranks: Literal["ratio", "energy", "vbmf"] = Field(
        "ratio", description="how ranks are chosen: a share of the channels, a share of the energy, or by VBMF"
    )
    rank_ratio: RankRatio = Field(1.0, description="ranks: ratio. Share of the channels to keep; 1 replaces nothing")
    energy: float = Field(
        0.9, ge=0.5, le=0.99, json_schema_extra={"step": 0.01}, description="ranks: energy. Squared norm to keep"
    )
    only_if_faster: bool = Field(True, description="keep a factorised layer only where the profile predicts a gain")


class Tucker(ModelTechnique[TuckerParams]):
    name = "tucker"
    params = TuckerParams
    saves = frozenset({"latency", "energy", "memory", "download"})
    summary = "Splits convolutions into 1 x 1, a thinner k x k and 1 x 1 by a Tucker-2 decomposition"
    source = "Kim et al. 2016; ranks by VBMF: Nakajima et al. 2013"

    def refuses(self, model: nn.Module) -> str | None:
        wide = any(isinstance(module, nn.Conv2d) and prod(module.kernel_size) > 1 for module in model.modules())
        return None if wide else "tucker splits 2-d convolutions wider than 1 x 1 and this network has none"

    def reach(self, model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> Reach:
        reason = self.refuses(model)
        if reason is not None:
            return Reach(reason, "layer")

        def thinnest(dense: Dense) -> Factorisation | str:
            if not dense.kernel or dense.is_pointwise:
                return "it has no kernel wider than 1 x 1"
            return _factorisation(dense, 1, 1)

        return factorisable(model, example_inputs, thinnest)

    def plan(self, model: nn.Module, params: TuckerParams, context: PlanContext) -> Plan:
        if _asks_nothing(params):
            return Plan(technique=self.name)

        def wanted(dense: Dense) -> tuple[float, float]:
            return wanted_ranks(weights_of(model.get_submodule(dense.name))[0], params)

        split = _splitter(wanted, context.profile.channel_multiple)
        return factorise(model, context, self.name, split, params.only_if_faster)

    def outline(self, sketch: Sketch, params: TuckerParams, context: PlanContext) -> Outline | None:
        """Ranks that are shares follow from shapes alone; energies and VBMF read the weights."""
        if _asks_nothing(params):
            return Outline(Plan(technique=self.name))
        if params.ranks != "ratio":
            return None

        def wanted(dense: Dense) -> tuple[float, float]:
            return params.rank_ratio * dense.out_channels, params.rank_ratio * dense.in_channels

        split = _splitter(wanted, context.profile.channel_multiple)
        return outlined(sketch, context, self.name, split, params.only_if_faster)

    def apply(self, model: nn.Module, plan: Plan) -> nn.Module:
        return apply_edits(model, plan.edits, _fill)


def _asks_nothing(params: TuckerParams) -> bool:
    return params.ranks == "ratio" and params.rank_ratio == 1.0


def _splitter(wanted: Callable[[Dense], tuple[float, float]], multiple: int) -> Callable[[Dense], Factorisation | None]:
    """wanted: ranks of the output and the input mode, before they are snapped to widths of the profile."""

    def split(dense: Dense) -> Factorisation | None:
        if not dense.kernel or dense.is_pointwise:
            return None
        wanted_out, wanted_in = wanted(dense)
        into = snap_rank(wanted_in, multiple, lambda rank: rank <= dense.in_channels) or dense.in_channels
        out = snap_rank(
            wanted_out,
            multiple,
            lambda rank: rank <= dense.out_channels and _factorisation(dense, rank, into).macs < dense.macs,
        )
        return None if out is None else _factorisation(dense, out, into)

    return split


def _factorisation(dense: Dense, out: int, into: int) -> Factorisation:
    layers = (
        LayerSpec(type="conv2d", in_channels=dense.in_channels, out_channels=into, kernel=(1, 1)),
        LayerSpec(
            type="conv2d", in_channels=into, out_channels=out, kernel=dense.kernel, stride=dense.stride,
            padding=dense.padding, dilation=dense.dilation,
        ),
        LayerSpec(type="conv2d", in_channels=out, out_channels=dense.out_channels, kernel=(1, 1), bias=dense.bias),
    )  # fmt: skip
    macs = (
        dense.in_channels * into * prod(dense.positions_in)
        + into * out * prod(dense.kernel) * prod(dense.positions_out)
        + out * dense.out_channels * prod(dense.positions_out)
    )
    return Factorisation(dense, (out, into), layers, macs)


def _fill(old: nn.Module, edit: ReplaceEdit, new: nn.Module) -> None:
    weight, bias = weights_of(old)
    core, outs, ins = tucker2(weight, edit.layers[1].out_channels, edit.layers[1].in_channels)
    write_factors(new, {0: ins.T, 1: core, 2: outs}, bias)


def tucker2(weight: torch.Tensor, rank_out: int, rank_in: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Core (rank_out, rank_in, *kernel), output factor (out, rank_out) and input factor (in, rank_in) of `weight`.

    Factors have orthonormal columns. Raises CompressionError (chained) where the decomposition does not converge.
    """
    if not bool(weight.any()):
        eye_out, eye_in = torch.eye(weight.shape[0])[:, :rank_out], torch.eye(weight.shape[1])[:, :rank_in]
        return torch.zeros(rank_out, rank_in, *weight.shape[2:]), eye_out, eye_in
    from tensorly.decomposition import partial_tucker

    try:
        (core, (outs, ins)), _ = partial_tucker(
            weight.numpy(), rank=[rank_out, rank_in], modes=[0, 1], n_iter_max=_ITERATIONS, tol=_TOLERANCE
        )
    except np.linalg.LinAlgError as error:
        raise CompressionError(f"Tensorly cannot decompose a weight of shape {tuple(weight.shape)}: {error}") from error
    return torch.from_numpy(np.array(core)), torch.from_numpy(np.array(outs)), torch.from_numpy(np.array(ins))


def wanted_ranks(weight: torch.Tensor, params: TuckerParams) -> tuple[float, float]:
    """Ranks of the output and the input mode, before they are snapped to widths of the profile."""
    found = []
    for mode in (0, 1):
        unfolded = weight.transpose(0, mode).flatten(1).numpy()
        if params.ranks == "ratio":
            found.append(params.rank_ratio * weight.shape[mode])
        elif params.ranks == "energy":
            found.append(float(energy_rank(unfolded, params.energy)))
        else:
            found.append(float(vbmf_rank(unfolded)))
    return found[0], found[1]


def energy_rank(matrix: np.ndarray, share: float) -> int:
    """Fewest singular values of `matrix` whose squares sum to `share` of all; at least 1."""
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    return int(np.searchsorted(np.cumsum(squares), share * squares.sum() * (1 - 1e-12)) + 1) if squares.any() else 1


def vbmf_rank(matrix: np.ndarray) -> int:
    """Rank of `matrix` (rows, columns) under the analytic empirical variational Bayesian solution; at least 1.

    The noise variance minimises the free energy on a grid of 1,000 values between the bounds of the paper.
    Source: Nakajima et al. 2013, JMLR 14; 2.5129 is their approximation of the threshold's constant.
    """
    rows, columns = sorted(matrix.shape)
    alpha = rows / columns
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    if not squares.any():
        return 1
    tau_low = 2.5129 * np.sqrt(alpha)
    x_low = (1 + tau_low) * (1 + alpha / tau_low)
    most = min(int(np.ceil(rows / (1 + alpha))) - 1, rows) - 1
    tail = squares[min(most + 1, rows - 1) :]
    upper = squares.sum() / (rows * columns)
    lower = max(tail[0] / (columns * x_low), tail.mean() / columns, upper * 1e-9)
    grid = np.geomspace(min(lower, upper), upper, 1000)
    noise = grid[int(np.argmin([_free_energy(squares / (columns * variance), alpha, x_low) for variance in grid]))]
    return max(1, int((squares > columns * noise * x_low).sum()))


def _free_energy(x: np.ndarray, alpha: float, x_low: float) -> float:
    """Free energy up to terms that do not depend on the noise variance; x: (rows,) scaled squared singular values."""
    signal, noise = x[x > x_low], x[x <= x_low]
    reach = signal - (1 + alpha)
    tau = 0.5 * (reach + np.sqrt(reach**2 - 4 * alpha))
    return float(
        (noise - np.log(np.maximum(noise, 1e-300))).sum()
        + (signal - tau).sum()
        + np.log((tau + 1) / signal).sum()
        + alpha * np.log(tau / alpha + 1).sum()
    )
