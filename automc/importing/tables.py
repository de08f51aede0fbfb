"""Tables of measurements as text: rows with their place, so that every complaint names file, row and what to do."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from automc.errors import ConfigError


@dataclass(frozen=True)
class Row:
    """One line of a table. where: "FILE: row N", the header being row 1."""

    cells: dict[str, str]
    where: str

    def positive(self, column: str) -> float:
        """The number in `column`. Raises ConfigError where it is none, NaN, infinite, zero or negative."""
        text = self.cells[column].strip()
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(
                f"{self.where}: {column} = {text or 'nothing'}, which is no measurement: a number above 0 is one",
                next_step="mend or delete this row",
            )
        return value


def read_table(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a CSV file (gzip where it ends in .gz) that has `columns` and maybe others.

    Raises ConfigError where there is no such file, it is no such table, or a column is missing or there twice.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file", next_step="give the path of the table")
    try:
        text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise ConfigError(f"{path}: cannot be read as a table: {error}", next_step="give a CSV file") from error
    reader = csv.DictReader(text.splitlines())
    header = [name.strip() for name in reader.fieldnames or ()]
    missing = [name for name in columns if name not in header]
    if missing:
        raise ConfigError(
            f"{path}: no column {', '.join(missing)}; it has {', '.join(header) or 'none'}",
            next_step=f"give a table with the columns {', '.join(columns)}",
        )
    twice = next((name for at, name in enumerate(header) if name and name in header[:at]), None)
    if twice is not None:
        raise ConfigError(
            f"{path}: row 1: the column {twice} is there twice, so which one counts is open",
            next_step="delete one of the two, or rename it",
        )
    rows = []
    for number, cells in enumerate(reader, start=2):
        where = f"{path}: row {number}"
        if None in cells or None in cells.values():
            raise ConfigError(f"{where}: not as many cells as the header has", next_step="mend or delete this row")
        rows.append(Row({key.strip(): value for key, value in cells.items()}, where))
    return rows


def one_of(rows: Sequence[Row], column: str, asked: str | None, option: str) -> list[Row]:
    """The rows whose `column` is `asked`; all, where nothing is asked and all have the same.

    Raises ConfigError where there is none, or rows differ and nothing is asked.
    """
    values = list(dict.fromkeys(row.cells[column] for row in rows))
    if asked is None and len(values) > 1:
        odd = next(row for row in rows if row.cells[column] != values[0])
        raise ConfigError(
            f"{odd.where}: {column} is {values[1]!r}, but {values[0]!r} in rows before it: one profile is of one "
            f"{column}" + ("" if len(values) == 2 else f" (there are {', '.join(values[:12])})"),
            next_step=f"choose with {option}",
        )
    found = [row for row in rows if asked is None or row.cells[column] == asked]
    if not found:
        raise ConfigError(
            f"no row has {column} {asked!r}; there are {', '.join(values[:40])}", next_step=f"give another {option}"
        )
    return found
