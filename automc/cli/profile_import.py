"""`automc profile import ncnn | aihub | csv`: a profile of a device from a table of somebody's measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from automc.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from automc.importing.assemble import Device, TimedNetwork
    from automc.profiles import DeviceKind

KINDS = "server CPU, desktop CPU, laptop CPU, single-board computer, phone, embedded GPU, GPU, NPU or FPGA"

Table = Annotated[Path, typer.Argument(help="CSV file; may be gzipped (.gz).")]
Name = Annotated[str, typer.Option(help="What to call the profile.")]
Kind = Annotated[str, typer.Option(help=f"What kind of device it is: {KINDS}.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads it was timed with.")]
Replace = Annotated[bool, typer.Option("--replace", help="Write over an imported profile of that name.")]
Folder = Annotated[Path | None, typer.Option(help="Where to write it; default among your own profiles.")]

commands = typer.Typer(
    help="A device from a table of measurements: fitted, and checked by leaving each network out.\n\n"
    "Example: automc profile import csv board.csv --name board --device 'My board' --kind phone --runtime tflite",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@commands.command("csv")
def import_csv(
    table: Table,
    name: Name,
    device: Annotated[str, typer.Option(help="The device in words.")],
    kind: Kind,
    runtime: Annotated[str, typer.Option(help="What ran the networks, for example onnxruntime or tflite.")],
    runtime_version: Annotated[str, typer.Option(help="Its version.")] = "unstated",
    threads: Threads = 1,
    source: Annotated[str | None, typer.Option(help="Who measured it, how.")] = None,
    licence: Annotated[str, typer.Option(help="Of the measurements.")] = "the user's own",
    folder: Folder = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Your own measurements: one row for each network, float, at the batch its ONNX file fixes (1 where it is open).

    \b
    Columns:
      model        its ONNX file, relative to the table
      latency_ms   milliseconds of one inference, whole network
      energy_mj    (if there) millijoules of one inference, without what idling draws: fitted jointly with latency
      device, runtime, threads (if there) must say the same in every row as the options do

    At least 8 networks of different kinds and sizes; from 20 on it may decide limits on latency. An operator that
    fewer than 3 networks have is not calibrated.

    Example: automc profile import csv board.csv --name board --device 'My board' --kind phone --runtime tflite
    """
    from automc.importing.onnx_tables import read_csv

    rows, found = read_csv(
        table, device, _kind(kind), runtime,
        version=runtime_version, threads=threads, source=source, licence=licence,
    )  # fmt: skip
    _store(rows, found, name, folder, replace, as_json)


@commands.command("ncnn")
def import_ncnn(
    table: Table,
    name: Name,
    device: Annotated[str, typer.Option(help="A part of its name in the table that no other device has.")],
    kind: Kind,
    threads: Threads = 1,
    gpu: Annotated[bool, typer.Option("--gpu", help="Its GPU (Vulkan) instead of its CPU.")] = False,
    run: Annotated[str | None, typer.Option(help="run_id of the timings; default the one with most networks.")] = None,
    graphs: Annotated[
        Path | None, typer.Option(help="JSON of the networks' .param texts; default beside the table.")
    ] = None,
    folder: Folder = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """A device of ncnn's benchmark table: columns device, run_id, model, min_ms, avg_ms, num_threads, gpu_device.

    float networks at batch 1 of a single run; their layer graphs lie beside the table (model_params.json.gz).

    Example: automc profile import ncnn ncnn_benchmark.csv.gz --device 'Snapdragon 855+' --name sd855 --kind phone
    """
    from automc.importing.ncnn import read_ncnn

    rows, found = read_ncnn(table, device, _kind(kind), threads=threads, gpu=gpu, run=run, graphs=graphs)
    _store(rows, found, name, folder, replace, as_json)


@commands.command("aihub")
def import_aihub(
    table: Table,
    name: Name,
    device: Annotated[str, typer.Option(help="Its name in the table.")],
    models: Annotated[Path, typer.Option(help="Folder of the models as <model_id>.onnx.")],
    kind: Kind = "phone",
    runtime: Annotated[str, typer.Option(help="onnx, tflite, qnn_dlc or another of the table.")] = "onnx",
    unit: Annotated[str, typer.Option(help="NPU, GPU or CPU, as in the table.")] = "NPU",
    folder: Folder = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """A device of Qualcomm AI Hub's table, from the models whose ONNX file you have: the table holds no graphs.

    Columns: model_id, component, precision, device, runtime, latency_ms, compute_unit. float models of one component.

    Example: automc profile import aihub perf.csv --device 'Samsung Galaxy S24' --models exported --name s24
    """
    from automc.importing.onnx_tables import read_aihub

    rows, found = read_aihub(table, device, _kind(kind), models, runtime=runtime, unit=unit)
    _store(rows, found, name, folder, replace, as_json)


def _kind(text: str) -> DeviceKind:
    from automc.errors import ConfigError
    from automc.nearest import nearest
    from automc.profiles import DeviceKind

    known = get_args(DeviceKind)
    if text not in known:
        raise ConfigError(f"no kind of device is called {text!r}{nearest(text, known)}", next_step=f"one of {KINDS}")
    return cast("DeviceKind", text)


def _store(
    rows: list[TimedNetwork], device: Device, name: str, folder: Path | None, replace: bool, as_json: bool
) -> None:
    from automc.cli.profile import show
    from automc.importing.assemble import import_device
    from automc.profiles import cache_folder

    profile = import_device(rows, device, name, folder, replace=replace)
    if as_json:
        print_json(profile.model_dump(mode="json"))
        return
    show(str(folder or cache_folder() / "profiles" / name))
