"""B3: candidates priced a second on one core. `python benchmarks/b3_throughput.py DATA [SECONDS] [OUT_STEM]`.

Every arm goes from a candidate to its predicted latency and energy, for SECONDS (default 30) of candidates that are all
different, and nothing of a candidate is prepared before the clock runs; the calibration pictures are decoded then.

  table    NAS-Bench-201 cells, priced by a fit to few measurements from what their edges hold, all at once
  rows     the same cells, priced from every kernel of the network they stand for
  widths   ResNet-20 or -56 on CIFAR-10, channel pruning with a share of its own for every group, in fp32 and int8
  chains   candidates of the search space `cnn` on the same networks: any two structural techniques in any order, any
           knobs, recoveries and int8, as a search asks for them; the first quarter of the time, in which evidence is
           gathered (coupling, gradients, effects of blocks), is shown apart

Shapes that hang on the weights a step before leaves are estimated from the base, as a search does before it refuses a
candidate. After the clock has stopped WEIGHED of these, evenly drawn (as many as SECONDS allow), are planned on those
weights: how far the two latencies are apart.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from automc.candidate import Candidate, Step
from automc.config import parse_config
from automc.cost.few_shot import fit_few_shot
from automc.evaluate import Evaluator
from automc.importing.spaces import nasbench201_rows, totals
from automc.profiles import profile_folder
from automc.run import ArtifactStore
from automc.search.screening import Screener
from automc.space import SearchSpace
from automc.techniques._prunable import prunable
from automc.techniques.channel_pruning import ChannelPruning
from automc.techniques.technique import Phase
from automc.workloads.nasbench201 import EDGES, OPERATIONS, cell_work
from automc.workloads.registry import create_workload

ANCHORS = "nn-Meter about 1 network/s; features precomputed elsewhere 2e5/s"
GOALS = {"table": 1e4, "rows": 1e4, "widths resnet20": 50.0, "chains resnet20": 50.0}
WEIGHED = 30
CELLS = list(product(OPERATIONS, repeat=EDGES))


def table() -> tuple[int, float]:
    """All cells; the fit is to made-up costs, whose values do not change its speed."""
    fits = [fit_few_shot(cell_work(CELLS[::800]), np.linspace(1.0, 2.0, len(CELLS[::800]))) for _ in range(2)]
    started = time.perf_counter()
    work = cell_work(CELLS)
    for fit in fits:
        fit.predict(work)
    return len(CELLS), time.perf_counter() - started


def rows(seconds: float) -> tuple[int, float]:
    """Cells in an order of their own, a thousand at a time, for `seconds`."""
    order = np.random.default_rng(0).permutation(len(CELLS))
    known = [totals(nasbench201_rows(CELLS[at])) for at in order[:60]]
    names = sorted({name for found in known for name in found})
    index = {name: at for at, name in enumerate(names)}
    fits = [fit_few_shot(_matrix(known, index), np.linspace(1.0, 2.0, len(known))) for _ in range(2)]
    done, started = 0, time.perf_counter()
    for at in range(0, len(order), 1000):
        work = _matrix([totals(nasbench201_rows(CELLS[cell])) for cell in order[at : at + 1000]], index)
        for fit in fits:
            fit.predict(work)
        done += len(work)
        if time.perf_counter() - started > seconds:
            break
    return done, time.perf_counter() - started


def _matrix(found: Sequence[dict[str, float]], index: dict[str, int]) -> np.ndarray:
    made = np.zeros((len(found), len(index)))
    for line, columns in enumerate(found):
        for name, value in columns.items():
            made[line, index[name]] = value
    return made


def evaluator(name: str, data: Path, folder: Path) -> Evaluator:
    workload = {"name": "cifar10", "options": {"model": name}}
    config = parse_config({"name": name, "workload": workload, "space": "cnn"}, "b3")
    return Evaluator(
        config,
        create_workload("cifar10", {"model": name}, data),
        ArtifactStore(folder),
        profile_folder("host"),
        folder / "cache",
    )


def widths(made: Evaluator) -> Iterator[Candidate]:
    found = prunable(made.base, made.workload.example_inputs())
    roots = [group.root for group in found.coupling.groups]
    rng = np.random.default_rng(0)
    while True:
        shares = {root: float(rng.integers(1, 8)) / 10 for root in roots}
        step = Step.of(ChannelPruning.name, ratio=0.1, group_ratios=shares)
        yield Candidate((step, Step.of("int8_ptq")) if rng.integers(2) else (step,))


def chains(_: Evaluator) -> Iterator[Candidate]:
    """Distinct in what is priced: steps that no predicted cost depends on do not make another candidate."""
    from automc import pipeline

    space, rng, seen = SearchSpace.load("cnn"), np.random.default_rng(0), set()
    while True:
        candidate = space.sample(rng)
        steps = pipeline.resolve(candidate.steps)
        priced = (
            tuple(item.step for item in steps if item.technique.phase is Phase.MODEL),
            pipeline.final_precision(candidate.steps),
        )
        if priced not in seen and priced[0]:
            seen.add(priced)
            yield candidate


def screened(
    name: str, data: Path, seconds: float, asked: Callable[[Evaluator], Iterator[Candidate]]
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        made = evaluator(name, data, Path(folder))
        made.workload.split("calibration")
        screener = Screener(made, (), 0, frozenset({"latency_ms", "energy_mj"}))
        moments, failed, estimated = list[float](), 0, list[tuple[Candidate, float]]()
        source = asked(made)
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            candidate = next(source)
            (answer,) = screener([candidate])
            failed += answer.failure is not None
            if answer.costs is not None and not answer.exact:
                estimated.append((candidate, answer.costs.latency_ms.value))
            moments.append(time.perf_counter() - started)
        gaps, stopped = list[float](), time.perf_counter()
        for candidate, said in estimated[:: max(1, len(estimated) // WEIGHED)]:
            if time.perf_counter() - stopped > seconds:
                break
            weighed = screener.weighed(candidate)
            if weighed.costs is not None:
                gaps.append(abs(said / weighed.costs.latency_ms.value - 1))
    late = [moment for moment in moments if moment > seconds / 4]
    return {
        "candidates": len(moments),
        "seconds": round(moments[-1], 2),
        "per_second": round(len(moments) / moments[-1], 1),
        "per_second_after_a_quarter": round(len(late) / (moments[-1] - seconds / 4), 1),
        "infeasible": failed,
        "estimated": len(estimated),
        **({} if not gaps else {"weighed": len(gaps), "median_gap": float(np.median(gaps)), "largest_gap": max(gaps)}),
    }


def main(data: str, seconds: float = 30.0, stem: str | None = None) -> None:
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    for name, (count, took) in (("table", table()), ("rows", rows(seconds))):
        found[name] = {"candidates": count, "seconds": round(took, 3), "per_second": round(count / took, 1)}
    for network in ("resnet20", "resnet56"):
        for kind in (widths, chains):
            found[f"{kind.__name__} {network}"] = screened(network, Path(data), seconds, kind)
            print(kind.__name__, network, found[f"{kind.__name__} {network}"], flush=True)
    conditions = {
        "threads": 1, "seeds": 1, "seconds per arm": seconds, "machine": _cpu(),
        **{name: version(name) for name in ("automc", "torch", "onnxruntime", "numpy")},
    }  # fmt: skip
    text = markdown(found, conditions)
    print(text)
    if stem is not None:
        Path(f"{stem}.json").write_text(json.dumps({"arms": found, "goals": GOALS, "conditions": conditions}, indent=1))
        Path(f"{stem}.md").write_text(text)


def markdown(found: dict[str, dict[str, Any]], conditions: dict[str, Any]) -> str:
    lines = [
        "# B3: candidates priced a second on one core", "", f"Anchors: {ANCHORS}.", "",
        "| arm | candidates | s | a second | after the first quarter | first goal | infeasible | estimated "
        "| gap of the estimate: median, largest |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, arm in found.items():
        goal = f"{GOALS[name]:,.0f}" if name in GOALS else ""
        gap = f"{arm['median_gap']:.1%}, {arm['largest_gap']:.1%} (n={arm['weighed']})" if "weighed" in arm else ""
        lines.append(
            f"| {name} | {arm['candidates']:,} | {arm['seconds']} | {arm['per_second']:,} "
            f"| {arm.get('per_second_after_a_quarter', '')} | {goal} | {arm.get('infeasible', '')} "
            f"| {arm.get('estimated', '')} | {gap} |"
        )
    lines += ["", "Conditions: " + ", ".join(f"{key} {value}" for key, value in conditions.items()) + "."]
    return "\n".join([*lines, "", "How: " + str(__doc__).split("\n\n", 1)[1].strip()]) + "\n"


def _cpu() -> str:
    from automc.measure.fingerprint import host_fingerprint

    return host_fingerprint().cpu


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((str, float, str), sys.argv[1:], strict=False)))
