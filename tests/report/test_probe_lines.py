"""The drawing of what calibration asked a device, by made-up numbers."""

from __future__ import annotations

from automc.cost.calibration import Int8Probe, ThreadProbe, WidthProbe
from automc.report.probe_lines import int8_lines, thread_lines, width_lines


def test_a_width_is_a_bar_of_its_latency_and_the_multiples_that_pay_are_marked() -> None:
    probes = [WidthProbe(width=width, latency_ms=ms) for width, ms in ((33, 0.3), (48, 0.3), (56, 0.4), (64, 0.4))]
    head, *lines = width_lines(probes, 16)
    assert head.endswith("rounding up to multiples of 16 pays")
    # 40 characters are 0.4 ms, so 0.3 ms are 30
    assert lines == [
        "    33  " + 30 * "#" + 10 * " " + "  0.3000 ms",
        "    48  " + 30 * "#" + 10 * " " + "  0.3000 ms  multiple of 16",
        "    56  " + 40 * "#" + "  0.4000 ms",
        "    64  " + 40 * "#" + "  0.4000 ms  multiple of 16",
    ]


def test_where_every_channel_costs_nothing_is_marked() -> None:
    head, line = width_lines([WidthProbe(width=33, latency_ms=0.1)], 1)
    assert head.endswith("no multiple pays: every channel costs")
    assert line.endswith("0.1000 ms")


def test_int8_is_a_bar_of_its_gain_with_fp32_marked() -> None:
    probe = Int8Probe(width=64, size=8, fp32_ms=1.0, uint8_ms=0.25, int8_ms=2.0)
    _, unsigned, signed = int8_lines([probe])
    # 40 characters are a gain of 4, so fp32 is the 10th; a gain of 0.5 has 5
    assert unsigned == "  64 channels, 8 x 8      uint8  " + 9 * "#" + "|" + 30 * "#" + "  4.00  1.0000 to 0.2500 ms"
    assert (
        signed
        == "  64 channels, 8 x 8      int8   " + 5 * "#" + 4 * " " + "|" + 30 * " " + "  0.50  1.0000 to 2.0000 ms"
    )


def test_where_int8_never_pays_the_mark_of_fp32_ends_the_line() -> None:
    _, unsigned, _ = int8_lines([Int8Probe(width=32, size=16, fp32_ms=1.0, uint8_ms=2.0, int8_ms=4.0)])
    assert 20 * "#" + 19 * " " + "|  0.50" in unsigned  # 40 characters are a gain of 1, which is fp32


def test_of_nothing_there_is_no_drawing() -> None:
    assert width_lines([], 8) == []
    assert int8_lines([]) == []


def test_threads_are_drawn_by_what_they_gain_and_the_way_to_a_profile_of_more_is_named() -> None:
    probes = [ThreadProbe(threads=count, latency_ms=ms) for count, ms in ((1, 2.0), (2, 1.25), (4, 1.6))]
    head, *lines = thread_lines(probes, 1)
    assert "the profile holds for 1; a profile of 2: automc profile calibrate NAME --threads 2" in head
    assert [line.split()[0] for line in lines] == ["1", "2", "4"]
    assert [line.count("#") for line in lines] == [25, 40, 31]  # gains of 1, 1.6 and 1.25
    assert lines[1].endswith("1.60  1.2500 ms")
    assert "calibrate" not in thread_lines(probes, 2)[0]
    assert thread_lines([], 1) == []
