"""The user's data files, and the cache of what is worked out from them once per machine (decoded pictures, bases)."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from automc.errors import ConfigError
from automc.nearest import nearest
from automc.profiles import cache_folder

_DAMAGED = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise on an array of Python objects and on a file that is cut or changed."""

_SAVE = "write it again with numpy.savez, under the names that the workload reads"


def need_file(root: Path | None, relative: str, what: str) -> Path:
    """`root` / `relative`, which must exist. Raises ConfigError naming the nearest file there, or the missing root."""
    if root is None and Path(relative).parent.is_dir() and "/" in relative:
        root = Path()  # a path from here, to a folder that is there: it is the file that is missing
    if root is None:
        here = [other.name for other in Path().iterdir()] if len(Path(relative).parts) == 1 else []
        hint = nearest(relative, here)
        if hint:
            raise ConfigError(f"{relative}: no such file{hint}", next_step=f"correct the path of {what}")
        raise ConfigError(
            f"{what} needs {relative}, but no data folder was given",
            next_step="give --data-root FOLDER, or set AUTOMC_DATA",
        )
    path = root / relative
    if path.is_file():
        return path
    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder", next_step="correct --data-root or AUTOMC_DATA")
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, not a file", next_step=f"give the file itself as {what}")
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    raise ConfigError(
        f"{path}: no such file{nearest(path.name, beside)}", next_step=f"put it there, or correct the path of {what}"
    )


def open_npz(path: Path, keys: Sequence[str] = ()) -> np.lib.npyio.NpzFile:
    """The archive, which must hold `keys`. Raises ConfigError where it is damaged, or naming the nearest key."""
    try:
        stored = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: not a readable npz file: {error}", next_step=_SAVE) from error
    if not isinstance(stored, np.lib.npyio.NpzFile):
        raise ConfigError(f"{path}: one bare array, not an npz file of named arrays", next_step=_SAVE)
    for key in keys:
        if key not in stored.files:
            stored.close()
            raise ConfigError(
                f"{path}: no array is called {key!r}{nearest(key, stored.files)} "
                f"(there are: {', '.join(stored.files)})",
                next_step=f"store it in the file: np.savez(..., {key}=...)",
            )
    return stored


def read_npz(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays called `keys`. Raises ConfigError as `open_npz` does, and where one is not of numbers."""
    found: dict[str, np.ndarray] = {}
    with open_npz(path, keys) as stored:
        for key in keys:
            try:
                found[key] = stored[key]
            except _DAMAGED as error:
                raise ConfigError(
                    f"{path}: {key} cannot be read: {error}",
                    next_step=f"store {key} as an array of numbers, labels as integers from 0",
                ) from error
            if found[key].dtype.kind not in "fiub":
                raise ConfigError(
                    f"{path}: {key} holds {found[key].dtype}, not numbers",
                    next_step=f"store {key} as an array of numbers: labels as integers from 0",
                )
    return found


def npz_shape(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of one array of the archive, without reading the array. Raises ConfigError as `open_npz` does."""
    open_npz(path, (key,)).close()
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
    except _DAMAGED as error:
        raise ConfigError(f"{path}: {key} cannot be read: {error}", next_step=_SAVE) from error
    return shape, dtype


def file_digest(path: Path) -> str:
    """sha256 (hex) of the file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cached_array(kind: str, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """What `make` returns, memory-mapped read-only from the cache folder, so that worker processes share its pages.

    `key` must change whenever the array would. Where the folder cannot be written the array is returned as made.
    """
    path = cache_folder() / kind / f"{key}.npy"
    if not path.is_file():
        made = make()
        try:
            with replacing(path) as part, part.open("wb") as stream:
                np.save(stream, made, allow_pickle=False)
        except OSError:  # full or read-only: the cache only saves time
            return made
    mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` at the end: whole or not at all, also with several writers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
