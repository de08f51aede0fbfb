"""Torch functions that the exporter writes as operators of their own, but that dissolve when torch runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from automc.cost.recorder import Recorder
from automc.cost.shapes import broadcast
from automc.errors import UnseenOperatorError

Arguments = Sequence[Any]
Keywords = Mapping[str, Any]
Handler = Callable[[Recorder, Arguments, Keywords], "torch.Tensor | tuple[torch.Tensor, None] | None"]
"""Records the call and returns its result; None where it is left to the operators torch makes of it."""


def argument(args: Arguments, kwargs: Keywords, index: int, name: str, default: object = None) -> Any:
    return args[index] if len(args) > index else kwargs.get(name, default)


def made(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """A result on the meta device, of the type of `like`; no mode hears of it."""
    with torch._C._DisableTorchDispatch():
        return torch.empty(tuple(shape), dtype=like.dtype, device="meta")


def module_of(recorder: Recorder, weight: torch.Tensor) -> str:
    """Name of the module a weight belongs to; "" for one that is no parameter."""
    name = recorder.weight_name(weight)
    return name.rpartition(".")[0] if name else ""


def pair(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value) if len(value) == rank else tuple(value) * rank


def _convolution(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    data, weight = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "weight")
    bias = argument(args, kwargs, 2, "bias")
    rank = weight.dim() - 2
    padding = argument(args, kwargs, 4, "padding", 0)
    if not recorder.is_activation(data) or recorder.is_activation(weight) or data.dim() != weight.dim():
        return None
    if isinstance(padding, str):
        return None  # exported as the operators it dissolves into
    stride = pair(argument(args, kwargs, 3, "stride", 1), rank)
    dilation = pair(argument(args, kwargs, 5, "dilation", 1), rank)
    groups = argument(args, kwargs, 6, "groups", 1)
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
    out = made((data.shape[0], weight.shape[0], *spatial), data)
    shift = recorder.name(bias) if bias is not None else recorder.no_bias(weight.shape[0])
    convolution(recorder, data, weight, shift, stride, padding, dilation, groups, out)
    return out


def convolution(
    recorder: Recorder,
    data: torch.Tensor,
    weight: torch.Tensor,
    bias: str | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    out: torch.Tensor,
) -> None:
    module = module_of(recorder, weight)
    inputs = [recorder.name(data), recorder.name(weight), *([bias] if bias is not None else [])]
    recorder.emit(
        "Conv", inputs, out, module, kernel_shape=list(weight.shape[2:]),
        strides=list(stride), pads=[*padding, *padding], dilations=list(dilation), group=groups,
    )  # fmt: skip


def _linear(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    data, weight = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "weight")
    bias = argument(args, kwargs, 2, "bias")
    if not recorder.is_activation(data) or weight.dim() != 2 or data.shape[-1] != weight.shape[1]:
        return None
    out = made((*data.shape[:-1], weight.shape[0]), data)
    linear(recorder, data, weight, bias, out)
    return out


def linear(
    recorder: Recorder, data: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor
) -> None:
    """As exported: a Gemm for a matrix, else a MatMul by the transposed weight, and an Add."""
    name = module_of(recorder, weight)
    if data.dim() == 2:
        inputs = [recorder.name(item) for item in (data, weight, bias) if item is not None]
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
    given = {name: argument(args, kwargs, index, name) for index, name in enumerate(names)}
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
    out = made(data.shape, data)
    recorder.emit("BatchNormalization", inputs, out, name)
    return out


def _matmul(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    left, right = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "other")
    if not (recorder.is_activation(left) or recorder.is_activation(right)) or min(left.dim(), right.dim()) < 2:
        return None
    if left.shape[-1] != right.shape[-2]:
        return None
    batch = broadcast((tuple(left.shape[:-2]), tuple(right.shape[:-2]))) if max(left.dim(), right.dim()) > 2 else ()
    out = made((*batch, left.shape[-2], right.shape[-1]), left)
    recorder.emit("MatMul", [recorder.name(left), recorder.name(right)], out)
    return out


def _max_pool_1d(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    """One operator in the export; torch goes through a pool of two axes."""
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    data, *given = (argument(args, kwargs, index, name) for index, name in enumerate(names))
    if kwargs.get("return_indices") or data.dim() != 3 or not recorder.is_activation(data):
        return None
    kernel = _single(given[0])
    stride = _single(given[1]) if given[1] else kernel
    padding, dilation = _single(given[2] or 0), _single(given[3] or 1)
    span = data.shape[2] + 2 * padding - dilation * (kernel - 1) - 1
    length = span // stride + 1
    if given[4] and span % stride and length * stride < data.shape[2] + padding:
        length += 1
    out = made((*data.shape[:2], length), data)
    recorder.emit(
        "MaxPool", [recorder.name(data)], out, kernel_shape=[kernel], strides=[stride], pads=[padding, padding],
        dilations=[dilation], ceil_mode=int(bool(given[4])),
    )  # fmt: skip
    return out


def _single(value: int | Sequence[int]) -> int:
    return value if isinstance(value, int) else value[0]


def _dropout(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    """Nothing at inference; one that is told to stay on at inference is left to its random operators."""
    data = argument(args, kwargs, 0, "input")
    return data if isinstance(data, torch.Tensor) and not argument(args, kwargs, 2, "training", True) else None


def _recurrent(recorder: Recorder, args: Arguments, kwargs: Keywords) -> None:
    """One operator in the export, a loop of many here: no trace of it would tell its cost."""
    shapes = ", ".join(str(list(item.shape)) for item in args if isinstance(item, torch.Tensor))
    raise UnseenOperatorError(
        f"recurrent layer on {shapes}: it has no translation to ONNX in the cost model",
        next_step="export the network and predict the file",
    )


def _relu(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    """As torch's operator of it is recorded, without a way through its dispatcher. Not in place."""
    data = argument(args, kwargs, 0, "input")
    if argument(args, kwargs, 1, "inplace", False) or not _plain(recorder, data):
        return None
    out = made(data.shape, data)
    recorder.emit("Relu", [recorder.name(data)], out)
    return out


def _add(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    """As `_relu`, of two activations of one shape."""
    if kwargs or len(args) != 2 or not all(_plain(recorder, value) for value in args):
        return None
    left, right = args
    if left.shape != right.shape or left.dtype != right.dtype:
        return None
    out = made(left.shape, left)
    recorder.emit("Add", [recorder.name(left), recorder.name(right)], out)
    return out


def _mean_of_picture(recorder: Recorder, args: Arguments, kwargs: Keywords) -> torch.Tensor | None:
    """As `_relu`, of a pool that leaves one position: torch takes a mean, in an order of axes of its own."""
    data, size = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "output_size")
    if size not in (1, (1, 1), [1, 1]) or not _plain(recorder, data) or data.dim() != 4:
        return None
    out = made((*data.shape[:2], 1, 1), data)
    recorder.emit("ReduceMean", [recorder.name(data), recorder.literal([-1, -2])], out, keepdims=1)
    return out


def _plain(recorder: Recorder, value: object) -> bool:
    """Whether it is an activation of floats in order: what is made of it elementwise is one as well."""
    if not isinstance(value, torch.Tensor) or not recorder.is_activation(value):
        return False
    return value.is_floating_point() and value.is_contiguous()


FUNCTIONS: Mapping[Callable[..., Any], Handler] = {
    torch.conv1d: _convolution,
    torch.conv2d: _convolution,
    torch.conv3d: _convolution,
    functional.linear: _linear,
    functional.batch_norm: _batch_norm,
    functional.relu: _relu,
    torch.relu: _relu,
    torch.Tensor.relu: _relu,
    torch.add: _add,
    torch.Tensor.add: _add,
    torch.Tensor.__add__: _add,
    functional.adaptive_avg_pool2d: _mean_of_picture,
    torch.matmul: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.Tensor.__matmul__: _matmul,
    functional.max_pool1d: _max_pool_1d,
    torch.max_pool1d: _max_pool_1d,
    torch.lstm: _recurrent,
    torch.gru: _recurrent,
    torch.rnn_tanh: _recurrent,
    torch.rnn_relu: _recurrent,
    functional.dropout: _dropout,
    functional.dropout1d: _dropout,
    functional.dropout2d: _dropout,
}
