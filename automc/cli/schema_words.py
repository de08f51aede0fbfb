"""What a field allows, in words, and a model as commented YAML: made from the pydantic model, so never behind it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from automc.yaml_files import TO_FILL_IN

if TYPE_CHECKING:
    from pydantic import BaseModel

_TYPES = {
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
    "string": "text",
    "object": "keys and values",
}


def allowed(spec: Mapping[str, Any]) -> str:
    """The values a property of a JSON schema may take: '0.0 to 0.7, step 0.1', '1 or more', 'fp32, int8'."""
    if "anyOf" in spec:
        return " or ".join(allowed(choice) for choice in spec["anyOf"])
    if "enum" in spec:
        return ", ".join(str(value) for value in spec["enum"])
    if "const" in spec:
        return str(spec["const"])
    if spec.get("type") == "array":
        items = spec.get("items", {})
        return "a list" if not items or "$ref" in items else f"a list of: {allowed(items)}"
    kind = _TYPES.get(str(spec.get("type")), "anything")
    bounds = _bounds(spec)
    step = f", step {spec['step']}" if "step" in spec else ""
    return f"{bounds or kind}{step}"


def _bounds(spec: Mapping[str, Any]) -> str:
    low, above = spec.get("minimum"), spec.get("exclusiveMinimum")
    high, below = spec.get("maximum"), spec.get("exclusiveMaximum")
    start = f"{low}" if low is not None else f"above {above}" if above is not None else ""
    end = f"{high}" if high is not None else f"below {below}" if below is not None else ""
    if start and end:
        return f"{start} to {end}"
    if start:
        return f"{start} or more" if low is not None else start
    return f"up to {end}" if high is not None else end


def commented(
    kind: type[BaseModel], values: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None, depth: int = 0
) -> list[str]:
    """YAML lines of `values` (JSON, some keys may be absent), every field of `kind` under its meaning and its default.

    Required fields stand first.

    defaults: what holds where a key is left out of the whole file; by default `values`. A required field that `values`
    lacks is said to be required and stands as TO_FILL_IN, which no check lets pass.
    """
    usual = values if defaults is None else defaults
    lines: list[str] = []
    pad = "  " * depth
    properties = kind.model_json_schema().get("properties", {})
    for key, field in sorted(kind.model_fields.items(), key=lambda item: not item[1].is_required()):
        inner = _model_of(field.annotation)
        value = values.get(key)
        if inner is not None and isinstance(value, Mapping):
            meaning = field.description or (inner.__doc__ or "").strip().splitlines()[0]
            part = usual.get(key)
            inside = commented(inner, value, defaults=part if isinstance(part, Mapping) else None, depth=depth + 1)
            lines += ["", *_comment(pad, meaning), f"{pad}{key}:", *inside, ""]
            continue
        default = "required"
        if field.is_required() and key not in values:
            value = TO_FILL_IN
        if not field.is_required():
            own = kind.model_fields[key].get_default(call_default_factory=True)
            default = _default(_as_json(own), usual.get(key))
        about = "" if inner is not None else f"{allowed(properties[key])}; "
        lines += _comment(pad, f"{field.description} ({about}{default})")
        if inner is not None and isinstance(value, list):
            parts = inner.model_json_schema()["properties"]
            for name, part in parts.items():
                lines += _comment(f"{pad}# ", f"{name}: {part['description']} ({allowed(part)})")
            lines += [f"{pad}{key}:", *(f"{pad}  - {_flow(item)}" for item in value)]
        else:
            lines.append(f"{pad}{key}: {_flow(value)}")
    return lines


def _comment(pad: str, text: str) -> list[str]:
    return textwrap.wrap(text, 120, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}#   ")


def _default(own: object, shown: object) -> str:
    """What holds where the key is left out, where it is not simply what is shown."""
    if own == shown:
        return "the default" if isinstance(own, list | dict) and own else f"default {_flow(own)}"
    return f"default {_flow(shown)}; {_flow(own)} where this section is written without it"


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, alone or as the items of a tuple."""
    from pydantic import BaseModel

    kinds = [annotation, *get_args(annotation)]
    found = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return found[0] if found else None


def _as_json(value: Any) -> Any:
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)


def _flow(value: object) -> str:
    """`value` as YAML on one line."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).strip()
    return text.removesuffix("...").strip()
