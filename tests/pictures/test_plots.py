"""What the plots show is what they were given."""

import numpy as np
import pytest

from maml_rl.pictures.plots import (
    History,
    Journey,
    LabelledCurve,
    Progress,
    Regression,
    adaptation_plot,
    learning_plot,
    paths_plot,
    progress_plot,
    regression_plot,
    save_figure,
)

OURS = LabelledCurve("ours", [-3.0, -1.0], [0.5, 0.25], reference=False)
PAPER = LabelledCurve("paper", [-2.0, -0.5, 0.0], None, reference=True)


def test_adaptation_plot_draws_every_curve_over_its_steps():
    (axes,) = adaptation_plot([OURS, PAPER], "return", "title").axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    for curve in (OURS, PAPER):
        assert lines[curve.label].get_xdata().tolist() == list(range(len(curve.mean)))
        assert lines[curve.label].get_ydata().tolist() == curve.mean
    assert axes.get_ylabel() == "return [reward per episode]" and axes.get_title() == "title"


def test_scores_may_stand_at_some_numbers_of_steps_only():
    (axes,) = adaptation_plot([OURS._replace(steps=(0, 10))], "accuracy", "").axes
    assert axes.get_lines()[0].get_xdata().tolist() == [0, 10]


def test_progress_ends_in_the_final_score_and_what_is_not_trained_is_level():
    trained = Progress("maml", [1.0, 2.0], [0.5, 0.7], (2.5, 0.8, 0.01))
    (axes,) = progress_plot([trained, Progress("pixels", [], [], (0.0, 0.4, 0.02))], "accuracy", "title").axes
    line, end, level = axes.get_lines()
    assert line.get_xydata().tolist() == [[1.0, 0.5], [2.0, 0.7], [2.5, 0.8]]
    assert end.get_xydata().tolist() == [[2.5, 0.8]] and set(level.get_ydata()) == {0.4}
    assert axes.get_xlabel() == "minutes of training" and axes.get_ylabel() == "accuracy"
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"maml", "pixels"}


def test_a_band_is_the_mean_and_its_interval_and_references_have_none():
    (axes,) = adaptation_plot([OURS, PAPER._replace(ci95=[1.0, 1.0, 1.0])], "return", "").axes
    (band,) = axes.collections
    corners = {tuple(point) for point in np.round(band.get_paths()[0].vertices, 6).tolist()}
    assert {(0.0, -3.5), (0.0, -2.5), (1.0, -1.25), (1.0, -0.75)} <= corners


def test_an_unknown_interval_is_not_drawn_and_no_legend_speaks_of_it():
    (axes,) = adaptation_plot([OURS._replace(ci95=[float("nan")] * len(OURS.mean))], "return", "").axes
    assert not axes.collections and not axes.get_legend().get_title().get_text()


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


def test_learning_plot_averages_what_is_dense_and_marks_what_is_not():
    # The mean of the last three of 1, 4, 7, 10 is 4, then 7.
    dense = History("dense", [1, 2, 3, 4], [1.0, 4.0, 7.0, 10.0], None)
    sparse = History("sparse", [2, 4], [5.0, 6.0], [1.0, 1.0])
    (axes,) = learning_plot([dense, sparse], "mse", "", window=3).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines["dense"].get_xdata().tolist() == [3, 4] and lines["dense"].get_ydata() == pytest.approx([4, 7])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["dense", "sparse"]
    assert axes.get_ylabel() == "mean squared error"


def test_paths_plot_draws_every_path_its_end_and_the_goal():
    paths = [np.array([[0.0, 0.0], [i, 2.0 * i]]) for i in (1.0, 2.0)]
    (axes, _) = paths_plot([Journey("a", (3.0, 4.0), paths), Journey("b", (1.0, 1.0), paths)], "").axes
    drawn = [line.get_xydata().tolist() for line in axes.get_lines()]
    assert all(path.tolist() in drawn and [path[-1].tolist()] in drawn for path in paths)
    assert [[3.0, 4.0]] in drawn
    assert axes.get_aspect() == 1.0  # a metre is a metre


def test_regression_plot_draws_target_predictions_and_examples():
    x = np.linspace(-1.0, 1.0, 5)
    regression = Regression("a", x, x**2, (x[:2], x[:2] ** 2), {0: 0 * x, 5: x})
    (axes,) = regression_plot([regression], "").axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in axes.get_lines()}
    assert lines["target"] == (x**2).tolist() and lines["before"] == [0.0] * 5 and lines["5 steps"] == x.tolist()
    assert lines["examples to adapt to"] == (x[:2] ** 2).tolist()


def test_a_curve_names_the_episodes_that_each_score_has_cost():
    figure = adaptation_plot([OURS._replace(steps=(0, 1), used=(0, 20)), PAPER], "return", "title")
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0\n(0)", "20\n(1)"]
    assert axes.get_xlabel() == "episodes of the task (gradient steps)"
    alone = adaptation_plot([OURS], "mse", "title").axes[0]
    assert alone.get_xlabel() == "gradient steps on the task"
