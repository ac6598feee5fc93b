"""Conversion of configs saved by earlier versions: the only module that knows their form."""

from __future__ import annotations

from typing import Any

from maml_rl.experiments.config import kind_of
from maml_rl.experiments.table import LEARNERS
from maml_rl.storage.run_folder import ConfigError

ADDED_TO_1: dict[str, Any] = {
    "oracle": False,
    "observations": "raw",
    "observation_scale": None,
    "init_from": None,
    "init_from_any_env": False,
    "learner": "maml",
}
"""Settings that early files of version 1 lack, with the values that runs used then."""

ADDED_TO_GROUPS_OF_1: dict[str, dict[str, Any]] = {
    "training": {"max_minutes": None},
    "sampling": {"num_workers": None, "task_timeout": 600.0, "ray_address": None},
    "inner": {"only": [], "learn_step_sizes": False},
    "evaluation": {"episodes_per_task": None, "split": "test"},
}

ADDED_TO_STEPS_OF_1: dict[str, dict[str, Any]] = {
    "trust_region": {"fisher_share": 1.0},
    "gradient": {"decay": "none", "decay_steps": 2000},
    "reptile": {"decay_steps": 0},
}
"""The same for the settings of each outer step."""

GROUPS_OF_1 = ("training", "sampling", "policy", "advantage", "inner", "outer", "evaluation", "sinusoid")
PICTURES_OF_1 = ("episodes", "network", "inner_optimiser", "matching")  # groups that files from before pictures lack
ALONE_IN_1 = ("env", "physics", "seed", "device", *ADDED_TO_1)


def migrated(version: int, config: dict[str, Any]) -> dict[str, Any]:
    """Convert a config saved by version `version` to the present form.

    Raises:
        ConfigError: if it is none of that version.
    """
    return _from_1(config) if version == 1 else _of_early_2(_without_unread_draws(config))


def _of_early_2(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the settings of adaptation, of experts and of networks that early files of version 2 lack."""
    method = config.get("method")
    if not isinstance(method, dict):
        return config
    guided = ADDED_TO_GUIDED_OF_2 if "expert" in method else {}
    whole = {"inner": _whole_inner, "network": _whole_network}
    parts = {name: of(method[name]) for name, of in whole.items() if isinstance(method.get(name), dict)}
    return config | {"method": guided | method | parts}


ADDED_TO_GUIDED_OF_2 = {
    "expert_policy": None,
    "clone": {"num_iterations": 0, "epochs": 4, "batch_size": 1000, "learning_rate": 1e-3},
}
ADDED_TO_INNER_OF_2 = {"before_weight": 0.0, "train_later_ratio": 1.0}
ADDED_TO_POLICIES_INNER_OF_2 = {"unit_return": None}
ADDED_TO_STATISTICIANS_NETWORK_OF_2 = {"precision": "float32"}


def _whole_inner(inner: dict[str, Any]) -> dict[str, Any]:
    of_a_policy = "estimator" in inner
    return ADDED_TO_INNER_OF_2 | (ADDED_TO_POLICIES_INNER_OF_2 if of_a_policy else {}) | inner


def _whole_network(network: dict[str, Any]) -> dict[str, Any]:
    of_a_statistician = "sizes" in network
    return (ADDED_TO_STATISTICIANS_NETWORK_OF_2 if of_a_statistician else {}) | network


def _without_unread_draws(config: dict[str, Any]) -> dict[str, Any]:
    """The config without the number of draws, which early files of version 2 hold for learners that draw nothing."""
    evaluation = config.get("evaluation")
    draws = any(entry.draws for name, entry in LEARNERS.items() if name == config.get("learner"))
    if draws or not isinstance(evaluation, dict):
        return config
    return config | {"evaluation": {name: value for name, value in evaluation.items() if name != "num_draws"}}


def _from_1(saved: dict[str, Any]) -> dict[str, Any]:
    """Convert from version 1, which held the settings of every task and learner side by side.

    A learner's name said little then; now it follows from its settings. Step sizes at test were the evaluation's.
    """
    old = _whole(saved)
    kind = kind_of(old["env"])
    sampling, evaluation = dict(old["sampling"]), dict(old["evaluation"])
    num_threads = sampling.pop("num_threads", None)
    first, later = (_size_taken(evaluation, name) for name in ("first_step_size", "later_step_size"))
    if kind != "reinforcement":
        del evaluation["episodes_per_task"], evaluation["split"]
    inner = _inner_of_1(old["inner"], first, later, kind)
    outer = _outer_of_1(old["outer"], old["learner"], kind)
    learner = _name_of_1(old["learner"], inner, outer, kind)
    return {
        "env": _env_of_1(old["env"], old["physics"]),
        "learner": learner,
        "seed": old["seed"],
        "device": old["device"],
        "num_threads": num_threads,
        "init_from": old["init_from"],
        "init_from_any_env": old["init_from_any_env"],
        "training": old["training"],
        "evaluation": evaluation,
        "task": _task_of_1(old, sampling, kind),
        "method": _method_of_1(old, learner, inner, outer, kind),
    }


def _whole(saved: dict[str, Any]) -> dict[str, Any]:
    """The same config with the entries that early files lack, so that all that is read below is there."""
    wanted = {*GROUPS_OF_1, *(PICTURES_OF_1 if kind_of(saved.get("env", "")) == "pictures" else ())}
    unknown = saved.keys() - {*ALONE_IN_1, *GROUPS_OF_1, *PICTURES_OF_1}
    missing = {*ALONE_IN_1, *wanted} - saved.keys() - ADDED_TO_1.keys()
    if unknown or missing:
        raise ConfigError(
            f"config of version 1 has unknown entries {sorted(unknown)} and lacks {sorted(missing)}: another version's?"
        )
    for name in wanted:
        _require(isinstance(saved[name], dict), saved[name], "an object", f"config.{name}")
    if "episodes" in wanted:
        images = saved["episodes"].get("images")
        _require(isinstance(images, dict), images, "an object", "config.episodes.images")
    old = ADDED_TO_1 | saved
    for name in ("env", "learner"):
        _require(isinstance(old[name], str), old[name], "a name", f"config.{name}")
    _require(old["physics"] in (None, "rllab", "gym"), old["physics"], "rllab, gym or null", "config.physics")
    return old | {name: added | old[name] for name, added in ADDED_TO_GROUPS_OF_1.items()}


def _require(holds: bool, value: Any, rule: str, path: str) -> None:
    if not holds:
        raise ConfigError(f"{path} must be {rule}, got {value!r}")


def _size_taken(evaluation: dict[str, Any], name: str) -> float:
    """A step size at test, removed from the evaluation's settings."""
    size = evaluation.pop(name, None)
    _require(type(size) in (int, float) and size > 0, size, "a positive number", f"config.evaluation.{name}")
    return float(size)


def _inner_of_1(inner: dict[str, Any], first: float, later: float, kind: str) -> dict[str, Any]:
    new = {name: value for name, value in inner.items() if name != "estimator" or kind == "reinforcement"}
    sizes = {"test_step_size": None if first == inner.get("step_size") else first, "later_ratio": later / first}
    return _whole_inner(new | sizes)


def _outer_of_1(outer: dict[str, Any], learner: str, kind: str) -> dict[str, Any]:
    """The outer step that was taken, with its settings only. On pictures some learners ignored the setting."""
    step: Any = outer.get("step")
    if kind == "pictures":
        own = {"reptile": "reptile", **dict.fromkeys(("joint", "prototypical", "matching"), "gradient")}
        step = own.get(learner, step)
    known = list(ADDED_TO_STEPS_OF_1)
    _require(step in known, step, f"one of {known}", "config.outer.step")
    settings: Any = outer.get(step)
    _require(isinstance(settings, dict), settings, "an object", f"config.outer.{step}")
    return {"step": step, step: ADDED_TO_STEPS_OF_1[step] | settings}


def _name_of_1(learner: str, inner: dict[str, Any], outer: dict[str, Any], kind: str) -> str:
    if outer["step"] == "reptile" and kind != "pictures":
        return "reptile"
    if learner not in ("maml", "fomaml", "anil", "meta-sgd"):
        return learner
    if inner["learn_step_sizes"]:
        return "meta-sgd"
    if learner == "anil":
        return learner
    return "fomaml" if inner.get("first_order") else "maml"


def _task_of_1(old: dict[str, Any], sampling: dict[str, Any], kind: str) -> dict[str, Any]:
    if kind == "regression":
        return old["sinusoid"]
    if kind == "pictures":
        images = {"channels": "auto"} | old["episodes"]["images"]
        return {"fingerprint": None} | old["episodes"] | {"images": images}
    names = ("oracle", "observations", "observation_scale")
    return {name: old[name] for name in names} | {"sampling": sampling}


def _method_of_1(
    old: dict[str, Any], learner: str, inner: dict[str, Any], outer: dict[str, Any], kind: str
) -> dict[str, Any]:
    if kind == "reinforcement":
        return {
            "policy": old["policy"] | {"network": None},
            "advantage": old["advantage"],
            "inner": inner,
            "outer": outer,
        }
    if kind == "regression":
        return {"inner": inner, "outer": outer}
    groups = {
        "reptile": {"inner": inner, "optimiser": old["inner_optimiser"], "outer": outer, "network": old["network"]},
        "prototypical": {"outer": outer, "network": old["network"]},
        "matching": {"outer": outer, "network": old["network"], "matching": old["matching"]},
        "pixels": {},
    }
    return groups.get(learner, {"inner": inner, "outer": outer, "network": old["network"]})


def _env_of_1(env: str, physics: str | None) -> str:
    """The id for a short name and a physics, which version 1 kept separately: AntVel for maml/AntVel-rllab-v0."""
    if kind_of(env) == "reinforcement" and env.isalnum():
        return f"maml/{env}-{physics or 'rllab'}-v0"
    other = {"rllab": "gym", "gym": "rllab"}
    return env if physics is None else env.replace(f"-{other[physics]}-", f"-{physics}-")
