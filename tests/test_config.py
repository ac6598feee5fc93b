"""The saved config reads back as itself, and nothing else is taken for one."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_rl.config import ADDED, SINUSOID, RunConfig, forbidden_changes, from_dict, to_dict
from maml_rl.core.inner import InnerConfig
from maml_rl.core.maml import OuterConfig
from maml_rl.core.outer.gradient import GradientConfig
from maml_rl.core.outer.reptile import ReptileConfig
from maml_rl.evaluation.adaptation_curve import EvaluationConfig
from maml_rl.sampling.local import SamplingConfig
from maml_rl.training.run_folder import ConfigError
from maml_rl.training.trainer import TrainingConfig

CONFIGS = [
    RunConfig(),
    RunConfig(env=SINUSOID, seed=7),
    RunConfig(physics="gym", sampling=SamplingConfig(horizon=13)),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_json_and_back(config):
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def _with(path, value):
    saved = to_dict(RunConfig())
    branch = saved
    for name in path[:-1]:
        branch = branch[name]
    branch[path[-1]] = value
    return saved


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["env"], 3, r"config\.env must be a str, got 3"),
        (["seed"], True, r"config\.seed must be a int, got True"),
        (["inner", "step_size"], "0.1", r"config\.inner\.step_size must be a float"),
        (["inner", "step_size"], -1.0, r"config\.inner: inner\.step_size must be positive"),
        (["inner", "estimator"], "best", r"config\.inner\.estimator must be one of"),
        (["policy", "hidden_sizes"], 100, r"config\.policy\.hidden_sizes must be a list"),
        (["policy", "hidden_sizes"], [100, None], r"config\.policy\.hidden_sizes\[1\] must be a int"),
        (["sinusoid", "input_range"], [1.0], r"must be a list of 2"),
        (["outer"], None, r"config\.outer must be an object"),
        (["surprise"], 1, r"unknown entries \['surprise'\]"),
    ],
)
def test_what_is_no_config_is_refused_by_name(path, value, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(_with(path, value))


@pytest.mark.parametrize("path", sorted(ADDED))
def test_a_run_of_a_version_without_a_setting_has_its_default(path):
    saved = to_dict(RunConfig(seed=7))
    branch = saved
    *parents, name = path.removeprefix("config.").split(".")
    for parent in parents:
        branch = branch[parent]
    del branch[name]
    assert from_dict(saved) == RunConfig(seed=7)


def test_a_setting_that_every_version_saves_may_not_be_missing():
    saved = to_dict(RunConfig())
    del saved["inner"]["step_size"]
    with pytest.raises(ConfigError, match=r"config\.inner has unknown entries \[\] and lacks \['step_size'\]"):
        from_dict(saved)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = [field.name for field in dataclasses.fields(RunConfig)]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(names), json_values)
def test_any_json_in_place_of_an_entry_parses_or_is_refused(name, value):
    saved = to_dict(RunConfig())
    saved[name] = value
    try:
        parsed = from_dict(saved)
    except ConfigError:
        return
    assert to_dict(from_dict(json.loads(json.dumps(to_dict(parsed))))) == to_dict(parsed)


def test_a_resumed_run_may_only_change_how_long_where_and_what_is_measured():
    saved = RunConfig()
    where = SamplingConfig(num_threads=3, sampler="ray", num_workers=7, task_timeout=5.0, ray_address="head:6379")
    decay = OuterConfig(gradient=GradientConfig(decay_steps=7), reptile=ReptileConfig(decay_steps=7))
    training = TrainingConfig(num_iterations=7, evaluate_every=3)
    allowed = dataclasses.replace(saved, training=training, sampling=where, outer=decay)
    measured = EvaluationConfig(7, 1, 0.3, 0.2, 5, 4, "train")
    asked = dataclasses.replace(saved.episodes, test_queries=3, evaluate_on="test", test_rotations="none")
    allowed = dataclasses.replace(allowed, evaluation=measured, episodes=asked)
    assert forbidden_changes(saved, allowed) == []
    other = dataclasses.replace(saved, inner=InnerConfig(step_size=0.5), seed=2, oracle=True)
    changes = ["oracle was False, now True", "seed was 1, now 2", "inner.step_size was 0.1, now 0.5"]
    assert forbidden_changes(saved, other) == changes


def test_physics_replaces_what_the_id_names():
    assert RunConfig(physics="gym").env_id == "maml/HalfCheetahVel-gym-v0"
    assert RunConfig(env="maml/HalfCheetahDir-gym-v0", physics="rllab").env_id == "maml/HalfCheetahDir-rllab-v0"
    assert RunConfig(physics="rllab").env_id == "maml/HalfCheetahVel-rllab-v0"
    with pytest.raises(ValueError, match="physics gym does not apply to maml/Navigation2D-v0"):
        RunConfig(env="maml/Navigation2D-v0", physics="gym")


def test_a_short_name_stands_for_an_id():
    assert RunConfig(env="AntVel").env_id == "maml/AntVel-rllab-v0"
    assert RunConfig(env="AntVel", physics="rllab").env_id == "maml/AntVel-rllab-v0"
    assert RunConfig(env="AntDir", physics="gym").env_id == "maml/AntDir-gym-v0"
    for env in ("my/Hover-v0", "CartPole-v1", SINUSOID):
        assert RunConfig(env=env).env_id == env


def test_an_oracle_needs_an_environment():
    with pytest.raises(ValueError, match="oracle applies to task environments, not to sinusoid"):
        RunConfig(env=SINUSOID, oracle=True)
