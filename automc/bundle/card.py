"""The model card: what the bundle delivers, in words, every number with its conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from automc.trial import Figure, Metric

if TYPE_CHECKING:
    from automc.bundle.write import BundleContents

LABELS: dict[Metric, str] = {
    "accuracy": "accuracy",
    "drop_points": "drop from the reference",
    "latency_ms": "latency",
    "energy_mj": "energy per inference",
    "memory_mb": "memory",
    "size_bytes": "size of model.onnx",
}
WORDS = {
    "latency": "latency",
    "energy": "energy",
    "memory": "memory",
    "download": "download size",
    "load_time": "load time",
    "accuracy": "accuracy",
}


def saves_in_words(saves: Sequence[str]) -> str:
    """What a technique may claim, honestly."""
    if set(saves) == {"download"}:
        return "saves only download: the coded file is smaller; it runs neither faster nor in less memory"
    if not saves:
        return "saves nothing by itself"
    return "saves " + ", ".join(WORDS.get(item, item) for item in saves)


def number(figure: Figure) -> str:
    """The figure in a form for people: three to four significant digits and its unit."""
    if figure.unit == "bytes":
        return f"{figure.value / 1000:,.1f} kB"
    if figure.unit == "fraction":
        return f"{100 * figure.value:.2f} %"
    return f"{figure.value:.4g} {figure.unit}"


def bounds(figure: Figure) -> str:
    """The interval in the unit of `number`, or nothing where there is none."""
    if figure.low == figure.high:
        return ""
    if figure.unit == "fraction":
        return f"[{100 * figure.low:.2f} to {100 * figure.high:.2f} %]"
    return f"[{figure.low:.4g} to {figure.high:.4g}]"


def how(figure: Figure) -> str:
    """Where a figure comes from: measured on how many, or predicted with which interval."""
    parts: list[str] = [figure.kind]
    parts += [bounds(figure)] * bool(bounds(figure))
    if figure.n is not None:
        parts.append(f"n {figure.n}")
    if figure.split:
        parts.append(f"{figure.split} split")
    if figure.coverage is not None:
        parts.append(f"{100 * figure.coverage:.0f} % within the calibrated range")
    if figure.source:
        parts.append(figure.source)
    return ", ".join(parts)


def _shape(shape: JsonValue) -> str:
    return " x ".join(map(str, shape)) if isinstance(shape, list) else str(shape)


def model_card(
    contents: BundleContents,
    io: Mapping[str, list[dict[str, JsonValue]]],
    opset: Mapping[str, int],
    device: Mapping[str, JsonValue],
    quantised: bool,
) -> str:
    """The text of MODEL_CARD.md."""
    from importlib.metadata import version

    import jinja2

    from automc.bundle.write import ELSEWHERE_SHARE

    percentile = f"{contents.profile.protocol.percentile:g}"
    labels = LABELS | {"latency_ms": f"latency, {percentile}th percentile"}
    rows = [
        {
            "label": labels[key].replace("accuracy", contents.metric.replace("_", " ")),
            "value": number(figure),
            "reference": number(contents.reference[key]) if key in contents.reference else "not measured",
            "how": how(figure),
        }
        for key, figure in contents.figures.items()
    ]
    if contents.speedup is not None:
        speedup = contents.speedup
        rows.append({"label": "speed-up", "value": f"{speedup.value:.2f} times", "reference": "1", "how": how(speedup)})
    rows += [
        {"label": f"{labels[key]}, as predicted", "value": number(figure), "reference": "", "how": how(figure)}
        for key, figure in contents.predicted.items()
    ]
    described = {
        kind: ", ".join(f"{item['name']} ({item['dtype']} {_shape(item['shape'])})" for item in items)
        for kind, items in io.items()
    }
    raw = contents.preprocessing.get("raw")
    licences = [name for name, text in (("LICENSE", contents.licence), ("NOTICE", contents.notice)) if text] or [
        "NOTICE"
    ]
    environment = jinja2.Environment(
        trim_blocks=False, keep_trailing_newline=True, undefined=jinja2.StrictUndefined, autoescape=False
    )
    template = (Path(__file__).parent / "templates" / "MODEL_CARD.md.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        name=contents.name,
        version=version("automc"),
        base_name=contents.base_name,
        chain=str(contents.candidate),
        summary=contents.summary,
        rows=rows,
        metric=contents.metric.replace("_", " "),
        device=device,
        threads=contents.profile.threads,
        provider=contents.profile.execution_provider,
        protocol=contents.profile.protocol,
        percentile=percentile,
        noise=f"{contents.profile.noise_floor_percent:.2g}",
        energy=contents.profile.energy.detail if "energy_mj" in {*contents.figures, *contents.predicted} else "",
        saves=[{"technique": name, "words": saves_in_words(what)} for name, what in contents.saves.items()],
        picture=isinstance(raw, Mapping) and raw.get("layout") in ("HWC", "CHW", "HW"),
        inputs=described["inputs"],
        outputs=described["outputs"],
        opset=", ".join(f"{domain} {version}" for domain, version in opset.items()),
        tolerance=f"{100 * ELSEWHERE_SHARE[quantised]:g}",
        quantised=quantised,
        seed=contents.seed,
        digests=sorted(contents.data_digests.items()),
        limits=contents.limits,
        licence_line=f"See {' and '.join(licences)} beside this file for the source model.",
    )
