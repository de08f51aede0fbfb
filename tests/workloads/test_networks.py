"""The shipped networks: sizes published or counted by hand, shortcuts, and reproducible starts."""

from __future__ import annotations

import pytest
import torch

from automc.workloads.digits import network
from automc.workloads.networks import LeNet, PadShortcut, cifar_resnet, initialise, mlp
from automc.workloads.workload import weights_digest


def parameters(model: torch.nn.Module) -> int:
    return sum(tensor.numel() for tensor in model.parameters())


@pytest.mark.parametrize(("depth", "count"), [(20, 269_722), (56, 853_018)])
def test_the_cifar_resnets_have_the_published_sizes(depth: int, count: int) -> None:
    assert parameters(cifar_resnet(depth)) == count


def test_lenet_and_mlp_are_counted_by_hand() -> None:
    # Convolutions 16 * 25 + 32 * 16 * 25, BatchNorm 2 * 48, linear (32 * 49 + 1) * 120 + 121 * 84 + 85 * 10.
    assert parameters(LeNet(1, 28, 10)) == 400 + 12_800 + 96 + 188_280 + 10_164 + 850
    # 3 -> 4 -> 2: (3 + 1) * 4 + (4 + 1) * 2.
    assert parameters(mlp(3, (4,), 2)) == 26


def test_option_a_takes_every_second_pixel_and_pads_channels_on_both_sides() -> None:
    x = torch.arange(2 * 4 * 4, dtype=torch.float32).reshape(1, 2, 4, 4)
    done = PadShortcut(2, 4)(x)
    assert done.shape == (1, 4, 2, 2)
    assert done[0, 1].tolist() == [[0.0, 2.0], [8.0, 10.0]]
    assert done[0, 2].tolist() == [[16.0, 18.0], [24.0, 26.0]]
    assert done[0, [0, 3]].abs().sum() == 0


def test_the_digits_network_halves_the_picture_between_its_three_stages() -> None:
    model, shapes = network(), []
    for stage in model.stages:
        getattr(model, stage).register_forward_hook(lambda module, given, out: shapes.append(tuple(out.shape[1:])))
    assert model.eval()(torch.zeros(2, 1, 16, 16)).shape == (2, 10)
    assert shapes == [(24, 16, 16), (48, 8, 8), (96, 4, 4)]


def test_fresh_weights_belong_to_their_seed_and_leave_the_global_state() -> None:
    state = torch.get_rng_state()
    first, second, other = LeNet(1, 8, 3), LeNet(1, 8, 3), LeNet(1, 8, 3)
    torch.set_rng_state(state)
    initialise(first, 1)
    initialise(second, 1)
    initialise(other, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert weights_digest(first) == weights_digest(second) != weights_digest(other)
