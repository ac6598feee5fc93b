"""What a curve says, and which tasks it is of."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from small_policy import make_small

import envs  # noqa: F401 - registers the ids
from maml_rl.core.lift import Threads
from maml_rl.evaluation.adaptation_curve import (
    AdaptationCurve,
    DrawnEvaluationConfig,
    EvaluationConfig,
    evaluation_tasks,
)
from maml_rl.experiments.config import EpisodeEvaluationConfig
from maml_rl.supervised.sinusoid import SinusoidConfig, SinusoidSource


def test_half_width_of_the_interval():
    # Scores 1, 2, 3 of three tasks have the deviation 1: 1.96 / sqrt(3) = 1.1316. One task has no spread.
    curve = AdaptationCurve("mse", torch.tensor([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]]))
    assert curve.mean == [2.0, 2.0]
    assert curve.ci95 == pytest.approx([1.1316, 0.0], abs=1e-4)
    assert AdaptationCurve("mse", torch.tensor([[1.0], [2.0]])).ci95 == pytest.approx([math.nan] * 2, nan_ok=True)


def test_gain_and_the_share_of_tasks_made_worse():
    # Of three tasks, one rises by 1, one falls by 1, one stays: as returns one in three is worse, as errors one, too.
    scores = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 0.0]])
    returns, errors = AdaptationCurve("return", scores, True), AdaptationCurve("mse", scores, False)
    assert returns.gain[1].tolist() == [1.0, -1.0, 0.0] and errors.gain[1].tolist() == [-1.0, 1.0, 0.0]
    assert returns.share_worse == pytest.approx([0.0, 1 / 3]) and errors.share_worse == pytest.approx([0.0, 1 / 3])
    lost = AdaptationCurve("mse", torch.tensor([[1.0, 1.0], [0.5, float("nan")]]), False)
    assert lost.share_worse[1] == 0.5


def test_rows_count_from_0_unless_they_are_labelled():
    scores = torch.zeros(3, 2)
    assert list(AdaptationCurve("return", scores).steps) == [0, 1, 2]
    assert list(AdaptationCurve("return", scores, labels=[0, 1, 10]).steps) == [0, 1, 10]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_tasks": 0}, r"evaluation\.num_tasks must be at least 1, got 0"),
        ({"num_steps": -1}, r"evaluation\.num_steps must be at least 0, got -1"),
        ({"num_steps": 10_001}, r"evaluation\.num_steps must be at most 10000, got 10001"),
        ({"split": "validation"}, "evaluation.split must be test or train, got 'validation'"),
        ({"episodes_per_task": 0}, r"evaluation\.episodes_per_task must be at least 1, got 0"),
        ({"seed": -1}, r"evaluation\.seed must be at least 0, got -1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        EpisodeEvaluationConfig(**settings)


def test_learners_that_draw_draw_at_least_once():
    with pytest.raises(ValueError, match=r"evaluation\.num_draws must be at least 1, got 0"):
        DrawnEvaluationConfig(num_draws=0)
    with pytest.raises(ValueError, match=r"evaluation\.num_tasks must be at least 1, got 0"):
        DrawnEvaluationConfig(num_tasks=0)


def test_tasks_are_those_set_aside_unless_those_of_training_are_asked_for():
    config, threads = EpisodeEvaluationConfig(num_tasks=4, seed=9), Threads(1)
    sources = [make_small(name, threads).family.source for name in ("test/Reach-v0", "maml/Navigation2D-v0")]
    of_test, of_training = (
        [evaluation_tasks(source, dataclasses.replace(config, split=split)) for source in sources]
        for split in ("test", "train")
    )
    assert all(abs(task.x) > 1 for task in of_test[0]) and all(abs(task.x) <= 1 for task in of_training[0])
    assert of_test[1] == of_training[1]  # nothing is set aside


def test_tasks_depend_on_the_evaluation_s_seed_alone():
    source = SinusoidSource(SinusoidConfig())
    tasks = [evaluation_tasks(source, EvaluationConfig(num_tasks=4, seed=seed)) for seed in (9, 9, 8)]
    assert tasks[0] == tasks[1] != tasks[2]
    assert np.isfinite([task.amplitude for task in tasks[0]]).all()
