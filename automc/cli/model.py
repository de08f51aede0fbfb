"""`automc bench`: how long models take on this machine, measured; and the file that a model's path stands for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from automc.cli.output import AsJson, print_columns, print_json

if TYPE_CHECKING:
    from automc.measure.counters import EnergyCounter


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    models: Annotated[
        list[Path], typer.Argument(help="ONNX files or bundles; the first is the baseline of speed-ups.")
    ],
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each, at least.")] = 200,
    passes: Annotated[int, typer.Option(min=2, help="Passes spread over time.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one operator.")] = 1,
    energy: Annotated[bool, typer.Option("--energy", help="Millijoules too, by this machine's counter.")] = False,
    meter: Annotated[Path | None, typer.Option(help="The CSV file a power meter is writing; energy is its.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure latency here, several models interleaved; energy as well where something counts it.

    Counters are RAPL (Intel, AMD) and the power rails of a Jetson. A power meter's file has the columns unix_s (seconds
    since 1970) or time (ISO 8601 with its offset), and watts or milliwatts; its logger goes on writing meanwhile.
    Idle power is measured before every spell of runs and subtracted.

    Example: automc bench base.onnx runs/demo/bundle
    Example: automc bench base.onnx runs/demo/bundle --meter wattmeter.csv
    """
    from automc.cost.graph import load_onnx, with_batch
    from automc.measure.fingerprint import known_anchor_ms
    from automc.measure.sessions import SessionSettings
    from automc.measure.timing import interleaved
    from automc.profiles import cache_folder

    files = {str(path): onnx_file(path) for path in models}
    for file in files.values():
        with_batch(load_onnx(file), None)  # refuses what no size is known of, as `predict` does
    settings = SessionSettings(threads=threads)
    counter = _counter(meter) if energy or meter is not None else None
    usual_ms = known_anchor_ms(cache_folder() / "profiles" / "host", threads)
    timings = interleaved(files, settings, runs=runs, passes=passes, known_ms=usual_ms)
    energies = {}
    if counter is not None:
        from automc.measure.energy import measure_models_mj

        energies = {name: sorted(found) for name, found in measure_models_mj(files, settings, counter).items()}
    if as_json:
        told: dict[str, dict[str, object]] = {name: asdict(timing) for name, timing in timings.items()}
        for name, passes_mj in energies.items():
            told[name] |= {"energy_mj": median(passes_mj), "energy_passes_mj": passes_mj}
            told[name] |= {"energy_source": counter.source.detail} if counter is not None else {}
        print_json(told)
        return
    print_columns(
        (
            "model", "median ms", "p10 ms", "p90 ms", "n", "speed-up (95 % interval)",
            *(("energy mJ (passes)",) if energies else ()),
        ),
        [
            (
                name, f"{item.median_ms:.4f}", f"{item.p10_ms:.4f}", f"{item.p90_ms:.4f}", str(item.n),
                f"{item.speedup:.2f} ({item.speedup_low:.2f} to {item.speedup_high:.2f})",
                *(
                    f"{median(found):.4g} ({found[0]:.4g} to {found[-1]:.4g})"
                    for found in (energies.get(name),) if found
                ),
            )
            for name, item in timings.items()
        ],
    )  # fmt: skip
    if counter is not None:
        typer.echo(f"energy of one inference from {counter.source.detail}, idle power subtracted")


def _counter(meter: Path | None) -> EnergyCounter:
    """The power meter's file, or this machine's counter. Raises MeasurementError where there is none."""
    from automc.errors import MeasurementError
    from automc.measure.energy import counter_of

    counter = counter_of("auto" if meter is None else str(meter), "CPUExecutionProvider")
    if counter is None:
        raise MeasurementError(
            "nothing that counts energy can be read on this machine (neither RAPL nor a Jetson's rails)",
            next_step="where RAPL is there but kept from you: sudo chmod a+r /sys/class/powercap/*/energy_uj; "
            "elsewhere a power meter: --meter FILE",
        )
    return counter


def onnx_file(path: Path) -> Path:
    """The model file `path` stands for: itself, or the one in a bundle. Raises ConfigError."""
    from automc.errors import ConfigError

    file = path / "model.onnx" if path.is_dir() else path
    if not file.is_file():
        what = "no model.onnx in it" if path.is_dir() else "no such file"
        raise ConfigError(f"{path}: {what}", next_step="give an ONNX file or a bundle folder")
    return file
