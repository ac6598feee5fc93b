"""Runs that version 1 saved load, and mean what they meant."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_rl.experiments.build import require_learner
from maml_rl.experiments.config import kind_of
from maml_rl.experiments.migration import ADDED_TO_1, ADDED_TO_GROUPS_OF_1, ADDED_TO_STEPS_OF_1, migrated
from maml_rl.experiments.presets import default_config
from maml_rl.experiments.runs import read_config
from maml_rl.experiments.saved_config import from_dict, to_dict
from maml_rl.storage.run_folder import ConfigError, RunFolder

RESULTS = Path(__file__).parents[2] / "docs" / "results"
FOLDERS = sorted(path.parent for path in RESULTS.rglob("config.json"))
BASE = json.loads(Path(__file__).with_name("version_1.json").read_bytes())  # with every group that it had


def of_version_1(env="maml/Bandit-K5-v0", learner="maml", step="trust_region", **changes):
    """What version 1 saved. changes: settings by their paths, with two underscores for dots."""
    config = copy.deepcopy(BASE) | {"env": env, "learner": learner}
    config["outer"]["step"] = step
    for name, value in changes.items():
        *groups, last = name.split("__")
        branch = config
        for group in groups:
            branch = branch[group]
        branch[last] = value
    return config


def loaded(saved):
    return from_dict(migrated(1, json.loads(json.dumps(saved))))


def meant(saved):
    """What a run of version 1 did, by the settings that it read."""
    evaluation, inner, outer = saved["evaluation"], saved["inner"], saved["outer"]
    found = {
        "seed": saved["seed"],
        "num_threads": saved["sampling"]["num_threads"],
        "training": {"max_minutes": None} | saved["training"],
        "evaluation": [evaluation["num_tasks"], evaluation["num_steps"], evaluation["seed"]],
    }
    kind, learner = kind_of(saved["env"]), saved.get("learner", "maml")
    if kind == "reinforcement":
        physics = saved["physics"]
        found |= {
            "env": saved["env"] if physics is None else saved["env"].replace("rllab", physics),
            "episodes": [evaluation.get("episodes_per_task"), evaluation.get("split", "test")],
            "policy": saved["policy"],
            "advantage": saved["advantage"],
            "estimator": inner["estimator"],
            "oracle": saved.get("oracle", False),
            "sampling": {name: saved["sampling"][name] for name in ("episodes_per_task", "horizon", "sampler")},
        }
    elif kind == "regression":
        found["task"] = saved["sinusoid"]
    else:
        found["task"] = {name: value for name, value in saved["episodes"].items() if name != "images"}
        if learner != "pixels":
            found["network"] = saved["network"]
    if learner not in ("prototypical", "matching", "pixels"):  # which take no steps
        first, later = evaluation["first_step_size"], evaluation["later_step_size"]
        found["inner"] = [inner["num_steps"], inner["step_size"], inner["first_order"], inner.get("only", [])]
        found["sizes at test"] = ([first] + [later] * 9)[: evaluation["num_steps"]]
    if learner != "pixels":
        found["outer"] = [outer["step"], outer[outer["step"]]]
    return found


def means(config):
    """The same of a config of the present version."""
    saved = json.loads(json.dumps(to_dict(config)))
    evaluation, task, method = saved["evaluation"], saved["task"], saved["method"]
    found = {
        "seed": saved["seed"],
        "num_threads": saved["num_threads"],
        "training": saved["training"],
        "evaluation": [evaluation["num_tasks"], evaluation["num_steps"], evaluation["seed"]],
    }
    if config.kind == "reinforcement":
        policy = {name: value for name, value in method["policy"].items() if name != "network"}
        found |= {
            "env": saved["env"],
            "episodes": [evaluation["episodes_per_task"], evaluation["split"]],
            "policy": policy,
            "advantage": method["advantage"],
            "estimator": method["inner"]["estimator"],
            "oracle": task["oracle"],
            "sampling": {name: task["sampling"][name] for name in ("episodes_per_task", "horizon", "sampler")},
        }
    elif config.kind == "regression":
        found["task"] = task
    else:
        found["task"] = {name: value for name, value in task.items() if name not in ("images", "fingerprint")}
        if "network" in method:
            found["network"] = method["network"]
    if "inner" in method:
        inner = method["inner"]
        found["inner"] = [inner["num_steps"], inner["step_size"], inner["first_order"], inner["only"]]
        found["sizes at test"] = list(config.method.inner.test_step_sizes(min(10, config.evaluation.num_steps)))
    if "outer" in method:
        step = method["outer"]["step"]
        added = ADDED_TO_STEPS_OF_1[step]
        found["outer"] = [step, {k: v for k, v in method["outer"][step].items() if k not in added or v != added[k]}]
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(RESULTS)))
def test_a_run_that_comes_with_the_source_means_what_it_meant(folder):
    version, saved = RunFolder.read_config(folder)
    config = read_config(folder)
    require_learner(config)
    if version == 1:
        expected, found = meant(saved), means(config)
        if "outer" in expected:  # settings of the step that early files lack, and those that are as then
            step, own = expected["outer"]
            added = ADDED_TO_STEPS_OF_1[step]
            expected["outer"] = [step, {k: v for k, v in own.items() if k not in added or v != added[k]}]
        assert found == expected
    assert from_dict(to_dict(config)) == config


KINDS = {
    "maml/Bandit-K5-v0": ("maml", "fomaml", "anil", "meta-sgd"),
    "sinusoid": ("maml", "fomaml", "anil", "meta-sgd"),
    "omniglot": ("maml", "fomaml", "anil", "meta-sgd", "reptile", "joint", "prototypical", "matching", "pixels"),
    "images": ("maml", "fomaml", "anil", "meta-sgd", "reptile", "joint", "prototypical", "matching", "pixels"),
}
INNER = {
    "fomaml": {"inner__first_order": True},
    "anil": {"inner__only": ["head"]},
    "meta-sgd": {"inner__learn_step_sizes": True},
}
PRESENT = [(env, learner, step) for env, names in KINDS.items() for learner in names for step in ADDED_TO_STEPS_OF_1]


@pytest.mark.parametrize(("env", "learner", "step"), PRESENT)
def test_a_run_of_every_kind_and_learner_loads(env, learner, step):
    if learner == "meta-sgd" and step != "gradient":
        pytest.skip("version 1 refused to learn step sizes by it")
    saved = of_version_1(env, learner, step, network__norm="batch", **INNER.get(learner, {}))
    config = loaded(saved)
    require_learner(config)
    assert config.learner == ("reptile" if step == "reptile" and env not in ("omniglot", "images") else learner)
    own = {"reptile": "reptile", "joint": "gradient", "prototypical": "gradient", "matching": "gradient"}
    taken = own.get(learner, step)
    found, expected = means(config), meant(saved | {"outer": saved["outer"] | {"step": taken}})
    found.pop("outer", None), expected.pop("outer", None)
    assert found == expected
    if learner != "pixels":
        assert config.method.outer.step == taken
        settings = to_dict(config)["method"]["outer"][taken]
        assert settings.items() >= saved["outer"][taken].items()
    if learner == "matching":
        assert to_dict(config)["method"]["matching"] == saved["matching"]
    if learner == "reptile":
        assert to_dict(config)["method"]["optimiser"] == saved["inner_optimiser"]


FIRST, HEAD = {"inner__first_order": True}, {"inner__only": ["head"]}
LEARNED = {"inner__learn_step_sizes": True, "outer__step": "gradient"}


@pytest.mark.parametrize(
    ("learner", "changes", "name"),
    [
        ("maml", {}, "maml"),
        ("maml", FIRST, "fomaml"),
        ("maml", LEARNED, "meta-sgd"),
        ("fomaml", {**FIRST, **HEAD}, "fomaml"),
        ("anil", {**FIRST, **HEAD}, "anil"),
        ("meta-sgd", {**FIRST, **LEARNED}, "meta-sgd"),
        ("fomaml", {**FIRST, **LEARNED}, "meta-sgd"),
        ("fomaml", {**FIRST, "outer__step": "reptile"}, "reptile"),
    ],
)
def test_a_learner_s_name_is_what_its_settings_made_it(learner, changes, name):
    config = loaded(of_version_1(learner=learner, **changes))
    require_learner(config)
    assert config.learner == name
    inner = config.method.inner
    assert inner.first_order == changes.get("inner__first_order", False)
    assert inner.only == tuple(changes.get("inner__only", ()))


@pytest.mark.parametrize(
    ("env", "physics", "expected"),
    [
        ("AntVel", None, "maml/AntVel-rllab-v0"),
        ("AntVel", "gym", "maml/AntVel-gym-v0"),
        ("maml/HalfCheetahDir-rllab-v0", "gym", "maml/HalfCheetahDir-gym-v0"),
        ("maml/Navigation2D-v0", None, "maml/Navigation2D-v0"),
        ("my_module:MyEnv", None, "my_module:MyEnv"),
        ("sinusoid", None, "sinusoid"),
    ],
)
def test_the_environment_is_named_in_full(env, physics, expected):
    assert loaded(of_version_1(env, physics=physics)).env == expected


@pytest.mark.parametrize(("first", "later"), [(0.1, 0.05), (0.1, 0.001), (0.5, 0.25), (0.3, 0.3), (0.02, 0.7)])
def test_step_sizes_at_test_are_those_of_the_evaluation(first, later):
    sizes = {"evaluation__first_step_size": first, "evaluation__later_step_size": later}
    inner = loaded(of_version_1(inner__step_size=0.1, **sizes)).method.inner
    assert inner.test_step_sizes(3) == pytest.approx((first, later, later), rel=1e-15)
    assert (inner.test_step_size is None) == (first == 0.1)  # as in training


def test_what_early_files_lack_is_what_runs_did_then():
    early = of_version_1()
    for name in ADDED_TO_1:
        early.pop(name, None)
    for group, added in ADDED_TO_GROUPS_OF_1.items():
        for name in added:
            early[group].pop(name, None)
    for step, added in ADDED_TO_STEPS_OF_1.items():
        for name in added:
            early["outer"][step].pop(name, None)
    for group in ("episodes", "network", "inner_optimiser", "matching"):
        del early[group]
    config = loaded(early)
    usual = default_config("maml/Bandit-K5-v0", "maml")
    assert config.learner == "maml" and config.task == usual.task and config.method == usual.method
    assert config.evaluation.episodes_per_task is None and config.evaluation.split == "test"
    for step in ADDED_TO_STEPS_OF_1:
        kind = "reptile" if step == "reptile" else "maml"
        assert loaded(early | {"outer": early["outer"] | {"step": step}}).learner == kind


def test_the_present_version_is_left_as_it_is():
    saved = to_dict(default_config("omniglot", "matching"))
    assert migrated(2, saved) == saved


@pytest.mark.parametrize(("name", "value"), [("before_weight", 0.0), ("train_later_ratio", 1.0)])
def test_early_files_of_version_2_lack_settings_of_adaptation(name, value):
    saved = to_dict(default_config("maml/HalfCheetahVel-rllab-v0", "maml"))
    inner = {each: setting for each, setting in saved["method"]["inner"].items() if each != name}
    early = saved | {"method": saved["method"] | {"inner": inner}}
    assert from_dict(migrated(2, early)) == from_dict(saved)
    assert getattr(from_dict(saved).method.inner, name) == value
    for broken in ({"method": 3}, {"method": {"inner": 3}}):
        with pytest.raises(ConfigError):
            from_dict(migrated(2, saved | broken))


@pytest.mark.parametrize("num_draws", [1, 5])
def test_early_files_of_version_2_hold_a_number_of_draws_that_nothing_read(num_draws):
    saved = to_dict(default_config("sinusoid", "maml"))
    early = saved | {"evaluation": saved["evaluation"] | {"num_draws": num_draws}}
    assert from_dict(migrated(2, early)) == from_dict(saved)
    for broken in ({"evaluation": 3}, {"learner": []}, {}):
        with pytest.raises(ConfigError):
            from_dict(migrated(2, broken))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": 3}, r"config\.env must be a name, got 3"),
        ({"learner": None}, r"config\.learner must be a name, got None"),
        ({"learner": "mamal"}, r"config\.learner: learner must be one of"),
        ({"physics": "moon"}, r"config\.physics must be rllab, gym or null, got 'moon'"),
        ({"seed": True}, r"config\.seed must be a whole number, got True"),
        ({"outer": None}, r"config\.outer must be an object, got None"),
        ({"outer__step": ["reptile"]}, r"config\.outer\.step must be one of \['trust_region', 'gradient', 'reptile'\]"),
        ({"outer__trust_region": 1}, r"config\.outer\.trust_region must be an object, got 1"),
        ({"evaluation__first_step_size": 0.0}, r"evaluation\.first_step_size must be a positive number, got 0\.0"),
        ({"evaluation__later_step_size": "x"}, r"evaluation\.later_step_size must be a positive number, got 'x'"),
        ({"surprise": 1}, r"config of version 1 has unknown entries \['surprise'\] and lacks \[\]"),
        ({"sampling__surprise": 1}, r"config\.task\.sampling has unknown entries \['surprise'\]"),
        ({"inner__step_size": "0.1"}, r"config\.method\.inner\.step_size must be a number, got '0\.1'"),
        ({"env": "omniglot", "episodes": {}}, r"config\.episodes\.images must be an object, got None"),
    ],
)
def test_what_version_1_never_saved_is_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=message):
        loaded(of_version_1(**{"env": "maml/Bandit-K5-v0", **changes}))


@pytest.mark.parametrize("name", ["env", "physics", "training", "policy", "inner", "sinusoid"])
def test_what_every_file_of_version_1_has_may_not_be_missing(name):
    saved = of_version_1()
    del saved[name]
    with pytest.raises(ConfigError, match=rf"unknown entries \[\] and lacks \['{name}'\]"):
        loaded(saved)


@pytest.mark.parametrize(
    ("group", "name"), [("inner", "step_size"), ("sampling", "num_threads"), ("evaluation", "later_step_size")]
)
def test_nor_may_a_setting_in_it(group, name):
    saved = of_version_1()
    del saved[group][name]
    with pytest.raises(ConfigError, match=name):
        loaded(saved)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([(env, learner) for env, names in KINDS.items() for learner in names]), st.data(), json_values)
def test_any_json_in_place_of_an_entry_loads_or_is_refused(pair, data, value):
    env, learner = pair
    saved = of_version_1(env, learner, **INNER.get(learner, {}))
    parts = [saved, *(part for part in saved.values() if isinstance(part, dict)), *saved["outer"].values()]
    branch = data.draw(st.sampled_from([part for part in parts if isinstance(part, dict) and part]))
    branch[data.draw(st.sampled_from(sorted(branch)))] = value
    try:
        config = loaded(saved)
    except ConfigError:
        return
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_early_files_of_version_2_lack_the_precision_of_a_statistician():
    saved = to_dict(default_config("omniglot", "neural-statistician"))
    network = {each: setting for each, setting in saved["method"]["network"].items() if each != "precision"}
    early = saved | {"method": saved["method"] | {"network": network}}
    assert from_dict(migrated(2, early)) == from_dict(saved)
    assert from_dict(saved).method.network.precision == "float32"
    with pytest.raises(ConfigError):
        from_dict(migrated(2, saved | {"method": saved["method"] | {"network": 3}}))
