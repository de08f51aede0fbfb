"""Sessions: the model that is given runs, what cannot be loaded is a measurement error that says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from automc.errors import ConfigError, MeasurementError
from automc.measure.probes import probe_network
from automc.measure.sessions import SessionSettings, open_session, random_inputs, run


def test_bytes_and_a_path_give_the_same_answer(tmp_path: Path) -> None:
    model = probe_network("fp32", 8, size=8)
    (tmp_path / "m.onnx").write_bytes(model)
    feeds = random_inputs(open_session(model), seed=3)
    from_bytes, from_path = run(model, feeds), run(tmp_path / "m.onnx", feeds)
    assert list(from_bytes) == list(from_path)
    for name, value in from_bytes.items():
        assert value.shape == (1, 10)
        np.testing.assert_array_equal(value, from_path[name])


def test_inputs_are_the_same_for_the_same_seed() -> None:
    session = open_session(probe_network("fp32", 8, size=8))
    first, second, other = (random_inputs(session, seed=seed) for seed in (1, 1, 2))
    (name,) = first
    assert first[name].shape == (1, 3, 8, 8)
    np.testing.assert_array_equal(first[name], second[name])
    assert (first[name] != other[name]).any()


def test_the_optimised_graph_is_written_where_asked(tmp_path: Path) -> None:
    open_session(probe_network("fp32", 16, size=8), SessionSettings(optimised_path=tmp_path / "o.onnx"))
    assert (tmp_path / "o.onnx").stat().st_size > 0


def test_a_damaged_or_missing_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="cannot load the model") as caught:
        open_session(b"not a model")
    assert caught.value.next_step is not None
    with pytest.raises(ConfigError, match=r"none\.onnx"):
        open_session(tmp_path / "none.onnx")
