"""`automc predict | bench`: what a model costs on a device, predicted and measured."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automc.cli.completion import profiles
from automc.cli.output import AsJson, print_columns, print_json

if TYPE_CHECKING:
    from automc.cost.predictor import Costs


def register(app: typer.Typer) -> None:
    app.command()(predict)
    app.command()(bench)


def predict(
    model: Annotated[Path, typer.Argument(help="ONNX file or bundle.")],
    profile: Annotated[str, typer.Option(help="Name of a profile, or its folder.", autocompletion=profiles)] = "host",
    kernels: Annotated[bool, typer.Option("--kernels", help="Every kernel as the runtime executes it.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a model costs on a device, with intervals.

    An operator the device was never calibrated for is named and no total is printed (exit 2): unknown is not zero.

    Example: automc predict runs/demo/bundle --profile host
    """
    from automc.cost.graph import graph_from_onnx
    from automc.cost.predictor import load_predictor, shapes_of
    from automc.errors import UnseenOperatorError
    from automc.profiles import load_profile, profile_folder

    chosen = load_profile(profile)
    predictor = load_predictor(chosen, profile_folder(profile))
    graph = graph_from_onnx(_onnx_file(model), level=predictor.level)
    unseen = predictor.unseen(graph)
    if unseen:
        named = [{"kernel": row.name, "operator": row.op, "shapes": shapes_of(row)} for row in unseen]
        if as_json:
            print_json({"model": str(model), "profile": chosen.name, "total": None, "unseen": named})
        raise UnseenOperatorError(
            f"{model}: no total, {len(unseen)} of {len(graph.rows)} kernels were never calibrated on {chosen.name!r}:\n"
            + "\n".join(f"  {item['operator']} {item['shapes']} ({item['kernel']})" for item in named),
            next_step=f"automc profile calibrate {chosen.name}, or leave these operators out of the model"
            if chosen.imported is None
            else "leave these operators out of the model: the table this device comes from has too few of them",
        )
    costs, parts = predictor.predict(graph), predictor.kernels(graph)
    if as_json:
        listed = [
            {**asdict(part.row), "latency_ms": part.latency_ms.value, "energy_mj": part.energy_mj.value}
            for part in parts
        ]
        print_json({
            "model": str(model), "profile": chosen.name, "total": asdict(costs), "unseen": [], "macs": graph.macs,
            **({"kernels": listed} if kernels else {}),
        })  # fmt: skip
        return
    _print_costs(costs)
    if kernels:
        typer.echo("")
        rows = [
            (part.row.op, part.row.precision, shapes_of(part.row), f"{part.row.macs:,}", f"{part.latency_ms.value:.4f}")
            for part in parts
        ]
        print_columns(("kernel", "precision", "shapes", "MACs", "ms"), rows)


def _print_costs(costs: Costs) -> None:
    from automc.bundle.card import INTERVALS

    named = (("latency_ms", costs.latency_ms), ("energy_mj", costs.energy_mj), ("memory_mb", costs.memory_mb))
    print_columns(
        ("cost", "predicted", "interval", "calibrated", "from"),
        [
            (
                name.partition("_")[0], f"{item.value:.4g} {item.unit}",
                f"{item.low:.4g} to {item.high:.4g} ({INTERVALS[name, 'predicted'][0]})",
                f"{item.coverage:.0%}", item.source,
            )
            for name, item in named
        ],
    )  # fmt: skip


def bench(
    models: Annotated[
        list[Path], typer.Argument(help="ONNX files or bundles; the first is the baseline of speed-ups.")
    ],
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each, at least.")] = 200,
    passes: Annotated[int, typer.Option(min=2, help="Passes spread over time.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one operator.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure latency here, several models interleaved.

    Example: automc bench base.onnx runs/demo/bundle
    """
    from automc.cost.graph import load_onnx, with_batch
    from automc.measure.sessions import SessionSettings
    from automc.measure.timing import interleaved

    files = {str(path): _onnx_file(path) for path in models}
    for file in files.values():
        with_batch(load_onnx(file), None)  # refuses what no size is known of, as `predict` does
    timings = interleaved(files, SessionSettings(threads=threads), runs=runs, passes=passes)
    if as_json:
        print_json({name: asdict(timing) for name, timing in timings.items()})
        return
    print_columns(
        ("model", "median ms", "p10 ms", "p90 ms", "n", "speed-up (95 % interval)"),
        [
            (
                name, f"{item.median_ms:.4f}", f"{item.p10_ms:.4f}", f"{item.p90_ms:.4f}", str(item.n),
                f"{item.speedup:.2f} ({item.speedup_low:.2f} to {item.speedup_high:.2f})",
            )
            for name, item in timings.items()
        ],
    )  # fmt: skip


def _onnx_file(path: Path) -> Path:
    """The model file `path` stands for: itself, or the one in a bundle. Raises ConfigError."""
    from automc.errors import ConfigError

    file = path / "model.onnx" if path.is_dir() else path
    if not file.is_file():
        what = "no model.onnx in it" if path.is_dir() else "no such file"
        raise ConfigError(f"{path}: {what}", next_step="give an ONNX file or a bundle folder")
    return file
