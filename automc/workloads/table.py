"""Your own table: a CSV file with a row of headings, one row per sample, and a network of this package or of yours.

`file` holds the rows the base may have seen; `held` others, which are halved, by digest, into validation and test.
Without `held` the rows of `file` are split by digest (60 % train, 20 % validation, 20 % test), which is refused beside
given weights, as nobody can say then which rows those have seen. Calibration is a part of train. Features are numbers;
classes may be names, and are numbered in the order of their names.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field, JsonValue

from automc.errors import ConfigError
from automc.nearest import nearest_or_all
from automc.workloads._network import find_file
from automc.workloads._stored import Rows, Stored, StoredOptions, by_share, refuse_undivided
from automc.workloads.options import parse_options


class TableOptions(StoredOptions):
    file: str = Field(description="CSV file with headings (tabs in a .tsv), absolute or below the data folder")
    held: str | None = Field(None, description="another such file, of rows that the weights have not seen")
    target: str | None = Field(None, description="heading of the column to be predicted; null: the last one")
    features: tuple[str, ...] = Field((), description="headings of the inputs, in order; none: all other columns")


class Table(Stored):
    name = "table"
    options_model = TableOptions

    def __init__(self, options: TableOptions, data_root: Path | None) -> None:
        self.options = options
        path = find_file(data_root, options.file, "option file of workload table")
        self._held = None
        if options.held is not None:
            self._held = find_file(data_root, options.held, "option held of workload table")
        headings = _headings(path)
        self.target = options.target or headings[-1]
        self.features = options.features or tuple(name for name in headings if name != self.target)
        for key, name in (("target", self.target), *(("features", name) for name in self.features)):
            if name not in headings:
                raise ConfigError(
                    f"workload.options.{key}: {path} has no column {name!r}{nearest_or_all(name, headings)}",
                    next_step="name columns by their headings",
                )
        if self.target in self.features or not self.features:
            raise ConfigError(
                f"workload.options.features: {path}: "
                + (f"{self.target} is the target" if self.features else "no column is left for the input"),
                next_step="name the target under `target`, and other columns under `features`",
            )
        super().__init__(options, data_root, path, (len(self.features),), "float32", "features")
        self._classes: tuple[str, ...] | None = None

    @property
    def class_labels(self) -> tuple[str, ...]:
        """The classes by number, where they are not numbered from 0 already."""
        if self._classes is None:
            self._classes = ()
            if self.options.task == "classification":
                self._classes = _in_order({row[self.target] for row in _rows(self.where, [self.target]).values()})
        numbered = tuple(str(number) for number in range(len(self._classes)))
        return () if self._classes == numbered else self._classes

    def _rows(self) -> Rows:
        x, y = self._read(self.where)
        if self._held is not None:
            return {"train": (x, y), **by_share(*self._read(self._held), held=True)}
        refuse_undivided(
            self.where,
            self.stored_options,
            "holds all rows there are",
            "give the unseen rows in a file of their own: held",
        )
        return by_share(x, y, held=False)

    def _read(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        rows = _rows(path, [*self.features, self.target])
        x = np.array([[_number(path, line, name, row[name]) for name in self.features] for line, row in rows.items()])
        if self.options.task == "regression":
            return x.astype(np.float32), np.array(
                [_number(path, line, self.target, row[self.target]) for line, row in rows.items()], np.float32
            )
        labels = self.class_labels or (self._classes or ())
        numbers = {name: number for number, name in enumerate(labels)}
        for line, row in rows.items():
            if row[self.target] not in numbers:
                raise ConfigError(
                    f"{path}: line {line}: {self.target} = {row[self.target]!r}, a class that {self.where} has not"
                    f"{nearest_or_all(row[self.target], numbers)}",
                    next_step="correct it, or give the training rows such samples",
                )
        return x.astype(np.float32), np.array([numbers[row[self.target]] for row in rows.values()], np.int64)


def create(options: dict[str, JsonValue], data_root: Path | None) -> Table:
    """Reads the headings; rows and model are read when asked for."""
    return Table(parse_options(TableOptions, "table", options), data_root)


def _opened(path: Path) -> tuple[list[str], dict[int, list[str]]]:
    """Headings, and the other rows by their line. Raises ConfigError where it is no such table."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            rows: dict[int, list[str]] = {}
            for row in reader:
                if row:
                    rows[reader.line_num] = [cell.strip() for cell in row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"{path}: cannot be read as a table: {error}", next_step="save it as CSV with commas, in UTF-8"
        ) from error
    if not rows:
        raise ConfigError(f"{path}: is empty", next_step="give a row of headings, then one row per sample")
    headings = rows.pop(next(iter(rows)))
    twice = [name for name in headings if headings.count(name) > 1]
    if twice or len(headings) < 2:
        told = f"two columns are called {twice[0]!r}" if twice else f"has {len(headings)} column ({headings[0]!r})"
        raise ConfigError(f"{path}: {told}", next_step="give every column a heading of its own, separated by commas")
    if all(_is_number(name) for name in headings):
        raise ConfigError(
            f"{path}: its first line holds numbers, not headings", next_step="put a line with the columns' names first"
        )
    return headings, rows


def _headings(path: Path) -> list[str]:
    return _opened(path)[0]


def _rows(path: Path, wanted: Sequence[str]) -> Mapping[int, dict[str, str]]:
    """By line, the cells of `wanted` columns. Raises ConfigError naming the line that is short or long."""
    headings, rows = _opened(path)
    for name in wanted:
        if name not in headings:
            raise ConfigError(
                f"{path}: has no column {name!r}{nearest_or_all(name, headings)}",
                next_step="give both files the same headings",
            )
    for line, row in rows.items():
        if len(row) != len(headings):
            raise ConfigError(
                f"{path}: line {line} has {len(row)} cells, there are {len(headings)} headings",
                next_step="mend that line; a cell with a comma needs quotes",
            )
    places = {name: headings.index(name) for name in wanted}
    return {line: {name: row[place] for name, place in places.items()} for line, row in rows.items()}


def _in_order(names: set[str]) -> tuple[str, ...]:
    """Class names ascending: as numbers where all are whole numbers."""
    if all(name.lstrip("-").isdigit() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _number(path: Path, line: int, name: str, cell: str) -> float:
    if not _is_number(cell):
        raise ConfigError(
            f"{path}: line {line}: {name} = {cell!r} is no number" if cell else f"{path}: line {line}: {name} is empty",
            next_step="put numbers there, or leave the column out of workload.options.features",
        )
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
