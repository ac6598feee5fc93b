"""Defaults: each environment's own experiment, each learner's paper, and what learns faster."""

import dataclasses

import pytest

from maml_rl.core.outer.choice import TrustRegionOuter
from maml_rl.experiments.build import require_learner
from maml_rl.experiments.config import kind_of
from maml_rl.experiments.presets import (
    EXPERIMENTS,
    FASTER,
    default_config,
    learners_with,
    require_beginning,
)
from maml_rl.experiments.table import LEARNERS, names_for
from maml_rl.learners.maml import PolicyInnerConfig, ReinforcementConfig

VEL, DIR = "maml/HalfCheetahVel-rllab-v0", "maml/HalfCheetahDir-rllab-v0"
ANT_DIR = "maml/AntDir-rllab-v0"
ENVS = [*EXPERIMENTS, "maml/HalfCheetahVel-gym-v0", "my.module:MyEnv", "sinusoid", "omniglot", "images"]
PAIRS = [(env, learner) for env in ENVS for learner in names_for(kind_of(env))]


@pytest.mark.parametrize(("env", "learner"), PAIRS)
def test_every_learner_has_defaults_that_go_together_wherever_it_makes_sense(env, learner):
    config = default_config(env, learner)
    require_learner(config)
    assert (config.env, config.learner) == (env, learner)


@pytest.mark.parametrize("env", [*EXPERIMENTS, "my.module:MyEnv"])
def test_kin_of_maml_differ_from_it_in_what_makes_them_others(env):
    maml = default_config(env, "maml")
    changes = {
        "fomaml": {"first_order": True},
        "anil": {"only": ("head",)},
        "meta-sgd": {"learn_step_sizes": True},
        "reptile": {},
    }
    for learner, inner in changes.items():
        config = default_config(env, learner)
        assert config.method.inner == dataclasses.replace(maml.method.inner, **inner)
        assert config.method.policy == maml.method.policy and config.method.advantage == maml.method.advantage
        same = {"training", "evaluation", "task", "seed"}
        assert all(getattr(config, name) == getattr(maml, name) for name in same)
        steps = {"meta-sgd": "gradient", "reptile": "reptile"}
        assert config.method.outer.step == steps.get(learner, "trust_region")
        if learner not in steps:
            assert config.method.outer == maml.method.outer


def test_the_paper_s_protocol_in_its_environments():
    # Finn et al. 2017, appendix A.2: alpha 0.1, halved after the first step at test; 20 episodes, 40 tasks, horizon 200
    config = default_config(VEL, "maml")
    assert config.training.num_tasks == 40 and config.training.num_iterations == 500
    assert config.task.sampling.episodes_per_task == 20
    assert config.method.inner == PolicyInnerConfig(num_steps=1, step_size=0.1, later_ratio=0.5)
    assert config.method.inner.test_step_sizes(3) == (0.1, 0.05, 0.05)
    assert config.method.outer == TrustRegionOuter() and config.method.outer.trust_region.max_kl == 0.01
    assert default_config(DIR, "maml").method.outer.trust_region.max_kl == 0.02
    ant = default_config("maml/AntDir-rllab-v0", "maml")
    assert ant.task.sampling.episodes_per_task == 40 and ant.method.inner.test_step_sizes(2) == (0.1, 0.001)
    navigation = default_config("maml/Navigation2D-v0", "maml")
    assert navigation.method.inner.test_step_sizes(2) == (0.5, 0.25)
    assert navigation.evaluation.episodes_per_task == 40 and navigation.training.num_iterations == 15


def test_environments_without_an_experiment_of_their_own():
    # the project's own have the paper's, a user's its constants without the halving; other physics change nothing
    assert default_config("maml/AntGoal-gym-v0", "maml").method == default_config(VEL, "maml").method
    gym = default_config("maml/HalfCheetahDir-gym-v0", "maml")
    assert dataclasses.replace(gym, env=DIR) == default_config(DIR, "maml")
    users = default_config("my.module:MyEnv", "maml")
    assert users.method == ReinforcementConfig()
    assert users.method.inner.test_step_sizes(3) == (0.1, 0.1, 0.1)
    assert users.training == default_config(VEL, "maml").training


def test_the_sinusoid_s_step_is_that_of_the_published_command():
    for learner in names_for("regression"):
        config = default_config("sinusoid", learner)
        assert config.method.inner.step_size == 0.001 and config.method.inner.test_step_sizes(2) == (0.001, 0.001)
        assert config.training.num_tasks == 25 and config.evaluation.num_tasks == 600


def test_fast_on_navigation_takes_longer_steps_with_advantages_of_a_few_steps():
    paper, fast = (default_config("maml/Navigation2D-v0", "maml", preset) for preset in ("paper", "fast"))
    method = fast.method
    assert (method.outer.trust_region.max_kl, paper.method.outer.trust_region.max_kl) == (0.05, 0.01)
    assert method.advantage.gae_lambda == 0.7 and fast.training.num_iterations == 100
    assert method.inner == dataclasses.replace(paper.method.inner, before_weight=1.0, unit_return=-40.0)
    assert (fast.task, fast.evaluation) == (paper.task, paper.evaluation)


@pytest.mark.parametrize("env", sorted(name for name in FASTER if "Navigation" not in name))
def test_fast_takes_longer_steps_on_ten_episodes_and_evaluates_as_the_paper(env):
    for learner in ("maml", "fomaml", "anil", "promp", "e-maml"):
        paper, fast = default_config(env, learner), default_config(env, learner, "fast")
        number = paper.task.sampling.episodes_per_task
        assert fast.task.sampling.episodes_per_task == 10 < number
        assert fast.as_evaluated.task.sampling.episodes_per_task == number
        if learner in ("promp", "e-maml"):
            assert fast.method.outer.proximal.epochs == 2 * paper.method.outer.proximal.epochs
        else:
            assert fast.method.outer.trust_region.max_kl == 0.1 and paper.method.outer.trust_region.max_kl < 0.1
        assert (fast.task.observations, paper.task.observations) == ("normalised", "raw")
        assert (fast.method.inner.before_weight, paper.method.inner.before_weight) == (1.0, 0.0)
        assert (fast.method.advantage.gae_lambda, paper.method.advantage.gae_lambda) == (0.95, 1.0)
        speeds = "HalfCheetahVel" in env  # whose returns say how far off the target is
        assert (fast.method.inner.unit_return, paper.method.inner.unit_return) == (-120.0 if speeds else None, None)
        inner = dataclasses.replace(fast.method.inner, before_weight=0.0, unit_return=None)
        assert inner == paper.method.inner and fast.method.policy == paper.method.policy
    with pytest.raises(ValueError, match="proximal outer steps, but that of learner meta-sgd is another: leave the"):
        default_config(env, "meta-sgd", "fast")


@pytest.mark.parametrize("env", sorted(FASTER))
def test_fast_with_an_expert_steps_as_the_expert_did_and_evaluates_as_the_paper(env):
    paper, fast = default_config(env, "gmps"), default_config(env, "gmps", "fast")
    told = default_config(env, "maml", "fast")
    assert fast.training.num_tasks == 20 <= paper.training.num_tasks and fast.training.num_iterations == 40
    assert fast.as_evaluated.task.sampling == paper.as_evaluated.task.sampling
    assert fast.task.observations == told.task.observations
    assert (fast.method.advantage, fast.method.outer) == (told.method.advantage, told.method.outer)
    assert (fast.method.clone.num_iterations, paper.method.clone.num_iterations) == (5 * (env == ANT_DIR), 0)
    assert fast.method.inner == paper.method.inner  # no unit_return: it is no policy gradient that judges the step


@pytest.mark.parametrize(
    ("env", "learner", "preset", "message"),
    [
        (
            "maml/Bandit-K5-v0",
            "maml",
            "fast",
            r"preset fast exists for \['maml/AntDir-gym-v0', .*not for maml/Band",
        ),
        (VEL, "maml", "warm", "preset warm does not exist for"),
        (
            "sinusoid",
            "maml",
            "fast",
            r"preset fast exists for \['maml/AntDir-gym-v0', .*not for sinusoid: leave it out",
        ),
        (
            "omniglot",
            "joint",
            "fast",
            r"preset fast exists for the learners \['anil', 'fomaml', 'maml', 'matching', ",
        ),
        (
            "omniglot",
            "prototypical",
            "warm",
            r"preset warm exists for the learners \['fomaml', 'maml', 'platipus'\], not for prot",
        ),
        ("sinusoid", "joint", "paper", "learner joint takes few-shot episodes of pictures"),
        (VEL, "nobody", "paper", r"learner must be one of \[.*\], got 'nobody'"),
    ],
)
def test_what_does_not_exist_is_refused(env, learner, preset, message):
    with pytest.raises(ValueError, match=message):
        default_config(env, learner, preset)


@pytest.mark.parametrize("preset", ["fast", "warm"])
@pytest.mark.parametrize(("ways", "shots"), [(5, 1), (20, 5)])
def test_presets_of_pictures_change_how_a_paper_s_learner_learns(preset, ways, shots):
    for learner in learners_with(preset):
        paper, config = (default_config("omniglot", learner, each, ways, shots) for each in ("paper", preset))
        require_learner(config)
        assert config.training.num_iterations < paper.training.num_iterations
        assert (config.task.ways, config.task.shots) == (ways, shots)
        outer = config.method.outer.gradient  # whose learning rate ends with the run
        assert outer.decay == "cosine" and outer.decay_steps == config.training.num_iterations
        if LEARNERS[learner].gradient_steps:
            assert config.evaluation.num_steps >= paper.evaluation.num_steps
            assert len(set(config.method.inner.test_step_sizes(5))) == 1


@pytest.mark.parametrize("learner", names_for("pictures"))
def test_pictures_of_ones_own_are_neither_turned_nor_inverted(learner):
    omniglot, images = (default_config(env, learner) for env in ("omniglot", "images"))
    resize = "area" if learner == "neural-statistician" else "nearest"  # greys are its pixels' probabilities
    assert (omniglot.task.rotations, omniglot.task.images.invert, omniglot.task.images.resize) == (
        "classes", True, resize)  # fmt: skip
    assert (images.task.rotations, images.task.images.invert, images.task.images.resize) == ("none", False, "area")
    assert images.method == omniglot.method and images.training == omniglot.training


def test_a_warm_start_needs_something_to_begin_with():
    require_beginning("warm", "runs/prototypical")
    require_beginning("fast", None)
    with pytest.raises(ValueError, match="preset warm must have init_from, got none: train --learner prototypical"):
        require_beginning("warm", None)
