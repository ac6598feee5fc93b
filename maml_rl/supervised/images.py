"""Pictures in class folders: read once, kept small in one array, found again in a cache."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open

from maml_rl.core.memory import Part, require_memory
from maml_rl.storage.cache import cache_folder
from maml_rl.supervised.decoding import Picture, UnreadablePicture, on_white_paper

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
FORMAT_VERSION = 2

Resize = Literal["nearest", "area"]


class DataError(ValueError):
    """Pictures are missing, damaged or do not fit together; the message names the file and the remedy."""


class ImageFile(NamedTuple):
    """One picture that has not been decoded yet."""

    class_name: str
    path: str  # for messages: the file, or the archive and the name in it
    read: Callable[[], bytes]


class ImageSet(NamedTuple):
    """Pictures sorted by class."""

    images: NDArray[np.uint8]  # [M, H, W, C]
    first: NDArray[np.int64]  # [classes + 1]: class c has the pictures first[c] .. first[c + 1] - 1
    names: tuple[str, ...]  # of the classes
    fingerprint: str | None = None  # of their files, where they are the user's own

    @property
    def class_sizes(self) -> NDArray[np.int64]:
        return np.diff(self.first)


@dataclass(frozen=True)
class ImageConfig:
    """Preparation of the pictures."""

    image_size: int = 28  # Height and width after resizing [pixels].
    resize: Resize = "nearest"
    """nearest: one pixel of those that a new one covers, as most published codes did in effect, so the default for
    Omniglot. area: their mean, which keeps thin strokes: the default for --env images, for learner neural-statistician
    and for the fast preset of memory."""
    invert: bool = True
    """Dark strokes on light paper become 1 on 0. The default is yes for Omniglot, no for --env images."""
    channels: Literal["auto", "grey", "colour"] = "auto"
    """Turn every picture into grey or into colour. auto: into colour if one picture of the data set is in colour."""

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {self.image_size}")


def decode(picture: Picture, name: str, config: ImageConfig) -> NDArray[np.uint8]:
    """One picture as [H, W, C], C being 1 for grey ones and 3 for colour: the same for training, evaluation and use.

    Args:
        name: what messages call it.
    Raises:
        DataError: if it cannot be read.
    """
    try:
        whole = on_white_paper(picture)
    except UnreadablePicture as error:
        raise DataError(f"{name} must be a picture, but it cannot be read ({error}): replace or delete it") from error
    if config.channels != "auto":
        whole = whole.convert("L" if config.channels == "grey" else "RGB")
    side = config.image_size
    pixels = _area(whole, side) if config.resize == "area" else np.array(_nearest(whole, side))
    pixels = pixels.reshape(side, side, -1)
    return 255 - pixels if config.invert else pixels


def _nearest(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), Image.Resampling.NEAREST)


def _area(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """Each new pixel is the mean of what it covers, pixels at its edges counting by the part that is covered."""
    pixels = np.asarray(image, dtype=np.float64)
    rows, columns = (_shares(count, side) for count in pixels.shape[:2])
    return np.rint(np.einsum("ih,jw,hw...->ij...", rows, columns, pixels, optimize=True)).astype(np.uint8)


@functools.lru_cache(maxsize=64)  # photos may have as many sizes as there are
def _shares(old: int, new: int) -> NDArray[np.float64]:
    """[new, old]: which share of each new interval each old one covers, both dividing the same length."""
    edges = np.arange(new + 1) * (old / new)
    starts = np.arange(old)
    covered = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.clip(covered, 0.0, None) * (new / old)


def read_images(files: Iterable[ImageFile], config: ImageConfig) -> ImageSet:
    """Decode pictures that come sorted by class. If one of them is in colour, all are.

    Raises:
        DataError: if some cannot be read; it names the first of them.
        ValueError: if there is too little memory for them.
    """
    files = list(files)
    require_memory([Part(f"{len(files)} pictures", 2 * len(files) * config.image_size**2, "lower image_size")])
    pictures, sizes, errors = [], dict[str, int](), list[Exception]()
    for file in files:
        try:
            pictures.append(decode(file.read(), file.path, config))
        except (DataError, OSError) as error:
            errors.append(error)
        sizes[file.class_name] = sizes.get(file.class_name, 0) + 1
    if errors:
        others = f" (and {len(errors) - 1} more cannot be read)" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{others}") from errors[0]
    num_channels = max(picture.shape[-1] for picture in pictures)
    images = np.empty((len(files), *pictures[0].shape[:2], num_channels), dtype=np.uint8)
    for i, picture in enumerate(pictures):
        images[i] = picture  # a grey one fills all channels
    return ImageSet(images, np.cumsum([0, *sizes.values()]), tuple(sizes))


def is_litter(name: str) -> bool:
    """Whether a file or folder of that name was left by a program and is no data: .Trash-0, ._x.png, __MACOSX."""
    return name.startswith(".") or name == "__MACOSX"


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not is_litter(path.name) and path.is_file()


def class_folders(root: Path) -> list[ImageFile]:
    """The pictures below `root`, class by class.

    A folder that holds pictures is a class, named by its path from `root`, with all that lies in folders below it.
    Pictures in `root` itself belong to no class. Links are followed, and each folder is read once.

    Raises:
        DataError: if there are none.
    """
    found = sorted(_in_classes(root, PurePath(), False, set(root.resolve().parents)))
    if not found:
        raise DataError(
            f"{root} must hold a folder of pictures for each class, but no folder with a picture ({ENDINGS[0]}, ...) "
            "is there"
        )
    return [ImageFile(class_name.as_posix(), str(path), path.read_bytes) for class_name, path in found]


def _in_classes(folder: Path, name: PurePath, is_class: bool, seen: set[Path]) -> Iterator[tuple[PurePath, Path]]:
    """Pictures below a folder with their classes. seen: folders not to be entered, so that links make no loop."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    inside = sorted(folder.iterdir())
    pictures = [path for path in inside if is_picture(path)] if name.parts else []
    is_class = is_class or bool(pictures)
    yield from ((name, path) for path in pictures)
    for path in inside:
        if path.is_dir() and not is_litter(path.name):
            yield from _in_classes(path, name if is_class else name / path.name, is_class, seen)


def fingerprint(paths: Iterable[Path]) -> str:
    """A hash of some files' names, sizes and times of change, which differs once a file has changed."""
    text = "\n".join(f"{path} {(stat := path.stat()).st_size} {stat.st_mtime_ns}" for path in paths)
    return hashlib.sha256(text.encode()).hexdigest()


def content_fingerprint(name: str, state: str, files: Sequence[ImageFile]) -> str:
    """A hash of what is in the files, wherever these lie and whenever they were copied: classes, names and bytes.

    Read once for each state of the files, and kept in the cache.

    Args:
        name: of the data set, for the cache.
        state: the files' `fingerprint`.
    Raises:
        DataError: if the cache cannot be written.
    """
    path = cache_folder() / f"{name}-{state[:16]}.sha256"
    known = path.read_bytes() if path.exists() else b""
    if re.fullmatch(b"[0-9a-f]{64}", known):
        return known.decode()
    total = hashlib.sha256()
    for file in files:
        content = hashlib.sha256(file.read()).hexdigest()
        total.update(json.dumps([file.class_name, Path(file.path).name, content]).encode())
    put_aside(path, total.hexdigest().encode())
    return total.hexdigest()


def cached_images(name: str, state: str, config: ImageConfig, files: Callable[[], Sequence[ImageFile]]) -> ImageSet:
    """The decoded pictures from the cache; if they are not there, they are read and put there.

    Args:
        name: of the data set, for the file's name.
        state: a fingerprint of its files.
        files: called only if they have to be read.
    Raises:
        DataError: if they cannot be read, or the cache cannot be written.
    """
    key = hashlib.sha256(f"{FORMAT_VERSION} {state} {config}".encode()).hexdigest()[:16]
    path = cache_folder() / f"{name}-{config.image_size}-{config.resize}-{key}.safetensors"
    found = _load(path)
    if found is None:
        found = read_images(files(), config)
        tensors: dict[str, NDArray[Any]] = {"images": found.images, "first": found.first}
        put_aside(path, safetensors.numpy.save(tensors, {"names": json.dumps(found.names), "digest": _digest(found)}))
    return found


def _load(path: Path) -> ImageSet | None:
    """The cache's pictures, or None if the file is missing or damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            notes = file.metadata()
            names = tuple(json.loads(notes["names"]))
            found = ImageSet(file.get_tensor("images"), file.get_tensor("first"), names)
            return found if notes["digest"] == _digest(found) else None
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):  # none or other notes and tensors
        return None


def _digest(images: ImageSet) -> str:
    forms = [(array.dtype, array.shape) for array in images[:2]]
    digest = hashlib.sha256(f"{forms} {images.first.tolist()} {images.names}".encode())
    digest.update(np.ascontiguousarray(images.images).data)
    return digest.hexdigest()


def put_aside(path: Path, data: bytes) -> None:
    """Write a file of the cache, which several processes may do at once: aside, then renamed.

    Raises:
        DataError: if it cannot be written; nothing is left then.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}; name another folder by MAML_RL_CACHE"
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
