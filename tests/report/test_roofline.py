"""The roofline: rates, roofs and places on the page worked out by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from report_samples import network, report_data
from strict_html import parsed

from automc.cost.kernels import KernelRow
from automc.cost.predictor import Estimate, KernelCost
from automc.report.data import KernelTimes
from automc.report.page import render_report
from automc.report.roofline import LogScale, roofline_svg, roofs_of, scales, spots_of

SVG = "{http://www.w3.org/2000/svg}"


def kernel(name: str, precision: str, macs: int, moved: tuple[int, int, int], latency_ms: float) -> KernelCost:
    """moved: bytes in, out and of weights."""
    row = KernelRow(name, "Conv", precision, "nchwc", ((1, 8, 4, 4),), (1, 8, 4, 4), macs, *moved)  # type: ignore[arg-type]
    low, high = 0.9 * latency_ms, 1.1 * latency_ms
    return KernelCost(row, Estimate(latency_ms, low, high, "ms", 1.0), Estimate(1.0, 0.9, 1.1, "mJ", 1.0))


# 4 M MACs in 1 ms: 4 GMAC/s; 400,000 bytes: 10 MACs per byte, 0.4 GB/s
DENSE = kernel("dense", "fp32", 4_000_000, (100_000, 100_000, 200_000), 1.0)
# 1 M MACs in 2 ms: 0.5 GMAC/s; 1,000,000 bytes: 1 MAC per byte, 0.5 GB/s
THIN = kernel("thin", "fp32", 1_000_000, (400_000, 400_000, 200_000), 2.0)
# 2 M MACs in 0.25 ms: 8 GMAC/s; 20,000 bytes: 100 MACs per byte
SMALL = kernel("small", "int8", 2_000_000, (10_000, 5_000, 5_000), 0.25)
# moves 800,000 bytes in 1 ms: 0.8 GB/s, and multiplies nothing
MOVER = kernel("mover", "fp32", 0, (400_000, 400_000, 0), 1.0)
VIEW = kernel("view", "fp32", 0, (0, 0, 0), 0.0)

PARTS = [KernelTimes("reference", [DENSE, THIN, MOVER, VIEW]), KernelTimes("chosen", [SMALL])]


def test_a_spot_is_work_per_byte_and_work_per_second() -> None:
    found = {spot.row.name: (spot.label, spot.intensity, spot.rate) for spot in spots_of(PARTS)}
    assert found == {
        "dense": ("reference", 10.0, pytest.approx(4.0)),
        "thin": ("reference", 1.0, pytest.approx(0.5)),
        "small": ("chosen", 100.0, pytest.approx(8.0)),
    }


def test_a_roof_is_the_best_of_its_precision_and_bandwidth_that_of_whatever_moves_bytes() -> None:
    roofs = roofs_of(PARTS)
    assert roofs.rate == {"fp32": pytest.approx(4.0), "int8": pytest.approx(8.0)}
    assert roofs.bandwidth == pytest.approx(0.8)  # the mover's, more than the 0.5 of the thin one
    assert roofs.height("fp32", 2.0) == pytest.approx(1.6)  # 2 MACs per byte x 0.8 GB/s
    assert roofs.height("fp32", 5.0) == pytest.approx(4.0)
    assert roofs.height("int8", 5.0) == pytest.approx(4.0)  # still held back by bytes
    assert roofs.height("int8", 100.0) == pytest.approx(8.0)


def test_no_kernel_is_above_its_roof() -> None:
    parts = [network("reference", "fp32", 1.0), network("chosen", "int8", 0.3)]
    roofs = roofs_of(parts)
    spots = spots_of(parts)
    assert len(spots) == 30
    assert all(spot.rate <= roofs.height(spot.row.precision, spot.intensity) * (1 + 1e-12) for spot in spots)


def test_a_decade_is_as_wide_everywhere_and_ticks_are_round() -> None:
    scale = LogScale(0.1, 100.0, 50, 350)  # three decades over 300
    assert scale(0.1) == pytest.approx(50)
    assert scale(1.0) == pytest.approx(150)
    assert scale(10.0) == pytest.approx(250)
    assert scale.ticks() == pytest.approx([0.1, 1, 10, 100])
    assert LogScale(3.0, 60.0, 0, 1).ticks() == pytest.approx([5, 10, 20, 50])  # only one power of ten lies inside


def test_marks_and_roofs_stand_where_the_scales_put_them() -> None:
    x, y = scales(spots_of(PARTS), roofs_of(PARTS))
    assert (x.low, x.high) == (pytest.approx(0.8), pytest.approx(125.0))  # 1 and 100 with a quarter of room
    assert (y.low, y.high) == (pytest.approx(0.4), pytest.approx(10.0))  # 0.5 and 8
    drawn = ElementTree.fromstring(roofline_svg(PARTS) or "")
    thin = next(e for e in drawn.iter(f"{SVG}circle") if "0.5 GMAC/s" in (e.findtext(f"{SVG}title") or ""))
    # x: 70 to 856 over log(125 / 0.8) = 5.051: 70 + 786 x log(1 / 0.8) / 5.051 = 104.7
    # y: 368 up to 44 over log(25) = 3.219: 368 - 324 x log(1.25) / 3.219 = 345.5
    assert (thin.get("cx"), thin.get("cy"), thin.get("r")) == ("104.7", "345.5", "9")  # the longest has the largest
    assert "2000 µs, 62.5% of its roof" in (thin.findtext(f"{SVG}title") or "")  # 0.5 of 1 x 0.8
    lines = [
        tuple(float(e.get(name, "nan")) for name in ("x1", "y1", "x2", "y2"))
        for e in drawn.iter(f"{SVG}line")
        if e.get("class") == "axis" and e.get("y2") != e.get("y1") and e.get("x1") != e.get("x2")
    ]
    # the slope: 0.64 GMAC/s at the left edge to 8 GMAC/s at 10 MACs per byte, where int8's roof begins
    # x(10) = 70 + 786 / 2 = 463, for 12.5 x 12.5 is 125 / 0.8;
    # y(0.64) = 368 - 324 x log(1.6) / 3.219 = 320.7; y(8) = 368 - 324 x log(20) / 3.219 = 66.5
    assert lines == [(70.0, 320.7, 463.0, 66.5)]


def test_colours_are_those_of_the_bars_and_int8_is_a_diamond() -> None:
    chart = roofline_svg(PARTS) or ""
    assert len(re.findall(r'<circle[^>]*class="member"><title>reference: ', chart)) == 2
    assert len(re.findall(r'<path[^>]*class="chosen"><title>chosen: ', chart)) == 1
    assert "fp32 4 GMAC/s" in chart
    assert "int8 8 GMAC/s" in chart
    assert "0.8 GB/s" in chart


def test_of_networks_that_multiply_nothing_there_is_no_roofline() -> None:
    assert roofline_svg([]) is None
    assert roofline_svg([KernelTimes("reference", [MOVER, VIEW])]) is None
    page = render_report(replace(report_data(), kernels=[KernelTimes("reference", [MOVER])]))
    assert "How near the kernels come" not in parsed(page).text
    assert "How near the kernels come" in parsed(render_report(report_data())).text
