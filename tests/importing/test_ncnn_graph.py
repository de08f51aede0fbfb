"""Kernel rows of ncnn's networks: shapes, work and bytes worked by hand."""

from __future__ import annotations

import pytest

from automc.errors import PredictorError
from automc.importing.ncnn_graph import graph_from_param, parse, stated_shapes

SMALL = """7767517
8 9
Input            data     0 1 data 0=8 1=8 2=3
Convolution      conv     1 1 data c 0=4 1=3 3=2 4=1 5=1 6=108 9=1
Split            twice    1 2 c c_splitncnn_0 c_splitncnn_1
ConvolutionDepthWise dw   1 1 c_splitncnn_0 d 0=4 1=3 4=1 6=36 7=4
BinaryOp         sum      2 1 d c_splitncnn_1 s 0=0
Pooling          mean     1 1 s p 0=1 4=1
InnerProduct     fc       1 1 p f 0=10 1=1 2=40
Softmax          prob     1 1 f out
"""


def test_rows_bear_the_names_shapes_and_work_of_onnx() -> None:
    graph = graph_from_param(SMALL)
    assert [row.op for row in graph.rows] == ["Conv", "Conv", "Add", "GlobalAveragePool", "Gemm", "Softmax"]
    conv, depthwise, add, pool, fc, _ = graph.rows
    assert conv.output_shape == (1, 4, 4, 4)  # (8 + 2 - 3) // 2 + 1
    assert conv.macs == 108 * 16  # 4 filters of 3 x 3 x 3, 4 x 4 positions
    assert conv.bytes_weights == 4 * (108 + 4)
    assert conv.fused == ("Relu",)
    assert (conv.bytes_in, conv.bytes_out) == (4 * 192, 4 * 64)
    assert depthwise.macs == 36 * 16
    assert (depthwise.groups, depthwise.bytes_weights) == (4, 4 * 36)
    assert add.bytes_in == 2 * 4 * 64
    assert pool.output_shape == (1, 4, 1, 1)
    assert fc.macs == 40
    # at the sum: c (256 bytes, held by Split), d (256), s (256); at the first convolution: data 768 and c 256
    assert graph.peak_activation_bytes == 768 + 256


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(PredictorError, match="'spp' is a SPP"):
        graph_from_param("7767517\n2 2\nInput d 0 1 d 0=8 1=8 2=3\nSPP spp 1 1 d o\n")


def test_other_text_is_refused() -> None:
    with pytest.raises(PredictorError, match="does not begin with 7767517"):
        parse("ONNX\n")


@pytest.mark.data
def test_every_stated_shape_of_the_public_networks_is_the_one_worked_out(data_root) -> None:
    import gzip
    import json
    from math import prod

    from automc.importing import ncnn_graph
    from automc.importing.ncnn import _NO_SHAPE

    path = data_root / "device_latency/ncnn/model_params.json.gz"
    compared = 0
    for name, text in json.loads(gzip.decompress(path.read_bytes())).items():
        shapes = {}
        for layer in parse(text):
            told = stated_shapes(layer)
            if layer.kind == "Input":
                made = told or _NO_SHAPE.get(name) or tuple(layer.int(key) for key in (2, 1, 0))
                shapes[layer.outputs[0]] = made if isinstance(made[0], int) else made[0]
                continue
            found = ncnn_graph._KINDS[layer.kind](layer, [shapes[each] for each in layer.inputs]).shapes
            shapes.update(zip(layer.outputs, found, strict=True))
            for ours, theirs in zip(found, told, strict=False):
                assert prod(ours) == prod(theirs), (name, layer.name, ours, theirs)
                assert [e for e in ours if e != 1] == [e for e in theirs if e != 1], (name, layer.name)
                compared += 1
    assert compared > 2000
