"""What calibration asked a device directly, drawn in text: steps of latency over channels, the gain of int8."""

from __future__ import annotations

from collections.abc import Sequence

from automc.cost.calibration import ACTIVATIONS, Int8Probe, ThreadProbe, WidthProbe

BAR = 40
"""Characters of the longest bar."""


def width_lines(probes: Sequence[WidthProbe], multiple: int) -> list[str]:
    """One bar a width, from 0 ms on; widths that are a `multiple` of more than 1 are marked. Nothing of no probes."""
    if not probes:
        return []
    longest = max(probe.latency_ms for probe in probes)
    pays = f"rounding up to multiples of {multiple} pays" if multiple > 1 else "no multiple pays: every channel costs"
    lines = [f"fp32 latency of the probe network by its channels; {pays}"]
    for probe in probes:
        bar = "#" * round(BAR * probe.latency_ms / longest)
        mark = f"  multiple of {multiple}" if multiple > 1 and probe.width % multiple == 0 else ""
        lines.append(f"  {probe.width:4}  {bar:{BAR}}  {probe.latency_ms:.4f} ms{mark}")
    return lines


def int8_lines(probes: Sequence[Int8Probe]) -> list[str]:
    """Two bars a network, one for each type of activations: how many times as fast as fp32; | marks fp32 itself.

    Nothing of no probes.
    """
    if not probes:
        return []
    most = max(1.0, *(probe.gain(kind) for probe in probes for kind in ACTIVATIONS))
    lines = ["int8 against fp32 on each probe network, by the type of activations: times as fast (| is fp32)"]
    for probe in probes:
        for kind, latency_ms in zip(ACTIVATIONS, (probe.uint8_ms, probe.int8_ms), strict=True):
            network = f"{probe.width} channels, {probe.size} x {probe.size}"
            bar = _with_mark(round(BAR * probe.gain(kind) / most), round(BAR / most))
            lines.append(
                f"  {network:22}  {kind:5}  {bar:{BAR}}  {probe.gain(kind):.2f}  "
                f"{probe.fp32_ms:.4f} to {latency_ms:.4f} ms"
            )
    return lines


def thread_lines(probes: Sequence[ThreadProbe], threads: int) -> list[str]:
    """One bar a number of threads: times as fast as the fewest. threads: those the profile holds for. Nothing of no
    probes."""
    if not probes:
        return []
    first = probes[0]
    gains = [first.latency_ms / probe.latency_ms for probe in probes]
    best = probes[gains.index(max(gains))].threads
    holds = f"the profile holds for {threads}"
    other = "" if best == threads else f"; a profile of {best}: automc profile calibrate NAME --threads {best}"
    lines = [f"threads of one operator on a wide probe network: times as fast as {first.threads}; {holds}{other}"]
    for probe, gain in zip(probes, gains, strict=True):
        bar = "#" * round(BAR * gain / max(gains))
        lines.append(f"  {probe.threads:4}  {bar:{BAR}}  {gain:.2f}  {probe.latency_ms:.4f} ms")
    return lines


def _with_mark(length: int, mark: int) -> str:
    """A bar of `length` characters with a | as its `mark`th, which may lie beyond its end."""
    bar = "#" * length + " " * (mark - length)
    return f"{bar[: mark - 1]}|{bar[mark:]}"
