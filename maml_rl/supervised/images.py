"""Pictures in class folders: read once, kept small in one array, found again in a cache."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
FORMAT_VERSION = 1

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
    """What becomes of a picture."""

    image_size: int = 28  # height and width after resizing [pixels]
    resize: Resize = "nearest"
    """nearest: one pixel of those that a new one covers, as the published codes did in effect, so the default for
    Omniglot. area: their mean, the default for --env images."""
    invert: bool = True
    """Dark strokes on light paper become 1 on 0. The default is yes for Omniglot, no for --env images."""

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {self.image_size}")


def decode(data: bytes, path: str, config: ImageConfig) -> tuple[NDArray[np.uint8], str]:
    """One picture as [H, W, C], C being 1 for grey ones and 3 for colour; and what it was, in words.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode = "L" if image.mode in ("1", "L", "LA", "I", "I;16", "F") else "RGB"
            kind = f"{'grey' if mode == 'L' else 'colour'}, {image.width} x {image.height}"
            whole = image.convert(mode)
            side = config.image_size
            pixels = _area(whole, side) if config.resize == "area" else np.asarray(_nearest(whole, side))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} must be a picture, but it cannot be read ({error}): replace or delete it") from error
    pixels = pixels.reshape(side, side, -1)
    return 255 - pixels if config.invert else pixels, kind


def _nearest(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), Image.Resampling.NEAREST)


def _area(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """Each new pixel is the mean of what it covers, pixels at its edges counting by the part that is covered."""
    pixels = np.asarray(image, dtype=np.float64)
    rows, columns = (_shares(count, side) for count in pixels.shape[:2])
    return np.rint(np.einsum("ih,jw,hw...->ij...", rows, columns, pixels, optimize=True)).astype(np.uint8)


@functools.cache
def _shares(old: int, new: int) -> NDArray[np.float64]:
    """[new, old]: which share of each new interval each old one covers, both dividing the same length."""
    edges = np.arange(new + 1) * (old / new)
    starts = np.arange(old)
    covered = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.clip(covered, 0.0, None) * (new / old)


def read_images(files: Iterable[ImageFile], config: ImageConfig) -> ImageSet:
    """Decode pictures that come sorted by class.

    Raises:
        DataError: if one cannot be read, or they are not all grey or all colour and of one size.
    """
    pixels, sizes = [], dict[str, int]()
    example: tuple[str, str] | None = None
    for file in files:
        picture, kind = decode(file.read(), file.path, config)
        example = example or (kind, file.path)
        if kind != example[0]:
            raise DataError(
                f"all pictures must be of one size and either grey or colour, but {example[1]} is {example[0]} and "
                f"{file.path} is {kind}: convert one of them"
            )
        pixels.append(picture)
        sizes[file.class_name] = sizes.get(file.class_name, 0) + 1
    return ImageSet(np.stack(pixels), np.cumsum([0, *sizes.values()]), tuple(sizes))


def class_folders(root: Path) -> list[ImageFile]:
    """The pictures below `root`; a folder that holds pictures is a class, named by its path from there.

    Raises:
        DataError: if there are none.
    """
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    paths.sort(key=lambda path: (path.parent, path.name))  # a class's pictures together, whatever folders lie beside
    if not paths:
        raise DataError(
            f"{root} must hold a folder of pictures for each class, but no picture ({ENDINGS[0]}, ...) is there"
        )
    return [ImageFile(path.parent.relative_to(root).as_posix(), str(path), path.read_bytes) for path in paths]


def fingerprint(paths: Iterable[Path]) -> str:
    """Tells one state of some files from another, by their names, sizes and times of change."""
    text = "\n".join(f"{path} {(stat := path.stat()).st_size} {stat.st_mtime_ns}" for path in paths)
    return hashlib.sha256(text.encode()).hexdigest()


def content_fingerprint(name: str, state: str, files: Sequence[ImageFile]) -> str:
    """The same for what is in the files, wherever they lie and whenever they were copied: classes, names and bytes.

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


def cache_folder() -> Path:
    """Where decoded pictures and downloads are kept: $MAML_RL_CACHE, else maml_rl in the user's cache folder."""
    if own := os.environ.get("MAML_RL_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maml_rl"


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
        put_aside(path, safetensors.numpy.save(tensors, {"names": json.dumps(found.names)}))
    return found


def _load(path: Path) -> ImageSet | None:
    """What is in the cache; nothing, if it is not there or was cut."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = tuple(json.loads(file.metadata()["names"]))
            return ImageSet(file.get_tensor("images"), file.get_tensor("first"), names)
    except (OSError, safetensors.SafetensorError):
        return None


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
