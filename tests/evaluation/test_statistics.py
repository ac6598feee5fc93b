"""Statistics over seeds and tasks: closed forms, limits, coverage, invariances."""

import numpy as np
import pytest

from maml_rl.evaluation.statistics import (
    crossed_variance,
    estimates,
    interquartile_mean,
    mean,
    probability_of_improvement,
)


def drawn(num_runs, num_tasks, seed=0, spread_of_runs=0.0, spread_of_tasks=1.0, noise=1.0):
    """Scores [R, N] around 0: a run's luck, a task's, and that of both together."""
    rng = np.random.default_rng(seed)
    runs = spread_of_runs * rng.standard_normal((num_runs, 1))
    tasks = spread_of_tasks * rng.standard_normal((1, num_tasks))
    return runs + tasks + noise * rng.standard_normal((num_runs, num_tasks))


def test_interquartile_mean_of_known_numbers():
    # Of 0 .. 7 the middle half is 2, 3, 4, 5; one enormous score in place of 7 changes nothing.
    scores = np.arange(8.0).reshape(2, 4)
    assert interquartile_mean(scores) == 3.5
    assert interquartile_mean(np.where(scores == 7.0, 1e9, scores)) == 3.5
    assert interquartile_mean(np.array([[1.0, 2.0, 6.0]])) == mean(np.array([[1.0, 2.0, 6.0]])) == 3.0
    assert np.isnan(interquartile_mean(np.where(scores == 7.0, np.nan, scores)))


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_constant_scores_have_an_interval_of_width_zero(statistic):
    for found in estimates(statistic, np.full((2, 3, 5), -7.25)):
        assert found == (-7.25, -7.25, -7.25)


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_the_order_of_runs_and_tasks_does_not_matter(statistic):
    scores, rng = drawn(3, 40, spread_of_runs=1.0), np.random.default_rng(1)
    mixed = scores[rng.permutation(3)][:, rng.permutation(40)]
    (one,), (other,) = estimates(statistic, scores[None]), estimates(statistic, mixed[None])
    assert one.value == pytest.approx(other.value, rel=1e-12)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.08 * (one.high - one.low))


@pytest.mark.parametrize("shape", [(1, 50), (6, 50), (12, 1)])
def test_the_interval_of_a_mean_is_that_of_the_closed_form(shape):
    scores = drawn(*shape, spread_of_runs=0.5)
    (found,) = estimates(mean, scores[None])
    assert found.value == pytest.approx(scores.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * crossed_variance(scores) ** 0.5, rel=0.08)


def test_the_closed_form_is_the_variance_over_all_bootstrap_samples():
    # Two runs and two tasks: each of the 4 x 4 draws of indices is equally likely.
    scores = np.array([[1.0, 4.0], [2.0, 9.0]])
    pairs = [(i, j) for i in range(2) for j in range(2)]
    means = [scores[list(runs)][:, list(tasks)].mean() for runs in pairs for tasks in pairs]
    assert crossed_variance(scores) == pytest.approx(np.var(means))


def test_one_run_has_the_bootstrap_over_tasks():
    scores = drawn(1, 30)
    assert crossed_variance(scores) == pytest.approx(scores.var() / 30)


def test_a_run_s_luck_counts_once_however_many_tasks_it_meets():
    # All scores of a run are equal: 400 tasks tell no more than one, and the interval is that of three numbers.
    wide = np.repeat(np.array([[0.0], [1.0], [5.0]]), 400, axis=1)
    (found,), (of_one,) = estimates(mean, wide[None]), estimates(mean, wide[None, :, :1])
    assert found.high - found.low == pytest.approx(of_one.high - of_one.low, rel=0.1)
    assert found.high - found.low > 3.0


def test_one_score_says_nothing_about_others():
    (found,) = estimates(mean, np.array([[[3.0]]]))
    assert found.value == 3.0 and np.isnan([found.low, found.high]).all()
    assert np.isnan(probability_of_improvement(np.ones((1, 1)), np.zeros((1, 1)), True).low)


@pytest.mark.slow
@pytest.mark.parametrize(("num_runs", "spread_of_runs"), [(1, 0.0), (10, 0.7)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(num_runs, spread_of_runs):
    # Gaussian scores around 0, so that 0 is the true mean and the true interquartile mean. The percentile bootstrap of
    # 10 runs is known to be a little narrow; 300 trials have a standard error of 1.3 %.
    hits = {mean: 0, interquartile_mean: 0}
    for seed in range(300):
        scores = drawn(num_runs, 40, seed, spread_of_runs)[None]
        for statistic in hits:
            (found,) = estimates(statistic, scores)
            hits[statistic] += found.low <= 0.0 <= found.high
    assert all(0.87 <= count / 300 <= 0.985 for count in hits.values()), hits


def test_probability_of_improvement():
    low, high = np.zeros((3, 4)), np.ones((2, 4))
    assert probability_of_improvement(high, low, True) == (1.0, 1.0, 1.0)
    assert probability_of_improvement(high, low, False) == (0.0, 0.0, 0.0)  # as errors
    assert probability_of_improvement(low, low, True).value == 0.5
    # Of two runs one beats the only other run on the first task, both on the second: (1/2 + 1) / 2.
    found = probability_of_improvement(np.array([[2.0, 2.0], [0.0, 2.0]]), np.array([[1.0, 1.0]]), True)
    assert found.value == 0.75 and found.low < 0.75 < found.high


def test_probabilities_of_improvement_add_up_to_one():
    first, second = drawn(3, 20, seed=1), drawn(4, 20, seed=2)
    for higher in (True, False):
        there = probability_of_improvement(first, second, higher)
        assert there.value + probability_of_improvement(second, first, higher).value == pytest.approx(1.0)
        assert 0.0 <= there.low <= there.value <= there.high <= 1.0


def test_improvement_is_paired_on_tasks():
    # Task by task the first is always a little better, although tasks differ by far more than methods.
    tasks = 100.0 * np.arange(10.0)[None]
    assert probability_of_improvement(tasks + 1.0, tasks, True) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="must be scored on the same tasks, got 10, 9"):
        probability_of_improvement(tasks, tasks[:, 1:], True)


@pytest.mark.parametrize("higher", [True, False])
def test_a_task_that_diverged_is_worse_than_any_score(higher):
    lost, found = np.array([[np.nan]]), np.array([[5.0]])
    assert probability_of_improvement(found, lost, higher).value == 1.0
    assert probability_of_improvement(lost, lost, higher).value == 0.5
