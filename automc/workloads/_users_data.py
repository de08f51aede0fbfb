"""The user's own data: what their `splits()` returns, each split read into memory once and checked as it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch

from automc.errors import ConfigError
from automc.nearest import nearest_or_all
from automc.sources import Site, defined_at, method_site
from automc.workloads._users_python import Named, call_named, failed, guarded
from automc.workloads.examples import sample_digests
from automc.workloads.workload import Batch

T = TypeVar("T")
NAMES = ("train", "calibration", "validation", "test", "held")
NOTHING_NEW = 10_000
"""Samples without a new one among them after which a loader of unknown length is said to repeat itself."""
MEMORY_SHARE = 0.5
"""Of the machine's memory that one split may take."""
_FORM = (
    "let each split be a dataset of (inputs, target), a loader of batches of them, a pair of arrays, or a function "
    "that returns one of these; several inputs are a tuple"
)


@dataclass(frozen=True, eq=False)
class HeldExamples:
    """One split in memory. columns: one (n, ...) array per model input; targets: (n, ...)."""

    columns: tuple[np.ndarray, ...]
    targets: np.ndarray

    @cached_property
    def digest(self) -> str:
        hasher = hashlib.sha256()
        for array in (*self.columns, self.targets):
            hasher.update(f"{array.shape}:{array.dtype.str};".encode())
            hasher.update(np.ascontiguousarray(array).data)
        return hasher.hexdigest()

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int, *, seed: int | None = None, augment: bool = False) -> Iterator[Batch]:
        """One pass in order, or shuffled by `seed`. Nothing is augmented."""
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        for start in range(0, len(self), size):
            rows = order[start : start + size]
            inputs = tuple(torch.from_numpy(np.ascontiguousarray(column[rows])) for column in self.columns)
            yield Batch(inputs, torch.from_numpy(np.ascontiguousarray(self.targets[rows])), rows.astype(np.int64))

    def sample_digests(self) -> list[bytes]:
        """Of all inputs of each sample together."""
        columns = [sample_digests(column) for column in self.columns]
        return [b"".join(row) for row in zip(*columns, strict=True)]

    def part(self, rows: np.ndarray) -> HeldExamples:
        return HeldExamples(tuple(column[rows] for column in self.columns), self.targets[rows])


def sources_of(named: Named, arguments: Mapping[str, Any], seed: int) -> dict[str, object]:
    """The splits by name as the user's function gives them, nothing of them read yet.

    Raises ConfigError where the function fails or its answer lacks train, or both of validation and test, or `held`.
    """
    made = call_named(named, arguments, "data_args", seed)
    if isinstance(made, Mapping):
        given = {str(key): value for key, value in made.items()}
        unknown = [key for key in given if key not in NAMES]
        if unknown:
            raise ConfigError(
                f"{named} returned a split {unknown[0]!r}{nearest_or_all(unknown[0], NAMES)}",
                next_step="return train, validation and test (or train and held), and calibration if you like",
            )
    else:
        given = {name: getattr(made, name) for name in NAMES if hasattr(made, name)}
    missing = [name for name in ("train", "validation", "test") if name not in given]
    if "held" in given:
        missing = [name for name in missing if name == "train"]
        if {"validation", "test"} & given.keys():
            raise ConfigError(
                f"{named} returned held, which is halved into validation and test, and one of these as well",
                next_step="return held, or validation and test",
            )
    if missing:
        shown = ", ".join(given) if given else f"{type(made).__name__}, which has none of them"
        raise ConfigError(
            f"{named} returned no split {' and no '.join(missing)} (it returned {shown})",
            next_step="return {'train': ..., 'validation': ..., 'test': ...}; or 'held', which is halved into the last "
            "two",
        )
    return given


def read_split(named: Named, name: str, source: object, seed: int) -> HeldExamples:
    """All samples of one split, in the order they come.

    Floats become float32, integers and truth values stay. Raises ConfigError with split, batch or sample, and the
    user's line: where reading raises, a sample has another shape than the first, NaN or infinity, or none comes; and
    where they never end.
    """
    return _Reader(named, name, seed).read(source)


class _Reader:
    def __init__(self, named: Named, split: str, seed: int) -> None:
        self.named, self.split, self.seed = named, split, seed
        self.origin = named.site
        self.at = ""
        self.most_bytes = MEMORY_SHARE * psutil.virtual_memory().total

    def read(self, source: object) -> HeldExamples:
        pieces: list[tuple[tuple[np.ndarray, ...], np.ndarray]] = []
        count = taken = 0
        with guarded(self.named.key, self.named.name, self.named.module, self.seed):
            for inputs, targets in self._pieces(source):
                if len(targets) == 0:
                    continue
                if pieces:
                    self._same_form(pieces[0], inputs, targets)
                self._finite(inputs, targets, count)
                pieces.append((inputs, targets))
                count += len(targets)
                taken += sum(array.nbytes for array in (*inputs, targets))
                self._bounded(taken, count)
        if not pieces:
            raise self._wrong("the split is empty", "give at least one sample of each class", at="")
        columns = tuple(np.concatenate(parts) for parts in zip(*(inputs for inputs, _ in pieces), strict=True))
        return HeldExamples(columns, np.concatenate([targets for _, targets in pieces]))

    # --- what is handed over, piece by piece ------------------------------------------------------------------------

    def _pieces(self, source: object) -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray]]:
        """(inputs, targets) with a batch axis each."""
        if callable(source) and not hasattr(source, "__getitem__") and not hasattr(source, "__iter__"):
            self._from(defined_at(source))
            function: Callable[[], object] = source
            source = self._users(function)
        if isinstance(source, tuple) and len(source) == 2:
            yield self._batch(source)
        elif hasattr(source, "__len__") and hasattr(source, "__getitem__") and not isinstance(source, Mapping):
            yield from self._samples(source)
        elif isinstance(source, torch.utils.data.IterableDataset):
            self._from(method_site(source, "__iter__", self.named.module))
            for item in self._iterated(source, "sample"):
                yield self._sample(item)
        elif isinstance(source, Iterable) and not isinstance(source, Mapping | str | bytes):
            self._from(method_site(source, "__iter__", self.named.module))
            yield from self._loaded(source)
        else:
            raise self._wrong(f"is {type(source).__name__}, which holds no samples", _FORM)

    def _from(self, site: Site) -> None:
        """What follows is given by the user's code at `site`, if there is such."""
        if site.file:
            self.origin = site

    def _samples(self, dataset: Any) -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray]]:
        self._from(method_site(dataset, "__getitem__", self.named.module))
        for number in range(self._users(lambda: len(dataset))):
            self.at = f"sample {number}"
            yield self._sample(self._users(partial(dataset.__getitem__, number)))

    def _sample(self, item: object) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        inputs, target = self._pair(item)
        return tuple(array[np.newaxis] for array in self._inputs(inputs)), self._array(target, "target")[np.newaxis]

    def _loaded(self, loader: Iterable[object]) -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray]]:
        """A loader's batches; one that does not end is found out by its length, or by bringing nothing new."""
        expected = self._length(loader)
        known: set[bytes] = set()
        since = 0
        for number, item in enumerate(self._iterated(loader, "batch")):
            if expected is not None and number >= expected:
                raise self._wrong(
                    f"gives more than the {expected} batches that its len() says", "end it after one pass", at=""
                )
            batch = self._batch(item)
            if expected is None:
                digests = HeldExamples(*batch).sample_digests()
                since = 0 if set(digests) - known else since + len(digests)
                known.update(digests)
                if since >= max(NOTHING_NEW, len(known)):
                    raise self._wrong(
                        f"repeats itself: no new sample among the last {since}, after {len(known)} different ones",
                        "end the loader after one pass over its samples",
                        at="",
                    )
            yield batch

    def _iterated(self, source: Iterable[object], unit: str) -> Iterator[object]:
        iterator = self._users(lambda: iter(source))
        number = 0
        end = object()
        while True:
            self.at = f"{unit} {number}"
            item = self._users(lambda: next(iterator, end))
            if item is end:
                return
            yield item
            number += 1

    def _length(self, loader: object) -> int | None:
        try:
            return len(loader)  # type: ignore[arg-type]
        except (TypeError, NotImplementedError):  # it has none
            return None

    def _users(self, work: Callable[[], T]) -> T:
        """What `work`, which is the user's, returns."""
        try:
            return work()
        except (Exception, SystemExit) as error:  # the user's own code may raise anything
            where = ", ".join(part for part in (f"{self.named.name}, {self.split}", self.at) if part)
            raise failed(self.named.key, where + " failed", error, self.named.module) from error

    # --- as arrays --------------------------------------------------------------------------------------------------

    def _batch(self, item: object) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        given, wanted = self._pair(item)
        inputs, targets = self._inputs(given), self._array(wanted, "targets")
        if any(array.ndim == 0 for array in (*inputs, targets)):
            raise self._wrong("has no batch axis", "give batches: the first axis counts the samples. Else " + _FORM)
        lengths = {len(array) for array in (*inputs, targets)}
        if len(lengths) > 1:
            shown = ", ".join(str(len(array)) for array in inputs)
            raise self._wrong(f"{shown} inputs but {len(targets)} targets", "give one target per sample")
        return inputs, targets

    def _pair(self, item: object) -> tuple[object, object]:
        if isinstance(item, tuple | list) and len(item) == 2:
            return item[0], item[1]
        told = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
        raise self._wrong(f"is {told}, not a pair (inputs, target)", _FORM)

    def _inputs(self, given: object) -> tuple[np.ndarray, ...]:
        several = isinstance(given, tuple) or (
            isinstance(given, list)
            and bool(given)
            and all(isinstance(part, torch.Tensor | np.ndarray) for part in given)
        )
        parts: Sequence[object] = given if several else [given]  # type: ignore[assignment]
        if not parts:
            raise self._wrong("has no input", _FORM)
        names = [f"input {number}" if several else "input" for number in range(len(parts))]
        return tuple(self._array(part, what) for part, what in zip(parts, names, strict=True))

    def _array(self, value: object, what: str) -> np.ndarray:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            array: np.ndarray = (value.float() if value.is_floating_point() else value).numpy()
        else:
            try:
                array = np.asarray(value)
            except ValueError:  # rows of unequal lengths
                raise self._wrong(
                    f"its {what} is a list of unequal parts", "give arrays, e.g. sequences padded to one length"
                ) from None
        if array.dtype.kind == "f":
            return array.astype(np.float32, copy=False)
        if array.dtype.kind not in "iub":
            raise self._wrong(
                f"its {what} is {type(value).__name__} ({array.dtype}), not numbers",
                "turn it into an array of numbers in your own code (text: token numbers; pictures: pixels)",
            )
        return array

    # --- checks -----------------------------------------------------------------------------------------------------

    def _same_form(
        self, first: tuple[tuple[np.ndarray, ...], np.ndarray], inputs: tuple[np.ndarray, ...], targets: np.ndarray
    ) -> None:
        if len(first[0]) != len(inputs):
            raise self._wrong(f"has {len(inputs)} inputs, those before it have {len(first[0])}", _FORM)
        pairs = [*zip(first[0], inputs, strict=True), (first[1], targets)]
        for number, (before, now) in enumerate(pairs):
            what = "a target" if number == len(inputs) else "a sample" if len(inputs) == 1 else f"input {number}"
            if before.shape[1:] != now.shape[1:]:
                raise self._wrong(
                    f"{what} of shape {now.shape[1:]}, those before it have {before.shape[1:]}",
                    "give all samples one shape (pad, crop or resize them): the deployed graph takes one shape",
                )
            if before.dtype != now.dtype:
                raise self._wrong(f"{what} of {now.dtype}, those before it are {before.dtype}", "give all one dtype")

    def _finite(self, inputs: tuple[np.ndarray, ...], targets: np.ndarray, before: int) -> None:
        for what, array in (*(("inputs", array) for array in inputs), ("targets", targets)):
            if array.dtype.kind != "f" or np.isfinite(array).all():
                continue
            bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
            raise self._wrong(
                f"{what} hold NaN or infinity, first in sample {before + bad[0]} of the split",
                "remove or repair these samples",
            )

    def _bounded(self, taken: int, count: int) -> None:
        if taken > self.most_bytes:
            raise self._wrong(
                f"{count} samples took {taken / 2**30:.1f} GB, over {MEMORY_SHARE:.0%} of this machine's memory, and "
                "there are more",
                "give fewer samples: a search holds its splits in memory",
            )

    def _wrong(self, what: str, next_step: str, at: str | None = None) -> ConfigError:
        place = self.at if at is None else at
        where = ", ".join(part for part in (f"{self.named.name}, {self.split}", place) if part)
        site = f" ({self.origin.where})" if self.origin.file else ""
        return ConfigError(f"{self.named.key}: {where}{site}: {what}", next_step=next_step)
