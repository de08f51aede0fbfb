"""What is wrong with the data: samples in two splits, classes that are missing, a base that knows its validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from automc.doctor.budget import Budget, Deadline
from automc.doctor.diagnosis import DataFindings, Leak, Split
from automc.errors import ConfigError
from automc.workloads.workload import SPLITS, Examples, SplitName, Workload

if TYPE_CHECKING:
    import onnx

    from automc.trial import Figure

_COMPARED: tuple[SplitName, ...] = ("validation", "test", "train")
"""Held-out splits first, so that a short look at a large train split compares with all of them; calibration is a part
of train."""

_BATCH = 250
REPEATED_SHARE = 0.01
"""Of a held-out split that may come more than once without a word."""


@runtime_checkable
class _Stored(Protocol):
    """Examples that hold their samples in two arrays: looking at them needs no preprocessing."""

    @property
    def inputs(self) -> np.ndarray: ...
    @property
    def targets(self) -> np.ndarray: ...


def findings_of(
    workload: Workload, exported: onnx.ModelProto | None, threads: int, budget: Budget
) -> tuple[DataFindings, float]:
    """What the splits hold, and the seconds that scoring the whole of validation takes (0.0 where it was not scored).

    Splits that cannot be read are noted with the reason; whatever else their loader raises passes.
    """
    splits: dict[SplitName, Examples] = {}
    problems: dict[SplitName, str] = {}
    for name in SPLITS:
        try:
            splits[name] = workload.split(name)
        except ConfigError as error:
            problems[name] = error.message
    digests, targets = _read(splits, budget.until(budget.leaks_s))
    described = tuple(
        Split(name, len(splits[name]) if name in splits else 0, _classes(targets.get(name)), problems.get(name, ""))
        for name in SPLITS
    )
    compared = sum(len(part) for found in targets.values() for part in found)
    every = sum(len(splits[name]) for name in _COMPARED if name in splits)
    accuracy: dict[str, Figure] = {}
    seconds = 0.0
    if exported is not None and {"train", "validation"} <= splits.keys():
        accuracy, seconds = _accuracies(workload, splits, exported, threads, budget)
    notes = (*_repeats(digests, targets), *_notes(described, accuracy, workload.task.metric))
    return DataFindings(described, _leaks(digests), compared, every, accuracy, notes), seconds


def _read(
    splits: Mapping[SplitName, Examples], deadline: Deadline
) -> tuple[dict[SplitName, dict[bytes, int]], dict[SplitName, list[np.ndarray]]]:
    """Digest -> position of the samples looked at before the deadline, and their targets, by split."""
    from automc.workloads.examples import sample_digests

    digests: dict[SplitName, dict[bytes, int]] = {}
    targets: dict[SplitName, list[np.ndarray]] = {}
    for name in _COMPARED:
        if name not in splits:
            continue
        seen, labels, position = digests.setdefault(name, {}), targets.setdefault(name, []), 0
        for inputs, wanted in _batches(splits[name]):
            columns = [sample_digests(part) for part in inputs]
            for row in zip(*columns, strict=True):
                seen.setdefault(b"".join(row), position)
                position += 1
            labels.append(wanted)
            if deadline.over():
                break
    return digests, targets


def _batches(examples: Examples) -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray]]:
    """Samples as they are stored, or as the model takes them where only the loader knows how they are stored."""
    if isinstance(examples, _Stored):
        for start in range(0, len(examples.targets), _BATCH):
            yield (examples.inputs[start : start + _BATCH],), examples.targets[start : start + _BATCH]
        return
    for batch in examples.batches(_BATCH):
        yield tuple(item.numpy() for item in batch.inputs), batch.targets.numpy()


def _leaks(digests: Mapping[SplitName, Mapping[bytes, int]]) -> tuple[Leak, ...]:
    found = []
    for inside, of in (("validation", "train"), ("test", "train"), ("test", "validation")):
        left, right = digests.get(inside, {}), digests.get(of, {})  # type: ignore[call-overload]
        shared = [(position, right[digest]) for digest, position in left.items() if digest in right]
        if shared:
            found.append(Leak(inside, of, len(shared), min(shared)))
    return tuple(found)


def _repeats(
    digests: Mapping[SplitName, Mapping[bytes, int]], targets: Mapping[SplitName, list[np.ndarray]]
) -> Iterator[str]:
    """Held-out samples that come more than once: what is said of so many samples rests on fewer."""
    for name in ("validation", "test"):
        found = digests.get(name, {})
        seen = sum(len(part) for part in targets.get(name, []))
        if len(found) < (1 - REPEATED_SHARE) * seen:
            yield (
                f"{name} repeats itself: {seen} samples looked at, {len(found)} of them different, so its intervals "
                "are narrower than they should be"
            )


def _classes(targets: list[np.ndarray] | None) -> dict[int, int] | None:
    if not targets or targets[0].ndim != 1 or targets[0].dtype.kind not in "iu":
        return None
    counts = Counter(int(label) for part in targets for label in part)
    return dict(sorted(counts.items()))


def _accuracies(
    workload: Workload, splits: Mapping[SplitName, Examples], exported: onnx.ModelProto, threads: int, budget: Budget
) -> tuple[dict[str, Figure], float]:
    from automc.stats import mean_figure

    scores: dict[SplitName, np.ndarray] = {}
    seconds = 0.0
    count = len(splits["validation"])
    wanted: tuple[SplitName, ...] = ("validation", "train")
    for name in wanted:
        started = budget.clock()
        deadline = budget.until(budget.accuracy_s / len(wanted))
        scores[name] = _scores(workload, splits[name], exported, threads, count, deadline)
        if name == "validation":
            seconds = (budget.clock() - started) * count / len(scores[name])
    direction = workload.task.direction
    return {
        name: mean_figure(found, rung=None, split=name, direction=direction) for name, found in scores.items()
    }, seconds


def _scores(
    workload: Workload, examples: Examples, exported: onnx.ModelProto, threads: int, count: int, deadline: Deadline
) -> np.ndarray:
    """(n,) scores of the exported base on up to `count` samples of a split, in a shuffled order of its own."""
    from automc.export import open_session

    session = open_session(exported, threads)
    names = [entry.name for entry in session.get_inputs()]
    parts: list[np.ndarray] = []
    seen = 0
    for batch in examples.batches(_BATCH, seed=0):
        outputs = session.run(None, {n: x.numpy() for n, x in zip(names, batch.inputs, strict=True)})[0]
        parts.append(workload.task.score(outputs, batch.targets.numpy()))
        seen += len(parts[-1])
        if seen >= count or deadline.over():
            break
    return np.concatenate(parts).astype(np.float64)[:count]


def _notes(splits: tuple[Split, ...], accuracy: Mapping[str, Figure], metric: str) -> tuple[str, ...]:
    """accuracy: the base's figures by split, of whatever `metric` is."""
    notes = []
    by_name = {split.name: split for split in splits}
    train = by_name["train"].classes
    if train:
        for name in ("validation", "test"):
            held = by_name[name].classes
            if held is None:
                continue
            missing = sorted(set(train) - set(held))
            extra = sorted(set(held) - set(train))
            if missing:
                notes.append(f"{name} holds no sample of class {_listed(missing)}, which train has")
            if extra:
                notes.append(f"{name} holds class {_listed(extra)}, which train has not")
        largest, smallest = max(train.values()), min(train.values())
        if largest > 10 * smallest:
            notes.append(f"train is unbalanced: {smallest} samples of its rarest class, {largest} of its commonest")
    if {"train", "validation"} <= accuracy.keys():
        first, second = accuracy["train"], accuracy["validation"]
        if first.low > second.high or second.low > first.high:
            notes.append(
                f"the base scores {_figure(first)} on train and {_figure(second)} on validation, which differ beyond "
                "their intervals: make sure that it has not seen the validation samples, and that both are of one kind"
            )
        chance = max(train.values()) / sum(train.values()) if train and len(train) > 1 else 0.0
        if metric == "accuracy" and chance and second.low <= chance:
            notes.append(
                f"the base scores {_figure(second)} on validation, no better than always naming the commonest class "
                f"({chance:.4f}): it is not trained, or its weights were not given (--weights FILE)"
            )
    return tuple(notes)


def _listed(labels: list[int]) -> str:
    shown = ", ".join(str(label) for label in labels[:8])
    return shown + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")


def _figure(figure: Figure) -> str:
    return f"{figure.value:.4f} ({figure.low:.4f} to {figure.high:.4f}, n={figure.n})"
