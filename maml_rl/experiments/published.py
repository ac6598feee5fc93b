"""Published scores. Those of task environments are of Finn et al. 2017, figures 4 and 5, decoded from the result files
that belong to them.

Mean return over 40 test tasks after 0, 1, ... gradient steps: icml/icml_<env>_results_<method>.pkl of
github.com/cbfinn/maml_rl. Step sizes of the methods that are not meta-trained: maml_examples/test_maml_*.py there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from maml_rl.experiments.config import SINUSOID, RunConfig
from maml_rl.supervised.sinusoid import SinusoidConfig


class Published(NamedTuple):
    """One environment of the paper."""

    maml: tuple[float, ...]
    pretrained: tuple[float, ...]
    random: tuple[float, ...]
    oracle: float  # without a gradient step
    pretrained_step_size: float  # of the first step; later ones are shortened as MAML's are
    random_step_size: float


PUBLISHED = {
    "maml/HalfCheetahVel-rllab-v0": Published(
        (-129.5, -78.6, -66.6, -60.8),
        (-158.0, -135.4, -128.5, -133.6),
        (-254.8, -254.3, -246.8, -230.8),
        -54.5,
        pretrained_step_size=0.02,
        random_step_size=0.1,
    ),
    "maml/HalfCheetahDir-rllab-v0": Published(
        (-50.7, 293.2, 313.5, 315.7),
        (-43.0, -24.8, -12.9, 19.6),
        (-35.7, 21.8, 62.3, 86.2),
        442.7,
        pretrained_step_size=0.2,
        random_step_size=0.5,
    ),
    "maml/AntVel-rllab-v0": Published(
        (30.6, 96.7, 100.1, 101.4),
        (-1.8, 6.1, 8.5, 9.5),
        (-78.6, -62.8, -48.6, -35.6),
        107.9,
        pretrained_step_size=0.2,
        random_step_size=1.0,
    ),
    "maml/AntDir-rllab-v0": Published(
        (8.7, 499.2, 500.7, 499.1),
        (3.2, 1.3, 6.5, 6.9),
        (3.1, 9.3, 16.0, 26.1),
        524.8,
        pretrained_step_size=0.2,
        random_step_size=1.0,
    ),
    "maml/Navigation2D-v0": Published(
        (-40.4, -11.7, -3.33, -3.23, -3.35),
        (-40.8, -19.7, -11.7, -8.5, -7.5),  # the file is named sens0; probably the pretrained policy
        (-82.7, -58.0, -53.8, -46.8, -42.9),
        -2.29,
        pretrained_step_size=0.5,
        random_step_size=0.5,
    ),
}
"""Published numbers by environment id."""


def in_published_physics(env: str) -> str:
    """The id of the same tasks in the paper's physics, by which published numbers and tasks are found."""
    return env.replace("-gym-", "-rllab-")


SINUSOID_SHOTS = 5
SINUSOID_PUBLISHED = {"MAML": {1: 0.67, 5: 0.38, 10: 0.35}, "pretrained": {1: 2.41, 5: 2.23, 10: 2.19}}
"""Mean squared error on sinusoids by number of gradient steps on SINUSOID_SHOTS examples: Finn et al. 2017, table 2.

Both learned from ten examples of a task; pretrained: from all tasks at once.
"""


def published_curves(config: RunConfig) -> Mapping[str, Mapping[int, float]]:
    """The paper's scores by policy or method and number of gradient steps, where it has some of a run's tasks."""
    if config.env == SINUSOID:
        ranges = ("amplitude_range", "phase_range", "input_range")
        is_the_papers = all(getattr(config.task, name) == getattr(SinusoidConfig, name) for name in ranges)
        return SINUSOID_PUBLISHED if is_the_papers else {}
    found = PUBLISHED.get(config.env)
    if found is None:
        return {}
    curves = {"MAML": found.maml, "pretrained": found.pretrained, "random": found.random, "oracle": (found.oracle,)}
    return {name: dict(enumerate(scores)) for name, scores in curves.items()}


FEW_SHOT_PUBLISHED = {
    ("maml", 5, 1): 0.987,
    ("maml", 5, 5): 0.999,
    ("maml", 20, 1): 0.958,
    ("maml", 20, 5): 0.989,
    ("fomaml", 5, 1): 0.983,
    ("fomaml", 5, 5): 0.992,
    ("fomaml", 20, 1): 0.894,
    ("fomaml", 20, 5): 0.979,
    ("reptile", 5, 1): 0.9539,
    ("reptile", 5, 5): 0.9890,
    ("reptile", 20, 1): 0.8814,
    ("reptile", 20, 5): 0.9665,
    ("prototypical", 5, 1): 0.988,
    ("prototypical", 5, 5): 0.997,
    ("prototypical", 20, 1): 0.960,
    ("prototypical", 20, 5): 0.989,
    ("matching", 5, 1): 0.981,
    ("matching", 5, 5): 0.989,
    ("matching", 20, 1): 0.938,
    ("matching", 20, 5): 0.985,
    ("memory", 5, 1): 0.984,
    ("memory", 5, 5): 0.996,
    ("memory", 20, 1): 0.950,
    ("memory", 20, 5): 0.986,
    ("neural-statistician", 5, 1): 0.981,
    ("neural-statistician", 5, 5): 0.995,
    ("neural-statistician", 20, 1): 0.932,
    ("neural-statistician", 20, 5): 0.981,
}
"""Accuracy on Omniglot by (learner, ways, shots), each with the splits and the normalisation of its authors.

MAML: Finn et al. 2017, table 1. First-order MAML and Reptile (without transduction): Nichol et al. 2018 (v3), table 2.
Prototypical Networks: Snell et al. 2017, table 1, and Matching Networks (cosine, without fine-tuning) as quoted there.
Memory module: Kaiser et al. 2017, by showings, as quoted by Finn et al. 2017, table 1.
Neural Statistician: Edwards and Storkey 2017, table 1.
"""

REPTILE_TRANSDUCTIVE = {(5, 1): 0.9768, (5, 5): 0.9948, (20, 1): 0.8943, (20, 5): 0.9712}
"""Reptile's accuracy by (ways, shots) with the queries normalised together: Nichol et al. 2018 (v3), table 2."""

FEW_SHOT_REPRODUCED = {
    ("prototypical", 5, 1): 0.984,
    ("prototypical", 5, 5): 0.996,
    ("prototypical", 20, 1): 0.949,
    ("prototypical", 20, 5): 0.986,
    ("matching", 5, 1): 0.983,
    ("matching", 5, 5): 0.998,
    ("matching", 20, 1): 0.928,
    ("matching", 20, 5): 0.978,
    ("maml", 5, 1): 0.981,
    ("maml", 5, 5): 0.998,
    ("maml", 20, 1): 0.916,
    ("maml", 20, 5): 0.959,
    ("fomaml", 5, 1): 0.955,
    ("fomaml", 5, 5): 0.995,
    ("fomaml", 20, 1): 0.922,
    ("fomaml", 20, 5): 0.977,
    ("memory", 5, 1): 0.960,
    ("memory", 5, 5): 0.992,
}
"""Accuracy on Omniglot by (learner, ways, shots) that others reached.

Prototypical Networks: their authors' code, as three people report in its issue 2. Matching Networks (by Euclidean
distance), MAML and first-order MAML: github.com/oscarknagg/few-shot. Memory module: its released code after 4,000
episodes, as its README reports.
"""
