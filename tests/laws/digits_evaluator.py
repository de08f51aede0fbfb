"""An evaluator of a small digits network on a device that exists on paper, and two techniques to catch it out with."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import ClassVar

import onnx
import pytest
import torch
from made_up_device import save_made_up
from pydantic import Field
from torch import nn

from automc.config import parse_config
from automc.cost.graph import graph_from_onnx
from automc.evaluate import Evaluator
from automc.export import export_onnx
from automc.run import ArtifactStore
from automc.techniques import registry
from automc.techniques.plan import Plan
from automc.techniques.technique import GraphTechnique, ModelTechnique, Params, PlanContext
from automc.workloads.digits import Digits
from automc.workloads.networks import ResidualNetwork


class BoastParams(Params):
    ratio: float = Field(0.0, ge=0.0, le=0.9, json_schema_extra={"step": 0.1}, description="what it claims to remove")


class Boast(ModelTechnique[BoastParams]):
    """Sets the smallest weights of every convolution to zero and removes nothing: unstructured sparsity."""

    name: ClassVar[str] = "boast"
    params = BoastParams

    def plan(self, model: nn.Module, params: BoastParams, context: PlanContext) -> Plan:
        return Plan(technique=self.name, options={"ratio": params.ratio})

    def apply(self, model: nn.Module, plan: Plan) -> nn.Module:
        masked = copy.deepcopy(model)
        with torch.no_grad():
            for layer in masked.modules():
                if isinstance(layer, nn.Conv2d):
                    limit = layer.weight.abs().flatten().quantile(float(str(plan.options["ratio"])))
                    layer.weight[layer.weight.abs() <= limit] = 0.0
        return masked


class NegateParams(Params):
    """None."""


class Negate(GraphTechnique[NegateParams]):
    """Turns the last linear layer of the graph around: the least likely class wins. Lossy, to say the least."""

    name: ClassVar[str] = "negate"
    params = NegateParams

    def plan(self, model: onnx.ModelProto, params: NegateParams, context: PlanContext) -> Plan:
        return Plan(technique=self.name)

    def apply(self, model: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
        turned = onnx.ModelProto()
        turned.CopyFrom(model)
        last = next(node for node in reversed(turned.graph.node) if node.op_type in {"Gemm", "MatMul"})
        for tensor in turned.graph.initializer:
            if tensor.name in last.input:
                tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), tensor.name))
        return turned


@pytest.fixture
def boast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the techniques `boast` and `negate` known, as another package would."""
    known = {**registry._modules(), "boast": f"{__name__}:Boast", "negate": f"{__name__}:Negate"}
    monkeypatch.setattr(registry, "_modules", lambda: known)


class SmallDigits(Digits):
    """The digits with a network of three blocks that was never trained: exported in a second."""

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return ResidualNetwork(1, (8, 16, 24), (1, 1, 1), 10, shortcut="B").eval()


@cache
def base_onnx() -> onnx.ModelProto:
    return export_onnx(SmallDigits().model(), SmallDigits().example_inputs())


def evaluator_in(folder: Path, **config: object) -> Evaluator:
    save_made_up(folder / "profile", [graph_from_onnx(base_onnx())])
    (folder / "cache").mkdir()
    parsed = parse_config({"name": "law", "teacher": "none", **config}, "law config")
    return Evaluator(parsed, SmallDigits(), ArtifactStore(folder / "artifacts"), folder / "profile", folder / "cache")
