"""Default settings: each environment's own experiment, each learner's paper on pictures, and faster variants."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from maml_rl.core.outer.choice import ProximalOuter, TrustRegionOuter
from maml_rl.core.outer.trust_region import TrustRegionConfig
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.experiments.config import (
    DISTRIBUTIONS,
    IMAGES,
    SINUSOID,
    SINUSOID_OR_LINE,
    EnvironmentConfig,
    EpisodeEvaluationConfig,
    RunConfig,
    kind_of,
    make_config,
)
from maml_rl.experiments.table import LEARNERS, learner_entry
from maml_rl.learners import guided
from maml_rl.learners.entry import Protocol
from maml_rl.learners.maml import PolicyInnerConfig, ReinforcementConfig
from maml_rl.rl.model import AdvantageConfig
from maml_rl.sampling.local import SamplingConfig
from maml_rl.supervised.episodes import EpisodeConfig
from maml_rl.training.trainer import TrainingConfig

Preset = Literal["paper", "fast", "warm"]

PAPER_INNER = PolicyInnerConfig(later_ratio=0.5)  # the paper halves the step after the first at test
LARGE_INNER = PolicyInnerConfig(step_size=0.5, later_ratio=0.5)


@dataclass(frozen=True)
class Experiment:
    """An environment's own experiment: settings for every learner, and those of MAML."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    evaluation: EpisodeEvaluationConfig = field(default_factory=EpisodeEvaluationConfig)
    maml: ReinforcementConfig = field(default_factory=lambda: ReinforcementConfig(inner=PAPER_INNER))


def _bandit(num_pulls: int) -> Experiment:
    """The bandits' experiment: n = 100 pulls, or 500 of 50 arms, two of the numbers in Duan et al. 2016."""
    return Experiment(
        TrainingConfig(num_iterations=20, num_tasks=20),
        SamplingConfig(episodes_per_task=num_pulls),
        EpisodeEvaluationConfig(num_tasks=40),
        ReinforcementConfig(advantage=AdvantageConfig(discount=0.95), inner=LARGE_INNER),
    )


EXPERIMENTS: dict[str, Experiment] = {
    "maml/HalfCheetahVel-rllab-v0": Experiment(),
    "maml/HalfCheetahDir-rllab-v0": Experiment(  # the paper's published run used max KL 0.02
        maml=ReinforcementConfig(inner=PAPER_INNER, outer=TrustRegionOuter(trust_region=TrustRegionConfig(max_kl=0.02)))
    ),
    "maml/AntVel-rllab-v0": Experiment(),
    # 40 episodes, and later steps a hundredth of the first, as in the script that made the paper's figure
    "maml/AntDir-rllab-v0": Experiment(
        sampling=SamplingConfig(episodes_per_task=40),
        maml=ReinforcementConfig(inner=PolicyInnerConfig(later_ratio=0.01)),
    ),
    "maml/Navigation2D-v0": Experiment(
        TrainingConfig(num_iterations=15, num_tasks=20),
        evaluation=EpisodeEvaluationConfig(episodes_per_task=40),  # appendix A.2
        maml=ReinforcementConfig(inner=LARGE_INNER),
    ),
    "maml/Bandit-K5-v0": _bandit(100),
    "maml/Bandit-K10-v0": _bandit(100),
    "maml/Bandit-K50-v0": _bandit(500),
    "maml/TabularMDP-v0": Experiment(
        TrainingConfig(num_iterations=30, num_tasks=20),
        SamplingConfig(episodes_per_task=25),
        EpisodeEvaluationConfig(num_tasks=40),
        ReinforcementConfig(advantage=AdvantageConfig(discount=0.95), inner=LARGE_INNER),
    ),
}
"""Experiments by environment id, in the paper's physics."""

OTHERS = Experiment(maml=ReinforcementConfig())
"""Settings for a user's environment: those of HalfCheetah-Vel, without its halved steps at test."""


def default_config(env: str, learner: str, preset: Preset = "paper", ways: int = 5, shots: int = 1) -> RunConfig:
    """The settings for everything that the user does not give.

    Args:
        env: a full id, or the name of another kind of tasks.
        ways, shots: of pictures.
    Raises:
        ValueError: if the learner does not take such tasks, or there is no such preset for it.
    """
    kind = kind_of(env)
    entry = learner_entry(learner, kind)
    if kind == "pictures":
        return _pictures(env, learner, preset, ways, shots)
    if kind == "regression":
        _require_known(preset, preset == "paper", _environments_with(preset), env)
        return _sinusoid(learner) if env == SINUSOID else _sinusoid_or_line(learner)
    if kind == "density":
        _require_known(preset, preset in DENSITY_ITERATIONS, list(DENSITY_ITERATIONS), env)
        return _density(learner, preset)
    experiment = _experiment(env)
    method = entry.configs[kind]()
    if isinstance(method, ReinforcementConfig):
        method = _kin(experiment.maml, method, ReinforcementConfig())
    config = make_config(
        env,
        learner,
        method,
        training=experiment.training,
        evaluation=experiment.evaluation,
        task=EnvironmentConfig(sampling=experiment.sampling),
    )
    if preset == "paper":
        return config
    _require_known(preset, env in _environments_with(preset), _environments_with(preset), env)
    return _guided(config) if isinstance(config.method, guided.Config) else FASTER[env](config)


def _experiment(env: str) -> Experiment:
    """The environment's own experiment; in Gymnasium's physics that of the paper's; else that of HalfCheetah-Vel."""
    if not env.startswith("maml/"):
        return OTHERS
    return EXPERIMENTS.get(env.replace("-gym-", "-rllab-"), EXPERIMENTS["maml/HalfCheetahVel-rllab-v0"])


def _kin(base: Any, own: Any, plain: Any) -> Any:
    """MAML's settings for an environment, changed where the learner's own settings differ from plain MAML's, and of the
    learner's own type."""
    changes: dict[str, Any] = {}
    for each in dataclasses.fields(base):
        mine, usual = getattr(own, each.name), getattr(plain, each.name)
        if mine == usual:
            continue
        same = type(mine) is type(usual) and dataclasses.is_dataclass(mine)
        changes[each.name] = _kin(getattr(base, each.name), mine, usual) if same else mine
    return type(own)(**{each.name: getattr(base, each.name) for each in dataclasses.fields(base)} | changes)


def _sinusoid(learner: str) -> RunConfig:
    """Settings for sinusoids, with the inner step of the published command, not of the paper's text
    (docs/findings.md)."""
    method = learner_entry(learner, "regression").configs["regression"]()
    if hasattr(method, "inner"):
        method = replace(method, inner=replace(method.inner, step_size=0.001))
    return make_config(
        SINUSOID,
        learner,
        method,
        training=TrainingConfig(num_iterations=70_000, num_tasks=25, evaluate_every=1000, checkpoint_every=1000),
        evaluation=EvaluationConfig(num_tasks=600, num_steps=10),
    )


def _sinusoid_or_line(learner: str) -> RunConfig:
    """Settings for sinusoids and lines: five steps, which fit five points."""
    config = _sinusoid(learner)
    method = config.method
    if hasattr(method, "inner"):
        method = replace(method, inner=replace(method.inner, num_steps=5, step_size=0.01))
    training = replace(config.training, num_iterations=30_000)
    evaluation = replace(config.evaluation, num_steps=5)
    return make_config(SINUSOID_OR_LINE, learner, method, training=training, evaluation=evaluation)


DENSITY_ITERATIONS: dict[Preset, int] = {"paper": 31_250, "fast": 6_000}
"""Iterations on distributions: 50 epochs of 10,000 sets, 16 at once (Edwards and Storkey 2017, section 5.1); or
minutes."""


def _density(learner: str, preset: Preset) -> RunConfig:
    """Settings for distributions: the support and the query of 8 tasks are 16 sets."""
    method, num_iterations = learner_entry(learner, "density").configs["density"](), DENSITY_ITERATIONS[preset]
    if preset == "fast" and hasattr(method, "bound"):
        adam = replace(method.outer.gradient, learning_rate=2e-3, decay="cosine", decay_steps=num_iterations)
        bound = replace(method.bound, halving_steps=50)
        sizes = replace(method.sizes, latent_size=2)  # more describe a number so well that the context says little
        method = replace(method, outer=replace(method.outer, gradient=adam), bound=bound, sizes=sizes)
    training = TrainingConfig(num_iterations, num_tasks=8, evaluate_every=500, checkpoint_every=500)
    return make_config(DISTRIBUTIONS, learner, method, training=training, evaluation=EvaluationConfig(num_tasks=200))


def _pictures(env: str, learner: str, preset: Preset, ways: int, shots: int) -> RunConfig:
    """The settings of the learner's paper, which is about Omniglot; the user's own pictures have neither its rotated
    classes nor its inverted strokes and nearest pixels."""
    entry = learner_entry(learner, "pictures")
    protocol = (
        entry.paper(ways, shots)
        if entry.paper
        else Protocol(
            1000, 8, EpisodeConfig(ways=ways, shots=shots), EvaluationConfig(100), entry.configs["pictures"]()
        )
    )
    if preset != "paper":
        _require_known(preset, preset in entry.presets, f"the learners {learners_with(preset)}", learner)
        protocol = entry.presets[preset](protocol)
    episodes = protocol.episodes
    if env == IMAGES:
        images = replace(episodes.images, resize="area", invert=False)
        episodes = replace(episodes, rotations="none", test_rotations="none", images=images)
    training = TrainingConfig(
        protocol.num_iterations, protocol.num_tasks, protocol.evaluate_every, checkpoint_every=100
    )
    return make_config(env, learner, protocol.config, training=training, evaluation=protocol.evaluation, task=episodes)


def learners_with(preset: Preset) -> list[str]:
    """The learners of pictures for which there is such a preset."""
    return sorted(name for name, entry in LEARNERS.items() if preset in entry.presets)


def _require_known(preset: Preset, is_known: bool, known: object, name: str) -> None:
    if not is_known:
        where = f"exists for {known}, not for {name}" if known else f"does not exist for {name}"
        raise ValueError(f"preset {preset} {where}: leave it out")


def _longer_steps_on_less_data(config: RunConfig) -> RunConfig:
    """Normalised observations, a policy before adaptation that serves most tasks, advantages of less variance, and
    longer steps on ten episodes of a task. docs/findings.md has the effect of each."""
    method = replace(
        config.method,
        outer=_longer(getattr(config.method, "outer", None), config.learner, max_kl=0.1),
        advantage=replace(config.method.advantage, gae_lambda=0.95),
        inner=replace(config.method.inner, before_weight=1.0),
    )
    number = config.task.sampling.episodes_per_task
    sampling = replace(config.task.sampling, episodes_per_task=10)
    return replace(
        config,
        method=method,
        task=replace(config.task, sampling=sampling, observations="normalised"),
        training=replace(config.training, num_iterations=100),
        evaluation=replace(config.evaluation, episodes_per_task=number),  # as the paper's protocol
    )


def _guided(config: RunConfig) -> RunConfig:
    """For an expert that was trained by the same preset: its observations, advantages and step length, and few tasks
    and iterations, since an expert's answers are hardly noisy. Where it has been measured that a clone of the expert
    learns to turn faster than a new policy, it begins as one. docs/findings.md has the effects."""
    expert = default_config(config.env, "maml", "fast")
    clone = replace(config.method.clone, num_iterations=5 if config.env == "maml/AntDir-rllab-v0" else 0)
    method = replace(config.method, clone=clone, outer=expert.method.outer, advantage=expert.method.advantage)
    number = config.task.sampling.episodes_per_task
    return replace(
        config,
        method=method,
        task=replace(expert.task, sampling=replace(config.task.sampling, episodes_per_task=20)),
        training=replace(config.training, num_iterations=40, num_tasks=20),
        evaluation=replace(config.evaluation, episodes_per_task=config.evaluation.episodes_per_task or number),
    )


def _nearer_ahead(config: RunConfig) -> RunConfig:
    """For navigation, whose rewards tell at once: advantages that look a few steps ahead, a policy before adaptation
    that serves most tasks, longer outer steps, and inner ones by the return. docs/findings.md has the effect of
    each."""
    method = replace(
        config.method,
        outer=_longer(getattr(config.method, "outer", None), config.learner, max_kl=0.05),
        advantage=replace(config.method.advantage, gae_lambda=0.7),
        inner=replace(config.method.inner, before_weight=1.0),
    )
    config = replace(config, method=method, training=replace(config.training, num_iterations=100))
    return _steps_by_return(config, -40.0)


def _steps_by_return(config: RunConfig, unit_return: float) -> RunConfig:
    """Inner steps in proportion to a task's return, which says how far off its target is."""
    inner = replace(config.method.inner, unit_return=unit_return)
    return replace(config, method=replace(config.method, inner=inner))


def _to_a_speed(config: RunConfig) -> RunConfig:
    return _steps_by_return(_longer_steps_on_less_data(config), -120.0)


def _longer(outer: object, learner: str, max_kl: float) -> TrustRegionOuter | ProximalOuter:
    """The outer step with this much KL, with twice ProMP's epochs if it is ProMP's.

    Raises:
        ValueError: for an outer step whose length is not a matter of KL.
    """
    if isinstance(outer, TrustRegionOuter):
        return replace(outer, trust_region=replace(outer.trust_region, max_kl=max_kl))
    if isinstance(outer, ProximalOuter):
        return replace(outer, proximal=replace(outer.proximal, epochs=10, clip=0.5, max_kl=max_kl))
    raise ValueError(
        f"preset fast lengthens trust_region and proximal outer steps, but that of learner {learner} is another: leave "
        "the preset out, and give the settings that you want of it as flags"
    )


def _in_both_physics(*robots: str) -> list[str]:
    return [f"maml/{robot}-{physics}-v0" for robot in robots for physics in ("rllab", "gym")]


FASTER: dict[str, Callable[[RunConfig], RunConfig]] = {
    **dict.fromkeys(_in_both_physics("HalfCheetahVel"), _to_a_speed),
    **dict.fromkeys(_in_both_physics("HalfCheetahDir", "AntVel", "AntDir"), _longer_steps_on_less_data),
    "maml/Navigation2D-v0": _nearer_ahead,
}
"""Functions by environment id that make the paper's settings faster."""


def _environments_with(preset: Preset) -> list[str]:
    """The environments for which there is such a preset, besides the paper's."""
    return sorted(FASTER) if preset == "fast" else []


def require_beginning(preset: Preset, init_from: object) -> None:
    """Refuse a warm start without a run to begin with.

    Raises:
        ValueError: if a preset for a warm start has nothing to begin with.
    """
    if preset == "warm" and not init_from:
        raise ValueError(
            "preset warm must have init_from, got none: train --learner prototypical first, for platipus --learner "
            "maml, and name the folder of that run"
        )
