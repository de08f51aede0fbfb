"""What was measured once is not measured again, unless anything it depends on has changed."""

import torch
from example_networks import Classification, NoisePictures, network
from torch import nn

from automc.techniques import _importance, depth_pruning
from automc.techniques._evidence import Evidence, evidence_key


def test_a_measurement_is_made_once_per_key_and_the_oldest_is_forgotten() -> None:
    made: list[str] = []

    def measure(key: str) -> float:
        made.append(key)
        return float(len(made))

    kept = Evidence[float](capacity=2)
    assert [kept.get(key, lambda key=key: measure(key)) for key in "abacab"] == [1.0, 2.0, 1.0, 3.0, 1.0, 4.0]
    assert made == ["a", "b", "c", "b"]  # "a" was used again before "c" came: "b" went


def test_the_key_follows_weights_modules_and_samples() -> None:
    pictures, task = NoisePictures(), Classification()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    key = evidence_key(model, pictures, task)
    assert evidence_key(model, NoisePictures(), task) == key
    assert evidence_key(model, NoisePictures(seed=1), task) != key
    assert evidence_key(nn.Sequential(model[0], nn.Tanh()), pictures, task) != key  # same weights, another function
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += 1
    assert evidence_key(model, pictures, task) != key
    assert evidence_key(network("lenet"), pictures, task) == evidence_key(network("lenet"), pictures, task)


def test_measuring_again_gives_the_same_numbers_so_keeping_them_changes_no_plan() -> None:
    pictures, task = NoisePictures(), Classification()
    first, second = (_importance._measure_effects(network("residual"), pictures, task) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    losses = depth_pruning._Losses(network("residual"), pictures, task)
    assert losses._measure("layer1.0") == losses._measure("layer1.0") == losses.without("layer1.0")
