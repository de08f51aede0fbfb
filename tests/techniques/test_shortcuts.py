"""Channel-padding shortcuts are found by what they do and rewritten without changing a bit."""

import pytest
import torch
from example_networks import Lambda, OptionAResNet, option_a, scramble_norms
from torch import nn

from automc.techniques.edits import apply_edits
from automc.techniques.plan import ReplaceEdit
from automc.techniques.shortcuts import fill_selection, find_selections

PICTURE = (torch.zeros(1, 3, 32, 32),)


def rewritten(model: nn.Module) -> nn.Module:
    selections = {found.module: found for found in find_selections(model, PICTURE)}

    def fill(_old: nn.Module, edit: ReplaceEdit, new: nn.Module) -> None:
        fill_selection(new, selections[edit.module].sources)

    return apply_edits(model, [found.edit for found in selections.values()], fill)


def test_option_a_shortcuts_become_selections_with_the_same_output_bit_for_bit() -> None:
    torch.manual_seed(0)
    model = OptionAResNet(blocks=2, width=8).eval()
    scramble_norms(model)
    found = find_selections(model, PICTURE)
    # 8 -> 16 channels: 4 zero channels, the 8 inputs, 4 zero channels
    assert [selection.module for selection in found] == ["layer2.0.shortcut", "layer3.0.shortcut"]
    assert found[0].sources == (-1,) * 4 + tuple(range(8)) + (-1,) * 4
    assert found[0].stride == 2
    noise = torch.randn(4, 3, 32, 32)
    assert torch.equal(rewritten(model)(noise), model(noise))


def test_the_selection_is_frozen_so_that_recovery_does_not_train_it() -> None:
    model = rewritten(OptionAResNet().eval())
    assert not model.layer2[0].shortcut.weight.requires_grad


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cat([x, 2 * x], 1),  # not a plain copy
        lambda x: torch.nn.functional.avg_pool2d(torch.cat([x, x], 1), 2),  # not a sample
        lambda x: torch.cat([x, x.relu()], 1),  # depends on the sign
        lambda x: torch.cat([x, x[:, x.mean((0, 2, 3)).argsort()]], 1),  # which channels depends on what they hold
        lambda x: x,  # as many channels as before: nothing to rewrite
    ],
)
def test_modules_that_do_more_than_select_are_left_alone(function: object) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Lambda(function)).eval()  # type: ignore[arg-type]
    assert find_selections(model, PICTURE) == ()


def test_a_selection_that_depends_on_the_input_is_told_by_a_second_input() -> None:
    class Strongest(nn.Module):
        """The two strongest of three channels: on any one input it looks like a plain selection."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, x.abs().mean((0, 2, 3)).argsort()[1:]]

    assert find_selections(nn.Sequential(Strongest()).eval(), PICTURE) == ()


def test_a_shortcut_called_twice_is_left_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pad = option_a(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pad(self.pad(x)[:, :3])

    assert find_selections(Twice(), PICTURE) == ()
