"""Accuracy of a few-shot learner on fresh episodes: one evaluator for every one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from maml_rl.convnet import ConvConfig
from maml_rl.core.params import to_device
from maml_rl.core.protocols import EVALUATION, TASKS, Key, State
from maml_rl.evaluation.adaptation_curve import AdaptationCurve, EvaluationConfig
from maml_rl.fewshot.protocol import FewShotLearner
from maml_rl.supervised.classification import is_right, query_of, support_of
from maml_rl.supervised.episodes import EpisodeStream, Examples

PICTURES_AT_ONCE = 1000
"""Episodes are predicted together as long as they have no more pictures than this between them: a matter of memory."""


def accuracy_curve(
    learner: FewShotLearner,
    state: State,
    stream: EpisodeStream,
    network: ConvConfig,
    config: EvaluationConfig,
    device: torch.device,
) -> AdaptationCurve:
    """Share of right answers in each of `config.num_tasks` episodes, after each number of steps that is recorded.

    The episodes depend on the seed of `config` alone: all learners are asked the same.
    """
    episodes = stream.sample(config.num_tasks, Key(config.seed, EVALUATION, 0).rng(TASKS))
    ways, shots, queries = stream.size
    count = max(1, PICTURES_AT_ONCE // (ways * (shots + queries)))

    def batches() -> Iterator[tuple[Examples, Examples]]:
        for start in range(0, len(episodes), count):
            some = episodes[start : start + count]
            yield support_of(stream, some), query_of(stream, some, network)

    return accuracy_on(learner, state, batches(), config.seed, tuple(episodes), device)


def accuracy_on(
    learner: FewShotLearner,
    state: State,
    batches: Iterator[tuple[Examples, Examples]],
    seed: int,
    tasks: Sequence[Any],
    device: torch.device,
) -> AdaptationCurve:
    """The same on given episodes: (support, query) pairs that `tasks` name."""
    rows: list[Tensor] = []
    for number, pair in enumerate(batches):
        support, query = to_device(pair[0], device), to_device(pair[1], device)
        log_probs = learner.predict(state, support, query, Key(seed, EVALUATION, number))
        rows.append(is_right(log_probs, query.labels).double().mean(dim=-1).cpu())  # [recorded, n]
    return AdaptationCurve("accuracy", torch.cat(rows, dim=1), True, tasks, recorded=learner.recorded_steps)
