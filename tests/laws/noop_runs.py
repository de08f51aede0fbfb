"""Whole searches on the workload that costs nothing, for the laws of the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from automc.config import SearchConfig, parse_config
from automc.evaluate import EvaluatorFactory, Job
from automc.run import Run
from automc.search.conductor import Conductor
from automc.trial import Trial

DIMENSIONS = 4
SPACE = {
    "name": "law",
    "architecture": {f"x_{i}": {"min": 0, "max": 1, "step": 0.1} for i in range(DIMENSIONS)},
    "anchors": [],
}


def config_in(
    folder: Path, seed: int = 0, space: Mapping[str, object] = SPACE, choose: str = "fastest", **search: object
) -> SearchConfig:
    """A noop search of 24 candidates at rung 0 and 6 at rung 1, its space file written to `folder`."""
    import yaml

    file = folder / "law.yaml"
    file.write_text(yaml.safe_dump(dict(space)))
    return parse_config(
        {
            "name": "law",
            "workload": {"name": "noop"},
            "space": str(file),
            "objectives": ["accuracy", "latency_ms"],
            "choose": choose,
            "constraints": {"max_drop_points": None},
            "search": {
                "strategy": "nsga2", "seed": seed, "parallel": 3,
                "rungs": [{"candidates": 24, "steps": 0}, {"candidates": 6, "steps": 1}], **search,
            },
            "executor": {"kind": "inline"},
        },
        "law config",
    )  # fmt: skip


class OutOfOrder:
    """An executor whose answers come back last first: what a cluster may do at worst."""

    def __init__(self, evaluate: Callable[[Job], Trial]) -> None:
        self.evaluate = evaluate
        self.open: list[Job] = []
        self.seen: list[Job] = []

    def submit(self, job: Job) -> None:
        self.open.append(job)

    def next(self) -> tuple[Job, Trial, float]:
        job = self.open.pop()
        self.seen.append(job)
        return job, self.evaluate(job), 0.0

    def close(self) -> None: ...


def start_out_of_order(conductor: Conductor) -> OutOfOrder:
    return OutOfOrder(EvaluatorFactory(str(conductor.run.folder))())


def decisions(run: Run) -> list[Mapping[str, object]]:
    """Everything that was decided, in order: asks, tells, promotions, the choice."""
    return [event for event in run.journal.events if event["event"] in {"asked", "told", "promoted", "end"}]
