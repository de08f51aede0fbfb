"""Adds kernel kinds to a calibration: measures single kernels of them here and prices them beside what is known."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from automc.cost.calibration import Calibration, ClassRange, load_calibration
from automc.cost.features import kernel_class
from automc.cost.fit import Observation, extended
from automc.errors import MeasurementError, PredictorError
from automc.measure.anchor import Anchor
from automc.measure.batch import calm_ms, measure_batch
from automc.measure.fingerprint import check_fingerprint
from automc.measure.sessions import SessionSettings, open_session, random_inputs
from automc.measure.timing import settings_of
from automc.profiles import HardwareProfile, cache_folder, calibration_text, load_profile, profile_folder, save_profile

if TYPE_CHECKING:
    pass

BATCHES = (1, 2, 4)
"""Each kernel is timed on its shapes and on two and four times as much of the first axis, to tell its fixed cost from
what grows."""

BUDGET_S = 20.0
TOO_BUSY = "the machine was too busy to time it"
"""Why a kind could not be measured that could be another time."""


@dataclass(frozen=True)
class Added:
    """kinds: now in the profile, which lies in `folder`. problems: kind -> why it could not be measured."""

    kinds: tuple[str, ...]
    problems: Mapping[str, str]
    folder: Path


def add_kinds(profile: str, models: Mapping[str, Sequence[onnx.ModelProto]], *, seed: int = 0) -> Added:
    """Measure the kinds of `models` on this host and add them to the user's profile of that name.

    profile: name, or folder, of a profile of this machine. models: kernel class -> single kernels of it. What the
    profile knows already is left as it is, its held-out errors too: they say nothing of the new kinds.
    Raises StaleCalibrationError where the profile is not this machine's; nothing is written then, or where nothing
    could be measured.
    """
    before = load_profile(profile)
    check_fingerprint(before)
    source = profile_folder(profile)
    calibration = load_calibration(before, source)
    started = time.monotonic()
    observations, problems = _observe(before, calibration, models, seed)
    kinds = tuple(kind for kind in models if kind not in problems)
    folder = Path(profile) if (Path(profile) / "profile.yaml").is_file() else cache_folder() / "profiles" / before.name
    if not kinds:
        return Added((), problems, source)
    known = calibration.fit()
    found = extended(known, observations, kinds)
    made = calibration.model_copy(
        update={
            "coefficients": dict(found.coefficients),
            "classes": {
                **calibration.classes,
                **{
                    kind: ClassRange(
                        low=dict(found.ranges[kind].low),
                        high=dict(found.ranges[kind].high),
                        observations=found.ranges[kind].observations,
                        spread=found.spread[kind],
                    )
                    for kind in kinds
                },
            },
            "observations": calibration.observations + len(observations),
            "rows_digest": _digest(calibration.rows_digest, observations),
            "measured_s": calibration.measured_s + time.monotonic() - started,
        }
    )
    digest = hashlib.sha256(calibration_text(made.as_json()).encode()).hexdigest()
    save_profile(before.model_copy(update={"calibration_digest": digest}), made.as_json(), folder)
    return Added(kinds, problems, folder)


def _observe(
    profile: HardwareProfile, calibration: Calibration, models: Mapping[str, Sequence[onnx.ModelProto]], seed: int
) -> tuple[list[Observation], dict[str, str]]:
    """Calm timings of the kernels that alone run as in a network; the kinds of which none does, and why."""
    from automc.cost.graph import graph_from_onnx

    settings = settings_of(profile)
    machine, known = calibration.fit().machine, set(calibration.classes)
    content: dict[str, bytes] = {}
    graphs = {}
    problems: dict[str, str] = {}
    for kind, several in models.items():
        for index, model in enumerate(several):
            for factor in BATCHES:
                name = f"{kind}#{index}x{factor}"
                try:
                    enlarged = _that_runs(model, factor, settings)
                    graph = graph_from_onnx(enlarged)
                except (PredictorError, MeasurementError) as error:
                    problems.setdefault(kind, f"alone it does not run: {error.message.splitlines()[0]}")
                    continue
                strange = {kernel_class(row, machine) for row in graph.rows} - known
                if kind not in strange:
                    problems.setdefault(kind, "alone the runtime executes it as another kind of kernel")
                elif strange <= set(models):
                    content[name], graphs[name] = enlarged.SerializeToString(), graph
    anchor = Anchor(settings, known_ms=profile.anchor_ms)
    found = measure_batch(content, settings, anchor, passes=2, budget_s=BUDGET_S, seed=seed)
    observations = []
    for name, passes in found.items():
        calm = calm_ms(passes, anchor)
        if calm:
            observations.append(Observation(graphs[name], min(calm)))
    timed = {kernel_class(row, machine) for observation in observations for row in observation.graph.rows}
    asked = {kernel_class(row, machine) for graph in graphs.values() for row in graph.rows}
    for kind in models:
        if kind in timed:
            problems.pop(kind, None)
        elif kind in asked:  # a size of it that does not run is no reason: another does
            problems[kind] = TOO_BUSY
        else:
            problems.setdefault(kind, TOO_BUSY)
    return observations, problems


def _that_runs(model: onnx.ModelProto, factor: int, settings: SessionSettings) -> onnx.ModelProto:
    """The model on `factor` times as much of the first axis of every input, or of the first one where only that runs.

    Raises MeasurementError, chained, where neither does.
    """
    count = len(model.graph.input)
    try:
        return _enlarged(model, factor, count, settings)
    except MeasurementError:
        if factor == 1 or count == 1:
            raise
        return _enlarged(model, factor, 1, settings)


def _enlarged(model: onnx.ModelProto, factor: int, inputs: int, settings: SessionSettings) -> onnx.ModelProto:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    made = onnx.ModelProto()
    made.CopyFrom(model)
    for item in made.graph.input[:inputs]:
        shape = item.type.tensor_type.shape
        if shape.dim:
            shape.dim[0].dim_value *= factor
    session = open_session(made.SerializeToString(), settings)
    try:
        session.run(None, random_inputs(session))
    except (state.Fail, state.InvalidArgument, state.RuntimeException, state.NotImplemented) as error:
        raise MeasurementError(
            str(error),
            next_step="time the network as it is: automc bench MODEL.onnx",
        ) from error
    return made


def _digest(before: str, observations: Sequence[Observation]) -> str:
    text = "\n".join(f"{observation.latency_ms!r}" for observation in observations)
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()
