"""Settings as flags: their names on the command line, and which of them a run would not read."""

from __future__ import annotations

import dataclasses
import itertools
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import tyro

from maml_rl.experiments.config import (
    DISTRIBUTIONS,
    OMNIGLOT,
    SINUSOID,
    RunConfig,
    config_type,
    outer_steps,
    with_outer_step,
)
from maml_rl.experiments.table import LEARNERS
from maml_rl.learners.entry import Kind

Setting = tuple[str, ...]
"""Path of a setting in the config: ("method", "inner", "num_steps")."""

ENVS: dict[Kind, str] = {"reinforcement": "any", "regression": SINUSOID, "pictures": OMNIGLOT, "density": DISTRIBUTIONS}
TASKS_IN_WORDS: dict[Kind, str] = {
    "reinforcement": "task environments",
    "regression": f"--env {SINUSOID}",
    "pictures": "few-shot classification",
    "density": f"--env {DISTRIBUTIONS}",
}
"""Words for each kind of tasks, in messages about flags that only runs of that kind have."""


def flags_of(value: Any, prefix: str = "", path: Setting = ()) -> dict[str, Setting]:
    """The flags of a config, or of a group of settings, with the places of their settings."""
    hints = typing.get_type_hints(type(value), include_extras=True)
    found: dict[str, Setting] = {}
    for each in dataclasses.fields(value):
        if tyro.conf.Suppress in typing.get_args(hints[each.name]):  # measured, not chosen
            continue
        child, name = getattr(value, each.name), _flag_name(hints[each.name], each.name)
        if dataclasses.is_dataclass(child) and not isinstance(child, type):
            found |= flags_of(child, f"{prefix}{name}." if name else prefix, (*path, each.name))
        else:
            found[f"--{prefix}{name}"] = (*path, each.name)
    return found


def _flag_name(hint: Any, name: str) -> str:
    """The name that an annotation gives, or the field's own."""
    if typing.get_origin(hint) is Annotated:
        for extra in typing.get_args(hint)[1:]:
            given = getattr(extra, "name", None)
            if isinstance(given, str):
                return given
    return name.replace("_", "-")


def changes(old: RunConfig, new: RunConfig) -> dict[Setting, tuple[Any, Any]]:
    """The settings that differ, each with both values."""
    places = flags_of(new).values()
    pairs = {path: (setting_at(old, path), setting_at(new, path)) for path in places}
    return {path: (before, after) for path, (before, after) in pairs.items() if before != after}


def setting_at(config: Any, path: Setting) -> Any:
    """The setting in a place; None where the config has no such place."""
    for name in path:
        config = getattr(config, name, None)
    return config


def require_own_flags(arguments: Sequence[str], config: RunConfig, others: Sequence[str]) -> None:
    """Refuse flags of other tasks, learners and outer steps.

    Args:
        others: flags of the command besides those of the config.
    Raises:
        ValueError: naming each, and what it is for.
    """
    own = {*flags_of(config), *others}
    strange: dict[int, str] = {}  # by their places among the arguments
    for place, argument in enumerate(arguments):
        flag = argument.partition("=")[0]
        if flag.startswith("--") and not _spellings(flag) & own:
            strange[place] = flag
    runs, refused = _one_run_of_each() if strange else [], []
    for place, flag in strange.items():
        if readers := _readers(flag, config, runs):
            value = arguments[place].partition("=")[2]
            values = [value] if value else itertools.takewhile(_is_value, arguments[place + 1 :])
            refused.append(f"{' '.join([flag.replace('_', '-'), *values])} applies to {readers}")
    _refuse(refused)


class _Run(NamedTuple):
    """Settings of one kind of task, learner and outer step, with their flags."""

    kind: Kind
    config: RunConfig
    flags: set[str]


def _one_run_of_each() -> list[_Run]:
    """A run of every kind of task with every learner and outer step that it has."""
    runs: list[_Run] = []
    for name, entry in LEARNERS.items():
        for kind in entry.kinds:
            example = config_type(ENVS[kind], entry)(env=ENVS[kind], learner=name, method=entry.configs[kind]())
            examples = [with_outer_step(example, step) for step in outer_steps(example)] or [example]
            runs.extend(_Run(kind, each, set(flags_of(each))) for each in examples)
    return runs


def _refuse(ignored: Sequence[str]) -> None:
    """Refuse flags, with these sentences as the message.

    Raises:
        ValueError: if there are any sentences.
    """
    if ignored:
        raise ValueError(f"{'; '.join(ignored)}: leave {'it' if len(ignored) == 1 else 'them'} out")


def _spellings(flag: str) -> set[str]:
    """A flag with and without the `no-` that switches a setting off."""
    name = flag.replace("_", "-")
    return {name, name.replace("--no-", "--", 1), name.replace(".no-", ".", 1)}


def _is_value(argument: str) -> bool:
    return not argument.startswith("--")


def _readers(flag: str, config: RunConfig, runs: Sequence[_Run]) -> str | None:
    """The tasks, learners or outer steps whose runs have such a flag, and those of `config`."""
    found = [run for run in runs if _spellings(flag) & run.flags]
    if not found:
        return None
    own = [run.config for run in found if run.kind == config.kind]
    if not own:
        kinds = dict.fromkeys(TASKS_IN_WORDS[run.kind] for run in found)
        return f"{' and '.join(kinds)}, not to --env {config.env}"
    names = list(dict.fromkeys(each.learner for each in own))
    if config.learner not in names:
        return f"{learners_in_words(names)}, not to --learner {config.learner}"
    steps = list(dict.fromkeys(each.method.outer.step for each in own if each.learner == config.learner))
    return f"--outer.step {' or '.join(steps)}, not to --outer.step {config.method.outer.step}"


def learners_in_words(names: Sequence[str]) -> str:
    return f"--learner {names[0]}" if len(names) == 1 else f"learners {', '.join(names)}"


class Use(NamedTuple):
    """The runs that read certain settings."""

    places: tuple[str, ...]  # of settings, or their prefixes, with dots
    is_read: bool  # in the run that is asked about
    readers: str
    asked: str  # that this run has in their place


def uses(config: RunConfig) -> list[Use]:
    """The settings that some runs have without reading them."""
    task, method, learner = config.task, config.method, f"--learner {config.learner}"
    found: list[Use] = []

    def use(places: str, is_read: bool, readers: str, asked: str) -> None:
        found.append(Use(tuple(places.split()), is_read, readers, asked))

    for places, readers in LEARNERS[config.learner].unread.items():
        use(places, False, readers, learner)
    if config.kind == "reinforcement":
        where = f"--sampler {task.sampling.sampler}"
        workers = "task.sampling.num_workers task.sampling.task_timeout"
        use(workers, task.sampling.sampler != "local", "--sampler processes or ray", where)
        use("task.sampling.ray_address", task.sampling.sampler == "ray", "--sampler ray", where)
    if config.kind == "pictures":
        use("task.split", config.env == OMNIGLOT, f"--env {OMNIGLOT}", f"--env {config.env}")
        steps = "learners that take gradient steps on a task"
        takes_steps = LEARNERS[config.learner].gradient_steps
        use("evaluation.num_steps", takes_steps, steps, learner)
        use("method.network.head_std", takes_steps, "learners that adapt a last layer", learner)
    if config.kind == "density":
        use("evaluation.num_steps", False, "learners that take gradient steps on a task", learner)
    outer = getattr(method, "outer", None)
    if outer is not None and outer.step in ("gradient", "proximal"):
        is_plain = outer.step == "gradient"
        adam, place = (outer.gradient, "gradient") if is_plain else (outer.proximal.adam, "proximal.adam")
        decays = "a learning rate that decays"
        use(f"method.outer.{place}.decay_steps", adam.decay != "none", decays, "decay none")
    if outer is not None and outer.step == "proximal":
        sampled = "method.outer.proximal.clip method.outer.proximal.exploration"
        use(sampled, config.kind == "reinforcement", "task environments", f"--env {config.env}")
    if hasattr(method, "inner"):
        number = method.inner.num_steps
        use("method.inner.train_later_ratio", number > 1, "several inner steps", f"--inner.num-steps {number}")
        learned = method.inner.learn_step_sizes
        use(
            "method.inner.test_step_size method.inner.later_ratio method.inner.train_later_ratio",
            not learned,
            "step sizes that are set",
            "learned ones",
        )
    if hasattr(method, "optimiser"):
        names = "method.optimiser.beta2 method.optimiser.epsilon"
        use(names, method.optimiser.kind == "adam", "kind adam", "kind sgd")
    if hasattr(method, "matching"):
        matching = method.matching
        use("method.matching.scale", matching.distance == "cosine", "distance cosine", f"distance {matching.distance}")
        use("method.matching.num_readings", matching.full_context, "--matching.full-context", "a run without it")
    return found


def require_read(config: RunConfig, given: Mapping[Setting, Any], flag: Callable[[Setting], str] | None = None) -> None:
    """Refuse settings that nothing in such a run would read.

    Args:
        given: settings that the user gave, where they differ from the defaults.
        flag: gives their names on the command line, if not those of training.
    Raises:
        ValueError: if nothing in such a run reads one of them.
    """
    names = {path: name for name, path in flags_of(config).items()}
    call = flag or (lambda path: names[path])
    ignored: dict[Setting, str] = {}
    for use in uses(config):
        for path, value in given.items():
            place = ".".join(path)
            if not use.is_read and any(place == each or place.startswith(f"{each}.") for each in use.places):
                ignored.setdefault(path, f"{call(path)} {_value(value)} applies to {use.readers}, not to {use.asked}")
    _refuse(list(ignored.values()))


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
