"""What the plots show is what they were given."""

import numpy as np
import pytest

from maml_rl.evaluation.plots import LabelledCurve, adaptation_plot, save_figure

OURS = LabelledCurve("ours", [-3.0, -1.0], [0.5, 0.25], reference=False)
PAPER = LabelledCurve("paper", [-2.0, -0.5, 0.0], None, reference=True)


def test_adaptation_plot_draws_every_curve_over_its_steps():
    (axes,) = adaptation_plot([OURS, PAPER], "return", "title").axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    for curve in (OURS, PAPER):
        assert lines[curve.label].get_xdata().tolist() == list(range(len(curve.mean)))
        assert lines[curve.label].get_ydata().tolist() == curve.mean
    assert axes.get_ylabel() == "return [reward per episode]" and axes.get_title() == "title"


def test_a_band_is_the_mean_and_its_interval_and_references_have_none():
    (axes,) = adaptation_plot([OURS, PAPER._replace(ci95=[1.0, 1.0, 1.0])], "return", "").axes
    (band,) = axes.collections
    corners = {tuple(point) for point in np.round(band.get_paths()[0].vertices, 6).tolist()}
    assert {(0.0, -3.5), (0.0, -2.5), (1.0, -1.25), (1.0, -0.75)} <= corners


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ([], "needs at least one curve"),
        ([OURS._replace(mean=[], ci95=None)], "curve 'ours' needs a score per step"),
        ([OURS._replace(ci95=[1.0])], "curve 'ours' needs a score per step"),
    ],
)
def test_what_cannot_be_drawn_is_refused(curves, message):
    with pytest.raises(ValueError, match=message):
        adaptation_plot(curves, "return", "")


def test_a_figure_is_saved_whole_or_not_at_all(tmp_path):
    figure = adaptation_plot([OURS], "return", "")
    save_figure(figure, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="xyz"):  # matplotlib's own, for an ending it does not know
        save_figure(figure, tmp_path / "curve.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
