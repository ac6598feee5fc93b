"""One picture, whatever it comes as: upright, opaque, 8 bits, grey or colour."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

Picture = str | Path | bytes | Image.Image | NDArray[Any] | Tensor
"""A file, its content, or pixels. Arrays and tensors are [H, W], [H, W, C] or [C, H, W] with C of 1 (grey), 2 (grey and
alpha), 3 (colour) or 4 (colour and alpha). Black to white is 0..65535 in uint16, 0..1 in floats, 0..255 otherwise."""

GREY = ("1", "L", "LA")
CHANNELS = (1, 2, 3, 4)

_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises for bad files


class UnreadablePicture(ValueError):
    """A picture that cannot be decoded; the message says why."""


def on_white_paper(picture: Picture) -> Image.Image:
    """The picture as mode L if it is grey, else RGB. An animation gives its first frame.

    Alpha is laid over white, 16 bits and floats are scaled to 8 bits, and EXIF's orientation is obeyed.

    Raises:
        UnreadablePicture: if it is damaged, or its numbers are out of range.
        TypeError: if it is no picture of a known kind.
    """
    try:
        if isinstance(picture, Image.Image):
            return _decoded(picture)
        if isinstance(picture, np.ndarray | Tensor):
            return _opaque(_from_array(_as_array(picture)))
        if isinstance(picture, bytes | str | Path):
            with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
                return _decoded(image)
    except UnidentifiedImageError as error:  # whose message shows a Python object
        raise UnreadablePicture("its content has no known format") from error
    except _UNREADABLE as error:
        raise UnreadablePicture(str(error)) from error
    raise TypeError(f"a picture must be a path, a PIL image, an array or a tensor, got {type(picture).__name__}")


def _decoded(image: Image.Image) -> Image.Image:
    image.load()
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    decoded = _opaque(_with_8_bits(image))
    if orientation is not None:
        decoded.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(decoded)


def _with_8_bits(image: Image.Image) -> Image.Image:
    """The image in a mode of at most 8 bits per channel."""
    if not image.mode.startswith("I;16") and image.mode not in ("I", "F"):
        return image
    pixels = np.asarray(image)
    tags = getattr(image, "tag_v2", {})  # of TIFF, which Pillow leaves to its reader where there are more than 8 bits
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        white = 2 ** tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] - 1
        pixels = (pixels * (65535 / white)).round().astype(np.uint16)
    grey = as_bytes(pixels)
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        grey = 255 - grey
    decoded = Image.fromarray(grey)
    transparent = image.info.get("transparency")  # a PNG's one value that stands for nothing
    if transparent is not None:
        decoded.putalpha(Image.fromarray(np.where(np.asarray(image) == transparent, 0, 255).astype(np.uint8)))
    return decoded


def as_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale pixels to 0..255 for black to white.

    Raises:
        ValueError: if floats lie outside 0..1, or integers that are not uint16 outside 0..255.
    """
    if pixels.dtype.kind not in "buif":
        raise ValueError(f"its numbers must be integers or floats, got {pixels.dtype}")
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * 255
    if pixels.dtype.itemsize == 2 and pixels.dtype.kind == "u":
        return np.rint(pixels / 257).astype(np.uint8)
    is_float = pixels.dtype.kind == "f"
    scaled = np.rint(pixels * 255.0) if is_float else pixels
    if not ((scaled >= 0) & (scaled <= 255)).all():
        kind, limits = ("floats", "0..1") if is_float else ("integers", "0..255 (uint16: 0..65535)")
        raise ValueError(f"its {kind} must lie in {limits}, got {pixels.min():g}..{pixels.max():g}")
    return scaled.astype(np.uint8)


def _as_array(picture: NDArray[Any] | Tensor) -> NDArray[Any]:
    if isinstance(picture, np.ndarray):
        return picture
    return (picture.detach().float() if picture.is_floating_point() else picture).cpu().numpy()  # numpy has no bfloat16


def _from_array(pixels: NDArray[Any]) -> Image.Image:
    shape = pixels.shape
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    elif pixels.ndim == 3 and shape[-1] not in CHANNELS and shape[0] in CHANNELS:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim != 3 or pixels.shape[-1] not in CHANNELS or not pixels.size:
        raise ValueError(f"its shape must be [H, W], [H, W, C] or [C, H, W] with at most 4 channels, got {list(shape)}")
    data = as_bytes(pixels)
    return Image.fromarray(np.ascontiguousarray(data[..., 0] if data.shape[-1] == 1 else data))


def _opaque(image: Image.Image) -> Image.Image:
    is_grey = image.mode in GREY
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        paper.alpha_composite(image.convert("RGBA"))
        image = paper.convert("RGB")
    return image.convert("L" if is_grey else "RGB")
