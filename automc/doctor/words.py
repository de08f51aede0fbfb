"""A diagnosis for a terminal of 100 columns: what was found, most telling first within each part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from automc.doctor.diagnosis import Diagnosis, LimitOutlook, TechniqueReach
from automc.doctor.effort import clock_text

if TYPE_CHECKING:
    from automc.trial import Figure

MOST_LINES = 14
"""Of reasons; the JSON has them all."""


def page_of(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    """Every part, in order; the verdict last, where the eye is."""
    macs = "" if diagnosis.macs is None else f", {_count(diagnosis.macs)} multiply-accumulates a sample"
    size = "" if diagnosis.size_bytes is None else f", {diagnosis.size_bytes / 1000:,.0f} kB as ONNX"
    yield _bold(f"{diagnosis.name}: {diagnosis.model}, {diagnosis.parameters:,} parameters{macs}{size}")
    yield _stages(diagnosis)
    if diagnosis.techniques:
        yield _bold("\nWhat can be done to it")
        yield _techniques(diagnosis)
        yield from _blocked(diagnosis)
    yield _bold(f"\nWhat it costs on {diagnosis.profile}")
    yield from _costs(diagnosis)
    yield _bold("\nIts data")
    yield from _data(diagnosis)
    if diagnosis.effort is not None:
        effort = diagnosis.effort
        yield _bold(
            f"\nA search takes about {clock_text(effort.seconds)} and {effort.memory_mb / 1024:.1f} GB (workers alone)"
        )
        yield _indented("\n".join(effort.arithmetic))
    yield Text("")
    marks = {"stop": ("stop", "bold red"), "warn": ("warning", "yellow"), "note": ("note", "")}
    for finding in diagnosis.findings:
        word, style = marks[finding.level]
        yield Text.assemble((f"{word}: ", style), finding.text)
    yield Text.assemble(
        ("verdict: ", "bold"), (diagnosis.verdict, "green" if diagnosis.searchable else "bold red"),
        f" (examined in {diagnosis.seconds:.0f} s)",
    )  # fmt: skip
    yield Text.assemble(("next: ", "bold"), diagnosis.next_step)


def _stages(diagnosis: Diagnosis) -> RenderableType:
    table = _table()
    for stage in diagnosis.stages:
        mark = {True: Text("ok", "green"), False: Text("failed", "bold red"), None: Text("-", "dim")}[stage.ok]
        lines = [stage.detail]
        if str(stage.site):
            lines.append(f"in {stage.site}" + (f": {stage.site.code}" if stage.site.code else ""))
        if stage.possible:
            lines.append(f"still possible: {stage.possible}")
        table.add_row(stage.name, mark, f"{stage.seconds:.2f} s", "\n".join(lines))
    return _indented(table)


def _techniques(diagnosis: Diagnosis) -> RenderableType:
    table = _table("technique", "acts on", ">of MACs", ">of parameters", ">leaves alone")
    for entry in diagnosis.techniques:
        name = Text(entry.technique) + Text("" if entry.in_space else " (not in the space)", "dim")
        table.add_row(name, _acts_on(entry), _percent(entry.macs_share), _percent(entry.parameters_share), _left(entry))
    return _indented(table)


def _acts_on(entry: TechniqueReach) -> str:
    reach = entry.reach
    if reach.refused is not None:
        return f"nothing: {reach.refused}"
    if not reach.unit:
        return "the network as a whole"
    count = len(reach.targets)
    return f"{count} {_plural(reach.unit) if count != 1 else reach.unit}"


def _left(entry: TechniqueReach) -> str:
    return "" if entry.reach.refused is not None or not entry.reach.unit else str(len(entry.reach.blocked))


@dataclass
class _Reason:
    techniques: list[str]
    reason: str
    where: str
    names: list[str]


def _blocked(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    """Reasons of the techniques of the space, equal ones of layers that differ by a number alone taken together."""
    found: dict[tuple[str, str, str], _Reason] = {}
    for entry in diagnosis.techniques:
        if not entry.in_space:
            continue
        for item in entry.reach.blocked:
            key = (entry.technique, pattern(item.reason), item.site.where)
            reason = found.setdefault(key, _Reason([entry.technique], pattern(item.reason), item.site.where, []))
            reason.names.append(item.name)
    merged: dict[tuple[str, str, tuple[str, ...]], _Reason] = {}
    for reason in found.values():
        same = merged.setdefault((reason.reason, reason.where, tuple(reason.names)), reason)
        if same is not reason:
            same.techniques += reason.techniques
    if not merged:
        return
    yield _bold("\nWhat blocks the rest")
    by = {layer.name: set(layer.by) for layer in diagnosis.layers}
    in_space = {entry.technique for entry in diagnosis.techniques if entry.in_space}
    table = _table("", "", "|")
    reasons = sorted(merged.values(), key=lambda reason: -len(reason.names))
    for reason in reasons[:MOST_LINES]:
        able = [(by[name] & in_space) - set(reason.techniques) for name in reason.names if name in by]
        still = sorted(set.intersection(*able)) if able else []
        text = f"{', '.join(reason.techniques)}: {reason.reason}"
        if still:
            text += f"; still possible: {', '.join(still)}"
        table.add_row(_names(reason.names), text, reason.where)
    yield _indented(table)
    if len(reasons) > MOST_LINES:
        yield _indented(f"and {len(reasons) - MOST_LINES} more reasons: --json has every layer")


def pattern(text: str) -> str:
    """`text` with the numbers in module paths replaced: "blocks.0.norm1" is "blocks.*.norm1"."""
    return re.sub(r"(?<=\.)\d+(?=[./:\s]|$)", "*", text)


def _names(names: Sequence[str]) -> str:
    """Names on a line, those that differ by a number alone as one with how many they are."""
    counts: dict[str, list[str]] = {}
    for name in names:
        counts.setdefault(pattern(name), []).append(name)
    shown = [f"{key} ({len(same)})" if len(same) > 1 else same[0] for key, same in counts.items()]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")


def _costs(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    if diagnosis.unknown:
        table = _table("|not calibrated", "shapes of one", ">in the base", ">candidates", "")
        for item in diagnosis.unknown:
            state = "measured now" if item.calibrated else item.problem
            table.add_row(item.kind, item.shapes, str(item.kernels), str(item.candidates), state)
        yield _indented(table)
    space = diagnosis.space
    if space is None:
        for limit in diagnosis.limits:
            yield _indented(f"{limit.metric} <= {limit.maximum:g}: unknown, {limit.note}")
        return
    notes = [f"{space.infeasible} cannot exist here"] * bool(space.infeasible)
    notes += [f"{space.unknown} of unknown cost"] * bool(space.unknown)
    yield _indented(
        f"{space.size:,} candidates in the space, {space.looked_at} looked at in {space.seconds:.0f} s"
        + (f": {', '.join(notes)}" if notes else "")
    )
    for reason, times in list(space.reasons.items())[:2]:
        yield _indented(f"{times} x {reason if len(reason) < 150 else reason[:147] + '...'}")
    limits = {limit.metric: limit for limit in diagnosis.limits}
    table = _table("predicted", ">base, fp32", ">lowest seen", "by", "limit")
    letters: dict[str, str] = {}
    for metric, (figure, candidate) in space.lowest.items():
        letter = letters.setdefault(candidate, chr(ord("a") + len(letters)))
        said = _limit(limits[metric]) if metric in limits else ""
        table.add_row(metric, _shown(space.base.get(metric)), _shown(figure), letter, said)
    for metric, limit in limits.items():
        if metric not in space.lowest:
            table.add_row(metric, "", "unknown", "", _limit(limit))
    yield _indented(table)
    for candidate, letter in letters.items():
        yield _indented(f"{letter}: {candidate}")
    if len(diagnosis.limits) > 1 and not diagnosis.unknown:
        yield _indented(f"{space.within} of {space.looked_at} candidates looked at meet every limit on costs at once")


def _limit(limit: LimitOutlook) -> str:
    return f"<= {limit.maximum:g}: {limit.outlook}" + (f", {limit.note}" if limit.note else "")


def _data(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    data = diagnosis.data
    table = _table("split", ">samples", "classes")
    for split in data.splits:
        said = "cannot be read, see below" if split.problem else ""
        if split.classes:
            low, high = min(split.classes.values()), max(split.classes.values())
            said = f"{len(split.classes)}, of {low:,} to {high:,} samples each"
        table.add_row(split.name, f"{split.samples:,}" if split.samples else "?", said)
    yield _indented(table)
    for leak in data.leaks:
        yield _indented(f"{leak.samples:,} samples of {leak.inside} are samples of {leak.of} as well")
    if not data.leaks and data.compared:
        yield _indented(f"no sample is in two splits ({data.compared:,} of {data.samples:,} compared)")
    if data.accuracy:
        scored = [
            f"{name} {figure.value:.4f} ({figure.low:.4f} to {figure.high:.4f}, n={figure.n})"
            for name, figure in data.accuracy.items()
        ]
        yield _indented(f"the base scores, exported: {'; '.join(scored)}")


def _shown(figure: Figure | None) -> str:
    if figure is None:
        return "unknown"
    if figure.unit == "bytes":
        return f"{figure.value / 1000:,.0f} kB"
    return f"{figure.value:.3g} {figure.unit}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _count(number: int) -> str:
    return f"{number / 1e6:,.1f} million" if number >= 1e5 else f"{number:,}"


def _plural(unit: str) -> str:
    """ "group of channels" is "groups of channels"."""
    first, space, rest = unit.partition(" ")
    return f"{first}s{space}{rest}"


def _bold(text: str) -> Text:
    return Text(text, "bold")


def _indented(part: RenderableType) -> RenderableType:
    return Padding(part if not isinstance(part, str) else Text(part), (0, 0, 0, 2), expand=False)


def _table(*columns: str) -> Table:
    """Without lines. A heading that begins with > is of a column set to the right, with | of one never broken."""
    heads = any(column.strip("|") for column in columns)
    table = Table(box=None, pad_edge=False, show_header=heads, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        right = column.startswith(">")
        table.add_column(
            column.lstrip(">|"), justify="right" if right else "left", overflow="fold", no_wrap=column.startswith("|")
        )
    return table
