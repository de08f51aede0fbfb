"""A lowering from memory is the lowering in full, or it is not from memory."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from cost_networks import NAMES, OptionA, network
from torch import nn

from automc.cost import remembered
from automc.cost.graph import graph_from_trace
from automc.cost.kernels import Precision
from automc.cost.remembered import Lowerings, structure_of
from automc.cost.trace import recorded
from automc.profiles import Int8Facts
from automc.techniques.coupling import couple, removal_edits
from automc.techniques.edits import apply_edits

BOTH: tuple[Precision, ...] = ("fp32", "int8")
INPUTS = (torch.zeros(1, 3, 16, 16),)


def widths(first: int, second: int, groups: int = 1) -> nn.Module:
    """Two convolutions in a row and a head, of `first` and `second` channels."""
    return nn.Sequential(
        nn.Conv2d(3, first, 3, padding=1),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1, groups=groups),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(second, 10),
    ).eval()


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize("name", NAMES)
def test_a_network_asked_twice_is_recalled_or_lowered_again_and_never_another(name: str, precision: Precision) -> None:
    model, inputs = network(name)
    lowerings, expected = Lowerings(), graph_from_trace(model, inputs, precision=precision)
    for _ in range(2):
        assert lowerings.graph(model, inputs, precision) == expected
    assert lowerings.recalled + lowerings.lowered == 2


@pytest.mark.parametrize("precision", BOTH)
def test_widths_whose_kernels_are_all_known_are_recalled(precision: Precision) -> None:
    lowerings = Lowerings()
    for first, second in ((32, 32), (48, 48)):
        lowerings.graph(widths(first, second), INPUTS, precision)
    assert (lowerings.lowered, lowerings.recalled) == (2, 0)
    mixed = widths(32, 32)
    assert lowerings.graph(mixed, INPUTS, precision) == graph_from_trace(mixed, INPUTS, precision=precision)
    assert (lowerings.lowered, lowerings.recalled) == (2, 1)


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize("multiple", [1, 4, 8, 16])
@pytest.mark.parametrize(
    "name",
    ["plain", "perceptron", "mobile", "mobile_hardswish", "concatenating", "mean_head", "mixed", "vision_encoder"],
)
def test_random_widths_are_the_rows_of_a_full_lowering(name: str, multiple: int, precision: Precision) -> None:
    model, inputs = network(name)
    groups = couple(model, inputs).groups
    rng, lowerings = random.Random(0), Lowerings()
    for _ in range(8):
        removed = {}
        for group in groups:
            units = len(group.units)
            keep = min(units, multiple * rng.randint(1, max(1, units // multiple)))
            removed[group.root] = sorted(rng.sample(range(units), units - keep))
        narrow = apply_edits(model, removal_edits(model, groups, removed)).to("meta")
        assert lowerings.graph(narrow, inputs, precision) == graph_from_trace(narrow, inputs, precision=precision)


@pytest.mark.parametrize("precision", BOTH)
def test_zero_padded_shortcuts_of_random_widths_are_the_rows_of_a_full_lowering(precision: Precision) -> None:
    rng, lowerings, inputs = random.Random(0), Lowerings(), (torch.zeros(1, 3, 32, 32),)
    for _ in range(12):
        model = OptionA((rng.choice((8, 16)), rng.choice((20, 24, 32)), rng.choice((40, 48, 64))), 1).eval()
        assert lowerings.graph(model, inputs, precision) == graph_from_trace(model, inputs, precision=precision)
    assert lowerings.recalled > 0


@pytest.mark.parametrize("precision", BOTH)
def test_a_convolution_that_holds_nothing_by_name_is_told_apart_by_what_it_puts_out(precision: Precision) -> None:
    def bare(first: int, second: int) -> nn.Module:  # neither bias nor norm: the runtime renames the weights
        layers = [nn.Conv2d(3, first, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(first, second, 3, bias=False)]
        return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(second, 10)).eval()

    lowerings = Lowerings()
    for first, second in ((32, 32), (48, 48), (32, 48), (48, 32)):
        model = bare(first, second)
        assert lowerings.graph(model, INPUTS, precision) == graph_from_trace(model, INPUTS, precision=precision)


def test_what_the_runtime_decides_by_is_in_the_structure() -> None:
    def structure(model: nn.Module) -> object:
        return structure_of(recorded(model, INPUTS))

    assert structure(widths(32, 48)) == structure(widths(48, 32))  # whole blocks of 16
    assert structure(widths(32, 32)) != structure(widths(32, 44))  # 44 is no multiple of a block
    assert structure(widths(32, 32)) != structure(widths(32, 6))  # less than a block
    assert structure(widths(32, 32, groups=32)) != structure(widths(32, 64, groups=32))  # depthwise, and grouped


def test_schemes_and_levels_are_kept_apart() -> None:
    lowerings, model = Lowerings(), widths(32, 32)
    signed = Int8Facts(activation_type="int8")
    for scheme in (Int8Facts(), signed):
        expected = graph_from_trace(model, INPUTS, precision="int8", scheme=scheme)
        assert lowerings.graph(model, INPUTS, "int8", scheme) == expected
    portable = graph_from_trace(model, INPUTS, level="extended")
    assert lowerings.graph(model, INPUTS, "fp32", None, "extended") == portable
    assert portable != lowerings.graph(model, INPUTS, "fp32")


def test_a_kernel_that_two_lowerings_tell_differently_is_never_recalled(monkeypatch: pytest.MonkeyPatch) -> None:
    lowerings, model = Lowerings(), widths(32, 32)
    lowerings.graph(model, INPUTS)
    honest = remembered.lowered

    def otherwise(operators: object) -> object:
        found = honest(operators)  # type: ignore[arg-type]
        return dataclasses.replace(
            found, rows=(dataclasses.replace(found.rows[0], macs=found.rows[0].macs + 1), *found.rows[1:])
        )

    monkeypatch.setattr(remembered, "lowered", otherwise)
    wider = nn.Sequential(*widths(32, 48)[:3], *widths(32, 48)[3:]).eval()  # its first layer is known, its second new
    lowerings.graph(wider, INPUTS)
    before = lowerings.lowered
    monkeypatch.undo()
    assert lowerings.graph(model, INPUTS) == graph_from_trace(model, INPUTS)
    assert lowerings.lowered == before + 1
