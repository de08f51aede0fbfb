"""Devices of ncnn's benchmark table: batch 1, one run of one contributor, fp32 networks with known layer graphs.

The table is that of https://github.com/Tencent/ncnn/tree/master/benchmark (BSD-3) as CSV; its networks' graphs are a
JSON object of `.param` texts by name.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from automc.errors import ConfigError
from automc.importing.assemble import Device, TimedNetwork
from automc.importing.ncnn_graph import graph_from_param
from automc.importing.tables import Row, one_of, read_table
from automc.profiles import DeviceKind

COLUMNS = ("device", "run_id", "model", "min_ms", "avg_ms", "num_threads", "gpu_device")
GRAPHS = "model_params.json.gz"
SOURCE = "ncnn's benchmark table (github.com/Tencent/ncnn)"
LICENCE = "BSD-3-Clause"
_NO_SHAPE = {"FastestDet": (3, 352, 352), "vision_transformer": (3, 384, 384)}
"""(channels, height, width) of the networks whose graph does not state it: as benchncnn.cpp runs them."""


def read_ncnn(
    table: Path,
    device: str,
    kind: DeviceKind,
    *,
    threads: int = 1,
    gpu: bool = False,
    run: str | None = None,
    graphs: Path | None = None,
) -> tuple[list[TimedNetwork], Device]:
    """The timings of one run on `device`, with kernel rows. A fit needs the smallest of a run's loops: `min_ms`.

    device: part of its name in the table. run: its `run_id`; by default the one with most networks, then the latest.
    graphs: by default GRAPHS beside the table. Raises ConfigError where device, run or graphs are not to be had, or a
    row of it is no measurement.
    """
    rows = [row for row in read_table(table, COLUMNS) if device.lower() in row.cells["device"].lower()]
    names = list(dict.fromkeys(row.cells["device"] for row in rows))
    exact = [name for name in names if name.lower() == device.lower()]
    if len(exact or names) != 1:
        known = "\n".join(f"  {name}" for name in names) if names else ""
        raise ConfigError(
            f"{table}: {len(names)} devices are called {device!r}{':' if names else ''}\n{known}".rstrip(),
            next_step="give a part of the name that one device alone has",
        )
    name = (exact or names)[0]
    rows = [row for row in rows if row.cells["device"] == name]
    settings = sorted({_setting(row) for row in rows})
    rows = [row for row in rows if _setting(row) == (gpu, threads)]
    if not rows:
        options = [f"--threads {count}{' --gpu' if on_gpu else ''}" for on_gpu, count in settings]
        raise ConfigError(
            f"{table}: {name!r} was not timed with {threads} thread(s) on the {'GPU' if gpu else 'CPU'}",
            next_step="give " + ", or ".join(options),
        )
    rows = one_of(rows, "run_id", run, "--run") if run else _fullest(rows)
    texts = _graphs(graphs or table.parent / GRAPHS)
    kept = [row for row in rows if not row.cells["model"].endswith("_int8")]
    unknown = [row for row in kept if row.cells["model"] not in texts]
    if unknown:
        raise ConfigError(
            f"{unknown[0].where}: no layer graph is known of {unknown[0].cells['model']!r}",
            next_step="give another file with --graphs, or delete this row",
        )
    timed = [
        TimedNetwork(
            row.cells["model"],
            graph_from_param(texts[row.cells["model"]], _NO_SHAPE.get(row.cells["model"])),
            row.positive("min_ms"),
            row.where,
            row.positive("avg_ms") - row.positive("min_ms"),
        )
        for row in kept
    ]
    unit = "GPU (Vulkan)" if gpu else "CPU"
    where = f"{unit}, {threads} thread(s)"
    chosen = kept[0].cells["run_id"]
    return timed, Device(
        name=name,
        kind=kind,
        runtime="ncnn on Vulkan" if gpu else "ncnn",
        runtime_version="unstated",
        threads=threads,
        source=f"{SOURCE}, {name!r}, run {chosen}, {where}, smallest of its loops",
        licence=LICENCE,
        on_gpu=gpu,
        cannot=(
            "ONNX Runtime's time: these are ncnn's own kernels, whose fusion and layouts differ",
            *(("int8: ncnn's timings of it are too few",) if len(kept) < len(rows) else ()),
        ),
    )


def _setting(row: Row) -> tuple[bool, int]:
    """(whether on the GPU, threads)."""
    return row.cells["gpu_device"] not in ("-1", "-1.0"), int(row.cells["num_threads"])


def _fullest(rows: list[Row]) -> list[Row]:
    runs: dict[str, list[Row]] = {}
    for row in rows:
        runs.setdefault(row.cells["run_id"], []).append(row)
    return max(runs.values(), key=lambda found: (len({r.cells["model"] for r in found}), int(found[0].cells["run_id"])))


def _graphs(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file", next_step="give the networks' layer graphs with --graphs")
    try:
        found = json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(
            f"{path}: not a JSON object of .param texts: {error}", next_step="give another file"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ConfigError(f"{path}: not a JSON object of .param texts", next_step="give another file")
    return found
