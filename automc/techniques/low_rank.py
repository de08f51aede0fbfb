"""Splits linear layers and convolutions into two thinner ones by a truncated singular value decomposition.

Linear: W = (U sqrt S)(sqrt S V'), the best approximation of its rank in squared error (Eckart & Young 1936).
Convolution, scheme `channel`: k x k to `rank` channels, then 1 x 1 (Zhang et al. 2016, "Accelerating Very Deep
Convolutional Networks", without their data term); scheme `spatial`: k x 1 to `rank` channels, then 1 x k (Jaderberg
et al. 2014, "Speeding up Convolutional Neural Networks with Low Rank Expansions", scheme 2, in the closed form of Tai
et al. 2016). The bias stays on the last layer. A rank is a share of the one at which the two layers would cost as many
multiply-accumulates as the one they replace, so that equal shares save alike in every layer and scheme.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

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


class LowRankParams(Params):
    rank_ratio: RankRatio = Field(
        1.0, description="rank of every layer as a share of the rank that would save nothing; 1 replaces nothing"
    )
    scheme: Literal["channel", "spatial"] = Field(
        "channel", description="channel: k x k then 1 x 1; spatial: k x 1 then 1 x k (convolutions wider than 1 x 1)"
    )
    only_if_faster: bool = Field(True, description="keep a factorised layer only where the profile predicts a gain")


class LowRank(ModelTechnique[LowRankParams]):
    name = "low_rank"
    params = LowRankParams
    saves = frozenset({"latency", "energy", "memory", "download"})
    summary = "Splits layers into two thinner ones by a truncated singular value decomposition"
    source = "Eckart & Young 1936; Zhang et al. 2016 (channel); Jaderberg et al. 2014, Tai et al. 2016 (spatial)"

    def refuses(self, model: nn.Module) -> str | None:
        dense = any(isinstance(module, nn.Linear | nn.Conv2d) for module in model.modules())
        return None if dense else "low_rank splits linear layers and 2-d convolutions and this network has none"

    def reach(self, model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> Reach:
        reason = self.refuses(model)
        if reason is not None:
            return Reach(reason, "layer")
        return factorisable(model, example_inputs, lambda dense: _factorisation(dense, 1, spatial=False))

    def plan(self, model: nn.Module, params: LowRankParams, context: PlanContext) -> Plan:
        if params.rank_ratio == 1.0:
            return Plan(technique=self.name)
        split = _splitter(params, context.profile.channel_multiple)
        return factorise(model, context, self.name, split, params.only_if_faster)

    def outline(self, sketch: Sketch, params: LowRankParams, context: PlanContext) -> Outline | None:
        """Ranks follow from shapes alone."""
        if params.rank_ratio == 1.0:
            return Outline(Plan(technique=self.name))
        split = _splitter(params, context.profile.channel_multiple)
        return outlined(sketch, context, self.name, split, params.only_if_faster)

    def apply(self, model: nn.Module, plan: Plan) -> nn.Module:
        return apply_edits(model, plan.edits, _fill)


def _splitter(params: LowRankParams, multiple: int) -> Callable[[Dense], Factorisation | None]:
    def split(dense: Dense) -> Factorisation | None:
        spatial = params.scheme == "spatial" and not dense.is_pointwise and len(dense.kernel) == 2
        full = _full_rank(dense, spatial)
        break_even = dense.macs / _factorisation(dense, 1, spatial).macs
        rank = snap_rank(
            params.rank_ratio * min(full, break_even), multiple, lambda rank: rank <= full and rank < break_even
        )
        return None if rank is None else _factorisation(dense, rank, spatial)

    return split


def _full_rank(dense: Dense, spatial: bool) -> int:
    if spatial:
        return min(dense.in_channels * dense.kernel[0], dense.out_channels * dense.kernel[1])
    return min(dense.out_channels, dense.in_channels * prod(dense.kernel))


def _factorisation(dense: Dense, rank: int, spatial: bool) -> Factorisation:
    if not dense.kernel:
        first = LayerSpec(type="linear", in_channels=dense.in_channels, out_channels=rank)
        second = LayerSpec(type="linear", in_channels=rank, out_channels=dense.out_channels, bias=dense.bias)
        macs = rank * (dense.in_channels + dense.out_channels) * prod(dense.positions_out)
        return Factorisation(dense, (rank,), (first, second), macs)
    if spatial:
        (high, wide), (down, across) = dense.kernel, dense.stride
        first = LayerSpec(
            type="conv2d", in_channels=dense.in_channels, out_channels=rank, kernel=(high, 1), stride=(down, 1),
            padding=(dense.padding[0], 0), dilation=(dense.dilation[0], 1),
        )  # fmt: skip
        second = LayerSpec(
            type="conv2d", in_channels=rank, out_channels=dense.out_channels, kernel=(1, wide), stride=(1, across),
            padding=(0, dense.padding[1]), dilation=(1, dense.dilation[1]), bias=dense.bias,
        )  # fmt: skip
        between = dense.positions_out[0] * (dense.positions_in[1])  # rows are sampled already, columns not yet
        macs = rank * dense.in_channels * high * between + dense.out_channels * rank * wide * prod(dense.positions_out)
        return Factorisation(dense, (rank,), (first, second), macs)
    first = LayerSpec(
        type="conv2d", in_channels=dense.in_channels, out_channels=rank, kernel=dense.kernel, stride=dense.stride,
        padding=dense.padding, dilation=dense.dilation,
    )  # fmt: skip
    second = LayerSpec(type="conv2d", in_channels=rank, out_channels=dense.out_channels, kernel=(1, 1), bias=dense.bias)
    macs = rank * (dense.in_channels * prod(dense.kernel) + dense.out_channels) * prod(dense.positions_out)
    return Factorisation(dense, (rank,), (first, second), macs)


def _fill(old: nn.Module, edit: ReplaceEdit, new: nn.Module) -> None:
    weight, bias = weights_of(old)
    first = edit.layers[0]
    rank = first.out_channels
    if first.kernel and first.kernel != tuple(weight.shape[2:]):  # spatial: rows (in, high), columns (out, wide)
        outs, ins, high, wide = weight.shape
        left, right = truncated_svd(weight.permute(1, 2, 0, 3).reshape(ins * high, outs * wide), rank)
        down = left.reshape(ins, high, rank).permute(2, 0, 1)
        across = right.reshape(rank, outs, wide).permute(1, 0, 2)
        write_factors(new, {0: down, 1: across}, bias)
        return
    left, right = truncated_svd(weight.flatten(1), rank)
    write_factors(new, {0: right, 1: left}, bias)


def truncated_svd(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Left (rows, rank) and right (rank, columns) factor of the best approximation of `matrix` of that rank.

    Both carry the square root of the singular values; the largest entry of each left column is positive, so that the
    factors do not depend on the signs the solver happens to choose.
    """
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    u, s, vt = u[:, :rank], s[:rank].sqrt(), vt[:rank]
    sign = torch.sign(u.gather(0, u.abs().argmax(dim=0, keepdim=True))).squeeze(0)
    sign[sign == 0] = 1
    return u * (s * sign), vt * (s * sign)[:, None]
