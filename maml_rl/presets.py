"""The settings of the experiments that have a script of their own; where nothing is said, those of `RunConfig`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from maml_rl.config import SINUSOID, RunConfig
from maml_rl.core.inner import InnerConfig
from maml_rl.core.maml import OuterConfig
from maml_rl.core.outer.trust_region import TrustRegionConfig
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.rl.family import AdvantageConfig
from maml_rl.sampling.local import SamplingConfig
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

Preset = Literal["paper", "fast"]


def with_preset(config: RunConfig, preset: Preset) -> RunConfig:
    """The paper's settings as they are, or changed to learn faster: how much is in docs/findings.md.

    Raises:
        ValueError: if nothing faster is known for the environment.
    """
    if preset == "paper":
        return config
    if config.env_id not in FASTER:
        raise ValueError(f"preset fast exists for {sorted(FASTER)}, not for {config.env_id}: leave it out")
    return FASTER[config.env_id](config)


def _longer_steps_on_half_the_data(config: RunConfig) -> RunConfig:
    outer = config.outer
    trust_region = dataclasses.replace(outer.trust_region, max_kl=0.02)
    return dataclasses.replace(
        config,
        outer=dataclasses.replace(outer, trust_region=trust_region),
        sampling=dataclasses.replace(config.sampling, episodes_per_task=10),
        evaluation=dataclasses.replace(config.evaluation, episodes_per_task=20),  # as the paper's protocol
    )


FASTER = {"maml/HalfCheetahVel-rllab-v0": _longer_steps_on_half_the_data}
"""By environment id: what makes the paper's settings faster."""
