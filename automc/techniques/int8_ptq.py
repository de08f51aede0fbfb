"""Static 8-bit quantisation after training: ranges from a few hundred samples, weights and activations as integers.

The float ONNX graph is run over the calibration split with every tensor to be quantised as an output; what was seen
becomes a scale and a zero point per tensor, which the QuantSpec writer puts into the graph.
Sources: Jacob et al. 2018 (scheme); Migacz 2017, "8-bit Inference with TensorRT" (entropy calibration).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from automc.errors import CompressionError, InfeasibleCandidate
from automc.sources import Site
from automc.techniques import quantspec
from automc.techniques.plan import Plan, QuantiseEdit
from automc.techniques.quantspec import QuantSpec, activation_edit, weight_edit
from automc.techniques.reach import Blocked, Reach, Target
from automc.techniques.technique import GraphTechnique, Params, PlanContext, Saves

if TYPE_CHECKING:
    import onnx
    import torch

    from automc.workloads.workload import Examples

_BATCH = 32
"""Samples per calibration run: ResNet-20 exposes about 0.6 MB of activations a sample."""

BINS = 2048
"""Histogram resolution of percentile and entropy: eight bins per quantisation level."""


_CUTS = 128
"""Magnitudes tried by entropy calibration, from a twelfth of the largest one to all of it."""


class Int8PtqParams(Params):
    """How ranges are found. Any setting keeps the network's inputs, outputs and shapes; none keeps its exact values."""

    calibration_method: Literal["minmax", "entropy", "percentile"] = Field(
        "minmax", description="range seen; range that loses least information; range that holds a share of the values"
    )
    percentile: float = Field(
        99.99, ge=99.0, le=100.0, description="percentile only: share of the values kept (%), the rest saturates",
        json_schema_extra={"step": 0.01},
    )  # fmt: skip
    samples: int = Field(
        256, ge=16, le=4096, description="calibration samples; the whole split where it has fewer",
        json_schema_extra={"step": 16},
    )  # fmt: skip
    per_channel: bool | None = Field(None, description="a scale per output channel; null: as the profile found fast")


class Int8Ptq(GraphTechnique[Int8PtqParams]):
    """Post-training static int8 as explicit QDQ, in the scheme the profile found fast.

    Quantisation has no setting that changes nothing: with the defaults the graph keeps its inputs, outputs, names and
    shapes, and its values move by the rounding error.
    """

    name = "int8_ptq"
    params = Int8PtqParams
    after = frozenset({"fusion"})
    needs_data = True
    precision: ClassVar[Literal["int8"] | None] = "int8"
    saves: ClassVar[frozenset[Saves]] = frozenset({"latency", "energy", "memory", "download"})
    summary = "8-bit weights and activations after training, calibrated on a few hundred samples"
    source = "Jacob et al. 2018; Migacz 2017 (entropy)"

    def refuses(self, model: onnx.ModelProto) -> str | None:
        if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
            return "the graph is quantised already"
        if any(node.op_type in ("FusedConv", "FusedGemm") for node in model.graph.node):
            return "the graph holds fused operators of the runtime: precede int8_ptq by fusion at level standard only"
        return None if quantspec.targets(model).weights else "no convolution or matrix product with constant weights"

    def reach(self, model: onnx.ModelProto, example_inputs: tuple[torch.Tensor, ...]) -> Reach:
        """The operators that get an integer kernel, by the modules they came from; the others stay in float."""
        reason = self.refuses(model)
        if reason is not None:
            return Reach(reason, "operator")
        found = quantspec.targets(model)
        weighted = {node.name for _, _, node in found.weights}
        constants = {item.name for item in model.graph.initializer if len(item.dims) > 1}
        return Reach(
            None,
            "operator",
            tuple(
                Target(node.name, (node.name.partition("/")[0],) if node.name in weighted else ())
                for node in found.integer
            ),
            tuple(
                Blocked(module if constants.intersection(node.input) else node.name, reason, Site(module))
                for node, reason in found.left
                for module in [node.name.partition("/")[0]]
            ),
        )

    def plan(self, model: onnx.ModelProto, params: Int8PtqParams, context: PlanContext) -> Plan:
        reason = self.refuses(model)
        if reason is not None:
            raise InfeasibleCandidate(f"int8_ptq: {reason}")
        scheme = context.profile.int8
        model = quantspec.integer_form(model)
        per_channel = scheme.per_channel if params.per_channel is None else params.per_channel
        found = quantspec.targets(model)
        examples = context.calibration()
        ranges = _Calibration(model, found.activations, examples, params, context.seed).ranges()
        activations = {
            tensor: activation_edit(low, high, tensor, scheme.activation_type) for tensor, (low, high) in ranges.items()
        }
        for tensor, leader in found.followers.items():
            activations[tensor] = activations[leader].model_copy(update={"tensor": tensor})
        edits: dict[str, QuantiseEdit] = dict(activations)
        edits.update(_weights(model, found, activations, per_channel, scheme.weight_type, scheme.reduce_range))
        return Plan(
            technique=self.name,
            edits=tuple(edits.values()),
            facts={"samples": min(params.samples, len(examples)), "per_channel": per_channel, "tensors": len(edits)},
        )

    def apply(self, model: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
        return quantspec.write_qdq(model, QuantSpec.of(plan))


def _weights(
    model: onnx.ModelProto,
    found: quantspec.Targets,
    activations: dict[str, QuantiseEdit],
    per_channel: bool,
    dtype: Literal["uint8", "int8"],
    reduce_range: bool,
) -> dict[str, QuantiseEdit]:
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    edits: dict[str, QuantiseEdit] = {}
    for name, axis, node in found.weights:
        values = numpy_helper.to_array(constants[name])
        if not np.isfinite(values).all():
            raise CompressionError(f"{name}: a weight is not finite")
        edit = edits.get(name)  # a weight that several operators share has room for the biases of all
        if edit is None:
            edit = weight_edit(values, name, axis if per_channel else None, dtype, reduce_range=reduce_range)
        if len(node.input) > 2 and node.input[2] in constants:
            bias = numpy_helper.to_array(constants[node.input[2]])
            edit = quantspec.room_for_bias(edit, activations[node.input[0]], bias)
        edits[name] = edit
    return edits


class _Calibration:
    """Ranges of the named tensors of a float graph over the calibration split.

    Two passes at most: extremes first, then, where a method needs it, a histogram per tensor between them; memory is
    one batch of activations and `BINS` counts per tensor, whatever the number of samples.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        tensors: tuple[str, ...],
        examples: Examples,
        params: Int8PtqParams,
        seed: int,
    ) -> None:
        from automc.export import expose, open_session

        self.tensors = tensors
        self.examples = examples
        self.params = params
        self.seed = seed
        self.inputs = [value.name for value in model.graph.input]
        self.computed = [name for name in tensors if name not in self.inputs]
        self.session = open_session(expose(model, self.computed))

    def ranges(self) -> dict[str, tuple[float, float]]:
        extremes = self._extremes()
        if self.params.calibration_method == "minmax":
            return extremes
        counts = self._histograms(extremes)
        if self.params.calibration_method == "percentile":
            return {name: percentile_range(counts[name], *extremes[name], self.params.percentile) for name in extremes}
        return {name: entropy_range(counts[name], *extremes[name]) for name in extremes}

    def _extremes(self) -> dict[str, tuple[float, float]]:
        found = dict.fromkeys(self.tensors, (np.inf, -np.inf))
        for values in self._passes():
            for name, array in values.items():
                low, high = found[name]
                found[name] = (min(low, float(array.min())), max(high, float(array.max())))
        for name, (low, high) in found.items():
            if not (np.isfinite(low) and np.isfinite(high)):
                raise CompressionError(f"{name}: calibration saw no value, NaN or infinity")
        return found

    def _histograms(self, extremes: dict[str, tuple[float, float]]) -> dict[str, np.ndarray]:
        counts = {name: np.zeros(BINS, np.int64) for name in self.tensors}
        for values in self._passes():
            for name, array in values.items():
                low, high = extremes[name]
                counts[name] += np.histogram(array, bins=BINS, range=(low, high if high > low else low + 1.0))[0]
        return counts

    def _passes(self) -> Iterator[dict[str, np.ndarray]]:
        """Every tensor, one calibration batch after the other; the same batches each time."""
        left = self.params.samples
        for batch in self.examples.batches(_BATCH, seed=self.seed):
            inputs = [tensor.numpy()[:left] for tensor in batch.inputs]
            feeds = dict(zip(self.inputs, inputs, strict=True))
            seen = dict(zip(self.computed, self.session.run(self.computed, feeds), strict=True))
            yield {name: seen[name] if name in seen else feeds[name] for name in self.tensors}
            left -= len(inputs[0])
            if left <= 0:
                return


def percentile_range(counts: np.ndarray, low: float, high: float, percentile: float) -> tuple[float, float]:
    """Ends of the histogram between which `percentile` % of the values lie, half of the rest beyond either end."""
    edges = np.linspace(low, high, len(counts) + 1)
    share = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    tail = (100.0 - percentile) / 200.0
    first = int(np.searchsorted(share, tail, side="right")) - 1
    last = int(np.searchsorted(share, 1.0 - tail, side="left"))
    return float(edges[first]), float(edges[last])


def entropy_range(counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """[low, high] cut at the magnitude whose 256 levels lose least information (KL divergence; Migacz 2017).

    What lies beyond the cut is counted at its edge. The bin that holds 0 is left out: 0 is exact at any scale, and
    behind a Relu it would hide everything else.
    """
    edges = np.linspace(low, high, len(counts) + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    mass = np.where((edges[:-1] <= 0.0) & (edges[1:] > 0.0), 0.0, counts)
    if low >= high or not mass.any():
        return low, high
    best = (np.inf, low, high)
    largest = max(abs(low), abs(high))
    for share in np.arange(_CUTS, 9, -1) / _CUTS:
        start, stop = max(low, -share * largest), min(high, share * largest)
        inside = (centres >= start) & (centres <= stop)
        kept = mass[inside]
        if not kept.any():  # all values lie further out
            continue
        clipped = kept.copy()
        clipped[0] += mass[centres < start].sum()
        clipped[-1] += mass[centres > stop].sum()
        bottom, top = min(start, 0.0), max(stop, 0.0)
        level = np.rint((centres[inside] - bottom) / (top - bottom) * 255.0).astype(np.int64)
        present = (kept > 0).astype(np.float64)
        shared = np.bincount(level, weights=kept, minlength=256) / np.maximum(
            np.bincount(level, weights=present, minlength=256), 1.0
        )
        loss = _divergence(clipped, np.where(kept > 0, shared[level], 0.0))
        if loss < best[0]:
            best = (loss, start, stop)
    return best[1], best[2]


def _divergence(expected: np.ndarray, actual: np.ndarray) -> float:
    """KL divergence of two unnormalised histograms; infinite where `actual` has nothing at all."""
    if not actual.any():
        return float(np.inf)
    first, second = expected / expected.sum(), actual / actual.sum()
    seen = first > 0
    return float(np.sum(first[seen] * np.log(first[seen] / np.maximum(second[seen], 1e-9))))
