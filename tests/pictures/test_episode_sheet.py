"""A sheet shows every picture where it belongs, and says of each answer whether it is right."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from maml_rl.pictures.episode_sheet import MOST_LETTERS, MOST_SHOWN, RIGHT, WRONG, Sheet, episode_sheet


def sheet(ways=3, shots=2, queries=2, channels=1):
    """Class by class the first query is right, the others say the class after it; each picture has its own grey."""
    rng = np.random.default_rng(0)
    probabilities = np.full((ways, queries, ways), 0.3 / (ways - 1))
    for c in range(ways):
        for q in range(queries):
            probabilities[c, q, c if q == 0 else (c + 1) % ways] = 0.7
    pictures = [rng.random((ways, count, 4, 4, channels), dtype=np.float32) for count in (shots, queries)]
    return Sheet(*pictures, probabilities)


def words(axes):
    return [text.get_text() for text in axes.texts]


def test_right_and_wrong_answers_are_told_apart_without_colour_too():
    one = sheet()
    assert one.is_right.tolist() == [[True, False]] * 3
    (axes,) = episode_sheet([one], "title").axes
    assert axes.get_title() == "3 of 6 right"
    assert words(axes).count("\N{CHECK MARK} 70%") == 3
    assert [word for word in words(axes) if "?" in word] == ["2? 70%", "3? 70%", "1? 70%"]
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_linewidth() > 1]
    lines = [(patch.get_edgecolor()[:3], patch.get_linestyle()) for patch in frames]
    assert len(set(lines)) == 2 and len({line for _, line in lines}) == 2 and RIGHT != WRONG


def test_rows_show_the_names_of_classes_however_long_they_are():
    names = ["cat", "$x_1$", "a/very/long/path/to/a/class/of/dogs"]
    one = sheet()._replace(names=names)
    figure = episode_sheet([one], "title")
    (axes,) = figure.axes
    shown = [word for word in words(axes) if word[0] in "123" and "?" not in word]
    assert shown[:2] == ["1  cat", "2  $x_1$"] and shown[2].startswith("3  \N{HORIZONTAL ELLIPSIS}")
    assert shown[2].endswith("class/of/dogs") and len(shown[2]) == len("3  ") + MOST_LETTERS
    figure.draw_without_rendering()
    rows = [text for text in axes.texts if text.get_text() in shown]
    assert all(text.get_window_extent().x0 >= axes.get_window_extent().x0 for text in rows)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_picture_stands_in_the_row_of_its_class(channels):
    one = sheet(channels=channels)
    (axes,) = episode_sheet([one], "").axes
    shown = {(image.get_extent()[3], image.get_extent()[0]): image.get_array() for image in axes.get_images()}
    places = sorted(shown)  # from top to bottom, from left to right
    expected = [picture for row in zip(one.support, one.query, strict=True) for part in row for picture in part]
    assert len(places) == len(expected) == 3 * (2 + 2)
    for place, picture in zip(places, expected, strict=True):
        assert np.array_equal(shown[place], picture[..., 0] if channels == 1 else picture)


def test_many_queries_are_counted_but_not_all_drawn():
    several = [sheet(queries=MOST_SHOWN + 3), sheet(ways=2)]
    figure = episode_sheet(several, "title")
    first, second = figure.axes
    assert len(first.get_images()) == 3 * (2 + MOST_SHOWN) and len(second.get_images()) == 2 * (2 + 2)
    assert f"queries, the first {MOST_SHOWN} of {MOST_SHOWN + 3}" in words(first) and "queries" in words(second)
    assert first.get_title() == f"3 of {3 * (MOST_SHOWN + 3)} right"
