"""The least memory that a run needs, computed before anything is made.

These are lower bounds, a few products of the settings: they refuse what cannot fit, and promise nothing of what can.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from maml_rl.core.memory import Part
from maml_rl.experiments.config import RunConfig
from maml_rl.networks.convnet import NUM_LAYERS, ConvConfig
from maml_rl.policies.policy import PolicySpec
from maml_rl.rl import baseline

FLOAT, DOUBLE = 4, 8  # [bytes]


class Needs(NamedTuple):
    """A run's memory needs; evaluating it does not take the memory to train it."""

    evaluation: Sequence[Part]
    training: Sequence[Part]


def reinforcement(config: RunConfig, spec: PolicySpec, horizon: int) -> Needs:
    """The needs of a run in environments. horizon: the most steps of an episode."""
    training, evaluation = config.training, config.evaluation
    steps = config.task.sampling.episodes_per_task * horizon
    judged = config.as_evaluated.task.sampling.episodes_per_task * horizon
    row = (
        spec.observation_size + spec.distribution.action_width + 3
    ) * FLOAT + DOUBLE  # advantage, mask, log-prob; reward
    method = config.method
    num_steps = method.inner.num_steps if hasattr(method, "inner") else 0
    num_batches = num_steps + 2  # of each inner step, of the query, and a trajectory that becomes a batch
    features = baseline.num_features(spec.observation_size)
    hidden = method.policy.hidden_sizes if hasattr(method, "policy") else ()
    weights = _dense((spec.observation_size, *hidden, spec.distribution.action_width))
    lower = "lower {}, episodes_per_task or horizon, or make observations smaller"

    def needs(name: str, num_tasks: int, size: int, num_steps: int, setting: str) -> list[Part]:
        return [
            Part(f"trajectories of {name}", size, lower.format(setting)),
            Part("the baseline of one task", baseline.working_bytes(num_steps, features), lower.format(setting)),
            _parameters(weights, num_tasks, "policy.hidden_sizes", setting),
        ]

    judging, learning = evaluation.num_tasks * judged * row, training.num_tasks * steps * row * num_batches
    return Needs(
        needs("evaluation", evaluation.num_tasks, judging, judged, "evaluation.num_tasks"),
        needs("training", training.num_tasks, learning, steps, "num_tasks"),
    )


def sinusoid(config: RunConfig) -> Needs:
    settings = config.task

    def needs(num_tasks: int, setting: str) -> list[Part]:
        examples = num_tasks * settings.num_examples * 4 * FLOAT  # input and target, of support and query
        return [
            Part("examples", examples, f"lower {setting} or sinusoid.num_examples"),
            _parameters(_dense((1, *settings.hidden_sizes, 1)), num_tasks, "sinusoid.hidden_sizes", setting),
        ]

    return Needs(
        needs(config.evaluation.num_tasks, "evaluation.num_tasks"), needs(config.training.num_tasks, "num_tasks")
    )


def distributions(config: RunConfig) -> Needs:
    def needs(num_tasks: int, setting: str) -> list[Part]:
        numbers = num_tasks * config.task.num_examples * 2 * FLOAT  # of support and query
        return [Part("numbers", numbers, f"lower {setting} or distributions.num_examples")]

    return Needs(
        needs(config.evaluation.num_tasks, "evaluation.num_tasks"), needs(config.training.num_tasks, "num_tasks")
    )


def few_shot(config: RunConfig, num_channels: int) -> Needs:
    network_config, episodes = getattr(config.method, "network", ConvConfig(num_filters=1, norm="none")), config.task
    filters = network_config.num_filters
    size, width = episodes.training, episodes.images.image_size
    weights = 9 * filters * (num_channels + (NUM_LAYERS - 1) * filters) + network_config.num_features(width)
    network = _parameters(weights, 0, "num_filters", "")
    pictures = config.training.num_tasks * size.ways * (size.shots + size.queries)
    answers = config.evaluation.num_tasks * episodes.ways**2 * episodes.test_queries
    return Needs(
        [Part("the answers of evaluation", answers * FLOAT, "lower evaluation.num_tasks"), network],
        [
            Part("the pictures of an iteration", pictures * width**2 * num_channels * FLOAT, "lower num_tasks"),
            network,
        ],
    )


def _dense(widths: Sequence[int]) -> int:
    """Weights of a network with layers of these sizes."""
    return sum(before * after for before, after in itertools.pairwise(widths))


def _parameters(count: int, num_tasks: int, setting: str, setting_of_tasks: str) -> Part:
    """Parameters: the network's, and those adapted to each task."""
    own = num_tasks <= 1 or count > num_tasks  # which of the two is unusually large
    return Part("parameters", count * (1 + num_tasks) * FLOAT, f"lower {setting if own else setting_of_tasks}")
