"""What a search does to every network, tried on the base: run it, trace it, export it, compare the two."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from automc.doctor.diagnosis import Stage, StageName
from automc.errors import AutomcError, CompressionError, ExportError, ParityError, PredictorError
from automc.outputs import records_of, tensors_of
from automc.sources import Site, site_of_error

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch
    from torch import nn

    from automc.cost.kernels import Precision
    from automc.profiles import Int8Facts

T = TypeVar("T")

_POSSIBLE: dict[StageName, str] = {
    "runs": "nothing: not even the network itself computes",
    "traced": "every candidate is exported to be costed, which takes as long as the export below",
    "exported": "nothing before this is mended: every accuracy is that of the exported graph",
    "parity": "nothing before this is mended: what is deployed would not be this network",
}


@dataclass(frozen=True)
class Forms:
    """The base in every form it could be brought into. traced: op-level graphs of shapes alone, fp32."""

    stages: tuple[Stage, ...]
    traced: onnx.ModelProto | None
    exported: onnx.ModelProto | None

    @property
    def runs(self) -> bool:
        return self.stages[0].ok is True

    def at(self, precision: Precision, scheme: Int8Facts) -> onnx.ModelProto | None:
        """The exported graph for one sample; in int8 with pairs of made-up ranges."""
        from automc.cost.graph import with_batch
        from automc.cost.quantised import quantised

        if self.exported is None:
            return None
        one = with_batch(self.exported, 1)
        return quantised(one, scheme) if precision == "int8" else one

    def ok(self, name: StageName) -> bool:
        return any(stage.name == name and stage.ok is True for stage in self.stages)

    def seconds(self, name: StageName) -> float:
        return next(stage.seconds for stage in self.stages if stage.name == name)


def forms_of(
    model: nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    samples: tuple[torch.Tensor, ...] | None,
    clock: Callable[[], float],
) -> Forms:
    """Every stage on the base, which is left as it was.

    samples: a batch of real inputs for the comparison; None: the example is compared. What the user's network raises
    becomes a failed stage with its place; what our own lines raise passes.
    """
    import torch

    from automc.cost.graph import operators_from_trace
    from automc.export import export_onnx, run_all

    stages: list[Stage] = []

    def attempt(name: StageName, work: Callable[[], T], say: Callable[[T], str]) -> T | None:
        if stages and stages[0].ok is False:
            stages.append(Stage(name, None, 0.0, "not tried"))
            return None
        started = clock()
        try:
            made = _turned(work, model)
        except (CompressionError, ExportError, ParityError, PredictorError) as error:
            said = error.message.splitlines()[0]
            stages.append(Stage(name, False, clock() - started, said, site_of_error(error, model), _POSSIBLE[name]))
            return None
        stages.append(Stage(name, True, clock() - started, say(made)))
        return made

    def run_both() -> object:
        tensors_of(_run(model, tuple(torch.cat([item, item]) for item in example_inputs)))  # as training and scoring do
        return _run(model, example_inputs)

    attempt("runs", run_both, lambda output: f"on one sample and on two; gives {_in_words(output)}")
    traced = attempt(
        "traced",
        lambda: operators_from_trace(model, example_inputs),
        lambda graph: f"{len(graph.graph.node)} operators, on shapes alone",
    )
    exported = attempt(
        "exported",
        lambda: export_onnx(model, example_inputs),
        lambda graph: f"{len(graph.graph.node)} ONNX operators, {graph.ByteSize() / 1e6:.2f} MB",
    )
    if exported is None:
        stages.append(Stage("parity", None, 0.0, "not tried"))
        return Forms(tuple(stages), traced, exported)
    inputs = samples or example_inputs

    def compare() -> tuple[float, float]:
        from automc.export import compare_all

        expected = [tensor.cpu().numpy() for tensor in tensors_of(_run(model, inputs))]
        actual = run_all(exported, [tensor.cpu().numpy() for tensor in inputs])
        relative = compare_all(expected, actual, tolerance=1e-4)
        return _largest_difference(expected, actual), relative

    attempt(
        "parity",
        compare,
        lambda found: (
            f"largest difference {found[0]:.2g}, {found[1]:.1g} of the output's range, "
            f"over {len(inputs[0])} sample{'s' if len(inputs[0]) > 1 else ''}"
        ),
    )
    return Forms(tuple(stages), traced, exported)


def _run(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> object:
    """What a copy of the network, in eval mode, gives."""
    import torch

    with torch.no_grad():
        return copy.deepcopy(model).eval()(*inputs)


def _in_words(output: object) -> str:
    """Shapes and types of the tensors in what a network gives, and what of it an export leaves out."""
    tensors, records = tensors_of(output), records_of(output)
    shown = ", ".join(f"{list(tensor.shape)} {tensor.dtype}" for tensor in tensors[:4])
    shown += f" and {len(tensors) - 4} more" if len(tensors) > 4 else ""
    return shown + (f"; an export leaves out {', '.join(records)}" if records else "")


def _largest_difference(expected: list[np.ndarray], actual: list[np.ndarray]) -> float:
    """Over all outputs, whose number and shapes agree; 0.0 where they are empty."""
    return max(
        float(abs(left.astype(float) - right).max(initial=0.0)) for left, right in zip(expected, actual, strict=True)
    )


def _turned(work: Callable[[], T], model: nn.Module) -> T:
    """What `work` makes. What the user's network raises in it, which may be anything, is turned into a named error."""
    try:
        return work()
    except Exception as error:
        if isinstance(error, AutomcError) or site_of_error(error, model) == Site():
            raise  # named already, or not the network's doing
        lines = str(error).strip().splitlines()
        raise CompressionError(f"{type(error).__name__}: {lines[0] if lines else ''}") from error
