"""From aten operators to ONNX operators, in the form the exporter gives them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from automc.cost.functions import convolution, linear, pair
from automc.cost.recorder import ONNX_TYPES, AttributeValue, Recorder
from automc.errors import UnseenOperatorError

Arguments = Sequence[Any]
Handler = Callable[[Recorder, Arguments, Mapping[str, Any], Any], None]


def record_call(
    recorder: Recorder, func: torch._ops.OpOverload, args: Arguments, kwargs: Mapping[str, Any], result: Any
) -> None:
    """Writes down one executed operator. Raises UnseenOperatorError (operator, shapes) where none corresponds."""
    name = func.overloadpacket.__name__
    inplace = name.endswith("_") and not name.startswith("_")
    handler = _HANDLERS.get(name.rstrip("_") if inplace else name)
    if handler is None:
        raise unseen(func, args)
    handler(recorder, args, kwargs, result)
    if inplace:
        recorder.written(result, name)
    elif name in _VIEWS:
        for view in result if isinstance(result, list | tuple) else (result,):
            recorder.view(view, args[0])


def quick_result(func: torch._ops.OpOverload, args: Arguments) -> torch.Tensor | None:
    """The result of a plain element-wise operator by its shape alone; None where torch has to work it out.

    Torch's own shape functions for these cost 0.2 ms a call, half of a trace.
    """
    name = func.overloadpacket.__name__
    inplace = name.endswith("_")
    if name.rstrip("_") not in _PLAIN:
        return None
    first = args[0]
    for other in args[1:2]:
        if isinstance(other, torch.Tensor) and (other.shape != first.shape or other.dtype != first.dtype):
            return None
    if not isinstance(first, torch.Tensor) or not first.is_floating_point():
        return None
    if inplace:
        return first
    return torch.empty(first.shape, dtype=first.dtype, device="meta") if first.is_contiguous() else None


def unseen(func: torch._ops.OpOverload, args: Arguments) -> UnseenOperatorError:
    shapes = ", ".join(str(list(item.shape)) for item in args if isinstance(item, torch.Tensor))
    return UnseenOperatorError(
        f"operator {func} on {shapes or 'no tensor'} has no translation to ONNX in the cost model",
        next_step="rewrite the network with operators that `automc predict` knows, or export it and predict the file",
    )


def _unary(op: str, **attributes: AttributeValue) -> Handler:
    def record(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
        recorder.emit(op, [recorder.name(args[0])], result, **attributes)

    return record


def _operand(recorder: Recorder, value: Any, dtype: torch.dtype) -> str:
    if isinstance(value, torch.Tensor):
        return recorder.name(value)
    return recorder.literal(float(value) if dtype.is_floating_point else int(value), dtype)


def _binary(op: str) -> Handler:
    def record(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
        dtype = next(item.dtype for item in args if isinstance(item, torch.Tensor))
        left, right = _operand(recorder, args[0], dtype), _operand(recorder, args[1], dtype)
        alpha = kwargs.get("alpha", 1)
        if alpha != 1:
            (right,) = recorder.node("Mul", [right, _operand(recorder, alpha, dtype)])
        recorder.emit(op, [left, right], result)

    return record


def _reversed_subtraction(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    recorder.emit("Sub", [_operand(recorder, args[1], args[0].dtype), recorder.name(args[0])], result)


def _same(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    recorder.same(result, args[0])


def _as_strided(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    """Another order in memory of the same extents holds what it held; a graph knows no order in memory."""
    if tuple(args[1]) != tuple(result.shape) or tuple(result.shape) != tuple(args[0].shape):
        raise unseen(torch.ops.aten.as_strided.default, args)


def _reciprocal_root(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    (root,) = recorder.node("Sqrt", [recorder.name(args[0])])
    recorder.emit("Reciprocal", [root], result)


def _cast(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    if result.dtype == args[0].dtype:
        recorder.same(result, args[0])
    else:
        recorder.emit("Cast", [recorder.name(args[0])], result, to=ONNX_TYPES[result.dtype])


def _clip(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    low = args[1] if len(args) > 1 else kwargs.get("min_val", kwargs.get("min"))
    high = args[2] if len(args) > 2 else kwargs.get("max_val", kwargs.get("max"))
    bounds = ["" if bound is None else _operand(recorder, bound, args[0].dtype) for bound in (low, high)]
    recorder.emit("Clip", [recorder.name(args[0]), *bounds], result)


def _hardtanh(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    bounds = (*args[1:3], *(-1.0, 1.0)[len(args[1:3]) :])
    _clip(recorder, (args[0], *bounds), {}, result)


def _silu(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    data = recorder.name(args[0])
    (gate,) = recorder.node("Sigmoid", [data])
    recorder.emit("Mul", [data, gate], result)


def _gelu(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    recorder.emit("Gelu", [recorder.name(args[0])], result, approximate=kwargs.get("approximate", "none"))


def _leaky_relu(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    slope = args[1] if len(args) > 1 else 0.01
    recorder.emit("LeakyRelu", [recorder.name(args[0])], result, alpha=float(slope))


def _prelu(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    recorder.emit("PRelu", [recorder.name(args[0]), recorder.name(args[1])], result)


def _elu(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    recorder.emit("Elu", [recorder.name(args[0])], result, alpha=float(args[1] if len(args) > 1 else 1.0))


def _softmax(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    recorder.emit("Softmax", [recorder.name(args[0])], result, axis=int(args[1]))


def _convolution(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    data, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args[:9]
    rank = weight.dim() - 2
    if not transposed:
        shift = None if bias is None else recorder.name(bias)
        convolution(
            recorder, data, weight, shift, pair(stride, rank), pair(padding, rank), pair(dilation, rank), groups, result
        )
        return
    pads = pair(padding, rank)
    inputs = [recorder.name(item) for item in (data, weight, bias) if item is not None]
    recorder.emit(
        "ConvTranspose", inputs, result, kernel_shape=list(weight.shape[2:]), strides=list(pair(stride, rank)),
        pads=[*pads, *pads], dilations=list(pair(dilation, rank)), group=groups,
        output_padding=list(pair(output_padding, rank)),
    )  # fmt: skip


def _addmm(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    if kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1:
        raise unseen(torch.ops.aten.addmm.default, args)
    bias, left, right = args
    recorder.emit("Gemm", [recorder.name(left), recorder.name(right), recorder.name(bias)], result)


def _linear(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    linear(recorder, args[0], args[1], args[2] if len(args) > 2 else None, result)


def _layer_norm(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    data, normalised, scale, shift, epsilon = args
    given = [
        recorder.name(item) if item is not None else recorder.literal([fill] * normalised[-1], torch.float32)
        for item, fill in ((scale, 1.0), (shift, 0.0))
    ]
    recorder.emit(
        "LayerNormalization", [recorder.name(data), *given], result[0], axis=-len(normalised), epsilon=float(epsilon)
    )


def _embedding(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    recorder.emit("Gather", [recorder.name(args[0]), recorder.name(args[1])], result, axis=0)


def _pool_attributes(args: Arguments, rank: int) -> dict[str, AttributeValue]:
    kernel = pair(args[1], rank)
    stride = pair(args[2], rank) if len(args) > 2 and args[2] else kernel
    padding = pair(args[3], rank) if len(args) > 3 else (0,) * rank
    return {"kernel_shape": list(kernel), "strides": list(stride), "pads": [*padding, *padding]}


def _max_pool(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    rank = args[0].dim() - 2
    dilation = pair(args[4], rank) if len(args) > 4 else (1,) * rank
    recorder.emit(
        "MaxPool", [recorder.name(args[0])], result[0], ceil_mode=int(len(args) > 5 and args[5]),
        dilations=list(dilation), **_pool_attributes(args, rank),
    )  # fmt: skip


def _average_pool(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    if len(args) > 6 and args[6] is not None:
        raise unseen(torch.ops.aten.avg_pool2d.default, args)
    recorder.emit(
        "AveragePool", [recorder.name(args[0])], result, ceil_mode=int(len(args) > 4 and args[4]),
        count_include_pad=int(args[5] if len(args) > 5 else True), **_pool_attributes(args, args[0].dim() - 2),
    )  # fmt: skip


def _adaptive_pool(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    """Where the windows are all alike it is a plain pool; else ONNX has no operator for it."""
    extents, target = tuple(args[0].shape[2:]), tuple(result.shape[2:])
    if any(extent % count for extent, count in zip(extents, target, strict=True)):
        raise unseen(torch.ops.aten._adaptive_avg_pool2d.default, args)
    kernel = [extent // count for extent, count in zip(extents, target, strict=True)]
    recorder.emit(
        "AveragePool", [recorder.name(args[0])], result, kernel_shape=kernel, strides=kernel, pads=[0] * 2 * len(kernel)
    )


def _adaptive_max_pool(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    if any(extent != 1 for extent in result[0].shape[2:]):
        raise unseen(torch.ops.aten.adaptive_max_pool2d.default, args)
    axes = recorder.literal(list(range(2, args[0].dim())))
    recorder.emit("ReduceMax", [recorder.name(args[0]), axes], result[0], keepdims=1)


def _group_norm(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    """Each group becomes a channel of an instance normalisation; scale and shift follow per true channel."""
    data, scale, shift, groups = args[0], args[1], args[2], args[6]
    unit, zero = recorder.weight(f"unit_{groups}", (groups,)), recorder.weight(f"zero_{groups}", (groups,))
    (value,) = recorder.node("Reshape", [recorder.name(data), recorder.literal([0, groups, -1])])
    (value,) = recorder.node("InstanceNormalization", [value, unit, zero], epsilon=float(args[7]))
    (value,) = recorder.node("Reshape", [value, recorder.literal(list(data.shape))])
    for op, factor in (("Mul", scale), ("Add", shift)):
        if factor is not None:
            columns = (factor.shape[0], *(1,) * (data.dim() - 2))
            (value,) = recorder.node(op, [value, recorder.weight(f"{recorder.name(factor)}.column", columns)])
    recorder.declare(result[0], value)


def _reduce(op: str) -> Handler:
    def record(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
        axes = args[1] if len(args) > 1 else None
        keep = int(args[2] if len(args) > 2 else kwargs.get("keepdim", False))
        if axes is None or axes == []:
            axes = list(range(args[0].dim()))
        listed = [axes] if isinstance(axes, int) else list(axes)
        recorder.emit(op, [recorder.name(args[0]), recorder.literal(listed)], result, keepdims=keep)

    return record


def _reshape(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    if result.shape == args[0].shape:
        recorder.same(result, args[0])
        return
    recorder.emit("Reshape", [recorder.name(args[0]), recorder.literal(list(result.shape))], result, allowzero=1)


def _expand(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    if result.shape == args[0].shape:
        recorder.same(result, args[0])
        return
    recorder.emit("Expand", [recorder.name(args[0]), recorder.literal(list(result.shape))], result)


def _permute(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    rank = args[0].dim()
    recorder.emit("Transpose", [recorder.name(args[0])], result, perm=[int(axis) % rank for axis in args[1]])


def _transpose(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    rank = args[0].dim()
    first, second = (args[1] % rank, args[2] % rank) if len(args) > 2 else (0, rank - 1)
    perm = list(range(rank))
    perm[first], perm[second] = perm[second], perm[first]
    recorder.emit("Transpose", [recorder.name(args[0])], result, perm=perm)


def _slice(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    if result.shape == args[0].shape:
        recorder.same(result, args[0])
        return
    axis = args[1] if len(args) > 1 else 0
    start = args[2] if len(args) > 2 and args[2] is not None else 0
    end = args[3] if len(args) > 3 and args[3] is not None else sys.maxsize
    step = args[4] if len(args) > 4 else 1
    inputs = [recorder.name(args[0]), *(recorder.literal([int(value)]) for value in (start, end, axis, step))]
    recorder.emit("Slice", inputs, result)


def _select(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    index = recorder.literal(int(args[2]))
    recorder.emit("Gather", [recorder.name(args[0]), index], result, axis=int(args[1]))


def _split(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    axis = int(args[2]) if len(args) > 2 else int(kwargs.get("dim", 0))
    sizes = [int(part.shape[axis]) for part in result]
    recorder.emit("Split", [recorder.name(args[0]), recorder.literal(sizes)], list(result), axis=axis)


def _unbind(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    axis = int(args[1]) if len(args) > 1 else 0
    axes = recorder.literal([axis])
    for index, part in enumerate(result):
        bounds = [recorder.literal([index]), recorder.literal([index + 1])]
        (slab,) = recorder.node("Slice", [recorder.name(args[0]), *bounds, axes])
        recorder.emit("Squeeze", [slab, axes], part)


def _concatenate(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    axis = int(args[1]) if len(args) > 1 else int(kwargs.get("dim", 0))
    parts = [item for item in args[0] if tuple(item.shape) != (0,)]  # torch takes one of no values for nothing
    recorder.emit("Concat", [recorder.name(item) for item in parts], result, axis=axis)


def _roll(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    """Along each axis the end is put in front of the beginning."""
    shifts, axes = ([item] if isinstance(item, int) else list(item) for item in args[1:3])
    if not axes:  # of the flattened tensor
        raise unseen(torch.ops.aten.roll.default, args)
    value = recorder.name(args[0])
    for shift, axis in zip(shifts, axes, strict=True):
        at = -shift % args[0].shape[axis]
        bounds = ((at, sys.maxsize), (0, at))
        given = [[recorder.literal([number]) for number in (*pair_, axis, 1)] for pair_ in bounds]
        parts = [recorder.node("Slice", [value, *inputs])[0] for inputs in given]
        (value,) = recorder.node("Concat", parts, axis=axis)
    recorder.declare(result, value)


def _stack(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    axis = int(args[1]) if len(args) > 1 else int(kwargs.get("dim", 0))
    axes = recorder.literal([axis])
    parts = [recorder.node("Unsqueeze", [recorder.name(item), axes])[0] for item in args[0]]
    recorder.emit("Concat", parts, result, axis=axis)


def _unsqueeze(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    recorder.emit("Unsqueeze", [recorder.name(args[0]), recorder.literal([int(args[1])])], result)


def _squeeze(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    if result.shape == args[0].shape:
        recorder.same(result, args[0])
        return
    shape, rank = args[0].shape, args[0].dim()
    asked = range(rank) if len(args) < 2 else [args[1]] if isinstance(args[1], int) else args[1]
    axes = [axis % rank for axis in asked if shape[axis] == 1]
    recorder.emit("Squeeze", [recorder.name(args[0]), recorder.literal(axes)], result)


def _pad(mode: str) -> Handler:
    def record(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
        inputs = [recorder.name(args[0]), _pads(recorder, args)]
        value = float(args[2]) if len(args) > 2 else 0.0
        if value != 0.0:
            inputs.append(recorder.literal(value, args[0].dtype))
        recorder.emit("Pad", inputs, result, mode=mode)

    return record


def _pads(recorder: Recorder, args: Arguments) -> str:
    """Torch counts from the last axis, two numbers an axis; ONNX lists all starts, then all ends."""
    rank = args[0].dim()
    starts, ends = [0] * rank, [0] * rank
    for index in range(len(args[1]) // 2):
        starts[rank - 1 - index], ends[rank - 1 - index] = args[1][2 * index], args[1][2 * index + 1]
    return recorder.literal([*starts, *ends])


def _where(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    chosen = [_operand(recorder, item, result.dtype) for item in args[1:3]]
    recorder.emit("Where", [recorder.name(args[0]), *chosen], result)


def _zeros(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    recorder.zeros(result)  # of the shape of an activation, which is fixed: a constant


def _masked_fill(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
    filling = _operand(recorder, args[2], result.dtype)
    recorder.emit("Where", [recorder.name(args[1]), filling, recorder.name(args[0])], result)


def _resize(mode: str) -> Handler:
    """By factors where the network gives them, else to a size: as exported."""

    def record(recorder: Recorder, args: Arguments, kwargs: Mapping[str, Any], result: Any) -> None:
        aligned = mode == "linear" and bool(args[2])
        factors = [factor for factor in args[3 if mode == "linear" else 2 :] if factor is not None]
        given = ["", recorder.literal([1.0, 1.0, *factors], torch.float32)] if factors else ["", "", ""]
        if not factors:
            given[2] = recorder.literal(list(result.shape))
        transform = "align_corners" if aligned else "asymmetric" if mode == "nearest" else "pytorch_half_pixel"
        recorder.emit(
            "Resize", [recorder.name(args[0]), *given], result, mode=mode,
            coordinate_transformation_mode=transform, nearest_mode="floor",
        )  # fmt: skip

    return record


_VIEWS = frozenset({
    "view", "_unsafe_view", "reshape", "expand", "permute", "transpose", "t", "slice", "select", "split",
    "split_with_sizes", "unsqueeze", "squeeze", "alias", "detach", "unbind", "chunk",
})  # fmt: skip

_PLAIN = frozenset({
    "relu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "hardtanh", "silu", "gelu", "leaky_relu", "elu", "add",
    "sub", "mul", "div",
})  # fmt: skip
"""Element-wise operators whose result has the shape and type of their first operand, if the second has them too."""

_HANDLERS: Mapping[str, Handler] = {
    "relu": _unary("Relu"), "sigmoid": _unary("Sigmoid"), "tanh": _unary("Tanh"), "erf": _unary("Erf"),
    "exp": _unary("Exp"), "log": _unary("Log"), "sqrt": _unary("Sqrt"), "neg": _unary("Neg"), "abs": _unary("Abs"),
    "reciprocal": _unary("Reciprocal"), "softplus": _unary("Softplus"), "hardswish": _unary("HardSwish"),
    "floor": _unary("Floor"), "round": _unary("Round"), "logical_not": _unary("Not"), "bitwise_not": _unary("Not"),
    "hardsigmoid": _unary("HardSigmoid", alpha=1 / 6, beta=0.5), "mish": _unary("Mish"),
    "silu": _silu, "gelu": _gelu, "hardtanh": _hardtanh, "clamp": _clip, "clamp_min": _clip,
    "leaky_relu": _leaky_relu, "elu": _elu, "_prelu_kernel": _prelu, "_softmax": _softmax, "softmax": _softmax,
    "_safe_softmax": _softmax,
    "add": _binary("Add"), "sub": _binary("Sub"), "mul": _binary("Mul"), "div": _binary("Div"), "pow": _binary("Pow"),
    "maximum": _binary("Max"), "minimum": _binary("Min"), "rsub": _reversed_subtraction, "eq": _binary("Equal"),
    "gt": _binary("Greater"), "ge": _binary("GreaterOrEqual"), "lt": _binary("Less"), "le": _binary("LessOrEqual"),
    "logical_and": _binary("And"), "bitwise_and": _binary("And"), "where": _where, "masked_fill": _masked_fill,
    "convolution": _convolution, "linear": _linear, "addmm": _addmm, "mm": _binary("MatMul"), "bmm": _binary("MatMul"),
    "native_layer_norm": _layer_norm, "native_group_norm": _group_norm, "embedding": _embedding,
    "max_pool2d_with_indices": _max_pool, "max_pool3d_with_indices": _max_pool,
    "avg_pool1d": _average_pool, "avg_pool2d": _average_pool, "avg_pool3d": _average_pool,
    "adaptive_max_pool2d": _adaptive_max_pool, "_adaptive_avg_pool2d": _adaptive_pool,
    "_adaptive_avg_pool3d": _adaptive_pool,
    "mean": _reduce("ReduceMean"), "sum": _reduce("ReduceSum"), "amax": _reduce("ReduceMax"),
    "amin": _reduce("ReduceMin"), "prod": _reduce("ReduceProd"),
    "view": _reshape, "_unsafe_view": _reshape, "reshape": _reshape, "_reshape_copy": _reshape, "expand": _expand,
    "permute": _permute, "transpose": _transpose, "t": _transpose, "slice": _slice, "select": _select,
    "split": _split, "unsafe_split": _split, "rsqrt": _reciprocal_root, "as_strided": _as_strided,
    "split_with_sizes": _split, "unbind": _unbind, "cat": _concatenate, "stack": _stack, "roll": _roll,
    "unsqueeze": _unsqueeze, "squeeze": _squeeze, "constant_pad_nd": _pad("constant"),
    "reflection_pad1d": _pad("reflect"), "reflection_pad2d": _pad("reflect"), "replication_pad2d": _pad("edge"),
    "zeros_like": _zeros, "new_zeros": _zeros,
    "clone": _same, "alias": _same, "detach": _same,
    "lift_fresh": _same, "_to_copy": _cast, "upsample_nearest2d": _resize("nearest"),
    "upsample_bilinear2d": _resize("linear"),
}  # fmt: skip
