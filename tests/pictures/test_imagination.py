"""Pictures of what a model of sets believes."""

import numpy as np
import pytest

from maml_rl.pictures.imagination import (
    Believed,
    Imagined,
    Predicted,
    Summarised,
    _principal,
    context_plot,
    density_plot,
    imagined_sheet,
    summary_sheet,
)

RNG = np.random.default_rng(0)


def drawings(count):
    return RNG.random((count, 8, 8))


def words(figure):
    return {text.get_text() for axes in figure.axes for text in axes.texts} | {axes.get_title() for axes in figure.axes}


def test_each_row_of_the_sheet_has_a_set_and_new_members():
    figure = imagined_sheet([Imagined(name, drawings(5), drawings(10)) for name in ("a", "b", "c")], "title")
    (axes,) = figure.axes
    assert len(axes.images) == 3 * 15
    assert {"a", "b", "c", "given", "imagined"} <= words(figure)
    lefts = sorted({image.get_extent()[0] for image in axes.images})
    assert lefts[5] - lefts[4] > lefts[4] - lefts[3]  # a gap between what is given and what is imagined


def test_a_summary_is_numbered_and_compared_with_chance():
    rows = [Summarised("a", drawings(9), [4, 0, 7], [3.0, 2.0, 1.0], [5.0, 4.0, 3.0])]
    figure = summary_sheet(rows, "title")
    sheet, curves = figure.axes
    assert len(sheet.images) == 9
    places = {text.get_text(): text.get_position()[0] for text in sheet.texts if text.get_text().isdigit()}
    assert [int(places[number]) for number in ("1", "2", "3")] == [4, 0, 7]
    by_label = {line.get_label(): line.get_ydata().tolist() for line in curves.lines}
    assert by_label["summary"] == [3.0, 2.0, 1.0] and by_label["at random"] == [5.0, 4.0, 3.0]


def test_contexts_are_coloured_by_shape_and_by_moments():
    shapes = ["uniform", "Laplace", "uniform", "Gaussian"]
    sets = [Believed(shape, float(i), 1.0 + i, RNG.random(3)) for i, shape in enumerate(shapes)]
    figure = context_plot(sets, "title")
    by_shape, by_mean, by_variance = figure.axes[:3]
    counts = {each.get_label(): len(each.get_offsets()) for each in by_shape.collections}
    assert counts == {"uniform": 2, "Laplace": 1, "Gaussian": 1}
    assert by_mean.collections[0].get_array().tolist() == [0.0, 1.0, 2.0, 3.0]
    assert by_variance.collections[0].get_array().tolist() == [1.0, 2.0, 3.0, 4.0]


def test_points_are_shown_in_the_plane_in_which_they_vary_most():
    plane = RNG.standard_normal((50, 2)) * [3.0, 1.0]
    turned = plane @ np.linalg.qr(RNG.standard_normal((3, 3)))[0][:2]
    found = _principal(turned + 5.0)
    assert found.var(axis=0) == pytest.approx(np.linalg.eigvalsh(np.cov(plane.T, bias=True))[::-1])
    assert _principal(RNG.random((5, 1))).shape == (5, 2)


def test_densities_are_drawn_beside_the_truth():
    at = np.linspace(-1.0, 1.0, 5)
    figure = density_plot([Predicted("one", at, at**2, at**4, np.zeros(3))] * 2, "title")
    assert len(figure.axes) == 2
    true, predicted, seen = figure.axes[0].lines
    assert true.get_ydata().tolist() == (at**2).tolist() and predicted.get_ydata().tolist() == (at**4).tolist()
    assert len(seen.get_xdata()) == 3
