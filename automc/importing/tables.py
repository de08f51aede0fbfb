"""Tables of measurements as text: rows with their place, so that every complaint names file, row and what to do."""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from automc.errors import ConfigError

_SAVE = "save it as CSV in UTF-8"


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
    text = _text(path)
    reader = csv.DictReader(text.splitlines())
    header = [name.strip() for name in reader.fieldnames or ()]
    missing = [name for name in columns if name not in header]
    if missing:
        for separator, word in ((";", "semicolons"), ("\t", "tabs")):
            if set(columns) <= {name.strip() for name in next(csv.reader(text.splitlines(), delimiter=separator), ())}:
                raise ConfigError(
                    f"{path}: its columns seem to be separated by {word}, not by commas",
                    next_step="save it as CSV with commas between columns and points in numbers",
                )
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


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read as a table: {error}", next_step="give a CSV file") from error
    if data.startswith(b"PK\x03\x04"):
        raise ConfigError(f"{path}: seems to be a spreadsheet's own file, not a CSV file", next_step=_SAVE)
    if b"\0" in data[:1000]:
        raise ConfigError(f"{path}: seems to be text in UTF-16, or no text at all", next_step=_SAVE)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}: row {row}: is not UTF-8; seems to be text in an older encoding, as Latin-1", next_step=_SAVE
        ) from error


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
