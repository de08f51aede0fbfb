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


INTERVALS: dict[tuple[str, str], tuple[str, str]] = {
    ("accuracy", "measured"): (
        "95 % interval",
        "of the mean over the samples: Wilson's for a share of right answers, else by the standard error",
    ),
    ("drop_points", "measured"): (
        "95 % interval",
        "of the mean difference from the reference over the same samples, by its standard error",
    ),
    ("latency_ms", "measured"): (
        "repeats",
        "no confidence interval: from the lowest to the highest {percentile}th percentile that a single pass gave, "
        "both widened by the noise floor of the device, within which nine in ten repeats of the calibration lay, and "
        "down to what it may be without the neighbours that slowed an anchor beside it. The figure is the lowest of an "
        "undisturbed pass, because disturbances only ever lengthen a run; under load expect the upper end or more",
    ),
    ("speedup", "measured"): (
        "repeats",
        "the 95 % interval of the median over blocks, in which this model and the reference were timed in turn, of the "
        "ratio of their {percentile}th percentiles, by the bootstrap, and widened by the noise floor of the device",
    ),
    ("latency_ms", "predicted"): (
        "90 % interval",
        "the ratios of measured to predicted that held 90 % of whole networks the calibration had not seen, widened by "
        "the share that lies outside the calibrated range",
    ),
    ("energy_mj", "measured"): (
        "passes",
        "no confidence interval: the lowest and the highest of the passes, each of at least a second of runs with the "
        "idle power subtracted; the figure is their median",
    ),
    ("energy_mj", "predicted"): (
        "assumed range",
        "a factor of two either way, or more outside the calibrated range; no level can be stated for a model",
    ),
    ("memory_mb", "predicted"): (
        "bounds",
        "what held nine in ten of the networks whose memory the calibration measured, each left out of the fit once; "
        "where it measured none, from weights and runtime alone to weights and activations held twice",
    ),
}
"""(quantity, kind of figure): what its square brackets hold, in short and at length."""
FITTED_ENERGY = (
    "90 % interval",
    "the ratios of measured to predicted that held 90 % of the networks, each left out of the fit once",
)


def interval_words(key: str, kind: str, source: str | None) -> tuple[str, str] | None:
    """What the interval of a figure holds, in short and at length; None where only the source can say."""
    if (key, kind) == ("energy_mj", "predicted") and (source or "").startswith("fit "):
        return FITTED_ENERGY
    return INTERVALS.get((key, kind))


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


def how(key: str, figure: Figure) -> str:
    """Where a figure comes from: measured on how many or predicted, with what kind of interval."""
    parts: list[str] = [figure.kind]
    if bounds(figure):
        label = interval_words(key, figure.kind, figure.source)
        parts.append(f"{label[0] if label else 'as the source states'} {bounds(figure)}")
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
    here: Mapping[str, JsonValue],
    quantised: bool,
) -> str:
    """The text of MODEL_CARD.md. device: whose latency is stated; here: the machine the bundle is written on."""
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
            "how": how(key, figure),
        }
        for key, figure in contents.figures.items()
    ]
    if contents.speedup is not None:
        ratio, source = f"{contents.speedup.value:.2f} times", how("speedup", contents.speedup)
        rows.append({"label": "speed-up", "value": ratio, "reference": "1", "how": source})
    rows += [
        {"label": f"{labels[key]}, as predicted", "value": number(figure), "reference": "", "how": how(key, figure)}
        for key, figure in contents.predicted.items()
    ]
    stated: list[tuple[str, str, Figure]] = [
        (key, labels[key], figure) for part in (contents.figures, contents.predicted) for key, figure in part.items()
    ]
    stated += [("speedup", "speed-up", contents.speedup)] if contents.speedup is not None else []
    intervals = [
        f"{label}, {figure.kind}: {', '.join(words).format(percentile=percentile)}."
        for key, label, figure in stated
        if bounds(figure) and (words := interval_words(key, figure.kind, figure.source))
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
        intervals=intervals,
        device=device,
        here=here,
        timed="latency_ms" in contents.figures,
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
