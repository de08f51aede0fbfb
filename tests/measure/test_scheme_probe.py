"""The network that decides between int8 schemes shows what the runtime really does with each of them."""

from __future__ import annotations

from pathlib import Path

import onnx

from automc.measure.probes import probe_network
from automc.measure.sessions import SessionSettings, open_session


def float_convolutions(scheme: str, folder: Path) -> int:
    path = folder / f"{scheme}.onnx"
    open_session(probe_network(scheme, 32, 8), SessionSettings(threads=1, optimised_path=path))  # type: ignore[arg-type]
    return sum(node.op_type == "Conv" for node in onnx.load(path).graph.node)


def test_residual_blocks_stay_on_integers_with_uint8_activations_only(tmp_path: Path) -> None:
    assert float_convolutions("u8s8", tmp_path) == 0
    assert float_convolutions("s8s8", tmp_path) > 0
