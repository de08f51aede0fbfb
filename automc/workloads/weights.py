"""Weights as files: reading them without running anything, and filling a network with them, key by key."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from automc.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every key."""
_AGAIN = "save the weights again: safetensors.torch.save_file(model.state_dict(), FILE)"


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name from .npz, .safetensors, or a state dict saved by torch (.pt, .pth; tensors only, no code).

    Raises ConfigError where the file is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file", next_step="correct the path of the weights")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return {key: _array(tensor) for key, tensor in load_file(path).items()}
            except SafetensorError as error:
                raise ConfigError(f"{path}: damaged safetensors file: {error}", next_step=_AGAIN) from error
        if path.suffix in {".pt", ".pth", ".th"}:
            return _read_torch(path)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: cannot be read as weights: {error}", next_step=_AGAIN) from error
    raise ConfigError(
        f"{path}: weights are read from .npz, .safetensors, .pt or .pth, not from {path.suffix!r}", next_step=_AGAIN
    )


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    import pickle

    import torch

    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise ConfigError(
            f"{path}: not a plain state dict: {str(error).splitlines()[0]}",
            next_step="save model.state_dict(), not the model, or convert the weights to .safetensors",
        ) from error
    if isinstance(stored, dict) and isinstance(stored.get("state_dict"), dict):
        stored = stored["state_dict"]
    if not isinstance(stored, dict) or not all(isinstance(item, torch.Tensor) for item in stored.values()):
        raise ConfigError(f"{path}: holds {type(stored).__name__}, not a state dict of tensors", next_step=_AGAIN)
    return {str(key): _array(tensor) for key, tensor in stored.items()}


def _array(tensor: torch.Tensor) -> np.ndarray:
    """As it is stored; bfloat16, which numpy lacks, as float32."""
    import torch

    array: np.ndarray = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).detach().numpy()
    return array


def load_weights(model: nn.Module, weights: Mapping[str, np.ndarray], where: str) -> None:
    """Fill `model` in place, as float32. `where` names the file.

    BatchNorm's batch counters may be absent. Raises ConfigError naming the keys that are missing, unexpected, of the
    wrong shape or not finite; nothing is filled then.
    """
    import torch

    wanted = model.state_dict()
    weights = _unwrapped(weights, wanted)
    missing = [key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in wanted]
    shared = [key for key in wanted if key in weights]
    shapes = [
        f"{key} is {tuple(weights[key].shape)}, the model takes {tuple(wanted[key].shape)}"
        for key in shared
        if tuple(weights[key].shape) != tuple(wanted[key].shape)
    ]
    broken = [key for key in shared if weights[key].dtype.kind == "f" and not np.isfinite(weights[key]).all()]
    faults = (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes), ("NaN or infinity", broken))
    said = [f"{what}: {_few(keys)}" for what, keys in faults if keys]
    if said:
        raise ConfigError(
            f"{where}: the weights do not fit {type(model).__name__}; " + "; ".join(said),
            next_step="give the weights of this architecture, or name the architecture of these weights",
        )
    filled = {
        key: torch.from_numpy(np.array(weights[key])).to(wanted[key].dtype) if key in weights else wanted[key]
        for key in wanted
    }
    model.load_state_dict(filled)


def _unwrapped(weights: Mapping[str, np.ndarray], wanted: Mapping[str, object]) -> Mapping[str, np.ndarray]:
    """Without what DataParallel and torch.compile put before every key, where the model itself has no such name."""
    for prefix in WRAPPERS:
        foreign = not any(key.startswith(prefix) for key in wanted)
        if foreign and weights and all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _few(keys: list[str]) -> str:
    shown = ", ".join(keys[:5])
    return shown if len(keys) <= 5 else f"{shown} and {len(keys) - 5} more"
