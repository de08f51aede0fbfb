"""`automc predict`: what a model costs on one device or several, before it is run on any of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automc.cli.completion import profiles
from automc.cli.model import onnx_file
from automc.cli.output import AsJson, print_columns, print_json

if TYPE_CHECKING:
    from automc.cost.prediction import Prediction, Priced


def register(app: typer.Typer) -> None:
    app.command()(predict)


def predict(
    model: Annotated[Path, typer.Argument(help="ONNX file or bundle.")],
    profile: Annotated[
        list[str],
        typer.Option(help="Name of a profile, or its folder; may be given several times.", autocompletion=profiles),
    ] = ["host"],  # noqa: B006 - Typer copies it
    kernels: Annotated[bool, typer.Option("--kernels", help="Every kernel as the runtime executes it.")] = False,
    top: Annotated[int | None, typer.Option(min=1, help="Only so many kernels, the costliest.")] = None,
    as_json: AsJson = False,
) -> None:
    """What a model costs on one device or several, with intervals.

    An operator that a device was never calibrated for is named and no total is printed for it: unknown is not zero.
    Exit 2 where no profile asked for can tell one.

    Example: automc predict runs/demo/bundle --profile host --profile ncnn_raspberry_pi_4_1t --top 5
    """
    from automc.cost.prediction import predict_on, require_one

    found = predict_on(onnx_file(model), profile)
    listed = kernels or top is not None
    if as_json:
        told = [_as_json(item, listed, top) for item in found]
        print_json({"model": str(model), **(told[0] if len(told) == 1 else {"profiles": told})})
    require_one(model, found)
    if not as_json:
        _print(found, listed, top)


def _print(found: Sequence[Prediction], listed: bool, top: int | None) -> None:
    labels, several = _labels(found), len(found) > 1
    _print_costs(found, labels)
    for item, label in zip(found, labels, strict=True):
        prefix = f"{label}: " if several else ""
        if item.error is not None:
            typer.echo(f"{prefix}{item.error.message}")
            if item.error.next_step:
                typer.echo(f"  next: {item.error.next_step}")
        if item.priced is not None:
            typer.echo(f"{prefix}{_memory_words(item.priced)}")
        for note in item.notes:
            typer.echo(f"{prefix}note: {note}")
    if listed:
        for item, label in zip(found, labels, strict=True):
            if item.priced is not None:
                typer.echo("")
                if several:
                    typer.echo(f"kernels on {label}:")
                _print_kernels(item.priced, top)


def _labels(found: Sequence[Prediction]) -> list[str]:
    """Each profile by its name, and by its folder where two have the same name."""
    names = Counter(item.profile.name for item in found)
    return [item.profile.name if names[item.profile.name] == 1 else str(item.folder) for item in found]


def _print_costs(found: Sequence[Prediction], labels: Sequence[str]) -> None:
    from automc.bundle.card import interval_words

    rows = []
    for item, label in zip(found, labels, strict=True):
        if item.priced is None:
            rows.append((label, "every cost", "unknown", "", "", "see below"))
            continue
        for metric, cost in item.priced.costs.by_metric().items():
            words = interval_words(metric, "predicted", cost.source) or ("as the source states", "")
            rows.append((
                label, metric.partition("_")[0], f"{cost.value:.4g} {cost.unit}",
                f"{cost.low:.4g} to {cost.high:.4g} ({words[0]})",
                f"{cost.coverage:.0%}", cost.source,
            ))  # fmt: skip
    header = ("profile", "cost", "predicted", "interval", "calibrated", "from")
    first = 0 if len(found) > 1 else 1
    print_columns(header[first:], [row[first:] for row in rows])


def _memory_words(priced: Priced) -> str:
    fit, memory = priced.memory, priced.costs.memory_mb
    if fit.limit_mb is None or fit.share is None:
        return "memory of the device: not known, so nothing is said of whether the model fits"
    said = f"{fit.share:.2%} of the {fit.limit_mb:.0f} MB that the device has"
    if fit.verdict == "fits":
        return f"memory: {said}"
    return f"warning: the model {fit.verdict}: {memory.low:.4g} to {memory.high:.4g} MB predicted, {said}"


def _print_kernels(priced: Priced, top: int | None) -> None:
    from automc.cost.predictor import shapes_of

    kept = priced.costliest(top)
    print_columns(
        ("kernel", "precision", "shapes", "MACs", "ms", "interval", "share", "mJ"),
        [
            (
                part.row.op, part.row.precision, shapes_of(part.row), f"{part.row.macs:,}",
                f"{part.latency_ms.value:.4f}", f"{part.latency_ms.low:.4f} to {part.latency_ms.high:.4f}",
                f"{priced.share(part):.1%}", f"{part.energy_mj.value:.4g}",
            )
            for part in kept
        ],
    )  # fmt: skip
    hidden = len(priced.kernels) - len(kept)
    if hidden:
        rest = priced.costs.latency_ms.value - sum(part.latency_ms.value for part in kept)
        share = 1 - sum(priced.share(part) for part in kept)
        typer.echo(f"and {hidden} cheaper kernels, {rest:.4f} ms together ({share:.1%})")


def _as_json(item: Prediction, listed: bool, top: int | None) -> dict[str, object]:
    from automc.cost.predictor import shapes_of

    told: dict[str, object] = {
        "profile": item.profile.name,
        "folder": str(item.folder),
        "total": None if item.priced is None else asdict(item.priced.costs),
        "unseen": [{"kernel": row.name, "operator": row.op, "shapes": shapes_of(row)} for row in item.unseen],
        "macs": item.macs,
        "memory": None if item.priced is None else asdict(item.priced.memory),
        "error": None if item.error is None else item.error.message,
        "next_step": None if item.error is None else item.error.next_step,
        "notes": list(item.notes),
    }
    if listed and item.priced is not None:
        kept = item.priced.costliest(top)
        told["kernels"] = [
            {
                **asdict(part.row),
                "latency_ms": part.latency_ms.value,
                "latency_low_ms": part.latency_ms.low,
                "latency_high_ms": part.latency_ms.high,
                "share": item.priced.share(part),
                "energy_mj": part.energy_mj.value,
                "coverage": part.latency_ms.coverage,
            }
            for part in kept
        ]
        told["kernels_left_out"] = len(item.priced.kernels) - len(kept)
    return told
