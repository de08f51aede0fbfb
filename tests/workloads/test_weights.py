"""Weights from files: what fits is filled, what does not is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from automc.errors import ConfigError
from automc.workloads.weights import load_weights, read_weights
from automc.workloads.workload import weights_digest


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def weights(seed: int = 1) -> dict[str, np.ndarray]:
    return {key: tensor.numpy() for key, tensor in network(seed).state_dict().items()}


def test_weights_come_back_from_every_kind_of_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **weights())
    save_file(weights(), tmp_path / "a.safetensors")
    torch.save(network(1).state_dict(), tmp_path / "a.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in network(1).state_dict().items()}}, tmp_path / "a.th")
    for name in ("a.npz", "a.safetensors", "a.pt", "a.th"):
        model = network()
        load_weights(model, read_weights(tmp_path / name), name)
        assert weights_digest(model) == weights_digest(network(1))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_a_wrapper_put_before_every_key_is_no_part_of_it(prefix: str) -> None:
    model = network()
    load_weights(model, {f"{prefix}{key}": value for key, value in weights().items()}, "wrapped.npz")
    assert weights_digest(model) == weights_digest(network(1))
    own = nn.Sequential()
    own.add_module("module", network())
    load_weights(own, {f"module.{key}": value for key, value in weights().items()}, "own.npz")  # a name of its own
    assert weights_digest(own[0]) == weights_digest(network(1))


def test_half_precision_is_filled_as_single() -> None:
    model = network()
    load_weights(model, {key: value.astype(np.float16) for key, value in weights().items()}, "half")
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}


def test_batch_counters_may_be_absent() -> None:
    given = weights()
    del given["1.num_batches_tracked"]
    model = network()
    load_weights(model, given, "old.npz")
    assert np.array_equal(model.state_dict()["0.weight"].numpy(), given["0.weight"])


def test_what_does_not_fit_is_named_and_nothing_is_filled() -> None:
    given = weights()
    given["0.weight"] = np.zeros((4, 3, 5, 5), np.float32)
    given["1.weight"] = np.full(4, np.nan, np.float32)
    given["fc.weight"] = given.pop("0.bias")
    model = network()
    with pytest.raises(ConfigError) as caught:
        load_weights(model, given, "other.npz")
    said = str(caught.value)
    assert said.startswith("other.npz: the weights do not fit Sequential")
    assert "missing: 0.bias" in said
    assert "unexpected: fc.weight" in said
    assert "0.weight is (4, 3, 5, 5), the model takes (4, 3, 3, 3)" in said
    assert "NaN or infinity: 1.weight" in said
    assert weights_digest(model) == weights_digest(network())


def test_many_keys_are_shortened() -> None:
    with pytest.raises(ConfigError, match=r"missing: .*, .*, .*, .*, .* and 1 more"):
        load_weights(network(), {}, "empty.npz")


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    for name in ("a.npz", "a.safetensors", "a.pt"):
        (tmp_path / name).write_bytes(b"no weights at all, only words")
        with pytest.raises(ConfigError, match=name):
            read_weights(tmp_path / name)
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"not from '\.h5'"):
        read_weights(tmp_path / "a.h5")
    with pytest.raises(ConfigError, match="no such file"):
        read_weights(tmp_path / "b.npz")


def test_a_whole_model_is_refused_as_its_loading_would_run_code(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "model.pt")
    with pytest.raises(ConfigError, match="not a plain state dict"):
        read_weights(tmp_path / "model.pt")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(ConfigError, match="holds list"):
        read_weights(tmp_path / "list.pt")


def test_an_object_array_is_refused_as_its_loading_would_run_code(tmp_path: Path) -> None:
    np.savez(tmp_path / "object.npz", weight=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ConfigError, match=r"object\.npz: cannot be read as weights"):
        read_weights(tmp_path / "object.npz")
