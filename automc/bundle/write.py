"""Writes a bundle: everything a stranger needs to run the model and to check what is said of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import JsonValue

from automc.bundle.templates import run as runner
from automc.bundle.templates import verify as verifier
from automc.bundle.verify import Bundle
from automc.candidate import Candidate
from automc.errors import BundleError, ConfigError
from automc.profiles import HardwareProfile
from automc.techniques.plan import Plan
from automc.trial import Figure, Metric

if TYPE_CHECKING:
    import numpy as np
    import onnx

TEMPLATES = Path(runner.__file__).parent
ELSEWHERE_SHARE = {False: 0.001, True: 0.05}
"""Allowed deviation of outputs on another device, as a share of their range; keyed by whether integers are used.

Floats: summation order and fused multiply-add; between ONNX Runtime's own optimisation levels ResNet-20 moves by 2e-7
of its range. Integers: an activation next to a rounding border may land one step (1/255 of its range) away, and later
layers carry that on; between integer kernels and the same graph computed in floats ResNet-20 moves by 0.008.
(64 CIFAR-10 images, ONNX Runtime 1.32, AVX-512 VNNI.) Saturating int8 kernels move it further, and are to be caught.
"""
ACCURACY_TOLERANCE = 0.001
"""By how much the metric on the very samples of the promise may be worse: one sample in a thousand; a thousandth of an
error."""


@dataclass(frozen=True)
class BundleContents:
    """What goes into a bundle.

    model: the ONNX file as it was timed, written byte for byte (a ModelProto is serialised).
    golden_inputs: a few prepared samples, (n, ...) per model input in graph order; their outputs are computed here.
    golden_raw: the same samples raw, (n, ...), so that preprocessing is checked as well; None where there are none.
    figures: what is promised (accuracy names its split, latency_ms is by the profile's percentile); predicted: what
    the search had predicted; reference: the same quantities of the reference. speedup: over the reference, timed
    in turn, with the interval that a repeat is expected in.
    saves: what each technique of the chain saves, as its class declares. data_digests: sha256 per split, and "base".
    metric: what the figure `accuracy` is ("accuracy" or "squared_error" can be checked from data).
    device: `templates.verify.device()` of where latency was measured, or is predicted for; None: this machine.
    """

    name: str
    base_name: str
    model: bytes | onnx.ModelProto
    profile: HardwareProfile
    candidate: Candidate
    figures: Mapping[Metric, Figure]
    golden_inputs: tuple[np.ndarray, ...]
    preprocessing: Mapping[str, JsonValue]
    golden_raw: np.ndarray | None = None
    predicted: Mapping[Metric, Figure] = field(default_factory=dict)
    reference: Mapping[Metric, Figure] = field(default_factory=dict)
    speedup: Figure | None = None
    quantization: Mapping[str, JsonValue] = field(default_factory=dict)
    plans: tuple[Plan, ...] = ()
    recovery: Mapping[str, JsonValue] = field(default_factory=dict)
    seed: int = 0
    data_digests: Mapping[str, str] = field(default_factory=dict)
    saves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    metric: str = "accuracy"
    class_labels: tuple[str, ...] = ()
    licence: str = ""
    notice: str = ""
    summary: str = ""
    limits: tuple[str, ...] = ()
    device: Mapping[str, JsonValue] | None = None


def write_bundle(folder: Path, contents: BundleContents) -> Bundle:
    """Write the bundle at `folder`, which appears complete or not at all.

    Raises ConfigError where `folder` exists, BundleError where it cannot be written, where the model is not portable
    (external data, layouts of one machine) or where preprocessing or golden samples do not fit it.
    """
    if folder.exists():
        raise ConfigError(f"{folder} exists already", next_step="name another folder, or move this one away")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        _fill(part, contents)
        part.chmod(0o755)
        part.rename(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Bundle(folder)


def _unwritable(folder: Path, error: OSError) -> BundleError:
    return BundleError(
        f"{folder}: cannot be written: {error}", next_step="make room, or choose another folder: --out DIR"
    )


def _fill(part: Path, contents: BundleContents) -> None:
    import onnx

    data = contents.model if isinstance(contents.model, bytes) else contents.model.SerializeToString()
    model = onnx.load_model_from_string(data)
    quantised = _check_portable(model)
    try:
        runner.check_preprocessing(contents.preprocessing)
    except runner.BundleInputError as error:
        raise BundleError(str(error), next_step="declare the preprocessing in steps that run.py carries out") from error
    profile = contents.profile
    (part / "model.onnx").write_bytes(data)
    _write_json(part / "preprocess.json", dict(contents.preprocessing))
    _write_json(part / "quantization.json", dict(contents.quantization))
    _write_json(
        part / "session.json",
        {
            "provider": profile.execution_provider,
            "intra_op_threads": profile.threads,
            "inter_op_threads": 1,
            "graph_optimization_level": "ALL",
            "config_entries": {"session.intra_op.allow_spinning": "1" if profile.threads > 1 else "0"},
        },
    )
    io = _write_golden(part, contents)
    here = verifier.device()
    device = dict(contents.device) if contents.device is not None else here
    golden = {
        "inputs": len(io["inputs"]),
        "outputs": len(io["outputs"]),
        "device": here,
        "elsewhere_share_of_range": ELSEWHERE_SHARE[quantised],
        "input_tolerance": 1e-5,
    }
    _write_json(
        part / "expected.json",
        {
            "metric": contents.metric,
            "figures": {key: figure.to_json() for key, figure in contents.figures.items()},
            "predicted": {key: figure.to_json() for key, figure in contents.predicted.items()},
            "reference": {key: figure.to_json() for key, figure in contents.reference.items()},
            "speedup": contents.speedup.to_json() if contents.speedup else None,
            "device": device,
            "profile": {"name": profile.name, "fingerprint": profile.fingerprint.model_dump(mode="json")},
            "protocol": profile.protocol.model_dump(mode="json"),
            "noise_floor_percent": profile.noise_floor_percent,
            "data_digests": dict(contents.data_digests),
            "accuracy_tolerance": ACCURACY_TOLERANCE,
            "golden": golden,
            "saves": {name: list(what) for name, what in contents.saves.items()},
            "class_labels": list(contents.class_labels),
        },
    )
    recipe = {
        "base": contents.base_name,
        "candidate": contents.candidate.to_json(),
        "candidate_id": contents.candidate.id,
        "plans": [plan.model_dump(mode="json") for plan in contents.plans],
        "recovery": dict(contents.recovery),
        "seed": contents.seed,
        "data_digests": dict(contents.data_digests),
    }
    (part / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False, width=120), encoding="utf-8")
    requirements = f"onnxruntime=={here['runtime_version']}\nnumpy>=1.26\n# and pillow, for run.py on pictures\n"
    (part / "requirements.txt").write_text(requirements, encoding="utf-8")
    for name in ("run.py", "verify.py"):
        shutil.copyfile(TEMPLATES / name, part / name)
    _write_licences(part, contents)
    from automc.bundle.card import model_card

    opset = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    (part / "MODEL_CARD.md").write_text(model_card(contents, io, opset, device, here, quantised), encoding="utf-8")
    _write_manifest(part, {"opset": opset, "ir_version": model.ir_version})


def _check_portable(model: onnx.ModelProto) -> bool:
    """Whether the graph computes in integers. Raises BundleError where it would not load on another machine."""
    for node in model.graph.node:
        if node.domain == "com.microsoft.nchwc":
            raise BundleError(
                f"node {node.name!r} ({node.op_type}) holds a layout of one machine",
                next_step="optimise the graph at most to EXTENDED before bundling",
            )
    for tensor in model.graph.initializer:
        if tensor.external_data:
            raise BundleError(
                f"initialiser {tensor.name!r} lies outside the model file", next_step="save it inside the file"
            )
    return any(
        "QuantizeLinear" in node.op_type or "Integer" in node.op_type or "QLinear" in node.op_type
        for node in model.graph.node
    )


def _write_golden(part: Path, contents: BundleContents) -> dict[str, list[dict[str, JsonValue]]]:
    """Run the golden samples through the written file as a stranger will; write golden.npz and io.json."""
    import numpy as np

    try:
        session = runner.open_session(part)
    except runner.BundleInputError as error:
        raise BundleError(str(error), next_step="export the model again") from error
    wanted = session.get_inputs()
    inputs = [np.ascontiguousarray(array) for array in contents.golden_inputs]
    counts = {len(array) for array in inputs}
    if len(inputs) != len(wanted) or len(counts) != 1 or counts == {0}:
        shapes = [array.shape for array in inputs]
        raise BundleError(
            f"golden_inputs: {len(wanted)} arrays of equally many samples needed, got shapes {shapes}",
            next_step="give one array for every input of the model",
        )
    if contents.golden_raw is not None:
        prepared = runner.prepare(contents.golden_raw, contents.preprocessing)
        if prepared.shape != inputs[0].shape or not np.allclose(prepared, inputs[0], rtol=0, atol=1e-5):
            raise BundleError(
                "the declared preprocessing does not turn golden_raw into golden_inputs",
                next_step="let the workload declare the preprocessing that it applies",
            )
    outputs = runner.run_one_by_one(session, inputs)
    if not all(np.isfinite(array).all() for array in outputs):
        raise BundleError(
            "the model gives NaN or infinity on the golden samples",
            next_step="choose another finalist: automc front RUN",
        )
    arrays: dict[str, Any] = {f"input_{k}": array for k, array in enumerate(inputs)}
    arrays |= {f"output_{k}": array for k, array in enumerate(outputs)}
    if contents.golden_raw is not None:
        arrays["raw"] = contents.golden_raw
    np.savez(part / "golden.npz", **arrays)
    io: dict[str, list[dict[str, JsonValue]]] = {}
    for kind, described, found in (("inputs", wanted, inputs), ("outputs", session.get_outputs(), outputs)):
        io[kind] = [
            {
                "name": item.name,
                "dtype": str(array.dtype),
                "shape": [size if isinstance(size, int) else "any" for size in item.shape[:1]] + list(array.shape[1:]),
            }
            for item, array in zip(described, found, strict=True)
        ]
    _write_json(part / "io.json", io)
    return io


def _write_licences(part: Path, contents: BundleContents) -> None:
    if contents.licence:
        (part / "LICENSE").write_text(contents.licence.rstrip() + "\n", encoding="utf-8")
    if contents.notice or not contents.licence:
        notice = contents.notice or (
            f"No licence text came with the source model ({contents.base_name}).\n"
            "The weights in model.onnx are derived from it: ask its owner before passing them on."
        )
        (part / "NOTICE").write_text(notice.rstrip() + "\n", encoding="utf-8")


def _write_manifest(part: Path, facts: Mapping[str, object]) -> None:
    from importlib.metadata import version

    files = {
        path.name: {"sha256": verifier.sha256(path), "size_bytes": path.stat().st_size}
        for path in sorted(part.iterdir())
    }
    _write_json(
        part / "manifest.json",
        {
            "schema_version": verifier.SCHEMA_VERSION,
            "written_by": f"automc {version('automc')}",
            **facts,
            "files": files,
        },
    )
    digest = hashlib.sha256((part / "manifest.json").read_bytes()).hexdigest()
    (part / "manifest.sha256").write_bytes(f"{digest}  manifest.json\n".encode())


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
