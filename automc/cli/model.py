"""`automc bench`: how long models take on this machine, measured; and the file that a model's path stands for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from automc.cli.output import AsJson, print_columns, print_json


def register(app: typer.Typer) -> None:
    app.command()(bench)


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

    files = {str(path): onnx_file(path) for path in models}
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


def onnx_file(path: Path) -> Path:
    """The model file `path` stands for: itself, or the one in a bundle. Raises ConfigError."""
    from automc.errors import ConfigError

    file = path / "model.onnx" if path.is_dir() else path
    if not file.is_file():
        what = "no model.onnx in it" if path.is_dir() else "no such file"
        raise ConfigError(f"{path}: {what}", next_step="give an ONNX file or a bundle folder")
    return file
