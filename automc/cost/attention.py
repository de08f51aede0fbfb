"""Attention as the exporter writes it: scaled products of queries, keys and values in plain operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

from automc.cost.functions import Arguments, Handler, Keywords, argument, linear, made
from automc.cost.recorder import Recorder
from automc.cost.shapes import broadcast


def attention(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    """Queries and keys are each scaled by the root of the scale, as the exporter does it against overflow."""
    query, key, value = (argument(args, kwargs, index, name) for index, name in enumerate(("query", "key", "value")))
    mask = argument(args, kwargs, 3, "attn_mask")
    causal, scale = argument(args, kwargs, 5, "is_causal", False), kwargs.get("scale")
    if not recorder.is_activation(query) or kwargs.get("enable_gqa", False):
        return None
    root = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    factor = recorder.literal([root], torch.float32)
    (scaled_query,) = recorder.node("Mul", [recorder.name(query), factor])
    length, depth = key.shape[-2:]
    (transposed,) = recorder.node("Reshape", [recorder.name(key), recorder.literal([-1, length, depth])])
    (transposed,) = recorder.node("Transpose", [transposed], perm=[0, 2, 1])
    swapped = recorder.literal([*key.shape[:-2], depth, length])
    (transposed,) = recorder.node("Reshape", [transposed, swapped])
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
    out = made((*batch, query.shape[-2], value.shape[-1]), query)
    recorder.emit("MatMul", [weights, recorder.name(value)], out)
    return out


_HEAD_ARGUMENTS = (
    "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v",
    "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias", "training", "key_padding_mask", "need_weights",
    "attn_mask", "use_separate_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "static_k", "static_v",
)  # fmt: skip
_PLAIN_WITHOUT = ("bias_k", "bias_v", "key_padding_mask", "attn_mask", "static_k", "static_v", "q_proj_weight")


def multi_head_attention(recorder: Recorder, args: Arguments, kwargs: Keywords) -> tuple[torch.Tensor, None] | None:
    """Self-attention of nn.MultiheadAttention without masks or returned weights, step by step as torch takes it.

    (length, batch, features); any other use is left to the operators torch makes of it.
    """
    given = {name: argument(args, kwargs, index, name) for index, name in enumerate(_HEAD_ARGUMENTS)}
    query = given["query"]
    plain = all(given[name] is None for name in _PLAIN_WITHOUT) and not given["add_zero_attn"]
    same = query is given["key"] and query is given["value"]
    if not (plain and same and recorder.is_activation(query) and query.dim() == 3 and given["need_weights"] is False):
        return None
    length, batch, features = query.shape
    heads = given["num_heads"]
    packed = made((length, batch, 3 * features), query)
    linear(recorder, query, given["in_proj_weight"], given["in_proj_bias"], packed)
    packed = packed.view(length, batch, 3, features).unsqueeze(0).transpose(0, -2).squeeze(-2).contiguous()
    parts = [packed[index].view(length, batch * heads, features // heads).transpose(0, 1) for index in range(3)]
    split = [part.view(batch, heads, length, features // heads) for part in parts]
    mixed = attention(recorder, split, {})
    if mixed is None:
        raise AssertionError("activations were given")
    rows = mixed.permute(2, 0, 1, 3).contiguous().view(length * batch, features)
    out = made((length * batch, features), query)
    linear(recorder, rows, given["out_proj_weight"], given["out_proj_bias"], out)
    return out.view(length, batch, features), None


ATTENTION: Mapping[Callable[..., Any], Handler] = {
    functional.scaled_dot_product_attention: attention,
    functional.multi_head_attention_forward: multi_head_attention,
}
