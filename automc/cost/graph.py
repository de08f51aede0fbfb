"""Kernel rows of a network: from its ONNX file, or from a trace of its torch module, through one lowering."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from automc.cost.kernels import KernelGraph, Precision
from automc.errors import ConfigError, PredictorError
from automc.profiles import Int8Facts

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

    from automc.cost.lowering import Level
    from automc.cost.recording import Recording

_LEAVE_OUT = "leave the operator out of the model, or export it as operators that are known"
_EXPORT = "export the model again, for example with torch.onnx.export(..., dynamo=True)"


def graph_from_onnx(model: onnx.ModelProto | Path, *, batch: int | None = None, level: Level = "all") -> KernelGraph:
    """Kernels of an ONNX model as ONNX Runtime on this host will execute them at `level` (a predictor's `level`).

    model: fp32 as exported or as the runtime's offline optimisation left it, or with QuantizeLinear / DequantizeLinear
    pairs; a path may have its weights beside it. batch: extent of the first axis of every input; by default what the
    model fixes, 1 where it leaves it open.
    Raises ConfigError where there is no such file or it is no model, PredictorError where the runtime refuses it,
    UnseenOperatorError where an operator's shape is unknown. The model given is not changed.
    """
    from automc.cost.lowering import lower

    if not isinstance(model, Path):
        return lower(with_batch(model, batch), level)
    try:
        return lower(with_batch(load_onnx(model), batch), level)
    except PredictorError as error:
        raise type(error)(f"{model}: {error.message}", next_step=error.next_step or _LEAVE_OUT) from error


def graph_from_trace(
    model: nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    *,
    precision: Precision = "fp32",
    batch: int = 1,
    scheme: Int8Facts | None = None,
    level: Level = "all",
) -> KernelGraph:
    """Kernels of a torch module as its exported graph would have them, without exporting it.

    ResNet-20 takes 20 ms in fp32 and 33 ms in int8 on one core of a 2-core cloud host (medians of 40); its export 2 s.

    model: any device, meta included; not changed. example_inputs: as for export, their first axis becomes `batch`.
    precision: int8 adds the quantisation pairs that `int8_ptq` would write, in `scheme` (a profile's; else uint8
    activations and int8 weights per channel).
    Raises UnseenOperatorError (operator, shapes) on an operator without a translation.
    """
    from automc.cost.lowering import lower

    return lower(operators_from_trace(model, example_inputs, precision=precision, batch=batch, scheme=scheme), level)


def operators_from_trace(
    model: nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    *,
    precision: Precision = "fp32",
    batch: int = 1,
    scheme: Int8Facts | None = None,
) -> onnx.ModelProto:
    """The op-level graph that `graph_from_trace` lowers: shapes, types and operators as exported, values made up."""
    from automc.cost.trace import recorded
    from automc.export import HoldsGraph

    if isinstance(model, HoldsGraph):
        return _in_precision(with_batch(model.onnx_graph(), batch), precision, scheme)
    return operators_of_recording(recorded(model, example_inputs, batch=batch), precision=precision, scheme=scheme)


def operators_of_recording(
    recording: Recording, *, precision: Precision = "fp32", scheme: Int8Facts | None = None
) -> onnx.ModelProto:
    """As `operators_from_trace`, of a network that has been traced already."""
    return _in_precision(recording.model(), precision, scheme)


def _in_precision(graph: onnx.ModelProto, precision: Precision, scheme: Int8Facts | None) -> onnx.ModelProto:
    from automc.cost.trace import as_exported

    if precision == "int8":
        from automc.cost.quantised import quantised

        return quantised(as_exported(graph), scheme)
    if any(node.op_type == "MatMul" for node in graph.graph.node):
        return as_exported(graph)  # makes MatMul and Add a Gemm, whose reshapes are then shared; else ALL is enough
    return graph


def operators_of(
    model: nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    *,
    precision: Precision = "fp32",
    scheme: Int8Facts | None = None,
) -> onnx.ModelProto:
    """As `operators_from_trace`; a network that cannot be traced is exported instead, which takes seconds.

    Raises ExportError, chained, where it cannot be exported either.
    """
    from automc.errors import UnseenOperatorError

    try:
        return operators_from_trace(model, example_inputs, precision=precision, scheme=scheme)
    except UnseenOperatorError:
        from automc.cost.quantised import quantised
        from automc.export import export_onnx

        exported = with_batch(export_onnx(model, example_inputs), 1)
        return quantised(exported, scheme) if precision == "int8" else exported


def load_onnx(path: Path) -> onnx.ModelProto:
    """The model in the user's file, with the weights that lie beside it.

    Raises ConfigError where there is none, it cannot be read as one, its weights lie outside its folder, or it is of an
    operator set that nobody here knows.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.is_file():
        raise ConfigError(f"{path}: no such file", next_step="give the path of an ONNX model")
    try:
        model = onnx.load(path, load_external_data=False)
        _refuse_weights_elsewhere(model, path)
        onnx.load_external_data_for_model(model, str(path.parent))
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:  # the last: of weights beside it
        raise ConfigError(f"{path}: not an ONNX model: {error}", next_step=_EXPORT) from error
    if not model.graph.node:
        raise ConfigError(f"{path}: not an ONNX model: it holds no graph", next_step=_EXPORT)
    known = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > known:
            raise ConfigError(
                f"{path}: is of opset {entry.version}; onnx {onnx.__version__} knows up to {known}",
                next_step=f"export it with an opset of at most {known}, or install a newer onnx and onnxruntime",
            )
    return model


def _refuse_weights_elsewhere(model: onnx.ModelProto, path: Path) -> None:
    """Weights kept in files of their own must lie in or below the model's folder, and be there."""
    folder = path.parent.resolve()
    for tensor in model.graph.initializer:
        named = next((entry.value for entry in tensor.external_data if entry.key == "location"), None)
        if named is None:
            continue
        place = (folder / named).resolve()
        if not place.is_relative_to(folder):
            raise ConfigError(
                f"{path}: its weight {tensor.name} is kept in {named}, outside the model's folder",
                next_step=f"export it again with its weights inside, or with the file of weights beside {path.name}",
            )
        if not place.is_file():
            raise ConfigError(
                f"{path}: its weight {tensor.name} is kept in {named}, which is not there",
                next_step=f"put {named} beside {path.name}, as it was exported",
            )


def with_batch(model: onnx.ModelProto, batch: int | None) -> onnx.ModelProto:
    """The model with `batch` samples per run: itself where it has that already, else a copy.

    batch: None keeps what is fixed and makes 1 of what is open.

    Raises PredictorError where an input has another axis that is not fixed.
    """
    import onnx

    weights = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in weights]
    for item in inputs:
        loose = [extent.dim_param or "?" for extent in item.type.tensor_type.shape.dim[1:] if not extent.dim_value]
        if loose:
            raise PredictorError(
                f"input {item.name!r} leaves more than the batch open: {', '.join(loose)}",
                next_step="export the model with fixed shapes apart from the batch",
            )
    extents = {item.type.tensor_type.shape.dim[0].dim_value for item in inputs if item.type.tensor_type.shape.dim}
    if extents <= {batch} or (batch is None and 0 not in extents):
        return model
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]  # declared for another batch; the runtime infers them anew
    for item in fixed.graph.input:
        if item.name not in weights and item.type.tensor_type.shape.dim:
            first = item.type.tensor_type.shape.dim[0]
            first.dim_value = batch or first.dim_value or 1
    for item in fixed.graph.output:
        item.type.tensor_type.ClearField("shape")
    return fixed
