"""Small drawings for tests of few-shot classification: every class is a pattern, every picture of it a noisy copy."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def drawings(num_classes, per_class, size, rng, noise=0.05):
    """[classes, pictures, H, W] in {0, 255}, 255 being ink: coarse random patterns with some pixels turned over."""
    coarse = rng.random((num_classes, 1, 4, 4)) < 0.4
    fine = np.kron(coarse, np.ones((size // 4, size // 4), dtype=bool))
    flipped = rng.random((num_classes, per_class, size, size)) < noise
    return np.where(fine ^ flipped, 255, 0).astype(np.uint8)


def write_folders(root: Path, num_train=12, num_test=6, per_class=6, size=16, mode="L"):
    """A class-folder data set: root/train/c00/0.png, ... and root/test/..."""
    rng = np.random.default_rng(0)
    for part, count in (("train", num_train), ("test", num_test)):
        for c, pictures in enumerate(drawings(count, per_class, size, rng)):
            folder = root / part / f"c{c:02}"
            folder.mkdir(parents=True)
            for i, picture in enumerate(pictures):
                Image.fromarray(255 - picture).convert(mode).save(folder / f"{i}.png")
    return root


def png(picture):
    """A picture with 255 for ink as the bytes of a 1-bit PNG with 0 for ink, as Omniglot has it."""
    file = io.BytesIO()
    Image.fromarray(255 - picture).convert("1", dither=Image.Dither.NONE).save(file, "PNG")
    return file.getvalue()


def write_omniglot(root: Path, alphabets: dict[str, list[tuple[str, int]]], per_class=4, size=21):
    """root/omniglot/ with archives in the official layout: part -> [(alphabet, number of characters)]."""
    rng = np.random.default_rng(1)
    (root / "omniglot").mkdir(parents=True)
    number = 0
    for part, contents in alphabets.items():
        with zipfile.ZipFile(root / "omniglot" / f"images_{part}.zip", "w") as archive:
            for alphabet, count in contents:
                for c in range(1, count + 1):
                    number += 1
                    for d, picture in enumerate(drawings(1, per_class, size - size % 4, rng)[0], start=1):
                        name = f"images_{part}/{alphabet}/character{c:02}/{number:04}_{d:02}.png"
                        archive.writestr(name, png(picture))
    return root
