"""A workload's own options: checked by a pydantic model, errors in the words of the user's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from automc.errors import ConfigError
from automc.nearest import nearest
from automc.yaml_files import TO_FILL_IN


class Options(BaseModel):
    """Base of every workload's options. A workload class names its own as `options_model`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def check(self) -> None:
        """Refuse what can be seen to be wrong without data, over several options or beyond. Raises ConfigError."""


class NoOptions(Options):
    """None: everything about the workload is fixed."""


OptionsT = TypeVar("OptionsT", bound=Options)


def parse_options(kind: type[OptionsT], workload: str, options: Mapping[str, JsonValue]) -> OptionsT:
    """The options of `workload`. Raises ConfigError: each wrong key with its reason, unknown ones with the nearest."""
    open_keys = [key for key, value in options.items() if value == TO_FILL_IN and key in kind.model_fields]
    if open_keys:
        raise ConfigError(
            f"workload.options: still to be filled in for workload {workload}: "
            + "; ".join(f"{key} ({kind.model_fields[key].description})" for key in open_keys),
            next_step=f"write {'its value' if len(open_keys) == 1 else 'their values'} in the place of {TO_FILL_IN}",
        )
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        said = []
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"])
            if fault["type"] == "extra_forbidden":
                known = f" (it takes: {', '.join(kind.model_fields) or 'none'})"
                said.append(f"{key} is not an option of workload {workload}{nearest(key, kind.model_fields) or known}")
            elif fault["type"] == "missing":
                said.append(f"{key} is required by workload {workload}")
            else:
                reason = fault["msg"].removeprefix("Value error, ")
                said.append(f"{key} = {fault['input']!r}: {reason}" if key else reason)
        raise ConfigError(
            "workload.options: " + "; ".join(said), next_step=f"automc config init --workload {workload}"
        ) from error
