"""What was found out about one network is never taken for another's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from automc.techniques._evidence import Evidence, network_key

INPUTS = (torch.zeros(1, 4),)


class Scaled(nn.Module):
    """Says nothing of its factor when it is printed."""

    def __init__(self, factor: object) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.factor = factor


def scaled(factor: object) -> Scaled:
    torch.manual_seed(0)
    return Scaled(factor)


def test_a_copy_has_the_key_of_the_original_and_keeps_it_when_it_trains() -> None:
    model = scaled(2.0)
    assert network_key(copy.deepcopy(model), INPUTS) == network_key(model, INPUTS)
    assert network_key(copy.deepcopy(model).train(), INPUTS) == network_key(model.eval(), INPUTS)


@pytest.mark.parametrize(
    "other",
    [
        scaled(3.0),
        scaled([2.0]),
        scaled(lambda x: x),
        nn.Sequential(scaled(2.0)),
    ],
    ids=["setting", "kind of setting", "function", "place"],
)
def test_what_a_module_does_is_in_the_key(other: nn.Module) -> None:
    assert network_key(other, INPUTS) != network_key(scaled(2.0), INPUTS)


def test_weights_frozen_parameters_hooks_and_inputs_are_in_the_key() -> None:
    key = network_key(scaled(2.0), INPUTS)
    trained, frozen, hooked = scaled(2.0), scaled(2.0), scaled(2.0)
    with torch.no_grad():
        trained.layer.weight[0, 0] += 1
    frozen.layer.weight.requires_grad_(False)
    hooked.register_forward_hook(lambda *_: None)
    assert key not in [network_key(model, INPUTS) for model in (trained, frozen, hooked)]
    assert network_key(scaled(2.0), (torch.zeros(1, 5),)) != key
    assert network_key(scaled(2.0), (torch.zeros(1, 4, dtype=torch.int64),)) != key


def test_a_network_that_cannot_be_printed_has_a_key() -> None:
    class Unprintable(nn.Linear):
        def __repr__(self) -> str:
            raise AttributeError("as NNI's class token does")

    assert network_key(Unprintable(4, 4).requires_grad_(False), INPUTS) is not None
    with pytest.raises(AttributeError):
        repr(Unprintable(4, 4))


def test_a_setting_that_cannot_be_compared_is_never_recalled() -> None:
    model = scaled(torch.zeros(2))
    assert network_key(model, INPUTS) != network_key(model, INPUTS)


def test_evidence_is_measured_once_and_the_oldest_goes_first() -> None:
    asked: list[str] = []
    evidence: Evidence[int] = Evidence(capacity=2)

    def look(name: str) -> int:
        return evidence.get(name, lambda: asked.append(name) or len(asked))  # type: ignore[func-returns-value]

    assert [look(name) for name in ("a", "b", "a", "c", "b")] == [1, 2, 1, 3, 4]  # c drove b out, not a
    assert asked == ["a", "b", "c", "b"]
