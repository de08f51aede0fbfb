"""Questions a device is asked directly: which int8 scheme is fast, whether it overflows, which widths pay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from automc.cost.calibration import ACTIVATIONS, Int8Probe, ThreadProbe, WidthProbe
from automc.errors import MeasurementError
from automc.measure.anchor import Anchor
from automc.measure.batch import Pass, calm_ms, measure_batch
from automc.measure.builder import IR_VERSION, OPSET, GraphBuilder, Scheme
from automc.measure.sessions import SessionSettings, run
from automc.profiles import Int8Facts

MULTIPLES = (32, 16, 8, 4, 2, 1)
INT8_PROBED = ((32, 16), (64, 16), (64, 8), (128, 8))
"""(width, size) of the networks that int8 is compared with fp32 on."""
THREADS_PROBED = (128, 16)
"""(width, size) of the network that numbers of threads are compared on."""
WIDTHS = (33, 36, 38, 40, 42, 44, 46, 48, 50, 52, 54, 56, 58, 60, 62, 64)
TOLERANCE = 1.05  # two widths within 5 % cost the same: test-retest of two passes
AGREEMENT = 0.8
SCHEME_MARGIN = 1.05  # int8 activations must win by more than test-retest: uint8 is the form the runtime fuses furthest


def probe_network(scheme: Scheme, width: int, size: int = 16) -> bytes:
    """A stem and two residual blocks of two 3x3 convolutions of `width` channels.

    The additions matter: with int8 activations ONNX Runtime keeps plain chains on integers but not these blocks.
    """
    builder = GraphBuilder(scheme, np.random.default_rng(width))
    x = builder.conv(builder.input((1, 3, size, size)), width, 3)
    for _ in range(2):
        x = builder.conv(builder.conv(x, width, 3), width, 3, act="Relu", add=x)
    return builder.finish(builder.gemm(builder.flatten(builder.global_pool(x)), 10))


def int8_probes(
    settings: SessionSettings, anchor: Anchor, *, seed: int = 0, budget_s: float = 10.0
) -> tuple[Int8Probe, ...]:
    """Four networks in fp32 and in int8 with uint8 and int8 activations (int8 weights per channel), timed.

    Raises MeasurementError where not all of them could be timed within `budget_s`.
    """
    schemes: tuple[Scheme, ...] = ("fp32", "u8s8", "s8s8")
    models = {f"{scheme}.{w}.{s}": probe_network(scheme, w, s) for scheme in schemes for w, s in INT8_PROBED}
    timed = measure_batch(models, settings, anchor, passes=2, runs=30, budget_s=budget_s, seed=seed)
    found = {name: _best_ms(passes, anchor) for name, passes in timed.items()}
    if len(found) < len(models):
        raise MeasurementError(
            f"the machine is too busy: {len(found)} of {len(models)} probes ran in {budget_s:.0f} s",
            next_step="close what else runs on this machine, then: automc profile calibrate host",
        )
    return tuple(
        Int8Probe(
            width=w,
            size=s,
            fp32_ms=found[f"fp32.{w}.{s}"],
            uint8_ms=found[f"u8s8.{w}.{s}"],
            int8_ms=found[f"s8s8.{w}.{s}"],
        )
        for w, s in INT8_PROBED
    )


def int8_facts(probes: Sequence[Int8Probe], settings: SessionSettings) -> Int8Facts:
    """The faster of uint8 and int8 activations, its gain over fp32 (median ratio over `probes`), and whether its sums
    overflow on this host."""
    uint8, int8 = (float(np.median([probe.gain(kind) for probe in probes])) for kind in ACTIVATIONS)
    unsigned = uint8 * SCHEME_MARGIN >= int8
    return Int8Facts(
        activation_type="uint8" if unsigned else "int8",
        weight_type="int8",
        per_channel=True,
        reduce_range=unsigned and overflows(settings),
        speedup=uint8 if unsigned else int8,
    )


def overflows(settings: SessionSettings) -> bool:
    """Whether the sum of products of uint8 and int8 is wrong at the extremes: without VNNI, pairs saturate at int16."""
    depth = 64
    weights = numpy_helper.from_array(np.full((depth, 16), 127, np.int8), "weights")
    node = helper.make_node("MatMulInteger", ["a", "weights"], ["sum"])
    graph = helper.make_graph(
        [node],
        "overflow",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [8, depth])],
        [helper.make_tensor_value_info("sum", TensorProto.INT32, [8, 16])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    given = {"a": np.full((8, depth), 255, np.uint8)}
    result = run(model.SerializeToString(), given, settings=settings)["sum"]
    return bool((result != 255 * 127 * depth).any())


def width_probes(
    settings: SessionSettings, anchor: Anchor, *, seed: int = 0, budget_s: float = 6.0
) -> tuple[WidthProbe, ...]:
    """The probe network in fp32 at each of WIDTHS that could be timed within `budget_s`, narrowest first."""
    models = {str(width): probe_network("fp32", width) for width in WIDTHS}
    timed = measure_batch(models, settings, anchor, passes=2, runs=30, budget_s=budget_s, seed=seed)
    return tuple(
        WidthProbe(width=width, latency_ms=_best_ms(timed[str(width)], anchor))
        for width in WIDTHS
        if timed.get(str(width))
    )


def thread_probes(
    settings: SessionSettings, anchor: Anchor, cores: int, *, seed: int = 0, budget_s: float = 4.0
) -> tuple[ThreadProbe, ...]:
    """The probe network of THREADS_PROBED channels in fp32 with 1, 2, 4, ... threads up to `cores`, fewest first.

    Those that could be timed within `budget_s`. What threads gain on smaller layers is less.
    """
    counts = [2**power for power in range(cores.bit_length()) if 2**power < cores] + [cores]
    found = []
    for count in counts if cores > 1 else ():
        model = {str(count): probe_network("fp32", *THREADS_PROBED)}
        chosen = replace(settings, threads=count)
        timed = measure_batch(model, chosen, anchor, passes=2, runs=30, budget_s=budget_s / len(counts), seed=seed)
        if timed.get(str(count)):
            found.append(ThreadProbe(threads=count, latency_ms=_best_ms(timed[str(count)], anchor)))
    return tuple(found)


def channel_multiple(probes: Sequence[WidthProbe]) -> int:
    """The largest multiple that pays in fp32: rounding any probed width up to it never costs latency."""
    return paying_multiple({probe.width: probe.latency_ms for probe in probes})


def _best_ms(passes: Sequence[Pass], anchor: Anchor) -> float:
    """The shortest pass that met a calm machine; of a machine that was never calm, the shortest there is."""
    return min(calm_ms(passes, anchor) or [entry.latency_ms for entry in passes])


def paying_multiple(latency_ms: dict[int, float]) -> int:
    """The largest of MULTIPLES to which widths can be rounded up without a loss beyond TOLERANCE.

    AGREEMENT of the widths must say so: one disturbed timing decides nothing. Widths whose rounded width was not
    measured say nothing; a multiple of which nothing is known does not pay.
    """
    for multiple in MULTIPLES:
        pairs = [(width, -(-width // multiple) * multiple) for width in latency_ms if width % multiple]
        known = [(width, up) for width, up in pairs if up in latency_ms]
        paying = sum(latency_ms[up] <= TOLERANCE * latency_ms[width] for width, up in known)
        if known and paying >= AGREEMENT * len(known):
            return multiple
    return 1
