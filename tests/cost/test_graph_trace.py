"""A trace and an export of the same network give the same kernel rows."""

from __future__ import annotations

import copy
import dataclasses

import onnx
import pytest
import torch
import torch.nn.functional as F
from cost_networks import NAMES, OptionA, exported, int8, network
from torch import nn

from automc.cost.graph import graph_from_onnx, graph_from_trace
from automc.cost.kernels import KernelGraph, Precision
from automc.cost.trace import recorded
from automc.errors import UnseenOperatorError
from automc.export import export_onnx


def signatures(graph: KernelGraph) -> list[tuple[object, ...]]:
    return [row.signature() for row in graph.rows]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", NAMES)
def test_trace_and_export_give_the_same_rows_bytes_and_peak(name: str, precision: Precision) -> None:
    model, inputs = network(name)
    from_export = graph_from_onnx(exported(name) if precision == "fp32" else int8(name))
    from_trace = graph_from_trace(model, inputs, precision=precision)
    assert signatures(from_trace) == signatures(from_export)
    assert from_trace.weight_bytes == from_export.weight_bytes
    assert from_trace.peak_activation_bytes == from_export.peak_activation_bytes


def test_an_export_with_an_open_batch_gives_the_rows_of_the_trace_at_any_batch() -> None:
    model, inputs = network("pruned_resnet")
    graph = export_onnx(model, inputs, dynamic_batch=True)
    for batch in (1, 3):
        assert signatures(graph_from_trace(model, inputs, batch=batch)) == signatures(
            graph_from_onnx(graph, batch=batch)
        )


def test_the_zero_padded_shortcut_is_two_slices_a_pad_and_an_add() -> None:
    model, inputs = network("pruned_resnet")
    rows = [row for row in graph_from_trace(model, inputs).rows if row.op in ("Slice", "Pad", "Add")]
    shapes = [(row.op, row.output_shape) for row in rows]
    # 12 to 24 channels at 32x32 to 16x16: rows first, then columns, then 6 zero channels on either side
    first = [("Slice", (1, 12, 16, 32)), ("Slice", (1, 12, 16, 16)), ("Pad", (1, 24, 16, 16)), ("Add", (1, 24, 16, 16))]
    assert shapes[:4] == first
    assert len(shapes) == 8  # two stages change their shape


def test_a_network_on_the_meta_device_has_the_rows_of_the_one_with_weights() -> None:
    model, inputs = network("mobile")
    shapes_alone = copy.deepcopy(model).to("meta")
    assert signatures(graph_from_trace(shapes_alone, inputs)) == signatures(graph_from_trace(model, inputs))


def test_a_network_in_training_mode_is_traced_for_inference_and_left_as_it_is() -> None:
    model, inputs = network("mobile")
    training = copy.deepcopy(model).train()
    before = {name: tensor.clone() for name, tensor in training.state_dict().items()}
    assert signatures(graph_from_trace(training, inputs)) == signatures(graph_from_trace(model, inputs))
    assert all(module.training for module in training.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.state_dict().items())


def test_weights_do_not_matter_only_shapes_do() -> None:
    model, inputs = network("plain")
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in masked.parameters():
            parameter[torch.rand_like(parameter) < 0.9] = 0.0
    assert signatures(graph_from_trace(masked, inputs)) == signatures(graph_from_trace(model, inputs))
    assert signatures(graph_from_onnx(export_onnx(masked, inputs))) == signatures(graph_from_onnx(exported("plain")))


def test_fewer_channels_are_fewer_multiply_accumulates() -> None:
    inputs = (torch.randn(1, 3, 32, 32),)
    wide, narrow = (graph_from_trace(OptionA((width, 2 * width, 4 * width), 1).eval(), inputs) for width in (32, 16))
    assert narrow.macs < wide.macs / 3


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_order_of_rows_is_the_same_every_time(precision: Precision) -> None:
    model, inputs = network("concatenating")
    first = graph_from_trace(model, inputs, precision=precision)
    for _ in range(5):
        again = graph_from_trace(model, inputs, precision=precision)
        assert signatures(again) == signatures(first)
        assert dataclasses.replace(again, rows=()) == dataclasses.replace(first, rows=())


def test_an_operator_without_a_translation_is_named_with_its_shape() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardshrink())
    with pytest.raises(UnseenOperatorError, match=r"aten\.hardshrink\.default on \[1, 8, 6, 6\]"):
        graph_from_trace(model, (torch.zeros(1, 3, 8, 8),))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_rows_bear_the_name_of_the_module_they_come_from(precision: Precision) -> None:
    model, inputs = network("plain")
    for graph in (
        graph_from_trace(model, inputs, precision=precision),
        graph_from_onnx(exported("plain") if precision == "fp32" else int8("plain")),
    ):
        assert [row.name for row in graph.rows if row.macs] == ["0", "3", "7", "10"]


def test_a_recurrent_layer_is_refused_rather_than_unrolled() -> None:
    with pytest.raises(UnseenOperatorError, match=r"recurrent layer on \[1, 5, 8\]"):
        graph_from_trace(nn.LSTM(8, 4, batch_first=True).eval(), (torch.zeros(1, 5, 8),))


class Conditional(nn.Module):
    """Looks at values: at its own, which is fine, or at its input's."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own = own
        self.register_buffer("factor", torch.tensor(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor.item() if self.own else x * x.sum().item()


def test_values_of_the_network_may_be_read_those_of_its_input_not() -> None:
    own, given = Conditional(own=True).eval(), Conditional(own=False).eval()
    assert [row.op for row in graph_from_trace(own, (torch.zeros(1, 4),)).rows] == ["Mul"]
    for blind in (given, own.to("meta")):  # on the meta device its own are gone too
        with pytest.raises(UnseenOperatorError, match="_local_scalar_dense"):
            graph_from_trace(blind, (torch.zeros(1, 4),))


class Written(nn.Module):
    """Writes in place into what it still reads under another name."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 2
        half = x[:, :2]
        half.relu_()
        return x + 1


def test_reading_what_was_written_through_a_view_is_refused() -> None:
    with pytest.raises(UnseenOperatorError, match="read after relu_ wrote into its memory"):
        graph_from_trace(Written(), (torch.zeros(1, 4),))


class Constants(nn.Module):
    """Computes its weight and a position table on the way, and something nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))
        self.register_buffer("mask", torch.ones(6, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.exp(x)
        positions = torch.arange(6, dtype=torch.float32) / 6
        return F.linear(x, self.weight * self.mask) + positions


def test_what_depends_on_no_input_is_a_weight_and_what_no_output_reads_is_nothing() -> None:
    rows = graph_from_trace(Constants(), (torch.zeros(1, 4),)).rows
    assert [row.op for row in rows] == ["Gemm", "Add"]
    assert [row.bytes_weights for row in rows] == [4 * 6 * 4, 4 * 6]  # float32: the masked weight, the table


def test_one_weight_used_twice_is_stored_once() -> None:
    layer = nn.Linear(8, 8)
    once = graph_from_trace(nn.Sequential(layer, nn.ReLU()), (torch.zeros(1, 8),))
    twice = graph_from_trace(nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU()), (torch.zeros(1, 8),))
    assert once.weight_bytes == twice.weight_bytes == 4 * (64 + 8)
    assert twice.macs == 2 * once.macs == 128


def test_tracing_leaves_no_onnx_model_behind_that_differs_from_a_checked_one() -> None:
    from automc.cost.trace import traced

    model, inputs = network("mixed")
    onnx.checker.check_model(traced(model, inputs), full_check=True)


class Prepended(nn.Module):
    """Begins with zeros of the shape of what follows: a trace sees constants, as an export does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((torch.zeros_like(x[:, :1]), x.new_zeros(x.shape[0], 1, 4), x), 1).relu()


def test_zeros_of_the_shape_of_an_activation_are_constants() -> None:
    model, inputs = Prepended(), (torch.randn(1, 3, 4),)
    rows = graph_from_trace(model, inputs).rows
    assert [(row.op, row.input_shapes, row.output_shape) for row in rows if row.op == "Concat"] == [
        ("Concat", ((1, 3, 4),), (1, 5, 4))
    ]
    assert signatures(graph_from_trace(model, inputs)) == signatures(graph_from_onnx(export_onnx(model, inputs)))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_recurrent_layer_of_which_only_the_last_state_is_read_has_rows(layers: int) -> None:
    class LastState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 4, num_layers=layers, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.lstm(x)[1][0][-1]

    graph = graph_from_onnx(export_onnx(LastState().eval(), (torch.randn(1, 5, 8),), dynamic_batch=False))
    found = [row.macs for row in graph.rows if row.op == "LSTM"]
    # 5 steps, 4 gates of 4 units, each reading the input (8, then 4 of the layer before) and the state (4)
    assert found == [5 * 16 * (8 + 4), 5 * 16 * (4 + 4)][:layers]


class Rolled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.roll(x, (-1, 2), (1, 2)).relu()


def test_a_roll_is_a_split_and_a_concatenation_for_each_axis() -> None:
    inputs = (torch.randn(1, 6, 8),)
    rows = graph_from_trace(Rolled(), inputs).rows
    assert [row.op for row in rows] == ["Split", "Concat"] * 2 + ["Relu"]  # two slices: the runtime makes a Split
    assert rows[1].input_shapes == ((1, 5, 8), (1, 1, 8))  # by -1: the first row comes last
    assert rows[3].input_shapes == ((1, 6, 2), (1, 6, 6))  # by 2: the last two columns come first
    assert signatures(graph_from_trace(Rolled(), inputs)) == signatures(graph_from_onnx(export_onnx(Rolled(), inputs)))


def test_a_network_that_reads_values_unless_it_is_exported_is_traced_as_exported() -> None:
    class Asks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.compiler.is_compiling() and bool((x == 0).all()):
                return x
            return x.relu()

    assert [row.op for row in graph_from_trace(Asks(), (torch.ones(1, 4),)).rows] == ["Relu"]
    assert not torch.compiler.is_compiling()


class Pooled(nn.Module):
    """A mean over positions of tokens, through a pool of the transposed tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.pool = nn.Linear(16, 16), nn.AdaptiveAvgPool1d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.layer(x).transpose(1, 2)).flatten(1)


class Normalised(nn.Module):
    """Root mean square normalisation, and a split that torch may write into."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = torch.unsafe_split(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6), 8, 2)
        return torch.relu(left) * right


@pytest.mark.parametrize("model", [Pooled().eval(), Normalised()], ids=["pooled", "normalised"])
def test_pools_of_transposed_tensors_and_root_norms_are_traced_as_exported(model: nn.Module) -> None:
    inputs = (torch.randn(1, 20, 16),)
    exported = export_onnx(model, inputs)
    assert not {"Gather", "Range"} & {node.op_type for node in exported.graph.node}
    assert signatures(graph_from_trace(model, inputs)) == signatures(graph_from_onnx(exported))


class _PlainAndNot(nn.Module):
    """Sums, Relus and means that are recorded as functions, beside those that have to go through torch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.pool, self.inplace, self.last = nn.AdaptiveAvgPool2d(1), nn.ReLU(inplace=True), nn.Linear(8, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(image))
        y = torch.add(x + self.second(x), x).relu()
        y = torch.add(self.inplace(y) + 1.0, x, alpha=2)
        y = F.relu(y.transpose(2, 3))
        y = y + y.transpose(2, 3)
        small = F.adaptive_avg_pool2d(y, 2).flatten(1)[:, :8]
        pooled = F.adaptive_avg_pool2d(y, (1, 1)) + self.pool(y)
        return self.last(pooled.flatten(1) * small)


def test_functions_that_skip_torchs_dispatcher_are_recorded_as_their_operators(monkeypatch) -> None:
    from automc.cost import functions, trace

    network, inputs = _PlainAndNot().eval(), (torch.zeros(1, 3, 8, 8),)
    short = recorded(network, inputs)
    quick = {functions._relu, functions._add, functions._mean_of_picture}
    monkeypatch.setattr(trace, "_CALLS", {call: made for call, made in trace._CALLS.items() if made not in quick})
    full = recorded(network, inputs)
    assert short.nodes == full.nodes
    assert (short.shapes, short.weights, short.literals) == (full.shapes, full.weights, full.literals)
    assert {"Relu", "Add", "ReduceMean"} <= {node.op for node in short.nodes}
