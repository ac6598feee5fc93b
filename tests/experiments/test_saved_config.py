"""The saved config reads back as itself, and nothing else is taken for one."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_rl.experiments.config import outer_steps, with_outer_step
from maml_rl.experiments.presets import default_config
from maml_rl.experiments.saved_config import from_dict, to_dict
from maml_rl.experiments.table import LEARNERS
from maml_rl.policies.scale import ObservationScale
from maml_rl.storage.run_folder import ConfigError

VEL = "maml/HalfCheetahVel-rllab-v0"
ENVS = {"reinforcement": VEL, "regression": "sinusoid", "pictures": "omniglot", "density": "distributions"}
PAIRS = [(name, kind) for name, entry in LEARNERS.items() for kind in entry.kinds]


def through_json(config):
    return from_dict(json.loads(json.dumps(to_dict(config))))


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_json_and_back(name, kind):
    config = dataclasses.replace(default_config(ENVS[kind], name), seed=7, device="cuda:1", init_from="runs/a")
    for step in outer_steps(config) or [None]:
        config = config if step is None else with_outer_step(config, step)
        assert through_json(config) == config and type(through_json(config)) is type(config)


def test_what_is_none_or_nested_comes_back():
    config = default_config("maml/Navigation2D-v0", "maml")
    scale = ObservationScale((0.5, 1.0), (2.0, 3.0))
    sampling = dataclasses.replace(config.task.sampling, horizon=13)
    task = dataclasses.replace(config.task, observations="normalised", observation_scale=scale, sampling=sampling)
    assert through_json(dataclasses.replace(config, task=task)).task == task


def _with(config, path, value):
    saved = to_dict(config)
    branch = saved
    for name in path[:-1]:
        branch = branch[name]
    branch[path[-1]] = value
    return saved


@pytest.mark.parametrize(
    ("env", "path", "value", "message"),
    [
        (VEL, ["env"], 3, r"config\.env must be a name, got 3"),
        (VEL, ["learner"], "mamal", r"config\.learner: learner must be one of \['maml'.*got 'mamal'"),
        (VEL, ["learner"], "joint", r"config\.learner: learner joint takes few-shot episodes of pictures"),
        (VEL, ["seed"], True, r"config\.seed must be a whole number, got True"),
        (VEL, ["method", "inner", "step_size"], "0.1", r"config\.method\.inner\.step_size must be a number"),
        (VEL, ["method", "inner", "step_size"], -1.0, r"config\.method\.inner: inner\.step_size must be positive"),
        (VEL, ["method", "inner", "estimator"], "best", r"config\.method\.inner\.estimator must be one of"),
        (VEL, ["method", "policy", "hidden_sizes"], 100, r"config\.method\.policy\.hidden_sizes must be a list"),
        (VEL, ["method", "policy", "hidden_sizes"], [9, None], r"policy\.hidden_sizes\[1\] must be a whole number"),
        ("sinusoid", ["task", "input_range"], [1.0], r"must be a list of 2"),
        (VEL, ["method", "outer"], None, r"config\.method\.outer must be an object"),
        (VEL, ["method", "outer", "step"], "newton", r"config\.method\.outer\.step must be one of \['trust_region'"),
        (VEL, ["method", "outer", "step"], "gradient", r"outer has unknown entries \['trust_region'\] and lacks \['gr"),
        ("omniglot", ["method", "outer", "gradient", "decay"], "never", r"outer\.gradient\.decay must be one of"),
        (VEL, ["surprise"], 1, r"config has unknown entries \['surprise'\]"),
        (VEL, ["task", "sinusoid"], {}, r"config\.task has unknown entries \['sinusoid'\]"),
    ],
)
def test_what_is_no_config_is_refused_by_name(env, path, value, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(_with(default_config(env, "maml"), path, value))


@pytest.mark.parametrize("saved", [None, [], "maml", 3])
def test_what_is_no_object_is_refused(saved):
    with pytest.raises(ConfigError, match="config must be an object"):
        from_dict(saved)


def test_no_setting_may_be_missing():
    saved = to_dict(default_config(VEL, "maml"))
    del saved["method"]["inner"]["step_size"]
    with pytest.raises(ConfigError, match=r"config\.method\.inner has unknown entries \[\] and lacks \['step_size'\]"):
        from_dict(saved)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PAIRS), st.data(), json_values)
def test_any_json_in_place_of_an_entry_parses_or_is_refused(pair, data, value):
    name, kind = pair
    saved = to_dict(default_config(ENVS[kind], name))
    branch = data.draw(st.sampled_from([saved, *(part for part in saved.values() if isinstance(part, dict) and part)]))
    branch[data.draw(st.sampled_from(sorted(branch)))] = value
    try:
        parsed = from_dict(saved)
    except ConfigError:
        return
    assert to_dict(through_json(parsed)) == to_dict(parsed)
