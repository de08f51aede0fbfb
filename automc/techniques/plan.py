"""A plan: what a technique decided, as JSON in one common form of edits that replays without data or profile."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SliceEdit(Frozen):
    """Keep only the channels `keep` (sorted, unique, of the axis before this plan) of a named module.

    axis "out": output channels of a convolution, linear layer, or the features of a normalisation / depthwise layer;
    axis "in": input channels of a convolution (per group where groups > 1) or features of a linear layer.
    """

    kind: Literal["slice"] = "slice"
    module: str
    axis: Literal["in", "out"]
    keep: tuple[int, ...]

    @field_validator("keep")
    @classmethod
    def _sorted_unique(cls, keep: tuple[int, ...]) -> tuple[int, ...]:
        if not keep or keep[0] < 0 or any(left >= right for left, right in pairwise(keep)):
            raise ValueError("keep must be sorted, unique, not negative and not empty")
        return keep


class LayerSpec(Frozen):
    """A layer to build: shapes only, weights are filled by the technique or by the stored safetensors."""

    type: Literal["conv2d", "conv1d", "linear"]
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    bias: bool = False


class ReplaceEdit(Frozen):
    """Replace a named module by the layers in sequence (nn.Sequential; a single layer stands alone)."""

    kind: Literal["replace"] = "replace"
    module: str
    layers: tuple[LayerSpec, ...]


class RemoveEdit(Frozen):
    """Replace a named module, whose input and output shapes agree, by the identity."""

    kind: Literal["remove"] = "remove"
    module: str


def is_in(name: str, module: str) -> bool:
    """Whether the module called `name` is the one called `module`, or in it."""
    return f"{name}.".startswith(f"{module}.")


class QuantiseEdit(Frozen):
    """Quantise one tensor of the exported graph: real = scale * (integer - zero_point), along `axis` where given."""

    kind: Literal["quantise"] = "quantise"
    tensor: str
    dtype: Literal["uint8", "int8", "uint4", "int4"]
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


Edit = Annotated[SliceEdit | ReplaceEdit | RemoveEdit | QuantiseEdit, Field(discriminator="kind")]


class Plan(Frozen):
    """What `technique` decided. `edits` replay it; `facts` are for the report (scores, errors) and decide nothing."""

    technique: str
    edits: tuple[Edit, ...] = ()
    options: dict[str, JsonValue] = {}
    facts: dict[str, JsonValue] = {}
