from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pictures import drawings

from maml_rl.convnet import ConvConfig
from maml_rl.evaluation import few_shot
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.evaluation.few_shot import accuracy_curve
from maml_rl.fewshot.pixels import PixelNeighbour
from maml_rl.supervised.episodes import EpisodeSize, EpisodeStream
from maml_rl.supervised.images import ImageSet

CPU = torch.device("cpu")


@pytest.fixture
def stream():
    pictures = drawings(10, 6, 8, np.random.default_rng(0), noise=0.3).reshape(-1, 8, 8, 1)
    data = ImageSet(pictures, np.arange(0, 61, 6), tuple(map(str, range(10))))
    return EpisodeStream(data, np.arange(10), "classes", EpisodeSize(4, 1, 2))


def test_accuracy_is_the_share_of_right_answers_after_each_recorded_number_of_steps(stream):
    # after 5 steps all is right; after 0 the first class is always the answer, which is right once in four ways
    def predict(state, support, query, key):
        right = torch.nn.functional.one_hot(query.labels, 4).float()
        first = torch.zeros_like(right)
        first[..., 0] = 1.0
        return torch.stack([first, right])

    learner = SimpleNamespace(predict=predict, recorded_steps=(0, 5))
    config = EvaluationConfig(num_tasks=7, seed=3)
    curve = accuracy_curve(learner, {}, stream, ConvConfig(), config, CPU)
    assert curve.metric == "accuracy" and curve.steps == (0, 5) and len(curve.tasks) == 7
    assert curve.per_task.tolist() == [[0.25] * 7, [1.0] * 7]


@pytest.mark.parametrize("at_once", [1, 30, 1000])
def test_neither_learner_nor_batches_change_the_episodes(at_once, stream, monkeypatch):
    monkeypatch.setattr(few_shot, "PICTURES_AT_ONCE", at_once)
    config = EvaluationConfig(num_tasks=9, seed=3)
    curve = accuracy_curve(PixelNeighbour(stream), {}, stream, ConvConfig(), config, CPU)
    monkeypatch.undo()
    whole = accuracy_curve(PixelNeighbour(stream), {}, stream, ConvConfig(norm="support"), config, CPU)
    assert curve.tasks == whole.tasks and torch.equal(curve.per_task, whole.per_task)
    other = EvaluationConfig(num_tasks=9, seed=4)
    assert accuracy_curve(PixelNeighbour(stream), {}, stream, ConvConfig(), other, CPU).tasks != whole.tasks
