"""The seam every compression technique plugs into: one file, one class, two halves (plan, apply)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from automc.techniques.plan import Plan
from automc.techniques.reach import Reach
from automc.techniques.sketch import Outline, Sketch

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

    from automc.cost.predictor import Costs
    from automc.profiles import HardwareProfile
    from automc.recovery.training import RecoveryContext
    from automc.techniques.plan import LayerSpec
    from automc.workloads.workload import Examples, Task

Saves = Literal["latency", "energy", "memory", "download", "load_time", "accuracy"]


class Phase(Enum):
    ARCHITECTURE = "architecture"
    MODEL = "model"
    RECOVERY = "recovery"
    GRAPH = "graph"
    CODING = "coding"


class Params(BaseModel):
    """Base of every technique's parameters. Each field is schema, documentation and search dimension in one.

    A numeric field declares `ge`, `le` and, in `json_schema_extra={"step": ...}`, its grid; a closed set is a Literal.
    The defaults change nothing: a technique with default parameters leaves the network as it was.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class PlanContext:
    """What `plan` may read besides the model. `apply` gets none of it.

    example_inputs: one batch of one sample, as the model takes it.
    calibration: the workload's calibration split, loaded when called; raises where data is forbidden.
    cost: predicted costs of a torch model (meta tensors allowed) on the profile, at the precision the candidate will
    run in once its GRAPH steps are done; None where no predictor is fitted. Raises UnseenOperatorError.
    layers_ms: predicted milliseconds that layers in sequence take, at that precision, as part of a network (which may
    be on the meta device) on one sample of a shape, batch of one first; None and errors as of `cost`.
    """

    example_inputs: tuple[torch.Tensor, ...]
    profile: HardwareProfile
    task: Task
    calibration: Callable[[], Examples]
    cost: Callable[[nn.Module], Costs] | None
    seed: int
    layers_ms: Callable[[nn.Module, tuple[LayerSpec, ...], tuple[int, ...]], float] | None = None


class Technique(ABC, Generic[P]):
    """One compression technique.

    MODEL techniques plan and apply on a torch `nn.Module`, GRAPH techniques on an `onnx.ModelProto`. Neither half
    mutates its input. `plan` raises InfeasibleCandidate where the parameters cannot be met on this model, and
    CompressionError (chained) where a library refuses the model. `apply(model, plan)` needs neither data nor profile,
    gives shapes alone on meta tensors, and rebuilds the same structure from the same base for ever; for a MODEL
    technique it also fills the weights it can derive from the input's weights.
    """

    name: ClassVar[str]
    phase: ClassVar[Phase]
    params: ClassVar[type[Params]]
    after: ClassVar[frozenset[str]] = frozenset()
    """Names of techniques that, when both are in a chain, must come before this one."""
    excludes: ClassVar[frozenset[str]] = frozenset()
    needs_data: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False
    saves: ClassVar[frozenset[Saves]] = frozenset()
    summary: ClassVar[str] = ""
    """One line for `automc technique list`."""
    source: ClassVar[str] = ""
    """Paper or origin of the method."""

    def refuses(self, model: Any) -> str | None:
        """Why the technique has nothing to do on this model, or None."""
        return None

    def reach(self, model: Any, example_inputs: tuple[torch.Tensor, ...]) -> Reach:
        """What of `model` the technique can act on and what blocks the rest, as `plan` would find it: for `doctor`.

        `model` is what `plan` takes and runs on `example_inputs`; it is left as it was. By default the technique takes
        the network whole or, where it `refuses`, not at all.
        """
        return Reach(refused=self.refuses(model))

    @abstractmethod
    def plan(self, model: Any, params: P, context: PlanContext) -> Plan: ...

    @abstractmethod
    def apply(self, model: Any, plan: Plan) -> Any: ...


class ModelTechnique(Technique[P]):
    """A technique that edits a torch network."""

    phase = Phase.MODEL

    @abstractmethod
    def plan(self, model: nn.Module, params: P, context: PlanContext) -> Plan: ...

    def outline(self, sketch: Sketch, params: P, context: PlanContext) -> Outline | None:
        """A plan that leaves the shapes `plan` would leave of the network `sketch` stands for: for screening.

        Found sooner, because no weights of that network are at hand: which of equal parts go plays no part in it, and
        where the shapes hang on what `plan` would find out, the base is asked instead. None, the default: `plan` is
        asked, with weights. Raises what `plan` would.
        """
        return None

    @abstractmethod
    def apply(self, model: nn.Module, plan: Plan) -> nn.Module: ...


class GraphTechnique(Technique[P]):
    """A technique that edits the exported ONNX graph.

    `lossless` ones must keep parity with what they were given; the others are judged by accuracy.
    """

    phase = Phase.GRAPH
    lossless: ClassVar[bool] = False
    precision: ClassVar[Literal["int8"] | None] = None
    """Precision the kernels run at afterwards, for screening before anything is exported; None: unchanged."""

    @abstractmethod
    def plan(self, model: onnx.ModelProto, params: P, context: PlanContext) -> Plan: ...

    @abstractmethod
    def apply(self, model: onnx.ModelProto, plan: Plan) -> onnx.ModelProto: ...


class RecoveryTechnique(Technique[P]):
    """Training between or after structural steps: changes weights, never structure, so its plan has no edits."""

    phase = Phase.RECOVERY
    needs_data = True
    needs_training = True
    needs_teacher: ClassVar[bool] = False

    def plan(self, model: nn.Module, params: P, context: PlanContext) -> Plan:
        return Plan(technique=self.name)

    def apply(self, model: nn.Module, plan: Plan) -> nn.Module:
        return model

    @abstractmethod
    def recover(self, model: nn.Module, params: P, context: RecoveryContext, steps: int) -> nn.Module:
        """A trained copy of `model` after `steps` optimiser steps. Raises TrainingDiverged."""
