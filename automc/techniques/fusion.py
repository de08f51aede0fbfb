"""Layer fusion: fewer, larger operators that compute the same function.

BatchNorm folds into the product before it; two products with nothing between them become one where that is exact and
not more work; doubled activations and identities go. ONNX Runtime's offline optimiser does the rest: BASIC writes
standard operators, EXTENDED also its own fused ones (com.microsoft), which every ONNX Runtime CPU build executes.
The runtime does most of this at load time anyway: latency is gained only from the merges it does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from automc.errors import InfeasibleCandidate
from automc.techniques._merging import merged
from automc.techniques.plan import Plan
from automc.techniques.technique import GraphTechnique, Params, PlanContext, Saves

if TYPE_CHECKING:
    import onnx


class FusionParams(Params):
    """How far to fuse; every setting keeps the function."""

    level: Literal["standard", "extended"] = Field(
        "standard",
        description="standard: ONNX operators only, what quantisation can go on from; "
        "extended: also ONNX Runtime's fused operators, for a graph that stays float",
    )


class Fusion(GraphTechnique[FusionParams]):
    """Merges that keep the outputs to 1e-5 of their range; applying it twice is applying it once.

    `extended` writes FusedConv and its like, which int8_ptq cannot quantise: it leaves the float operators in place
    where int8 follows only at `standard`, and refuses to run on a graph that is quantised already.
    """

    name = "fusion"
    params = FusionParams
    lossless = True
    saves: ClassVar[frozenset[Saves]] = frozenset({"load_time"})  # latency only where the runtime cannot fuse itself
    summary = "folds BatchNorm, merges consecutive products, fuses activations; latency only where the runtime cannot"
    source = "Jacob et al. 2018, section 3.2 (folding); ONNX Runtime graph optimisations"

    def refuses(self, model: onnx.ModelProto) -> str | None:
        if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
            return "the graph is quantised: fuse before quantising"
        return None

    def plan(self, model: onnx.ModelProto, params: FusionParams, context: PlanContext) -> Plan:
        reason = self.refuses(model)
        if reason is not None:
            raise InfeasibleCandidate(f"fusion: {reason}")
        before = len(model.graph.node)
        plan = Plan(technique=self.name, options={"level": params.level})
        after = len(self.apply(model, plan).graph.node)
        return plan.model_copy(update={"facts": {"nodes_before": before, "nodes_after": after}})

    def apply(self, model: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
        from automc.canonical import canonical
        from automc.export import settle

        fused = merged(settle(model))
        if plan.options["level"] == "extended":
            fused = settle(fused, "extended")
        return canonical(fused)
