"""Devices of tables that name ONNX files: a user's own CSV, and Qualcomm AI Hub's table with models beside it."""

from __future__ import annotations

from pathlib import Path

from automc.cost.graph import graph_from_onnx
from automc.errors import ConfigError, PredictorError
from automc.importing.assemble import LEAST_NETWORKS, Device, TimedNetwork
from automc.importing.tables import Row, one_of, read_table
from automc.profiles import DeviceKind

AIHUB_COLUMNS = ("model_id", "component", "precision", "device", "runtime", "latency_ms", "compute_unit")
AIHUB_SOURCE = "Qualcomm AI Hub Models' performance table (github.com/quic/ai-hub-models)"


def read_csv(
    table: Path,
    device: str,
    kind: DeviceKind,
    runtime: str,
    *,
    version: str = "unstated",
    threads: int = 1,
    source: str | None = None,
    licence: str = "the user's own",
) -> tuple[list[TimedNetwork], Device]:
    """Networks timed by the user: columns `model` (an ONNX file, relative to the table) and `latency_ms`.

    A column `energy_mj`, millijoules of one inference, has a number in every row, or is not there.
    A column `device`, `runtime` or `threads`, where the table has one, must say the same in every row as is stated
    here. Raises ConfigError (file, row) otherwise, on what is no measurement or no model, and on a blank device or
    runtime.
    """
    for option, said in (("--device", device), ("--runtime", runtime)):
        if not said.strip():
            raise ConfigError(f"{option} is blank, and says nothing of what was timed", next_step=f"fill in {option}")
    rows = read_table(table, ("model", "latency_ms"))
    if not rows:
        raise ConfigError(f"{table}: no rows", next_step="give a table with a row for each timed network")
    for column, stated in (("device", device), ("runtime", runtime), ("threads", str(threads))):
        for row in rows:
            said = row.cells.get(column, stated).strip()
            if said != stated:
                raise ConfigError(
                    f"{row.where}: {column} is {said!r}, but the profile is of {stated!r}",
                    next_step=f"give --{column} {said!r}, or leave these rows out",
                )
    timed = [_timed(row, table.parent / row.cells["model"], row.cells["model"]) for row in rows]
    return timed, Device(
        name=device, kind=kind, runtime=runtime, runtime_version=version, threads=threads,
        source=source or f"{table.name}, given by the user", licence=licence,
    )  # fmt: skip


def read_aihub(
    table: Path,
    device: str,
    kind: DeviceKind,
    models: Path,
    *,
    runtime: str = "onnx",
    unit: str = "NPU",
) -> tuple[list[TimedNetwork], Device]:
    """float models of one device, runtime and compute unit that lie in `models` as <model_id>.onnx.

    The table has no graphs, so only models whose ONNX file the user exported can be used; the others are left out.
    Models of several components are left out too. Raises ConfigError where too few are left, or a row is no
    measurement.
    """
    rows = one_of(read_table(table, AIHUB_COLUMNS), "device", device, "--device")
    rows = one_of(rows, "runtime", runtime, "--runtime")
    rows = [row for row in rows if row.cells["precision"] == "float"]
    rows = one_of(rows, "compute_unit", unit, "--unit")
    components = [row.cells["model_id"] for row in rows]
    whole = [row for row in rows if components.count(row.cells["model_id"]) == 1]
    if not models.is_dir():
        raise ConfigError(f"{models}: no such folder", next_step="give the folder of the ONNX files with --models")
    here = [row for row in whole if (models / f"{row.cells['model_id']}.onnx").is_file()]
    if len(here) < LEAST_NETWORKS:
        raise ConfigError(
            f"{models}: holds the ONNX files of {len(here)} of the table's {len(whole)} models; the table has no "
            f"graphs, so at least {LEAST_NETWORKS} are needed",
            next_step="export more of them, as <model_id>.onnx: "
            + ", ".join([row.cells["model_id"] for row in whole if row not in here][:8]),
        )
    timed = [_timed(row, models / f"{row.cells['model_id']}.onnx", row.cells["model_id"]) for row in here]
    return timed, Device(
        name=device, kind=kind, runtime=f"AI Hub {runtime} on {unit}", runtime_version="unstated", threads=1,
        source=f"{AIHUB_SOURCE}, {device!r}, {runtime}, {unit}, float", licence="BSD-3-Clause",
        on_gpu=unit == "GPU",
        cannot=("w8a8 and w8a16: only float was fitted", f"layers that {runtime} does not place on the {unit}"),
    )  # fmt: skip


def _timed(row: Row, file: Path, name: str) -> TimedNetwork:
    latency = row.positive("latency_ms")
    if not file.is_file():
        raise ConfigError(f"{row.where}: {file}: no such file", next_step="correct the path, or delete this row")
    energy = row.positive("energy_mj") if "energy_mj" in row.cells else float("nan")
    try:
        graph = graph_from_onnx(file, level="extended")
    except (ConfigError, PredictorError) as error:
        raise type(error)(f"{row.where}: {error.message}", next_step=error.next_step) from error
    return TimedNetwork(name, graph, latency, row.where, energy_mj=energy)
