"""What is timed to calibrate: the same seed gives the same models, and the runtime and the cost model read them all."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from automc.cost.features import features, kernel_class
from automc.cost.graph import graph_from_onnx
from automc.cost.tiles import Machine
from automc.measure.builder import GraphBuilder, Scheme
from automc.measure.families import FAMILIES, family_networks
from automc.measure.micro_models import INSIDE, MICRO, micro_models
from automc.measure.networks import Sample
from automc.measure.random_networks import random_networks
from automc.measure.sessions import open_session, random_inputs

SCHEMES: tuple[Scheme, ...] = ("fp32", "u8s8", "s8s8")


def everything(scheme: Scheme, seed: int = 0) -> list[Sample]:
    return micro_models(16, scheme, seed) + random_networks(5, scheme, seed) + family_networks(1, scheme, seed)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_model_runs_and_all_its_kernels_have_features(scheme: Scheme) -> None:
    for sample in everything(scheme):
        session = open_session(sample.model)
        (output,) = session.run(None, random_inputs(session))
        assert output.size > 0, sample.name
        for row in graph_from_onnx(onnx.load_from_string(sample.model)).rows:
            assert features(row, Machine()), (sample.name, row.op)


def test_the_same_seed_gives_the_same_models_and_another_seed_others() -> None:
    first, again, other = (everything("fp32", seed) for seed in (1, 1, 2))
    assert [s.model for s in first] == [s.model for s in again]
    assert [s.model for s in first] != [s.model for s in other]


@pytest.mark.parametrize("family", ["resnet", "vgg", "mobilenet_v2", "squeezenet", "resnext", "inception"])
def test_int8_networks_run_integer_kernels(family: str) -> None:
    """Also where the range of an input ends at 6: a bias of any other step than the runtime's leaves it in float."""
    (network,) = [s for s in family_networks(1, "u8s8", 0) if s.kind == family]
    rows = graph_from_onnx(onnx.load_from_string(network.model)).rows
    assert {row.precision for row in rows if row.op.endswith("Conv")} == {"int8"}


def test_nothing_that_is_fitted_is_a_held_out_family() -> None:
    fitted = {s.kind for s in micro_models(16, "fp32", 0) + random_networks(5, "fp32", 0)}
    assert fitted.isdisjoint(FAMILIES)
    assert len(FAMILIES) == 10


def test_every_kind_of_micro_model_is_drawn_and_more_where_its_share_is_larger() -> None:
    kinds = [s.kind for s in micro_models(256, "fp32", 0)]
    assert set(kinds) == set(MICRO)
    assert kinds.count("conv_dense") > kinds.count("conv_asymmetric") > 0


def test_micro_models_reach_the_kernel_classes_that_held_out_networks_are_made_of() -> None:
    """Full calibration must leave nothing unseen: checked on the classes of one network of every family."""
    machine = Machine()
    needed, known = set(), set()
    for sample in family_networks(1, "fp32", 0):
        needed |= {kernel_class(r, machine) for r in graph_from_onnx(onnx.load_from_string(sample.model)).rows}
    for sample in micro_models(160, "fp32", 0) + random_networks(10, "fp32", 0):
        known |= {kernel_class(r, machine) for r in graph_from_onnx(onnx.load_from_string(sample.model)).rows}
    assert needed <= known


def test_convolutions_of_signals_are_a_kind_of_their_own_and_are_timed() -> None:
    """In float they are never blocked: priced as pictures of as many channels they came out at a half of their time."""
    machine, known = Machine(), set()
    for sample in micro_models(400, "fp32", 0):
        if sample.kind == "conv_signal":
            (row, *_) = graph_from_onnx(onnx.load_from_string(sample.model)).rows
            assert len(row.kernel) == 1
            known.add(kernel_class(row, machine))
    assert known == {
        f"Conv.nchw.signal_{kind}"
        for kind in ("spatial", "pointwise", "depthwise", "grouped_spatial", "grouped_pointwise")
    }


def test_weights_that_are_dequantised_as_they_are_read_count_the_stretches_of_one_scale() -> None:
    """A Gemm's (outputs, inputs) have a scale a row, 16 of them; a MatMul's (inputs, outputs) one for every number."""
    b = GraphBuilder("u8s8", np.random.default_rng(0))
    x = b.input((1, 7, 32), plain=True)
    rows = graph_from_onnx(onnx.load_from_string(b.finish(b.linear(x, 16)))).rows
    assert {row.output_shape: row.runs for row in rows if row.op == "DequantizeLinear" and not row.input_shapes} == {
        (32, 16): 32 * 16
    }
    b = GraphBuilder("u8s8", np.random.default_rng(0))
    rows = graph_from_onnx(onnx.load_from_string(b.finish(b.gemm(b.input((7, 32), plain=True), 16)))).rows
    weights = [row for row in rows if row.output_shape == (16, 32)]
    assert [row.runs for row in weights] == [16]
    assert features(weights[0], Machine())["DequantizeLinear.weights:runs"] == 16 / 1e6
    assert all(row.runs == 0 for row in rows if row.input_shapes)


def test_layers_by_weights_of_the_moment_are_timed_large_and_small() -> None:
    """A calibration that knew them from the small heads of networks alone was ten times off on a VGG's (1.8 MB)."""
    unpacked = [sample for sample in micro_models(512, "u8s8", 0) if sample.kind == "unpacked"]
    rows = [row for sample in unpacked for row in graph_from_onnx(onnx.load_from_string(sample.model)).rows]
    vectors = [row.macs for row in rows if kernel_class(row, Machine()) == "Gemm.activations.vector"]
    assert min(vectors) < 20_000 < 200_000 < max(vectors)


def test_the_first_models_of_a_calibration_hold_every_kind_of_kernel() -> None:
    from automc.measure.micro_models import LEAST, essential

    chosen = essential(micro_models(60, "u8s8", 0))
    assert {sample.kind for sample in chosen} == set(MICRO)
    assert len(chosen) == LEAST * len(MICRO)


def test_a_short_int8_calibration_pads_on_integers() -> None:
    from automc.measure.micro_models import essential

    found = set()
    for sample in essential(micro_models(60, "u8s8", 0)):
        if sample.kind == "pad":
            model = onnx.load_model_from_string(sample.model)
            found |= {(row.op, row.precision) for row in graph_from_onnx(model).rows}
    assert ("Pad", "int8") in found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_networks_of_a_benchmark_run_in_batches_factorised_and_without_convolutions(scheme: Scheme) -> None:
    plain, batched, split = (
        {sample.kind: sample for sample in family_networks(1, scheme, 0, **more)}
        for more in ({}, {"batch": 3}, {"factorised": True})
    )
    for sample in (*batched.values(), *split.values(), plain["mlp"]):
        (output,) = open_session(sample.model).run(None, random_inputs(open_session(sample.model)))
        assert output.shape[0] == (3 if sample in batched.values() else 1)
    rows = {name: graph_from_onnx(onnx.load_from_string(sample.model)) for name, sample in (
        ("plain", plain["resnet"]), ("batched", batched["resnet"]), ("split", split["resnet"]),
    )}  # fmt: skip
    assert rows["batched"].macs == 3 * rows["plain"].macs
    convolutions = {name: sum(row.op.endswith("Conv") for row in graph.rows) for name, graph in rows.items()}
    assert convolutions["split"] > convolutions["plain"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_inside_a_model_no_wide_picture_changes_its_layout(scheme: Scheme) -> None:
    """Where several threads share kernels, bringing a wide picture into another layout takes a time of its own."""
    changes = ("Transpose", "ReorderInput", "ReorderOutput")
    widest: dict[bool, int] = {False: 0, True: 0}
    for inside in widest:
        for sample in micro_models(160, scheme, 0, inside=inside):
            index = int(sample.name.rpartition(".")[2])
            if sample.kind not in INSIDE - {"squeeze_excite", "conv_narrow", "conv_grouped"} or index % 4 != 3:
                continue
            rows = graph_from_onnx(onnx.load_from_string(sample.model)).rows
            around = (rows[:3] + rows[-2:]) if inside else rows
            widths = [min(row.output_shape[1], row.output_shape[-1]) for row in around if row.op in changes]
            widest[inside] = max(widest[inside], *widths, 0)
    assert widest[True] <= 16 < widest[False]


def test_a_model_is_the_same_kernel_inside_or_not() -> None:
    plain, inside = (micro_models(120, "u8s8", 0, inside=flag) for flag in (False, True))
    assert [sample.name for sample in plain] == [sample.name for sample in inside]
    changed = {sample.kind for sample, other in zip(plain, inside, strict=True) if sample.model != other.model}
    assert changed <= INSIDE
    assert {"conv_dense", "conv_pointwise", "conv_depthwise"} <= changed
    for sample, other in zip(plain, inside, strict=True):
        if sample.kind == "conv_dense":
            alone, among = (
                [row for row in graph_from_onnx(onnx.load_from_string(one.model)).rows if row.op == "QLinearConv"]
                for one in (sample, other)
            )
            assert alone[0].macs in [row.macs for row in among]
