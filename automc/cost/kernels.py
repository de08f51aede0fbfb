"""Kernel rows: a graph as the runtime will execute it, one row per kernel, after fusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "int8"]
Layout = Literal["nchw", "nchwc", "nhwc"]


@dataclass(frozen=True)
class KernelRow:
    """One kernel. Shapes include the batch. macs: multiply-accumulates. bytes_*: as stored at this precision.

    op: kernel class as the runtime has it (Conv, Gemm, MatMul, Add, MaxPool, ReorderInput, QuantizeLinear, QLinearConv,
    QGemm, ...); a blocked or fused Conv is a Conv, `layout` and `fused` tell it apart.
    precision: int8 where an activation that the kernel reads or writes has 8 bits, so also at the borders.
    input_shapes: of the activations it reads, in order; weights, scales and biases are in bytes_weights alone.
    Shapes, macs and bytes are those of the kernel that runs: channels-last where layout is nhwc, channels padded to
    whole blocks where it is nchwc (a stem reads its unpadded, unblocked input: fewer channels than a block).
    bytes_in, bytes_out: 0 where the output is the input's memory (Reshape); bytes_weights: a Gather's whole
    table; without single numbers and shapes.
    fused: element-wise work done inside the kernel, in order (for example ("Add", "Relu")).
    kernel, stride, groups: of convolutions and pools; () and 1 elsewhere.
    runs: of weights that are dequantised on the way: stretches of one scale, an element each along the last axis.
    """

    name: str
    op: str
    precision: Precision
    layout: Layout
    input_shapes: tuple[tuple[int, ...], ...]
    output_shape: tuple[int, ...]
    macs: int
    bytes_in: int
    bytes_out: int
    bytes_weights: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    fused: tuple[str, ...] = ()
    runs: int = 0

    def signature(self) -> tuple[object, ...]:
        """Everything that cost depends on, without the name: equal signatures cost the same."""
        return (
            self.op, self.precision, self.layout, self.input_shapes, self.output_shape, self.macs, self.bytes_in,
            self.bytes_out, self.bytes_weights, self.kernel, self.stride, self.dilation, self.groups, self.fused,
            self.runs,
        )  # fmt: skip


@dataclass(frozen=True)
class KernelGraph:
    """All kernels of one network in execution order.

    weight_bytes: initialisers as the runtime holds them, padding included.
    peak_activation_bytes: largest sum of live activations at any kernel.
    """

    rows: tuple[KernelRow, ...]
    weight_bytes: int
    peak_activation_bytes: int

    @property
    def macs(self) -> int:
        return sum(row.macs for row in self.rows)
