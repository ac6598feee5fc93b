"""Omniglot (Lake, Salakhutdinov and Tenenbaum 2015): 1,623 characters of 50 alphabets, drawn by 20 people each."""

from __future__ import annotations

import functools
import os
import random
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.storage.cache import cache_folder, fetched
from maml_rl.supervised.images import (
    DataError,
    ImageConfig,
    ImageFile,
    ImageSet,
    cached_images,
    class_folders,
    decode,
    fingerprint,
    is_litter,
)

ADDRESS = "https://github.com/brendenlake/omniglot/raw/master/python/"
MD5 = {
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}
"""Checksums of the official archives; a copy that was packed anew has others and is taken as it is."""

ONE_SHOT_RUNS = "one-shot-classification/all_runs"

SplitName = Literal["vinyals", "random-1200", "background-evaluation"]

VALIDATION_ALPHABETS = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
TEST_ALPHABETS = (
    "Kannada", "Keble", "Malayalam", "Manipuri", "Mongolian", "Old_Church_Slavonic_(Cyrillic)", "Oriya", "Sylheti",
    "Syriac_(Serto)", "Tengwar", "Tibetan", "ULOG",
)  # fmt: skip
LAST_GURMUKHI_IN_TRAINING = 41  # its other characters are test classes
"""The published split of Vinyals et al. 2016: 1,028, 172 and 423 characters; by whole alphabets but for Gurmukhi."""

RANDOM_SEED, NUM_RANDOM_TRAINING, NUM_RANDOM_VALIDATION = 1, 1100, 100


class Split(NamedTuple):
    """Classes of a data set by what they are for; no class is in two of them."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def load_omniglot(data_root: str | None, config: ImageConfig, checksums: Mapping[str, str] = MD5) -> ImageSet:
    """The whole data set; its classes are named "background/ALPHABET/characterNN" or "evaluation/...".

    Args:
        data_root: the folder that holds `omniglot/`; else $MAML_RL_DATA; else it is downloaded into the cache.
        checksums: of the official archives, by their names.
    Raises:
        DataError: if it is not there whole and cannot be had.
    """
    folder = find_folder(data_root)
    parts = [_part(folder, name, checksum) for name, checksum in checksums.items()]
    state = fingerprint(path for part in parts for path in ([part] if part.is_file() else sorted(part.rglob("*.png"))))
    return cached_images("omniglot", state, config, lambda: [file for part in parts for file in _files(part)])


def find_folder(data_root: str | None) -> Path | None:
    """The folder `omniglot` below the data root, or None if no root is named.

    Raises:
        DataError: if a root is named, and there is none in it.
    """
    root = data_root or os.environ.get("MAML_RL_DATA")
    if root is None:
        return None
    folder = Path(root) / "omniglot"
    if not folder.is_dir():
        source = "--data-root" if data_root else "MAML_RL_DATA"
        raise DataError(
            f"{source} must name a folder that holds omniglot/, but {folder} is none: name another, or leave it out to "
            "download the data set"
        )
    return folder


def _part(folder: Path | None, name: str, checksum: str | None) -> Path:
    """The archive, or the folder with its content."""
    if folder is None:
        return _downloaded(name, checksum)
    for path in (folder / f"{name}.zip", folder / name):
        if path.exists():
            return path
    raise DataError(
        f"{folder} must hold {name}.zip or {name}/, but neither is there: download it from {ADDRESS}{name}.zip"
    )


def _downloaded(name: str, checksum: str | None) -> Path:
    """An official archive in the cache, fetched if it is not there.

    Raises:
        DataError: if it cannot be fetched or is not what it should be; nothing is left then.
    """
    path = cache_folder() / "omniglot" / f"{Path(name).name}.zip"
    if path.exists():
        return path
    address = f"{ADDRESS}{name}.zip"
    try:
        return fetched(address, path, checksum and f"md5:{checksum}")
    except OSError as error:
        raise DataError(
            f"Omniglot was not found, and {address} cannot be downloaded ({error}): try again, or put it into a folder "
            "omniglot/ and name the folder above it by --data-root or MAML_RL_DATA"
        ) from error


def _files(part: Path) -> list[ImageFile]:
    """The pictures of an archive or a folder, sorted by class."""
    prefix = part.stem.removeprefix("images_")
    if part.is_dir():
        return [file._replace(class_name=f"{prefix}/{file.class_name}") for file in class_folders(part)]
    archive = open_archive(part)
    names = sorted(name for name in _members(archive) if name.endswith(".png"))
    return [
        ImageFile(
            "/".join((prefix, *name.split("/")[-3:-1])), f"{part}, {name},", functools.partial(_read, archive, name)
        )
        for name in names
    ]


def open_archive(path: Path) -> zipfile.ZipFile:
    """
    Raises:
        DataError: if it is cut or no archive.
    """
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} must be a whole zip archive ({error}): delete it and fetch it again") from error


def _members(archive: zipfile.ZipFile) -> list[str]:
    """The names in it, but for those that macOS adds when it packs an archive."""
    return [name for name in archive.namelist() if not any(map(is_litter, name.split("/")))]


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, OSError, KeyError) as error:
        raise DataError(f"{archive.filename} is damaged at {name} ({error}): delete it and fetch it again") from error


def split_classes(names: Sequence[str], split: SplitName) -> Split:
    """Split the classes into training, validation and test.

    vinyals: the published one. random-1200: 1,100, 100 and 423 characters drawn from all alphabets, as in the published
    code of MAML. background-evaluation: by the data set's two parts, without validation.
    """
    if split == "random-1200":
        order = list(range(len(names)))
        random.Random(RANDOM_SEED).shuffle(order)
        cuts = (NUM_RANDOM_TRAINING, NUM_RANDOM_TRAINING + NUM_RANDOM_VALIDATION)
        pieces = [order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] :]]
    else:
        of_part = {"vinyals": _vinyals, "background-evaluation": _by_part}[split]
        parts = [of_part(name) for name in names]
        pieces = [[i for i, part in enumerate(parts) if part == wanted] for wanted in Split._fields]
    return Split(*(np.array(sorted(piece), dtype=np.int64) for piece in pieces))


def _vinyals(name: str) -> str:
    _, alphabet, character = name.split("/")
    if alphabet == "Gurmukhi":
        return "train" if int(character.removeprefix("character")) <= LAST_GURMUKHI_IN_TRAINING else "test"
    if alphabet in VALIDATION_ALPHABETS:
        return "validation"
    return "test" if alphabet in TEST_ALPHABETS else "train"


def _by_part(name: str) -> str:
    return "train" if name.startswith("background/") else "test"


class OneShotRun(NamedTuple):
    """One of the 20 runs of Lake et al. 2015: 20 characters of one alphabet, a drawing of each by one person to learn
    from, and by another to recognise."""

    support: NDArray[np.uint8]  # [20, H, W, 1], one of each class
    query: NDArray[np.uint8]  # [20, H, W, 1]
    labels: NDArray[np.int64]  # [20]: which support each query belongs to


def one_shot_runs(data_root: str | None, config: ImageConfig) -> list[OneShotRun]:
    """The runs in all_runs.zip.

    Raises:
        DataError: if it is missing or damaged.
    """
    folder = find_folder(data_root)
    path = _downloaded(ONE_SHOT_RUNS, checksum=None) if folder is None else folder / "all_runs.zip"
    if not path.exists():
        raise DataError(f"{path} is missing: download it from {ADDRESS}{ONE_SHOT_RUNS}.zip")
    with open_archive(path) as archive:
        lists = sorted(name for name in _members(archive) if name.endswith("class_labels.txt"))
        if not lists:
            raise DataError(f"{path} must hold runNN/class_labels.txt, but none is there: delete it and fetch it again")
        return [_one_shot_run(archive, name, config) for name in lists]


def _one_shot_run(archive: zipfile.ZipFile, name: str, config: ImageConfig) -> OneShotRun:
    pairs = [line.split() for line in _read(archive, name).decode().splitlines() if line.strip()]
    training = sorted({pair[1] for pair in pairs})

    def pictures(names: Sequence[str]) -> NDArray[np.uint8]:
        return np.stack([decode(_read(archive, n), f"{archive.filename}, {n},", config) for n in names])

    labels = np.array([training.index(pair[1]) for pair in pairs], dtype=np.int64)
    return OneShotRun(pictures(training), pictures([pair[0] for pair in pairs]), labels)
