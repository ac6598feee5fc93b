"""The settings of the experiments that have a script of their own; where nothing is said, those of `RunConfig`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from maml_rl.config import IMAGES, OMNIGLOT, SINUSOID, LearnerName, RunConfig
from maml_rl.convnet import ConvConfig
from maml_rl.core.inner import InnerConfig
from maml_rl.core.maml import OuterConfig
from maml_rl.core.outer.gradient import GradientConfig
from maml_rl.core.outer.reptile import ReptileConfig
from maml_rl.core.outer.trust_region import TrustRegionConfig
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.fewshot.reptile import InnerOptimiserConfig
from maml_rl.rl.family import AdvantageConfig
from maml_rl.sampling.local import SamplingConfig
from maml_rl.supervised.episodes import EpisodeConfig, Supply
from maml_rl.training.trainer import TrainingConfig

_PRESETS = (
    RunConfig(env="maml/HalfCheetahVel-rllab-v0"),
    RunConfig(  # the paper's published run used max KL 0.02
        env="maml/HalfCheetahDir-rllab-v0",
        outer=OuterConfig(trust_region=TrustRegionConfig(max_kl=0.02)),
    ),
    RunConfig(env="maml/AntVel-rllab-v0"),
    RunConfig(  # 40 episodes, and later steps a hundredth of the first, as in the script that made the paper's figure
        env="maml/AntDir-rllab-v0",
        sampling=SamplingConfig(episodes_per_task=40),
        evaluation=EvaluationConfig(later_step_size=0.001),
    ),
    RunConfig(
        env="maml/Navigation2D-v0",
        training=TrainingConfig(num_iterations=15, num_tasks=20),
        inner=InnerConfig(step_size=0.5),
        evaluation=EvaluationConfig(first_step_size=0.5, later_step_size=0.25, episodes_per_task=40),  # appendix A.2
    ),
    *(
        RunConfig(  # n = 100 pulls, or 500 of 50 arms: two of the numbers in Duan et al. 2016
            env=f"maml/Bandit-K{num_arms}-v0",
            training=TrainingConfig(num_iterations=20, num_tasks=20),
            sampling=SamplingConfig(episodes_per_task=num_pulls),
            advantage=AdvantageConfig(discount=0.95),
            inner=InnerConfig(step_size=0.5),
            evaluation=EvaluationConfig(num_tasks=40, first_step_size=0.5, later_step_size=0.25),
        )
        for num_arms, num_pulls in ((5, 100), (10, 100), (50, 500))
    ),
    RunConfig(
        env="maml/TabularMDP-v0",
        training=TrainingConfig(num_iterations=30, num_tasks=20),
        sampling=SamplingConfig(episodes_per_task=25),
        advantage=AdvantageConfig(discount=0.95),
        inner=InnerConfig(step_size=0.5),
        evaluation=EvaluationConfig(num_tasks=40, first_step_size=0.5, later_step_size=0.25),
    ),
    RunConfig(  # the inner step of the published command, not of the paper's text (docs/findings.md)
        env=SINUSOID,
        training=TrainingConfig(num_iterations=70_000, num_tasks=25, evaluate_every=1000, checkpoint_every=1000),
        inner=InnerConfig(step_size=0.001),
        outer=OuterConfig(step="gradient"),
        evaluation=EvaluationConfig(num_tasks=600, num_steps=10, first_step_size=0.001, later_step_size=0.001),
    ),
)

PRESETS = {config.env_id: config for config in _PRESETS}
"""By environment id."""

Preset = Literal["paper", "fast", "warm"]


def with_preset(config: RunConfig, preset: Preset) -> RunConfig:
    """The paper's settings as they are, changed to learn faster, or changed to go on from the encoder of Prototypical
    Networks: what that gives is in docs/findings.md.

    Raises:
        ValueError: if nothing of the kind is known for the environment, or for the learner of few-shot classification.
    """
    if preset == "paper":
        return config
    if config.is_few_shot:
        learners = FEW_SHOT_PRESETS[preset]
        if config.learner not in learners:
            raise ValueError(
                f"preset {preset} exists for the learners {sorted(learners)}, not for {config.learner}: leave it out"
            )
        return learners[config.learner](config)
    worlds = FASTER if preset == "fast" else {}
    if config.env_id not in worlds:
        raise ValueError(f"preset {preset} exists for {sorted(worlds)}, not for {config.env_id}: leave it out")
    return worlds[config.env_id](config)


def _longer_steps_on_half_the_data(config: RunConfig) -> RunConfig:
    outer = config.outer
    trust_region = dataclasses.replace(outer.trust_region, max_kl=0.02)
    num_episodes = config.sampling.episodes_per_task
    return dataclasses.replace(
        config,
        outer=dataclasses.replace(outer, trust_region=trust_region),
        sampling=dataclasses.replace(config.sampling, episodes_per_task=num_episodes // 2),
        evaluation=dataclasses.replace(config.evaluation, episodes_per_task=num_episodes),  # as the paper's protocol
    )


FASTER = dict.fromkeys(
    ("maml/HalfCheetahVel-rllab-v0", "maml/AntVel-rllab-v0", "maml/AntDir-rllab-v0"), _longer_steps_on_half_the_data
)
"""By environment id: what makes the paper's settings faster."""


def _small_steps_and_head(config: RunConfig) -> RunConfig:
    """Steps of 0.4 on the mean loss and a small last layer leave the features in sight of the first gradients; few
    tasks of five queries a class, twice the learning rate and its decay to zero make the most of each second."""
    num_iterations = 16_000
    return dataclasses.replace(
        config,
        training=dataclasses.replace(config.training, num_iterations=num_iterations, num_tasks=8, evaluate_every=1000),
        inner=dataclasses.replace(config.inner, step_size=0.4),
        outer=dataclasses.replace(
            config.outer, gradient=GradientConfig(learning_rate=2e-3, decay="cosine", decay_steps=num_iterations)
        ),
        evaluation=dataclasses.replace(config.evaluation, first_step_size=0.4, later_step_size=0.4),
        network=dataclasses.replace(config.network, head_std=0.1),
        episodes=dataclasses.replace(config.episodes, queries=max(5, config.episodes.queries)),
    )


def _small_episodes(config: RunConfig) -> RunConfig:
    """A third of the pictures in an episode, and twice the learning rate, which decays to zero; of the cosines
    of Matching Networks, three times the factor."""
    num_iterations = 9000
    return dataclasses.replace(
        config,
        training=dataclasses.replace(config.training, num_iterations=num_iterations),
        outer=dataclasses.replace(
            config.outer, gradient=GradientConfig(learning_rate=2e-3, decay="cosine", decay_steps=num_iterations)
        ),
        episodes=dataclasses.replace(config.episodes, train_ways=20),
        matching=dataclasses.replace(config.matching, scale=30.0),
    )


def _from_prototypes(config: RunConfig) -> RunConfig:
    """The pooled network of Prototypical Networks with a last layer of zeros, whose first steps are then nearly theirs:
    five of them in training, too, and a learning rate that does not undo what has been learned."""
    num_iterations, step_size = 200, 0.02 * config.episodes.ways  # the loss is the mean over the classes
    return dataclasses.replace(
        config,
        training=dataclasses.replace(config.training, num_iterations=num_iterations, num_tasks=8, evaluate_every=50),
        inner=dataclasses.replace(config.inner, num_steps=5, step_size=step_size),
        outer=dataclasses.replace(
            config.outer, gradient=GradientConfig(learning_rate=1e-4, decay="cosine", decay_steps=num_iterations)
        ),
        evaluation=dataclasses.replace(
            config.evaluation, num_steps=5, first_step_size=step_size, later_step_size=step_size
        ),
        network=dataclasses.replace(config.network, architecture="pooled", head_std=0.0),
        episodes=dataclasses.replace(config.episodes, queries=max(5, config.episodes.queries)),
    )


FEW_SHOT_PRESETS: dict[Preset, dict[LearnerName, Callable[[RunConfig], RunConfig]]] = {
    "fast": {
        "maml": _small_steps_and_head,
        "fomaml": _small_steps_and_head,
        "anil": _small_steps_and_head,
        "meta-sgd": _small_steps_and_head,
        "prototypical": _small_episodes,
        "matching": _small_episodes,
    },
    "warm": {"maml": _from_prototypes, "fomaml": _from_prototypes},
}
"""By preset and learner, for few-shot classification."""


def require_beginning(preset: Preset, init_from: object) -> None:
    """
    Raises:
        ValueError: if a preset for a warm start has nothing to begin with.
    """
    if preset == "warm" and not init_from:
        raise ValueError(
            "preset warm must have init_from, got none: train --learner prototypical first and name the folder of "
            "that run"
        )


def few_shot(env: str, learner: LearnerName, ways: int, shots: int) -> RunConfig:
    """The settings of few-shot classification that hold where nothing is given: those of the learner's paper, which are
    for Omniglot, and in pictures of one's own neither its rotated classes nor its inverted strokes and nearest pixels.
    """
    config = omniglot(learner, ways, shots)
    if env == OMNIGLOT:
        return config
    images = dataclasses.replace(config.episodes.images, resize="area", invert=False)
    episodes = dataclasses.replace(config.episodes, rotations="none", test_rotations="none", images=images)
    return dataclasses.replace(config, env=IMAGES, episodes=episodes)


FITTED = ("ways", "train_ways", "train_shots", "queries", "test_queries")
"""Settings of episodes that a preset's are lowered to where the user's pictures are fewer."""


def most_ways(chosen: EpisodeConfig, train: Supply, held_out: Supply) -> int:
    """The largest number of classes in an episode, up to the chosen one, that the pictures allow."""
    few = held_out.num_classes if chosen.train_ways else min(train.num_classes, held_out.num_classes)
    return max(2, min(chosen.ways, few))


def fitted(chosen: EpisodeConfig, given: EpisodeConfig, train: Supply, held_out: Supply) -> EpisodeConfig:
    """`chosen` with no more training classes, and no more pictures of a class, than there are.

    Args:
        chosen: a preset's.
        given: the same with what the user gave, which is left as it is.
        train, held_out: the classes to learn from, and those that evaluate.
    """
    now = {name: getattr(given, name) for name in FITTED[1:]}
    free = {name for name, value in now.items() if value is not None and value == getattr(chosen, name)}

    def limit(name: str, most: int, least: int = 1) -> None:
        if name in free:
            now[name] = max(least, min(now[name], most))

    limit("train_ways", train.num_classes, least=2)
    limit("queries", train.fewest - (now["train_shots"] or given.shots))
    limit("train_shots", train.fewest - now["queries"])
    limit("test_queries", held_out.fewest - given.shots)
    return dataclasses.replace(chosen, **{name: now[name] for name in free})


def fitting_in_words(before: EpisodeConfig, after: EpisodeConfig, train: Supply, held_out: Supply) -> str | None:
    """A sentence on what `fitted` and `most_ways` have lowered, if they have."""
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in FITTED}
    lowered = [f"{name} is {new} in place of {old}" for name, (old, new) in pairs.items() if old != new]
    if not lowered:
        return None
    return f"{', '.join(lowered)}: there are {train} to train on, and {held_out} to evaluate on"


def omniglot(learner: LearnerName, ways: int, shots: int) -> RunConfig:
    """The protocol of the learner's paper and its published code, for so many classes and pictures of each.

    Where 5 classes have settings other than 20, fewer than 10 take those of 5.
    """
    few = ways < 10
    episodes = EpisodeConfig(ways=ways, shots=shots, queries=shots)
    config = RunConfig(
        env=OMNIGLOT,
        learner=learner,
        training=TrainingConfig(
            num_iterations=60_000, num_tasks=32 if few else 16, evaluate_every=500, checkpoint_every=100
        ),
        # the published code's loss is the mean over a class's pictures and the sum over classes: 0.4 of 5, 0.1 of 20
        inner=InnerConfig(num_steps=1 if few else 5, step_size=0.4 * ways if few else 0.1 * ways, **_inner_of(learner)),
        outer=OuterConfig(step="gradient"),
        evaluation=_steps(3 if few else 5, 0.4 * ways if few else 0.1 * ways),
        episodes=episodes,
    )
    if learner == "reptile":
        return _reptile(config, few)
    if learner == "joint":
        return dataclasses.replace(
            config,
            training=dataclasses.replace(config.training, num_iterations=20_000),
            inner=InnerConfig(step_size=0.1),
            evaluation=_steps(10, 0.1),
        )
    if learner in ("prototypical", "matching"):
        return dataclasses.replace(
            config,
            training=dataclasses.replace(config.training, num_iterations=20_000, num_tasks=1),
            outer=OuterConfig(step="gradient", gradient=GradientConfig(decay="halve", decay_steps=2000)),
            evaluation=_steps(0, 1.0),
            episodes=dataclasses.replace(
                episodes, train_ways=60 if learner == "prototypical" else max(20, ways), queries=5, test_queries=15
            ),
            network=ConvConfig("pooled", norm="running"),
        )
    if learner == "pixels":
        training = dataclasses.replace(config.training, num_iterations=0)
        network = ConvConfig(norm="none")
        return dataclasses.replace(config, training=training, evaluation=_steps(0, 1.0), network=network)
    return config


def _inner_of(learner: LearnerName) -> dict[str, Any]:
    """What tells apart those that take MAML's steps. In its code scale and bias of the normalisation do not adapt."""
    kinds: dict[str, dict[str, Any]] = {
        "fomaml": {"first_order": True, "only": ("conv", "head")},
        "anil": {"only": ("head",)},
        "meta-sgd": {"learn_step_sizes": True},
    }
    return kinds.get(learner, {"only": ("conv", "head")})


def _reptile(config: RunConfig, few: bool) -> RunConfig:
    """Its published code's settings for 5 and for 20 classes; queries are seen by one beside the support."""
    num_iterations, step_size = (100_000, 0.001) if few else (200_000, 0.0005)
    return dataclasses.replace(
        config,
        training=dataclasses.replace(config.training, num_iterations=num_iterations, num_tasks=5),
        inner=InnerConfig(num_steps=5 if few else 10, step_size=step_size),
        inner_optimiser=InnerOptimiserConfig(batch_size=10 if few else 20, test_batch_size=5 if few else 10),
        outer=OuterConfig(step="reptile", reptile=ReptileConfig(1.0, decay_steps=num_iterations)),
        evaluation=_steps(50, step_size),
        episodes=dataclasses.replace(config.episodes, train_shots=10, queries=1),
        network=ConvConfig(features="flatten", norm="support", head_std=0.1),
    )


def _steps(num_steps: int, step_size: float) -> EvaluationConfig:
    return EvaluationConfig(num_tasks=100, num_steps=num_steps, first_step_size=step_size, later_step_size=step_size)
