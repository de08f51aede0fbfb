"""Looks at a network by running it: which modules are called, on what, and whether an edited copy still computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from automc.outputs import tensors_of

RUN_FAILURES = (RuntimeError, ValueError, IndexError, TypeError, AttributeError, AssertionError)
"""What torch modules raise when shapes or attributes no longer fit; caught only around probes of an edited copy."""


@dataclass
class Call:
    """How one module was called: `count` times; tensors of the first call, None where it was not one tensor."""

    count: int
    input: torch.Tensor | None
    output: torch.Tensor | None


def probe_inputs(example_inputs: tuple[torch.Tensor, ...], seed: int, batch: int = 1) -> tuple[torch.Tensor, ...]:
    """Normal noise of the shapes of `example_inputs` with `batch` samples; integer inputs are repeated as they are."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn((batch, *example.shape[1:]), generator=generator, dtype=example.dtype)
        if example.is_floating_point()
        else example[:1].repeat(batch, *[1] * (example.dim() - 1))
        for example in example_inputs
    )


def run(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Every tensor the network gives, in eval mode and without gradients; `model` is left as it was."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            output = model(*inputs)
    finally:
        for module, mode in training.items():
            module.training = mode
    return tensors_of(output)


def record_calls(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], wanted: Callable[[str, nn.Module], bool]
) -> dict[str, Call]:
    """How the `wanted` modules were called in one run, in the order of their first call."""
    calls: dict[str, Call] = {}
    hooks = []

    def hook(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def note(_module: nn.Module, args: tuple[object, ...], output: object) -> None:
            if name in calls:
                calls[name].count += 1
                return
            first = args[0].detach() if len(args) == 1 and isinstance(args[0], torch.Tensor) else None
            last = output.detach() if isinstance(output, torch.Tensor) else None
            calls[name] = Call(1, None if first is None else first.clone(), None if last is None else last.clone())

        return note

    for name, module in model.named_modules():
        if name and wanted(name, module):
            hooks.append(module.register_forward_hook(hook(name)))
    try:
        run(model, inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return calls


def zeroed_copy(module: nn.Module) -> nn.Module:
    """A copy in eval mode with every parameter zero."""
    copied = copy.deepcopy(module).eval()
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    return copied
