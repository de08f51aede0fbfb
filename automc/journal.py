"""The append-only journal of a run: one JSON object a line, each with its own checksum, on disk before it counts."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path

from pydantic import JsonValue

from automc.candidate import canonical_json
from automc.errors import RunError


class Journal:
    """Appends survive a kill at any moment: a torn last line is dropped on opening, anything else torn is refused."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        """Raises RunError naming the line where the file is damaged before its last line."""
        self.path = path
        self.events: list[dict[str, JsonValue]] = []
        self._size = self._read() if path.exists() else 0
        self._file: FileIO | None = None
        if writable:
            self._file = path.open("ab", buffering=0)
            self._file.truncate(self._size)

    def append(self, event: str, *, durable: bool = True, **body: JsonValue) -> None:
        """Add one event and return when it is on disk; not `durable`: when it is handed to the system, which suffices
        for what a replay decides again by itself. Raises RunError (disk full, read-only), nothing earlier lost.
        """
        if self._file is None:
            raise ValueError("journal opened for reading")
        record: dict[str, JsonValue] = {"event": event, **body}
        text = canonical_json(record)
        line = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            os.truncate(self.path, self._size)
            raise RunError(
                f"{self.path}: cannot be written: {error.strerror}",
                next_step=f"make room, then: automc resume {self.path.parent}",
            ) from error
        self._size += len(line)
        self.events.append(json.loads(text))

    def of(self, event: str) -> Iterator[dict[str, JsonValue]]:
        return (record for record in self.events if record["event"] == event)

    def last(self, event: str, *, after: str | None = None) -> Mapping[str, JsonValue] | None:
        """The latest such event, None where there is none. after: none either where an `after` came later still."""
        wanted = {event, after}
        found = next((record for record in reversed(self.events) if record["event"] in wanted), None)
        return found if found is not None and found["event"] == event else None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self) -> int:
        """Read all events; returns the length in bytes of the sound part (all of it but a torn last line)."""
        sound = 0
        lines = self.path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            record = _parse(line)
            if record is None:
                if number == len(lines):
                    break
                raise RunError(
                    f"{self.path}: line {number} is damaged (its checksum does not match) and it is not the last line",
                    next_step=f"keep a copy, delete line {number} and all after it, then: "
                    f"automc resume {self.path.parent}",
                )
            self.events.append(record)
            sound += len(line)
        return sound


def _parse(line: bytes) -> dict[str, JsonValue] | None:
    if not line.endswith(b"\n"):
        return None
    checksum, _, text = line[:-1].partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "event" in record else None
