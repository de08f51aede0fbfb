"""Makes torch's dynamo exporter faster for networks it can translate as they were traced.

Two thirds of an export's time go into building the exporter's function table anew and into tracing the network a
second time to decompose it. The table is the same every time; and a network whose operators all have an ONNX
translation, none of them in place, has nothing to decompose. Any other network takes the exporter's usual way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import torch
    from onnxscript import FLOAT, INT64
    from torch.onnx._internal.exporter import _registration

OPSET = 20
"""What the dynamo exporter's function library is written for; lower ones are converted down, with losses."""

DIRECT = frozenset({
    "aten.adaptive_avg_pool2d.default", "aten.add.Tensor", "aten.avg_pool2d.default", "aten.batch_norm.default",
    "aten.cat.default", "aten.conv2d.default", "aten.hardtanh.default", "aten.linear.default",
    "aten.max_pool2d.default", "aten.mean.dim", "aten.mul.Tensor", "aten.pad.default", "aten.prelu.default",
    "aten.relu.default", "aten.relu6.default", "aten.sigmoid.default", "aten.slice.Tensor", "aten.flatten.using_ints",
})  # fmt: skip
"""Functional operators whose translation without decomposition a test holds against the one with it."""


@contextlib.contextmanager
def shortcuts() -> Iterator[None]:
    """Within it, `torch.onnx.export` shares one function table and skips the second trace where `DIRECT` covers all.

    Not for concurrent exports in threads of one process: it replaces two functions of torch for its duration.
    """
    import torch
    from torch.onnx._internal.exporter import _registration

    program, registry = torch.export.ExportedProgram, _registration.ONNXRegistry
    decompose, build = program.run_decompositions, registry.__dict__["from_torchlib"]

    def shared_table(opset_version: int) -> _registration.ONNXRegistry:
        made = registry()
        made._opset_version = opset_version
        made.functions = {key: list(found) for key, found in _functions(opset_version).items()}
        return made

    def decompose_if_needed(
        self: torch.export.ExportedProgram, table: dict[torch._ops.OperatorBase, Callable[..., object]] | None = None
    ) -> torch.export.ExportedProgram:
        if is_direct(self):
            return self
        # The exporter left out what it has a translation for; ours hold for direct networks only.
        ours = translations()
        usual = {op: rule for op, rule in torch.export.default_decompositions().items() if op in ours}  # type: ignore[no-untyped-call]
        decomposed: torch.export.ExportedProgram = decompose(self, {**(table or {}), **usual})
        return decomposed

    _functions(OPSET)
    program.run_decompositions = decompose_if_needed  # type: ignore[method-assign]
    registry.from_torchlib = staticmethod(shared_table)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        program.run_decompositions = decompose  # type: ignore[method-assign]
        registry.from_torchlib = build  # type: ignore[method-assign]


def is_direct(program: torch.export.ExportedProgram) -> bool:
    """Whether the traced network can be translated as it stands."""
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        name = str(node.target)
        if name not in DIRECT:
            return False
        if name.startswith("aten.batch_norm") and (None in node.args[1:5] or node.args[5]):
            return False  # without affine parameters, or normalising by the batch
        if name.startswith("aten.flatten") and tuple(node.args[1:]) not in ((1,), (1, -1)):
            return False
        if name.startswith("aten.adaptive_avg_pool2d") and tuple(node.args[1]) != (1, 1):
            return False
    return True


def translations() -> dict[Callable[..., object], Callable[..., object]]:
    """ONNX for operators of `DIRECT` that the exporter only knows decomposed; for `custom_translation_table`."""
    import torch

    return {
        torch.ops.aten.batch_norm.default: _batch_norm,
        torch.ops.aten.adaptive_avg_pool2d.default: _global_mean,
        torch.ops.aten.flatten.using_ints: _flatten,
    }


def _batch_norm(
    data: FLOAT,
    scale: FLOAT,
    shift: FLOAT,
    mean: FLOAT,
    variance: FLOAT,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> object:
    from onnxscript import opset20

    return opset20.BatchNormalization(data, scale, shift, mean, variance, epsilon=eps)


def _global_mean(data: FLOAT, output_size: tuple[int, ...]) -> object:
    from onnxscript import opset20

    return opset20.ReduceMean(data, cast("INT64", opset20.Constant(value_ints=[-1, -2])), keepdims=1)


def _flatten(data: FLOAT, start_dim: int, end_dim: int = -1) -> object:
    from onnxscript import opset20

    return opset20.Reshape(data, cast("INT64", opset20.Constant(value_ints=[0, -1])))


@cache
def _functions(opset_version: int) -> dict[_registration.TorchOp | str, list[_registration.OnnxDecompMeta]]:
    """The exporter's table as it builds it; copied before use, because custom translations are added to it."""
    from torch.onnx._internal.exporter import _registration

    table = _registration.ONNXRegistry.from_torchlib(opset_version=opset_version)
    return {key: list(found) for key, found in table.functions.items()}
