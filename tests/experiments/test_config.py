"""The settings of a run: which there are, which go together, and which a resumed run may change."""

import dataclasses

import pytest

from maml_rl.core.adam import AdamConfig
from maml_rl.core.inner import InnerConfig
from maml_rl.core.outer.choice import OUTER_STEPS, GradientOuter, ReptileOuter
from maml_rl.core.outer.reptile import ReptileConfig
from maml_rl.experiments.config import (
    EpisodeEvaluationConfig,
    RunConfig,
    config_type,
    forbidden_changes,
    kind_of,
    outer_steps,
    with_outer_step,
)
from maml_rl.experiments.environments import full_id
from maml_rl.experiments.flags import flags_of
from maml_rl.experiments.presets import default_config
from maml_rl.experiments.table import LEARNERS, learner_entry
from maml_rl.learners.maml import PolicyInnerConfig
from maml_rl.policies.scale import ObservationScale
from maml_rl.training.trainer import TrainingConfig

VEL = "maml/HalfCheetahVel-rllab-v0"
ENVS = {"reinforcement": VEL, "regression": "sinusoid", "pictures": "omniglot", "density": "distributions"}
PAIRS = [(name, kind) for name, entry in LEARNERS.items() for kind in entry.kinds]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_run_has_the_settings_of_its_task_and_learner_only(name, kind):
    flags = set(flags_of(default_config(ENVS[kind], name)))
    assert {"--seed", "--num-iterations", "--evaluation.num-tasks"} <= flags
    assert ("--episodes-per-task" in flags) == ("--policy.init-std" in flags) == (kind == "reinforcement")
    assert ("--evaluation.split" in flags) == (kind == "reinforcement")
    assert ("--sinusoid.num-examples" in flags) == (kind == "regression")
    assert ("--ways" in flags) == (kind == "pictures")
    assert ("--num-filters" in flags) == (kind == "pictures" and name != "pixels")
    assert ("--matching.scale" in flags) == (name == "matching")
    assert ("--inner-optimiser.kind" in flags) == (kind == "pictures" and name == "reptile")
    assert ("--inner.step-size" in flags) == LEARNERS[name].gradient_steps
    steps = {f"--outer.{step.replace('_', '-')}" for step in OUTER_STEPS}
    assert len({step for step in steps for flag in flags if flag.startswith(f"{step}.")}) == (name != "pixels")


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_every_outer_step_that_a_learner_takes_can_be_chosen(name, kind):
    config = default_config(ENVS[kind], name)
    for step in outer_steps(config):
        chosen = with_outer_step(config, step)
        assert chosen.method.outer.step == step and type(chosen) is type(config)
        assert dataclasses.replace(chosen, method=config.method) == config
    others = OUTER_STEPS.keys() - outer_steps(config)
    for step in others:
        with pytest.raises(ValueError, match=rf"outer\.step must be .* for learner {name}.* got '{step}'"):
            with_outer_step(config, step)
    maml_s = name in ("maml", "fomaml", "anil", "meta-sgd", "gmps")
    assert (len(others) == 1) == maml_s and (len(others) == len(OUTER_STEPS)) == (name == "pixels")


def test_the_outer_step_of_a_learner_stays_as_it_is_set():
    config = default_config("maml/HalfCheetahDir-rllab-v0", "maml")
    assert with_outer_step(config, "trust_region") is config and config.method.outer.trust_region.max_kl == 0.02
    with pytest.raises(ValueError, match="take --learner reptile"):
        with_outer_step(config, "reptile")
    with pytest.raises(ValueError, match=r"outer\.step must be left out for learner pixels, which has none"):
        with_outer_step(default_config("omniglot", "pixels"), "gradient")


def test_an_outer_step_s_name_is_that_of_its_settings():
    with pytest.raises(ValueError, match=r"outer\.step must be gradient beside the settings of gradient, got reptile"):
        GradientOuter(step="reptile")


def test_configs_of_one_kind_and_learner_are_of_one_type():
    assert type(default_config(VEL, "maml")) is type(default_config("maml/AntVel-gym-v0", "fomaml"))
    assert config_type("sinusoid", learner_entry("maml", "regression")) is type(default_config("sinusoid", "maml"))
    assert type(default_config("sinusoid", "maml")) is not type(default_config("omniglot", "maml"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"device": "tpu"}, "device must be cpu, cuda or cuda:N, got 'tpu'"),
        ({"num_threads": -1}, "num_threads must be at least 1, or 0 for one per core, got -1"),
        ({"num_threads": 10_001}, "num_threads must be at most 10000, got 10001"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        RunConfig("sinusoid", "maml", **settings)


def test_names_say_the_kind_of_tasks():
    assert [kind_of(env) for env in ("sinusoid", "omniglot", "images")] == ["regression", "pictures", "pictures"]
    assert all(kind_of(env) == "reinforcement" for env in (VEL, "AntVel", "module:Class", "CartPole-v1"))
    assert default_config(VEL, "maml").env_name == "HalfCheetahVel-rllab-v0"
    assert default_config("my.module:MyEnv", "maml").env_name == "MyEnv"


def test_evaluation_may_have_episodes_of_its_own_number():
    config = default_config("maml/Navigation2D-v0", "maml")
    assert config.task.sampling.episodes_per_task == 20
    assert config.as_evaluated.task.sampling.episodes_per_task == 40
    for other in (default_config(VEL, "maml"), default_config("sinusoid", "maml"), default_config("images", "maml")):
        assert other.as_evaluated is other


def test_a_resumed_run_may_only_change_how_long_where_and_what_is_measured():
    saved = default_config(VEL, "meta-sgd")
    where = dataclasses.replace(
        saved.task.sampling, sampler="ray", num_workers=7, task_timeout=5.0, ray_address="head:6379"
    )
    scale = ObservationScale((0.0,), (1.0,))  # measured, not chosen: who asks for the same run need not know it
    allowed = dataclasses.replace(
        saved,
        device="cuda:1",
        num_threads=3,
        training=TrainingConfig(num_iterations=7, evaluate_every=3, max_minutes=1.0),
        task=dataclasses.replace(saved.task, sampling=where, observation_scale=scale),
        evaluation=EpisodeEvaluationConfig(7, 1, 5, 4, "train"),
        method=dataclasses.replace(saved.method, outer=GradientOuter(gradient=AdamConfig(decay_steps=7))),
    )
    assert forbidden_changes(saved, allowed) == []
    inner = PolicyInnerConfig(step_size=0.5, learn_step_sizes=True, later_ratio=0.5)
    method = dataclasses.replace(saved.method, inner=inner)
    task = dataclasses.replace(saved.task, oracle=True)
    assert forbidden_changes(saved, dataclasses.replace(saved, method=method, seed=2, task=task)) == [
        "method.inner.step_size was 0.1, now 0.5",
        "seed was 1, now 2",
        "task.oracle was False, now True",
    ]


def test_a_resumed_few_shot_run_may_be_asked_other_episodes():
    saved = default_config("omniglot", "reptile")
    outer = ReptileOuter(reptile=dataclasses.replace(saved.method.outer.reptile, decay_steps=7))
    asked = dataclasses.replace(
        saved.task, data_root="elsewhere", test_queries=3, evaluate_on="test", test_rotations="none"
    )
    changed = dataclasses.replace(saved, task=asked, method=dataclasses.replace(saved.method, outer=outer))
    assert forbidden_changes(saved, changed) == []
    other = ReptileOuter(reptile=ReptileConfig(0.5, saved.method.outer.reptile.decay_steps))
    changed = dataclasses.replace(
        saved,
        task=dataclasses.replace(saved.task, ways=7),
        method=dataclasses.replace(saved.method, outer=other, inner=InnerConfig(num_steps=5, step_size=0.002)),
    )
    assert forbidden_changes(saved, changed) == [
        "method.inner.step_size was 0.001, now 0.002",
        "method.outer.reptile.step_size was 1.0, now 0.5",
        "task.ways was 5, now 7",
    ]


def test_another_learner_or_outer_step_is_another_run():
    saved = default_config(VEL, "maml")
    changes = forbidden_changes(saved, with_outer_step(saved, "gradient"))
    assert "method.outer.step was 'trust_region', now 'gradient'" in changes
    assert "learner was 'maml', now 'fomaml'" in forbidden_changes(saved, default_config(VEL, "fomaml"))


def test_physics_replaces_what_the_id_names():
    assert full_id("HalfCheetahVel", "gym") == "maml/HalfCheetahVel-gym-v0"
    assert full_id("maml/HalfCheetahDir-gym-v0", "rllab") == "maml/HalfCheetahDir-rllab-v0"
    assert full_id("maml/HalfCheetahVel-rllab-v0", "rllab") == "maml/HalfCheetahVel-rllab-v0"
    for env in ("maml/Navigation2D-v0", "Navigation2D"):
        with pytest.raises(ValueError, match=f"physics gym does not apply to {env}"):
            full_id(env, "gym")
    with pytest.raises(ValueError, match="physics rllab applies to robots, not to sinusoid"):
        full_id("sinusoid", "rllab")


def test_a_short_name_stands_for_an_id():
    assert full_id("AntVel", None) == full_id("AntVel", "rllab") == "maml/AntVel-rllab-v0"
    assert full_id("AntDir", "gym") == "maml/AntDir-gym-v0"
    assert full_id("Navigation2D", None) == "maml/Navigation2D-v0"
    assert full_id("Bandit-K5", None) == "maml/Bandit-K5-v0"
    for env in ("my/Hover-v0", "CartPole-v1", "sinusoid", "module:Class"):
        assert full_id(env, None) == env
