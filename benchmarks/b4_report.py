"""B4's tables, made anew from the file of runs: medians over seeds, and `guided` against the best of the others."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap, wilcoxon

Record = dict[str, Any]
Runs = Mapping[int, Record]
"""Seed -> run."""

POINTS = (20, 50, 100, 200)
ANCHORS = (
    "Pi 5 latency, evaluations to 99 %, measured elsewhere on a few seeds: random about 4,000 or never, NSGA-II 685 to "
    "over 1,500, multivariate TPE not within 400, a crude prototype (extra-trees, latency known) 160 to 220"
)
GOAL = "a quarter of the evaluations of the best of NSGA-II and TPE, and under 150 on Pi 5 latency"
_AT = POINTS.index(100)


def counts(runs: Runs) -> np.ndarray:
    """(n,) evaluations to 99 % by seed; one above its cap for a run that was censored."""
    return np.array([run["cap"] + 1 if run["to_99"] is None else run["to_99"] for run in runs.values()])


def _cap(runs: Runs) -> int:
    return int(next(iter(runs.values()))["cap"])


def summary(records: Sequence[Record]) -> list[Record]:
    """One row per column, kind and strategy."""
    grouped: dict[tuple[str, str], dict[str, dict[int, Record]]] = {}
    for record in records:
        by_strategy = grouped.setdefault((record["column"], record["kind"]), {})
        by_strategy.setdefault(record["strategy"], {})[record["seed"]] = record
    rows = []
    for (column, kind), by_strategy in grouped.items():
        for strategy, runs in sorted(by_strategy.items()):
            row = {"column": column, "kind": kind, "strategy": strategy, **_of(runs)}
            if strategy.startswith("guided"):
                row |= _against(runs, {name: one for name, one in by_strategy.items() if name[:6] != "guided"})
            rows.append(row)
    return rows


def _of(runs: Runs) -> Record:
    first, found = next(iter(runs.values())), counts(runs)
    row: Record = {
        "seeds": len(runs), "cap": first["cap"], "censored": int((found > first["cap"]).sum()),
        "to_99_median": float(np.median(found)), "to_99_interval": _interval(found),
        "to_99_table_median": float(np.median([run["to_99_table"] or run["cap"] + 1 for run in runs.values()])),
        "regret_median": np.round(np.median([run["regret"] for run in runs.values()], axis=0), 4).tolist(),
        "reachable_median": round(float(np.median([run["reachable"] for run in runs.values()])), 4),
        "ask_ms_median": round(float(np.median([run["ask_ms"] for run in runs.values()])), 2),
        "code": sorted({run["code"] for run in runs.values()}),
    }  # fmt: skip
    if "over_limit" in first:
        row["over_limit"] = {
            what: sum(run["over_limit"][what] for run in runs.values()) for what in first["over_limit"]
        }
    return row


def _interval(found: np.ndarray) -> list[float]:
    """95 % of the median, by bootstrap over seeds."""
    if len(found) < 3 or np.ptp(found) == 0:
        return [float(found.min()), float(found.max())]
    ends = bootstrap((found,), np.median, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return [float(ends.low), float(ends.high)]


def _against(runs: Runs, others: Mapping[str, Runs]) -> Record:
    """The others' best in evaluations to 99 % and in regret at 100, each by median; the test pairs runs by seed.

    Of those whose median is not censored; `ended_before_it` names others whose cap tells nothing about that many.
    """
    if not others:
        return {}
    mine, row = counts(runs), Record()
    reached = {name: counts(of) for name, of in others.items() if np.median(counts(of)) <= _cap(of)}
    if reached:
        fewest = min(reached, key=lambda name: (float(np.median(reached[name])), name))
        row["fewest_of_others"] = fewest
        row["ratio"] = round(float(np.median(mine) / np.median(reached[fewest])), 3)
        row["ratio_interval"] = _ratio_interval(mine, reached[fewest])
        row["ratio_is_least"] = bool(np.median(mine) > _cap(runs))
        stopped = [name for name, of in others.items() if name not in reached and _cap(of) < np.median(reached[fewest])]
        row["ended_before_it"] = sorted(stopped)

    def regrets(of: Runs) -> dict[int, float]:
        return {seed: run["regret"][_AT] for seed, run in of.items()}

    best = min(others, key=lambda name: (float(np.median(list(regrets(others[name]).values()))), name))
    own, theirs = regrets(runs), regrets(others[best])
    seeds = sorted(own.keys() & theirs.keys())
    a, b = np.array([own[seed] for seed in seeds]), np.array([theirs[seed] for seed in seeds])
    p = float(wilcoxon(a, b).pvalue) if len(seeds) > 4 and (a != b).any() else None
    return row | {
        "best_other_at_100": best, "paired": len(seeds), "wins": int((a < b).sum()), "losses": int((a > b).sum()),
        "wilcoxon_p": p,
    }  # fmt: skip


def _ratio_interval(mine: np.ndarray, theirs: np.ndarray) -> list[float]:
    """95 % of the ratio of medians, by bootstrap over the seeds of each."""

    def ratio(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(np.median(a, axis=axis) / np.median(b, axis=axis))

    if len(mine) < 3 or len(theirs) < 3:
        return []
    found = bootstrap((mine, theirs), ratio, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return [round(float(found.low), 3), round(float(found.high), 3)]


def markdown(rows: Sequence[Record], what: str) -> str:
    lines = [
        "# B4: Pareto search on NAS-Bench-201", "", what.split("\n\n", 1)[1].strip(), "",
        f"Anchors: {ANCHORS}. Goal: {GOAL}.", "",
        "`ratio`: guided's median to 99 % over that of the best other (95 % interval); > where guided's is censored. "
        "`reachable`: share of the true front's volume on the front by prediction; where it is below 99 %, no search "
        "that hears predictions can be sure of 99 %. Regret is what the volume lacks, median over seeds. p: Wilcoxon, "
        "paired by seed, regret at 100.",
        "",
        "| column | kind | strategy | seeds | median to 99 % (95 % interval) | censored | to 99 %, whole table "
        "| regret at 20 / 50 / 100 / 200, % | reachable, % | ask ms | ratio | regret at 100 against the best other "
        "| over the limit: evaluated / front by prediction |",
        "|" + "---|" * 13,
    ]  # fmt: skip
    for row in rows:
        regret = " / ".join(f"{100 * value:.2f}" for value in row["regret_median"])
        limit = " / ".join(str(count) for count in row.get("over_limit", {}).values())
        low, high = row["to_99_interval"]
        upper = "cap" if high > row["cap"] else f"{high:.0f}"
        lines.append(
            f"| {row['column']} | {row['kind']} | {row['strategy']} | {row['seeds']} "
            f"| {_shown(row['to_99_median'], row['cap'])} ({low:.0f} to {upper}) "
            f"| {row['censored']} | {_shown(row['to_99_table_median'], row['cap'])} | {regret} "
            f"| {100 * row['reachable_median']:.1f} | {row['ask_ms_median']} | {_ratio(row)} | {_versus(row)} "
            f"| {limit} |"
        )
    return "\n".join(lines) + "\n"


def _shown(median: float, cap: int) -> str:
    return f"> {cap}" if median > cap else f"{median:.0f}"


def _ratio(row: Record) -> str:
    if "ratio" not in row:
        return ""
    if row["ratio_is_least"]:
        return f"> {row['ratio']} of {row['fewest_of_others']}"
    interval = " ({} to {})".format(*row["ratio_interval"]) if row["ratio_interval"] else ""
    return f"{row['ratio']}{interval} of {row['fewest_of_others']}"


def _versus(row: Record) -> str:
    if "best_other_at_100" not in row:
        return ""
    p = "" if row["wilcoxon_p"] is None else f", p {row['wilcoxon_p']:.2g}"
    return f"{row['best_other_at_100']}: {row['wins']} wins, {row['losses']} losses of {row['paired']}{p}"


def overall(rows: Sequence[Record]) -> list[str]:
    """What holds over device columns, `predicted`."""
    mine = [row for row in rows if (row["kind"], row["strategy"]) == ("predicted", "guided") and "paired" in row]
    ratios = [row["ratio"] for row in mine if "ratio" in row and not row["ratio_is_least"]]
    unknown = sum(row.get("ratio_is_least", False) for row in mine)
    tested = [row for row in mine if row["wilcoxon_p"] is not None]
    better = [row for row in tested if row["wilcoxon_p"] < 0.05 and row["wins"] > row["losses"]]
    worse = [row for row in tested if row["wilcoxon_p"] < 0.05 and row["wins"] < row["losses"]]
    lines = [
        f"Of {len(tested)} columns with five seeds or more, `guided` has less regret at 100 than the best other on "
        f"{len(better)} and more on {len(worse)} (p < 0.05, not corrected for their number)."
    ]
    if ratios:
        lines.append(
            f"Where both reached 99 % in the median, {len(ratios)} columns, `guided` needed {min(ratios):.2f} to "
            f"{max(ratios):.2f} of the evaluations of the best other, {float(np.median(ratios)):.2f} in the median "
            f"column, a quarter or less on {sum(ratio <= 0.25 for ratio in ratios)}. On {unknown} more the best other "
            "reached it and `guided` did not within its cap."
        )
    lines += [_goal(row) for row in mine if row["column"].startswith("pi5")]
    return lines


def _goal(row: Record) -> str:
    if "ratio" not in row or row["ratio_is_least"]:
        return "Pi 5 latency: 99 % was not reached in the median."
    text = (
        f"Pi 5 latency, {row['seeds']} seeds: {row['to_99_median']:.0f} evaluations, {row['ratio']} of "
        f"{row['fewest_of_others']}'s ({row['ratio_interval'][0]} to {row['ratio_interval'][1]}). "
    )
    text += f"First goal: under 150 {_met(row['to_99_median'] < 150)}, a quarter {_met(row['ratio'] <= 0.25)}."
    if row["ended_before_it"]:
        text += f" {', '.join(row['ended_before_it'])} ended at the cap, short of 99 % and of that many evaluations."
    return text


def _met(met: bool) -> str:
    return "met" if met else "not met"


def write_report(runs: Path, stem: Path, planned: Sequence[str], what: str) -> None:
    """`stem`.json and .md of what `runs` holds of the plan."""
    wanted = set(planned)
    records = [json.loads(line) for line in runs.read_text().splitlines()]
    records = [r for r in records if "{column}/{kind}/{strategy}/{seed}".format(**r) in wanted]
    rows = summary(records)
    closing = [
        *overall(rows),
        f"{len(records)} of {len(wanted)} planned runs were made; the others are not in the table.",
    ]
    stem.with_suffix(".md").write_text(markdown(rows, what) + "\n" + "\n\n".join(closing) + "\n")
    packages = ("automc", "numpy", "scipy", "scikit-learn", "optuna")
    conditions: Record = {"platform": platform.platform(), "versions": {name: version(name) for name in packages}}
    conditions["threads"] = os.environ.get("OMP_NUM_THREADS", "unset")
    found = {"rows": rows, "overall": closing, "anchors": ANCHORS, "goal": GOAL, "conditions": conditions}
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(closing))
