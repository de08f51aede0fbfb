"""A workload's own options: checked by a pydantic model, errors in the words of the user's file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from automc.errors import ConfigError


class Options(BaseModel):
    """Base of every workload's options."""

    model_config = ConfigDict(frozen=True, extra="forbid")


OptionsT = TypeVar("OptionsT", bound=Options)


def parse_options(kind: type[OptionsT], workload: str, options: Mapping[str, JsonValue]) -> OptionsT:
    """The options of `workload`. Raises ConfigError: each wrong key with its reason, unknown ones with the nearest."""
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        said = []
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"])
            if fault["type"] == "extra_forbidden":
                near = difflib.get_close_matches(key, kind.model_fields, n=1)
                known = ", ".join(kind.model_fields) or "none"
                hint = f"did you mean {near[0]}?" if near else f"known options: {known}"
                said.append(f"{key} is not an option of workload {workload}; {hint}")
            elif fault["type"] == "missing":
                said.append(f"{key} is required by workload {workload}")
            else:
                said.append(f"{key} = {fault['input']!r}: {fault['msg']}")
        raise ConfigError("workload.options: " + "; ".join(said), next_step="automc config schema") from error
