"""Kernel rows of a network written in ncnn's text format (`.param`), under the names the same work has in ONNX.

Format: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure; what the numbered parameters of a layer
mean: ncnn's docs/developer-guide/operators.md. Only shapes are needed: no weights are read, and batch is always 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from automc.cost.kernels import KernelGraph, KernelRow
from automc.errors import PredictorError

Shape = tuple[int, ...]
"""Outermost axis first, without the batch: (channels, height, width), (rows, columns) or (elements,)."""

ABSENT = -233  # ncnn's "not given"; as a padding "as TensorFlow's SAME"
_SAME = (ABSENT, -234)


@dataclass(frozen=True)
class Layer:
    """One line of the file. numbers, lists: parameters by their number (a list's is -23300 less, as in the file)."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: Mapping[int, float]
    lists: Mapping[int, tuple[float, ...]]

    def int(self, key: int, default: int = 0) -> int:
        return int(self.numbers.get(key, default))


@dataclass(frozen=True)
class Made:
    """What a layer makes: shapes of its outputs, the kernels that run, and bytes of its weights are in these."""

    shapes: tuple[Shape, ...]
    rows: tuple[KernelRow, ...] = ()


def parse(text: str) -> list[Layer]:
    """The layers of a `.param` file. Raises PredictorError where it is none."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or lines[0].strip() != "7767517":
        raise PredictorError("not an ncnn .param file: it does not begin with 7767517", next_step="give the text form")
    layers = []
    for line in lines[2:]:
        kind, name, given, made, *rest = line.split()
        read, written = int(given), int(made)
        numbers: dict[int, float] = {}
        lists: dict[int, tuple[float, ...]] = {}
        for item in rest[read + written :]:
            key, _, value = item.partition("=")
            if int(key) <= -23300:
                lists[int(key)] = tuple(float(part) for part in value.split(",")[1:])
            else:
                numbers[int(key)] = float(value)
        layers.append(Layer(kind, name, tuple(rest[:read]), tuple(rest[read : read + written]), numbers, lists))
    return layers


def graph_from_param(text: str, input_shape: Shape | None = None) -> KernelGraph:
    """Kernels of the network. input_shape: (channels, height, width) where the file does not state it.

    Raises PredictorError (layer, kind) on a layer that is not known, or whose shape is not.
    """
    layers = parse(text)
    shapes: dict[str, Shape] = {}
    rows: list[KernelRow] = []
    for layer in layers:
        if layer.kind == "Input":
            told = tuple(layer.int(key) for key in (2, 1, 0) if layer.int(key) > 0)
            if not told and input_shape is None:
                raise PredictorError(f"input {layer.name!r} has no shape", next_step="state the shape of the input")
            shapes[layer.outputs[0]] = told or input_shape or ()
            continue
        make = _KINDS.get(layer.kind)
        if make is None:
            raise PredictorError(
                f"layer {layer.name!r} is a {layer.kind}, which has no counterpart in ONNX here",
                next_step="leave this network out of the table",
            )
        made = make(layer, [shapes[name] for name in layer.inputs])
        shapes.update(zip(layer.outputs, made.shapes, strict=True))
        rows.extend(made.rows)
    return KernelGraph(tuple(rows), sum(row.bytes_weights for row in rows), _peak_bytes(layers, shapes))


def stated_shapes(layer: Layer) -> tuple[Shape, ...]:
    """Shapes of the outputs as the file itself states them (its hint -23330); () where it does not."""
    hint = [int(value) for value in layer.lists.get(-23330, ())]
    return tuple(tuple(reversed(hint[at + 1 : at + 1 + hint[at]])) for at in range(0, len(hint), 4))


def _peak_bytes(layers: Sequence[Layer], shapes: Mapping[str, Shape]) -> int:
    """Largest sum of live activations at any layer; what Split and the layers that only reshape make is shared."""
    owner: dict[str, str] = {}
    last: dict[str, int] = {}
    for step, layer in enumerate(layers):
        for name in layer.inputs:
            last[owner[name]] = step
        for name in layer.outputs:
            shared = layer.kind in ("Split", "Flatten", "Reshape", "Noop") and bool(layer.inputs)
            owner[name] = owner[layer.inputs[0]] if shared else name
            last.setdefault(owner[name], step)
    live = peak = 0
    for step, layer in enumerate(layers):
        live += sum(4 * prod(shapes[name]) for name in layer.outputs if owner[name] == name)
        peak = max(peak, live)
        used = {owner[name] for name in (*layer.inputs, *layer.outputs)}
        live -= sum(4 * prod(shapes[name]) for name in used if last[name] == step)
    return peak


def _row(
    layer: Layer, op: str, inputs: Sequence[Shape], output: Shape, *, macs: int = 0, weights: int = 0,
    kernel: tuple[int, ...] = (), stride: tuple[int, ...] = (), groups: int = 1, view: bool = False,
    made: int | None = None,
) -> KernelRow:  # fmt: skip
    """One fp32 kernel in plain layout. weights: their number. made: elements written, where `output` is one of many."""
    return KernelRow(
        name=layer.name, op=op, precision="fp32", layout="nchw",
        input_shapes=tuple((1, *shape) for shape in inputs), output_shape=(1, *output), macs=macs,
        bytes_in=0 if view else 4 * sum(prod(shape) for shape in inputs),
        bytes_out=0 if view else 4 * (prod(output) if made is None else made),
        bytes_weights=4 * weights, kernel=kernel, stride=stride, dilation=(1,) * len(kernel), groups=groups,
        fused=_FUSED.get(layer.int(9), ()) if op in ("Conv", "Gemm") else (),
    )  # fmt: skip


_FUSED: Mapping[int, tuple[str, ...]] = {
    1: ("Relu",), 2: ("LeakyRelu",), 3: ("Clip",), 4: ("Sigmoid",), 5: ("Mish",), 6: ("HardSwish",),
}  # fmt: skip


def _convolution(layer: Layer, given: Sequence[Shape]) -> Made:
    if len(given[0]) == 1:  # on a vector it is a product
        return _inner_product(layer, given)
    channels, height, width = given[0]
    filters, groups = layer.int(0), layer.int(7, 1)
    across, down = layer.int(1), layer.int(11, layer.int(1))
    stride = (layer.int(13, layer.int(3, 1)), layer.int(3, 1))
    dilation = (layer.int(12, layer.int(2, 1)), layer.int(2, 1))
    left, top = layer.int(4), layer.int(14, layer.int(4))
    pads = (top, layer.int(16, top)), (left, layer.int(15, left))
    out = tuple(
        -(-extent // step) if pad[0] in _SAME else (extent + sum(pad) - spread * (reach - 1) - 1) // step + 1
        for extent, pad, reach, step, spread in zip(
            (height, width), pads, (down, across), stride, dilation, strict=True
        )
    )
    weights = filters * channels // groups * down * across
    shape = (filters, *out)
    return Made(
        (shape,),
        (
            _row(
                layer, "Conv", given, shape, macs=weights * prod(out), weights=weights + filters * layer.int(5),
                kernel=(down, across), stride=stride, groups=groups,
            ),
        ),
    )  # fmt: skip


def _deconvolution(layer: Layer, given: Sequence[Shape]) -> Made:
    channels, height, width = given[0]
    filters, groups = layer.int(0), layer.int(7, 1)
    reach, step, pad = layer.int(1), layer.int(3, 1), layer.int(4)
    out = tuple((extent - 1) * step + reach - 2 * pad for extent in (height, width))
    weights = filters * channels // groups * reach * reach
    row = _row(
        layer, "ConvTranspose", given, (filters, *out), macs=weights * height * width, weights=weights,
        kernel=(reach, reach), stride=(step, step), groups=groups,
    )  # fmt: skip
    return Made(((filters, *out),), (row,))


def _pooling(layer: Layer, given: Sequence[Shape]) -> Made:
    word = "Average" if layer.int(0) == 1 else "Max"
    channels, height, width = given[0]
    if layer.int(4):
        row = _row(layer, f"Global{word}Pool", given, (channels, 1, 1), kernel=(height, width), stride=(1, 1))
        return Made(((channels,),), (row,))
    reach = (layer.int(11, layer.int(1)), layer.int(1))
    step = (layer.int(12, layer.int(2, 1)), layer.int(2, 1))
    left, top = layer.int(3), layer.int(13, layer.int(3))
    pads = (top + layer.int(15, top), left + layer.int(14, left))
    mode = layer.int(5)
    out = []
    for extent, pad, size, stride in zip((height, width), pads, reach, step, strict=True):
        if mode in (2, 3):
            out.append(-(-extent // stride))
        else:
            span = extent + pad - size
            out.append((-(-span // stride) if mode == 0 else span // stride) + 1)
    shape = (channels, *out)
    return Made((shape,), (_row(layer, f"{word}Pool", given, shape, kernel=reach, stride=step),))


def _inner_product(layer: Layer, given: Sequence[Shape]) -> Made:
    count = layer.int(0)
    rows = given[0][0] if len(given[0]) == 2 else 1
    depth = prod(given[0]) // rows
    shape = (rows, count) if len(given[0]) == 2 else (count,)
    weights = count * depth
    return Made(
        (shape,), (_row(layer, "Gemm", given, shape, macs=rows * weights, weights=weights + count * layer.int(5, 1)),)
    )


def _gemm(layer: Layer, given: Sequence[Shape]) -> Made:
    depth, count = layer.int(9), layer.int(8)
    rows = prod(given[0]) // depth
    shape = (rows, count)
    return Made((shape,), (_row(layer, "Gemm", given[:1], shape, macs=rows * depth * count, weights=depth * count),))


def _attention(layer: Layer, given: Sequence[Shape]) -> Made:
    """As in ONNX: three products, scores, their softmax, the weighted sum, one more product."""
    width, heads = layer.int(0), layer.int(1)
    tokens = prod(given[0]) // width
    shape, scores = (tokens, width), (heads, tokens, tokens)
    across = (heads, tokens, width // heads)
    product = _row(layer, "Gemm", [shape], shape, macs=tokens * width * width, weights=width * width + width)
    return Made(
        (shape,),
        (
            product, product, product,
            _row(layer, "MatMul", [across, across], scores, macs=tokens * tokens * width),
            _row(layer, "Softmax", [scores], scores),
            _row(layer, "MatMul", [scores, across], across, macs=tokens * tokens * width),
            product,
        ),
    )  # fmt: skip


def _binary(layer: Layer, given: Sequence[Shape]) -> Made:
    shape = max(given, key=prod)
    names = ("Add", "Sub", "Mul", "Div") if layer.kind == "BinaryOp" else ("Mul", "Add", "Max")
    kind = layer.int(0)
    if kind >= len(names):
        raise PredictorError(f"layer {layer.name!r}: operation {kind} is unknown", next_step="leave the network out")
    return Made((shape,), (_row(layer, names[kind], given, shape),))


def _same(op: str) -> Callable[[Layer, Sequence[Shape]], Made]:
    return lambda layer, given: Made((given[0],), (_row(layer, op, given, given[0]),))


def _view(shape_of: Callable[[Layer, Shape], Shape]) -> Callable[[Layer, Sequence[Shape]], Made]:
    def make(layer: Layer, given: Sequence[Shape]) -> Made:
        shape = shape_of(layer, given[0])
        return Made((shape,), (_row(layer, "Reshape", given, shape, view=True),))

    return make


def _reshaped(layer: Layer, given: Shape) -> Shape:
    told = [layer.int(key, ABSENT) for key in (2, 1, 0)]
    kept = [extent for extent in told if extent != ABSENT]
    known = [given[-1 - at] if extent == 0 else extent for at, extent in enumerate(reversed(kept))][::-1]
    if -1 in known:
        rest = prod(given) // prod(extent for extent in known if extent != -1)
        known = [rest if extent == -1 else extent for extent in known]
    return tuple(known)


_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
"""Axes of a (channels, height, width) tensor that each `order_type` of Permute makes the new ones."""


def _permute(layer: Layer, given: Sequence[Shape]) -> Made:
    order = layer.int(0)
    if len(given[0]) == 2:
        shape = tuple(reversed(given[0])) if order == 1 else given[0]
    else:
        shape = tuple(given[0][axis] for axis in _ORDERS[order])
    return Made((shape,), (_row(layer, "Transpose", given, shape),))


def _concat(layer: Layer, given: Sequence[Shape]) -> Made:
    axis = layer.int(0) % max(len(shape) for shape in given)
    rank = max(len(shape) for shape in given)
    padded = [(1,) * (rank - len(shape)) + shape for shape in given]
    shape = tuple(sum(item[axis] for item in padded) if at == axis else padded[-1][at] for at in range(rank))
    return Made((shape,), (_row(layer, "Concat", given, shape),))


def _slice(layer: Layer, given: Sequence[Shape]) -> Made:
    axis = layer.int(1) % len(given[0])
    left, shapes = given[0][axis], []
    sizes = [int(size) for size in layer.lists[-23300]]
    for at, size in enumerate(sizes):
        extent = left // (len(sizes) - at) if size == ABSENT else size
        left -= extent
        shapes.append(tuple(extent if place == axis else old for place, old in enumerate(given[0])))
    row = _row(layer, "Split", given, shapes[0], made=sum(prod(shape) for shape in shapes))
    return Made(tuple(shapes), (row,))


def _crop(layer: Layer, given: Sequence[Shape]) -> Made:
    if -23309 not in layer.lists:
        told = stated_shapes(layer)
        if not told:
            raise PredictorError(f"layer {layer.name!r}: a crop of no stated shape", next_step="leave the network out")
        return Made(told, (_row(layer, "Slice", given, told[0]),))
    shape = list(given[0])
    starts, ends, axes = ([int(value) for value in layer.lists[key]] for key in (-23309, -23310, -23311))
    for start, end, axis in zip(starts, ends, axes, strict=True):
        until = given[0][axis] if end == ABSENT else min(end, given[0][axis])
        shape[axis] = (until if until >= 0 else until + given[0][axis]) - start
    return Made((tuple(shape),), (_row(layer, "Slice", given, tuple(shape)),))


def _reduction(layer: Layer, given: Sequence[Shape]) -> Made:
    axes = {int(axis) % len(given[0]) for axis in layer.lists.get(-23303, ())} or set(range(len(given[0])))
    kept = [1 if at in axes else extent for at, extent in enumerate(given[0])]
    shape = tuple(kept) if layer.int(4) else tuple(e for at, e in enumerate(kept) if at not in axes) or (1,)
    return Made((shape,), (_row(layer, "ReduceMean", given, shape),))


def _padding(layer: Layer, given: Sequence[Shape]) -> Made:
    channels, height, width = given[0]
    shape = (
        channels + layer.int(7) + layer.int(8),
        height + layer.int(0) + layer.int(1),
        width + layer.int(2) + layer.int(3),
    )
    return Made((shape,), (_row(layer, "Pad", given, shape),))


def _interpolation(layer: Layer, given: Sequence[Shape]) -> Made:
    channels, height, width = given[0]
    down = layer.int(3) or int(height * layer.numbers.get(1, 1.0))
    across = layer.int(4) or int(width * layer.numbers.get(2, 1.0))
    return Made(((channels, down, across),), (_row(layer, "Resize", given, (channels, down, across)),))


def _split(layer: Layer, given: Sequence[Shape]) -> Made:
    return Made((given[0],) * len(layer.outputs))


def _data(layer: Layer, given: Sequence[Shape]) -> Made:
    return Made((tuple(layer.int(key) for key in (2, 1, 0) if layer.int(key) > 0),))


def _detection(layer: Layer, given: Sequence[Shape]) -> Made:
    """Boxes from feature maps, on the CPU: no ONNX operator does this, so it is a class of its own."""
    stated = stated_shapes(layer) or (given[0],)
    return Made(stated, (_row(layer, "Detection", given, stated[0]),))


_KINDS: Mapping[str, Callable[[Layer, Sequence[Shape]], Made]] = {
    "Convolution": _convolution, "ConvolutionDepthWise": _convolution, "DeconvolutionDepthWise": _deconvolution,
    "Pooling": _pooling, "InnerProduct": _inner_product, "Gemm": _gemm, "MultiHeadAttention": _attention,
    "BinaryOp": _binary, "Eltwise": _binary, "Concat": _concat, "Slice": _slice, "Crop": _crop,
    "Permute": _permute, "ShuffleChannel": _same("Transpose"), "Reduction": _reduction, "Padding": _padding,
    "Interp": _interpolation, "Split": _split, "MemoryData": _data,
    "Flatten": _view(lambda layer, given: (prod(given),)), "Reshape": _view(_reshaped),
    "Noop": lambda layer, given: Made((given[0],) * len(layer.outputs)),
    "ReLU": _same("Relu"), "Swish": _same("QuickGelu"), "HardSwish": _same("HardSwish"),
    "HardSigmoid": _same("HardSigmoid"), "Sigmoid": _same("Sigmoid"), "GELU": _same("Gelu"),
    "Softmax": _same("Softmax"), "LayerNorm": _same("LayerNormalization"), "LRN": _same("LRN"),
    "BatchNorm": _same("BatchNormalization"),
    "PriorBox": _detection, "DetectionOutput": _detection, "YoloDetectionOutput": _detection,
    "Yolov3DetectionOutput": _detection,
}  # fmt: skip
