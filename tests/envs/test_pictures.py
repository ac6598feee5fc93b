"""What may be drawn, and what becomes of it in a film."""

import numpy as np
import pytest

from envs.pictures import as_picture

COLOUR = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)


def with_alpha(opacity):
    return np.concatenate([COLOUR, np.full((4, 6, 1), opacity, np.uint8)], axis=2)


def test_colour_stays_as_it_is():
    assert as_picture(COLOUR) is COLOUR


@pytest.mark.parametrize("grey", [COLOUR[..., 0], COLOUR[..., :1]])
def test_grey_has_three_equal_channels(grey):
    picture = as_picture(grey)
    assert picture.shape == (4, 6, 3) and picture.dtype == np.uint8
    assert all((picture[..., channel] == COLOUR[..., 0]).all() for channel in range(3))


@pytest.mark.parametrize(("opacity", "wanted"), [(255, COLOUR), (0, np.full_like(COLOUR, 255))])
def test_what_is_transparent_is_white(opacity, wanted):
    assert (as_picture(with_alpha(opacity)) == wanted).all()


def test_half_transparent_is_half_way_to_white():
    # opacity 51 of 255 is a fifth: 100 / 5 + 255 * 4 / 5 = 224
    assert (as_picture(np.full((1, 1, 4), [100, 100, 100, 51], np.uint8)) == 224).all()


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        (None, "NoneType in place of a picture"),
        ([COLOUR], "list in place of a picture"),
        (COLOUR / 255.0, "an array of float64 in place of a picture"),
        (COLOUR.astype(np.uint16), "an array of uint16 in place of a picture"),
        (COLOUR[..., :2], r"an array of the shape \[4, 6, 2\] in place of a picture"),
        (COLOUR[None], r"an array of the shape \[1, 4, 6, 3\] in place of a picture"),
        (COLOUR[:0], r"an array of the shape \[0, 6, 3\] in place of a picture"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(drawn, words):
    with pytest.raises(ValueError, match=f"^drawing returned {words}: return one array of np.uint8 with the shape"):
        as_picture(drawn)
