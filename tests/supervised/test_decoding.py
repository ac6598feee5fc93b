"""The same drawing in every form gives the same pixels."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from maml_rl.supervised.decoding import UnreadablePicture, on_white_paper

LEVELS = np.arange(256, dtype=np.uint8).reshape(8, 32)
GREY = Image.fromarray(LEVELS)
INK = 255 - LEVELS  # how opaque black ink must be to look like LEVELS on white paper


def in_file(image, kind="PNG", **settings):
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def two_tone_palette():
    """Ink and paper have the same colour; only the palette's transparency tells."""
    image = Image.new("P", GREY.size)
    image.putdata((LEVELS.ravel() > 127).tolist())
    image.putpalette([0, 0, 0, 0, 0, 0])
    return image


IMAGES = {
    "8 bits": in_file(GREY),
    "16 bits": in_file(Image.fromarray(LEVELS.astype(np.uint16) * 257)),
    "16 bits, TIFF": in_file(Image.fromarray(LEVELS.astype(np.uint16) * 257), "TIFF"),
    "16 bits, TIFF, white is 0": in_file(Image.fromarray(INK.astype(np.uint16) * 257), "TIFF", tiffinfo={262: 0}),
    "16 bits, PGM": b"P5 32 8 65535\n" + (LEVELS.astype(">u2") * 257).tobytes(),
    "32 bits, TIFF": in_file(Image.fromarray(LEVELS.astype(np.int32)), "TIFF"),
    "floats, TIFF": in_file(Image.fromarray((LEVELS / 255).astype(np.float32)), "TIFF"),
    "colour": in_file(GREY.convert("RGB")),
    "palette": in_file(GREY.convert("P")),
    "ink on nothing, grey": in_file(Image.fromarray(np.stack([0 * INK, INK], axis=-1))),
    "ink on nothing, colour": in_file(Image.fromarray(np.stack([0 * INK, 0 * INK, 0 * INK, INK], axis=-1))),
    "inks": in_file(GREY.convert("RGB").convert("CMYK"), "TIFF"),
    "animation": in_file(GREY, "GIF", save_all=True, append_images=[Image.fromarray(INK)]),
}
PIXELS = {
    "PIL": GREY,
    "bytes": LEVELS,
    "integers": LEVELS.astype(np.int64),
    "16 bits": LEVELS.astype(np.uint16) * 257,
    "floats": LEVELS / 255,
    "channel last": LEVELS[..., None],
    "colour": np.stack([LEVELS] * 3, axis=-1),
    "ink on nothing": np.stack([0 * INK, INK], axis=-1) / 255,
    "tensor": torch.from_numpy(LEVELS),
    "tensor of floats that learn": (torch.from_numpy(LEVELS) / 255).requires_grad_(),
    "channel first": torch.from_numpy(np.stack([LEVELS] * 3)) / 255,
    "half floats": (torch.from_numpy(LEVELS) / 255).half(),
}


@pytest.mark.parametrize("picture", [*IMAGES.values(), *PIXELS.values()], ids=[*IMAGES, *PIXELS])
def test_every_form_of_a_drawing_gives_its_pixels(picture):
    decoded = on_white_paper(picture)
    assert decoded.mode in ("L", "RGB")
    assert np.abs(np.asarray(decoded.convert("L"), dtype=int) - LEVELS).max() == 0


def test_two_levels_are_enough():
    expected = np.where(LEVELS > 127, 255, 0)
    for picture in (
        GREY.point(lambda v: 255 * (v > 127), "1"),
        expected > 0,
        in_file(two_tone_palette(), transparency=1),
    ):
        assert (np.asarray(on_white_paper(picture).convert("L")) == expected).all()


def test_a_transparent_grey_level_is_paper():
    for white, depth in ((255, np.uint8), (65535, np.uint16)):
        data = in_file(Image.fromarray(LEVELS.astype(depth) * (white // 255)), transparency=0)
        expected = np.where(LEVELS == 0, 255, LEVELS)
        assert (np.asarray(on_white_paper(data)) == expected).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_pictures_stand_upright(kind, depth):
    # Orientation 6: the camera was turned, the picture is to be turned by 90 degrees clockwise.
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(LEVELS.astype(depth) * (1 if depth == np.uint8 else 257))
    assert (np.asarray(on_white_paper(in_file(image, kind, exif=exif))) == np.rot90(LEVELS, -1)).all()


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (LEVELS.astype(float), r"floats must lie in 0\.\.1, got 0\.\.255"),
        (torch.tensor([[float("nan")]]), r"floats must lie in 0\.\.1, got nan"),
        (LEVELS.astype(int) * 257, r"integers must lie in 0\.\.255 \(uint16: 0\.\.65535\), got 0\.\.65535"),
        (in_file(Image.fromarray(LEVELS.astype(np.float32)), "TIFF"), r"floats must lie in 0\.\.1"),
        (np.zeros((5, 6, 7)), r"shape must be .* got \[5, 6, 7\]"),
        (np.array([["a"]]), "numbers must be integers or floats"),
        (b"<html>404</html>", "its content has no known format"),
        ("nowhere.png", "No such file"),
    ],
)
def test_what_would_give_wrong_pixels_is_refused(picture, message):
    with pytest.raises(UnreadablePicture, match=message):
        on_white_paper(picture)


def test_other_objects_are_no_pictures():
    with pytest.raises(TypeError, match="a picture must be a path, a PIL image, an array or a tensor, got list"):
        on_white_paper([[0, 1]])
