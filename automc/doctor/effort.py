"""What a search will take, from one training step, export and scoring of this model on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from automc.doctor.diagnosis import Effort

if TYPE_CHECKING:
    from torch import nn

    from automc.config import SearchConfig
    from automc.space import SearchSpace
    from automc.workloads.workload import Workload

_STEPS = 3  # the first one warms up


def step_seconds(model: nn.Module, workload: Workload, config: SearchConfig, clock: Callable[[], float]) -> float:
    """Seconds of one optimiser step of the recipe, on one thread as workers have. Raises TrainingDiverged."""
    from automc.recovery.training import RecoveryContext, train

    moments: list[float] = []
    context = RecoveryContext(
        workload, config.recovery, config.search.seed, on_step=lambda step, loss: moments.append(clock())
    )
    train(model, context, _STEPS)
    return (moments[-1] - moments[0]) / (_STEPS - 1)


def effort_of(
    config: SearchConfig, space: SearchSpace, *, plan_s: float, step_s: float, export_s: float, scoring_s: float
) -> Effort:
    """The whole search, added up. plan_s: of one candidate's plans; the other figures are of the base.

    Anchors go to the first trained rung whole, above that one a group. Training beside another worker, distillation's
    teacher and re-measuring the finalists on the idle device come on top.
    """
    rungs, workers = config.search.rungs, config.executor.workers if config.executor.kind == "ray" else 1
    members = sum(len(anchor.candidates) for anchor in space.anchors)
    fixed = export_s + scoring_s
    lines, total = [], 0.0
    for index, rung in enumerate(rungs):
        anchors = members if index < 2 else len(space.anchors)
        count = rung.candidates + anchors
        steps = rung.steps - (rungs[index - 1].steps if index else 0)
        each = steps * step_s + fixed + (plan_s if index < 2 else 0.0)
        spent = count * each / workers
        total += spent
        parts = [f"{steps} steps x {step_s:.3f} s"] * bool(steps) + [f"plan {plan_s:.2f} s"] * (index < 2)
        parts += [f"export {export_s:.2f} s", f"scoring {scoring_s:.2f} s"]
        lines.append(
            f"rung {index}: ({rung.candidates} candidates + {anchors} anchors) x ({' + '.join(parts)})"
            f" / {workers} worker{'s' if workers > 1 else ''} = {clock_text(spent)}"
        )
    finalists = config.search.finalists + len(space.anchors)
    ending = finalists * 2 * scoring_s
    total += ending
    lines.append(f"the end: {finalists} finalists x 2 x scoring {scoring_s:.2f} s = {clock_text(ending)}")
    return Effort(total, tuple(lines), _memory_mb() * workers, step_s, export_s, scoring_s)


def _memory_mb() -> float:
    """Resident memory of this process, which has loaded what a worker loads and trained as it does, in MB."""
    import psutil  # type: ignore[import-untyped]

    return float(psutil.Process().memory_info().rss / 2**20)


def clock_text(seconds: float) -> str:
    """75 s is "1:15", 3700 s is "1 h 2 min"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60}:{whole % 60:02d}"
