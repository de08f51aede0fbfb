"""Your own pictures in folders, one per class, and a network of this package or of yours: no code, no file of labels.

The folder holds `train/CLASS/*.png` and either `held/CLASS/*.png` (halved, by digest, into validation and test) or
`validation/CLASS/...` and `test/CLASS/...`; or just `CLASS/*.png` (split by digest: 60 % train, 20 % validation, 20 %
test), which is refused beside given weights, as nobody can say then which pictures those have seen. Calibration is a
part of train. Classes are numbered in the order of their names; pictures are brought to one size (bilinear).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, JsonValue

from automc.errors import ConfigError
from automc.nearest import nearest
from automc.workloads._stored import Rows, Stored, StoredOptions, by_share, refuse_undivided
from automc.workloads.options import parse_options

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
PARTS = ("train", "held", "validation", "test")


class ImagesOptions(StoredOptions):
    folder: str = Field(description="folder of pictures by class, absolute or below the data folder")
    size: int | None = Field(
        None, ge=1, le=4096, description="pixels of height and width that pictures are brought to; null: all are alike"
    )
    colour: Literal["RGB", "L"] = Field("RGB", description="three channels, or one of grey")
    task: Literal["classification"] = Field("classification", description="what accuracy means")
    divide: float = Field(255.0, gt=0, description="pixels (0 to 255) are divided by it first")


class Images(Stored):
    name = "images"
    options_model = ImagesOptions

    def __init__(self, options: ImagesOptions, data_root: Path | None) -> None:
        folder = _find(options.folder, data_root)
        self.options = options
        self._found = _pictures(folder)
        first = next(iter(next(iter(self._found.values())).values()))[0]
        width, height = _read(first, options.colour, options.size).size
        shape = (height, width, 3) if options.colour == "RGB" else (height, width)
        super().__init__(options, data_root, folder, shape, "uint8", "HWC" if options.colour == "RGB" else "HW")

    @property
    def class_labels(self) -> tuple[str, ...]:
        return tuple(sorted(next(iter(self._found.values()))))

    def _rows(self) -> Rows:
        read = {part: self._decoded(found) for part, found in self._found.items()}
        if "" in read:
            refuse_undivided(
                self.where, self.stored_options, "holds classes and no folders train and held",
                "move the pictures that these weights have seen to train/CLASS, the others to held/CLASS",
            )  # fmt: skip
            return by_share(*read[""], held=False)
        if "held" in read:
            return {"train": read["train"], **by_share(*read["held"], held=True)}
        return {"train": read["train"], "validation": read["validation"], "test": read["test"]}

    def _decoded(self, classes: dict[str, list[Path]]) -> tuple[np.ndarray, np.ndarray]:
        """(n, channels, height, width) uint8 and (n,) int64, class after class, by file name."""
        height, width = self._shape[:2]
        paths = [(path, number) for number, name in enumerate(self.class_labels) for path in classes[name]]
        pixels = np.empty((len(paths), 3 if self.options.colour == "RGB" else 1, height, width), np.uint8)
        for row, (path, _) in enumerate(paths):
            picture = np.asarray(_read(path, self.options.colour, self.options.size))
            if picture.shape[:2] != (height, width):
                raise ConfigError(
                    f"{path}: is {picture.shape[1]}x{picture.shape[0]}, those before it are {width}x{height}",
                    next_step="bring all to one size: --option size=32, or workload.options.size in the config",
                )
            pixels[row] = picture.transpose(2, 0, 1) if picture.ndim == 3 else picture
        return pixels, np.array([number for _, number in paths], np.int64)


def create(options: dict[str, JsonValue], data_root: Path | None) -> Images:
    """Lists the folder and opens one picture for its size; the others are read when a split is asked for."""
    return Images(parse_options(ImagesOptions, "images", options), data_root)


def _find(name: str, root: Path | None) -> Path:
    for folder in (Path(name).expanduser(), *([root / name] if root is not None else [])):
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"{name}: there is no such folder" + (f", nor in {root}" if root is not None else ""),
        next_step="correct workload.options.folder, or give --data-root FOLDER",
    )


def _pictures(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """Part ("" where the folder is not divided), class, files by name. Raises ConfigError where it holds others."""
    parts = [part for part in PARTS if (folder / part).is_dir()]
    if not parts:
        return {"": _classes(folder)}
    wanted = ("train", "held") if "held" in parts else ("train", "validation", "test")
    if set(parts) != set(wanted):
        missing = [part for part in wanted if part not in parts]
        surplus = [part for part in parts if part not in wanted]
        told = f"no folder {' and no '.join(missing)}" if missing else f"{' and '.join(surplus)} beside held"
        raise ConfigError(
            f"{folder}: holds {', '.join(parts)}, but {told}" if missing else f"{folder}: holds {told}",
            next_step="divide the pictures into train and held, or into train, validation and test",
        )
    found = {part: _classes(folder / part) for part in wanted}
    for part, classes in found.items():
        for name in sorted(classes.keys() ^ found["train"].keys()):
            lacking, having = (part, "train") if name in found["train"] else ("train", part)
            raise ConfigError(
                f"{folder}: {having} holds a class {name!r} that {lacking} has not"
                f"{nearest(name, found[lacking].keys() - found[having].keys())}",
                next_step="give every part a folder for every class, by the same names",
            )
    return found


def _classes(folder: Path) -> dict[str, list[Path]]:
    found = {
        inside.name: sorted(path for path in inside.iterdir() if path.suffix.lower() in SUFFIXES)
        for inside in sorted(folder.iterdir())
        if inside.is_dir() and not inside.name.startswith(".")
    }
    empty = [name for name, paths in found.items() if not paths]
    if len(found) < 2 or empty:
        told = f"its folder {empty[0]} holds no picture" if empty else f"holds {len(found)} folders of classes"
        raise ConfigError(
            f"{folder}: {told}",
            next_step=f"give every class a folder of pictures ({', '.join(sorted(SUFFIXES))}), at least two of them",
        )
    return found


def _read(path: Path, colour: str, size: int | None) -> Image.Image:
    """The picture, in `colour`, brought to `size`; as a bundle's run.py does it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            picture = opened.convert(colour)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{path}: is no readable picture: {error}", next_step="replace it or remove it") from error
    if size is not None and picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    return picture
