"""Torch functions that the exporter writes as operators of their own, but that dissolve when torch runs them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from automc.cost.recorder import Recorder
from automc.cost.shapes import broadcast

Arguments = Sequence[Any]
Keywords = Mapping[str, Any]
Handler = Callable[[Recorder, Arguments, Keywords], "torch.Tensor | None"]
"""Records the call and returns its result; None where it is left to the operators torch makes of it."""


def _argument(args: Arguments, kwargs: Keywords, index: int, name: str, default: object = None) -> Any:
    return args[index] if len(args) > index else kwargs.get(name, default)


def _made(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    return torch.empty(tuple(shape), dtype=like.dtype, device="meta")


def module_of(recorder: Recorder, weight: torch.Tensor) -> str:
    """Name of the module a weight belongs to; "" for one that is no parameter."""
    name = recorder.weight_name(weight)
    return name.rpartition(".")[0] if name else ""


def pair(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value) if len(value) == rank else tuple(value) * rank


def _convolution(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    data, weight = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "weight")
    bias = _argument(args, kwargs, 2, "bias")
    rank = weight.dim() - 2
    padding = _argument(args, kwargs, 4, "padding", 0)
    if not recorder.is_activation(data) or recorder.is_activation(weight) or data.dim() != weight.dim():
        return None
    if isinstance(padding, str):
        return None  # torch turns it into numbers, and into a Pad where both sides differ
    stride = pair(_argument(args, kwargs, 3, "stride", 1), rank)
    dilation = pair(_argument(args, kwargs, 5, "dilation", 1), rank)
    groups = _argument(args, kwargs, 6, "groups", 1)
    if data.shape[1] != weight.shape[1] * groups:
        return None  # torch says what is wrong
    padding = pair(padding, rank)
    spatial = [
        (data.shape[axis + 2] + 2 * padding[axis] - dilation[axis] * (weight.shape[axis + 2] - 1) - 1) // stride[axis]
        + 1
        for axis in range(rank)
    ]
    if min(spatial) < 1:
        return None
    out = _made((data.shape[0], weight.shape[0], *spatial), data)
    convolution(recorder, data, weight, bias, stride, padding, dilation, groups, out)
    return out


def convolution(
    recorder: Recorder,
    data: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    out: torch.Tensor,
) -> None:
    inputs = [recorder.name(data), recorder.name(weight)]
    if bias is not None:
        inputs.append(recorder.name(bias))
    recorder.emit(
        "Conv", inputs, out, module_of(recorder, weight), kernel_shape=list(weight.shape[2:]),
        strides=list(stride), pads=[*padding, *padding], dilations=list(dilation), group=groups,
    )  # fmt: skip


def _linear(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    data, weight = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "weight")
    bias = _argument(args, kwargs, 2, "bias")
    if not recorder.is_activation(data) or weight.dim() != 2 or data.shape[-1] != weight.shape[1]:
        return None
    out = _made((*data.shape[:-1], weight.shape[0]), data)
    linear(recorder, data, weight, bias, out)
    return out


def linear(
    recorder: Recorder, data: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor
) -> None:
    """As exported: a Gemm for a matrix with bias, else a MatMul by the transposed weight, and an Add."""
    name = module_of(recorder, weight)
    if data.dim() == 2 and bias is not None:
        inputs = [recorder.name(data), recorder.name(weight), recorder.name(bias)]
        recorder.emit("Gemm", inputs, out, name, transB=1)
        return
    if recorder.is_activation(weight):
        (columns,) = recorder.node("Transpose", [recorder.name(weight)], perm=[1, 0])
    else:
        columns = recorder.weight(f"{recorder.name(weight)}.T", (weight.shape[1], weight.shape[0]))
    if bias is None:
        recorder.emit("MatMul", [recorder.name(data), columns], out, name)
        return
    (product,) = recorder.node("MatMul", [recorder.name(data), columns], 1, name)
    recorder.emit("Add", [product, recorder.name(bias)], out)


def _batch_norm(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = {name: _argument(args, kwargs, index, name) for index, name in enumerate(names)}
    data, mean, variance = given["input"], given["running_mean"], given["running_var"]
    if not recorder.is_activation(data) or mean is None or variance is None or given["training"]:
        return None
    channels = data.shape[1]
    scale, shift = given["weight"], given["bias"]
    name = module_of(recorder, mean)
    inputs = [
        recorder.name(data),
        recorder.name(scale) if scale is not None else recorder.weight(f"{name}.unit_scale", (channels,)),
        recorder.name(shift) if shift is not None else recorder.weight(f"{name}.zero_shift", (channels,)),
        recorder.name(mean),
        recorder.name(variance),
    ]
    out = _made(data.shape, data)
    recorder.emit("BatchNormalization", inputs, out, name)
    return out


def _matmul(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    left, right = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "other")
    if not (recorder.is_activation(left) or recorder.is_activation(right)) or min(left.dim(), right.dim()) < 2:
        return None
    if left.shape[-1] != right.shape[-2]:
        return None
    batch = broadcast((tuple(left.shape[:-2]), tuple(right.shape[:-2]))) if max(left.dim(), right.dim()) > 2 else ()
    out = _made((*batch, left.shape[-2], right.shape[-1]), left)
    recorder.emit("MatMul", [recorder.name(left), recorder.name(right)], out)
    return out


def _attention(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    """Queries and keys are each scaled by the root of the scale, as the exporter does against overflow."""
    query, key, value = (_argument(args, kwargs, index, name) for index, name in enumerate(("query", "key", "value")))
    mask = _argument(args, kwargs, 3, "attn_mask")
    causal, scale = _argument(args, kwargs, 5, "is_causal", False), kwargs.get("scale")
    if not recorder.is_activation(query) or kwargs.get("enable_gqa", False):
        return None
    root = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    factor = recorder.literal([root], torch.float32)
    rank = key.dim()
    (scaled_query,) = recorder.node("Mul", [recorder.name(query), factor])
    perm = [*range(rank - 2), rank - 1, rank - 2]
    (transposed,) = recorder.node("Transpose", [recorder.name(key)], perm=perm)
    (scaled_key,) = recorder.node("Mul", [transposed, factor])
    (scores,) = recorder.node("MatMul", [scaled_query, scaled_key])
    if causal:
        additive = recorder.weight("causal_mask", (query.shape[-2], key.shape[-2]))
        (scores,) = recorder.node("Add", [scores, additive])
    elif mask is not None:
        if mask.dtype is torch.bool and recorder.is_activation(mask):
            zero, lowest = recorder.literal(0.0, torch.float32), recorder.literal(-math.inf, torch.float32)
            (additive,) = recorder.node("Where", [recorder.name(mask), zero, lowest])
        elif mask.dtype is torch.bool:
            additive = recorder.weight(f"additive_{recorder.name(mask)}", tuple(mask.shape))
        else:
            additive = recorder.name(mask)
        (scores,) = recorder.node("Add", [scores, additive])
    (weights,) = recorder.node("Softmax", [scores], axis=-1)
    batch = broadcast((tuple(query.shape[:-2]), tuple(value.shape[:-2])))
    out = _made((*batch, query.shape[-2], value.shape[-1]), query)
    recorder.emit("MatMul", [weights, recorder.name(value)], out)
    return out


def _dropout(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    """Nothing at inference; one that is told to stay on at inference is left to its random operators."""
    data = _argument(args, kwargs, 0, "input")
    return data if isinstance(data, torch.Tensor) and not _argument(args, kwargs, 2, "training", True) else None


FUNCTIONS: Mapping[Callable[..., Any], Handler] = {
    torch.conv1d: _convolution,
    torch.conv2d: _convolution,
    torch.conv3d: _convolution,
    functional.linear: _linear,
    functional.batch_norm: _batch_norm,
    torch.matmul: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.Tensor.__matmul__: _matmul,
    functional.scaled_dot_product_attention: _attention,
    functional.dropout: _dropout,
    functional.dropout1d: _dropout,
    functional.dropout2d: _dropout,
}
