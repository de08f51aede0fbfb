#!/usr/bin/env python3
"""Run the bundled model on one raw sample: `python run.py INPUT.npy` or `python run.py PICTURE.png`.

Needs onnxruntime and numpy, for pictures Pillow. The input is a raw sample as preprocess.json declares it; the steps
declared there, the same the model was measured with, are applied here. `--prepared` takes a model input as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
Array = np.ndarray[Any, Any]
Step = Mapping[str, Any]


class BundleInputError(Exception):
    """What was given does not fit the bundle; the message says what is expected."""


def read_json(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def open_session(folder: Path) -> Any:
    """An onnxruntime session with the threads, provider and optimisation level the figures were obtained with."""
    import onnxruntime

    levels = {
        "ALL": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
        "EXTENDED": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "BASIC": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "NONE": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    }
    settings = read_json(folder, "session.json")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["intra_op_threads"]
    options.inter_op_num_threads = settings["inter_op_threads"]
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = levels[settings["graph_optimization_level"]]
    options.log_severity_level = 3
    for key, value in settings["config_entries"].items():
        options.add_session_config_entry(key, value)
    provider, here = settings["provider"], onnxruntime.get_available_providers()
    if provider not in here:
        raise BundleInputError(f"session.json asks for {provider}; onnxruntime here offers {', '.join(here)}")
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=[provider])


def _per_channel(x: Array, values: Sequence[float]) -> Array:
    return np.asarray(values, dtype=x.dtype).reshape(1, -1, *[1] * (x.ndim - 2))


def _normalise(x: Array, step: Step) -> Array:
    return (x - _per_channel(x, step["mean"])) / _per_channel(x, step["std"])


# The steps preprocess.json may hold: what each does to (n, ...) samples, and the keys it takes beside "op".
# Axes count within a sample: axis 0 is the first one after the batch.
LAYOUT_STEPS: dict[str, tuple[Callable[[Array, Step], Array], set[str]]] = {
    "transpose": (lambda x, step: np.transpose(x, (0, *(axis + 1 for axis in step["axes"]))), {"axes"}),
    "add_channel_axis": (lambda x, step: x[:, None], set()),
}
STEPS = LAYOUT_STEPS | {
    "divide": (lambda x, step: x / np.asarray(step["by"], dtype=x.dtype), {"by"}),
    "normalise": (_normalise, {"mean", "std"}),
    "repeat_pixels": (lambda x, step: x.repeat(step["times"], axis=2).repeat(step["times"], axis=3), {"times"}),
}


def check_preprocessing(spec: Mapping[str, Any]) -> None:
    """Raise BundleInputError where `spec` holds anything that `prepare` does not carry out."""
    for key in spec:
        if key not in ("raw", "steps", "input"):
            raise BundleInputError(f"preprocessing: unknown key {key!r}; allowed: raw, steps, input")
    for place, step in enumerate(spec.get("steps", [])):
        known = STEPS.get(step.get("op"))
        if known is None:
            raise BundleInputError(
                f"preprocessing: steps[{place}].op = {step.get('op')!r}; allowed: {', '.join(STEPS)}"
            )
        if set(step) - {"op"} != known[1]:
            raise BundleInputError(f"preprocessing: steps[{place}] ({step['op']}) takes exactly {sorted(known[1])}")


def check_raw(raw: Array, spec: Mapping[str, Any]) -> None:
    """Raise BundleInputError where (n, ...) samples have another dtype or shape than declared."""
    declared = spec.get("raw", {})
    if "dtype" in declared and raw.dtype != np.dtype(declared["dtype"]):
        raise BundleInputError(f"raw samples must be {declared['dtype']}, these are {raw.dtype}")
    if "shape" in declared and list(raw.shape[1:]) != list(declared["shape"]):
        raise BundleInputError(f"a raw sample has shape {declared['shape']}, this one has {list(raw.shape[1:])}")


def arrange(raw: Array, spec: Mapping[str, Any]) -> Array:
    """(n, ...) raw samples in the model's layout, values and dtype untouched."""
    for step in spec.get("steps", []):
        if step["op"] in LAYOUT_STEPS:
            raw = LAYOUT_STEPS[step["op"]][0](raw, step)
    return np.ascontiguousarray(raw)


def prepare(raw: Array, spec: Mapping[str, Any]) -> Array:
    """(n, ...) raw samples to model inputs: cast to the input's dtype, then the declared steps in order."""
    check_raw(raw, spec)
    batch = raw.astype(spec.get("input", {}).get("dtype", str(raw.dtype)))
    for step in spec.get("steps", []):
        batch = STEPS[step["op"]][0](batch, step)
    return np.ascontiguousarray(batch)


def run_one_by_one(session: Any, inputs: Sequence[Array]) -> list[Array]:
    """Every sample alone, as deployed. inputs: (n, ...) per model input; gives (n, ...) per model output."""
    names = [item.name for item in session.get_inputs()]
    rows = [
        session.run(None, {name: array[i : i + 1] for name, array in zip(names, inputs, strict=True)})
        for i in range(len(inputs[0]))
    ]
    return [np.concatenate([row[k] for row in rows]) for k in range(len(rows[0]))]


def read_sample(path: Path, spec: Mapping[str, Any]) -> Array:
    """One raw sample from a .npy file, or from a picture where Pillow is installed (resized to the declared shape)."""
    if path.suffix == ".npy":
        sample: Array = np.load(path, allow_pickle=False)
        return sample
    try:
        from PIL import Image
    except ImportError as error:
        raise BundleInputError(
            f"{path.name}: pictures need Pillow (pip install pillow); or give a .npy file"
        ) from error
    declared = spec.get("raw", {})
    shape, layout = declared.get("shape", []), declared.get("layout")
    places = {"HWC": (0, 1, 2), "CHW": (1, 2, 0), "HW": (0, 1, None)}.get(layout)
    if places is None:
        raise BundleInputError(f"raw samples are {layout or 'plain'} arrays, not pictures: give a .npy file")
    height, width = shape[places[0]], shape[places[1]]
    channels = 1 if places[2] is None else shape[places[2]]
    with Image.open(path) as picture:
        converted = picture.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    if converted.size != (width, height):
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(converted).reshape(height, width, channels)
    pixels = pixels.transpose(2, 0, 1) if layout == "CHW" else pixels
    # the divisor that brings raw values to 0..1 is their full scale; a picture's is 255
    full = next((step["by"] for step in spec["steps"] if step["op"] == "divide"), 255)
    pixels = pixels if full == 255 else np.rint(pixels * (full / 255))
    return pixels.reshape(shape).astype(declared["dtype"])


def predict(folder: Path, sample: Array, prepared: bool) -> list[Array]:
    """Outputs of the bundled model for one sample, without the batch axis."""
    described = read_json(folder, "io.json")["inputs"]
    if len(described) != 1:
        raise BundleInputError(f"this model takes {len(described)} inputs and run.py feeds one: see io.json")
    wanted = described[0]
    batch = sample[None] if prepared else prepare(sample[None], read_json(folder, "preprocess.json"))
    if list(batch.shape[1:]) != wanted["shape"][1:] or str(batch.dtype) != wanted["dtype"]:
        raise BundleInputError(
            f"the model takes {wanted['dtype']} {wanted['shape'][1:]}, this is {batch.dtype} {list(batch.shape[1:])}"
        )
    return [output[0] for output in run_one_by_one(open_session(folder), [batch])]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Run the bundled model on one raw sample.", epilog="example: python run.py sample.npy --top 3"
    )
    parser.add_argument("input", type=Path, help=".npy with one raw sample, or a picture where Pillow is installed")
    parser.add_argument("--prepared", action="store_true", help="the array is a model input already (no batch axis)")
    parser.add_argument("--top", type=int, default=5, help="how many of the largest outputs to print (default 5)")
    parser.add_argument("--json", action="store_true", help="print every output as JSON")
    options = parser.parse_args(arguments)
    try:
        spec = {} if options.prepared else read_json(HERE, "preprocess.json")
        outputs = predict(HERE, read_sample(options.input, spec), options.prepared)
    except (BundleInputError, OSError, ValueError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    if options.json:
        names = [item["name"] for item in read_json(HERE, "io.json")["outputs"]]
        print(json.dumps({name: output.tolist() for name, output in zip(names, outputs, strict=True)}))
        return 0
    scores = outputs[0].astype(np.float64).ravel()
    labels = read_json(HERE, "expected.json")["class_labels"]
    for place in np.argsort(-scores, kind="stable")[: options.top]:
        print(f"{labels[place] if labels else place}\t{scores[place]:.6g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
