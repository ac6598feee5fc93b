"""Settings by name: that of their flag, their last name, or as much of their path as is unique."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maml_rl.experiments.config import RunConfig, with_outer_step
from maml_rl.experiments.flags import flags_of
from maml_rl.experiments.saved_config import parsed

OUTER_STEP = "outer.step"


def with_settings(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """The config with new values for the named settings.

    Args:
        settings: by name, as the flags are called: num_iterations, "inner.step_size"; or shorter where only one setting
            is called so: step_size. Two underscores stand for a dot: inner__step_size.
    Raises:
        ValueError: if there is no such setting for this task and learner, several have the name, or a value is refused.
    """
    named = {name.replace("__", "."): value for name, value in settings.items()}
    if OUTER_STEP in named:
        config = with_outer_step(config, named.pop(OUTER_STEP))
    for name, value in named.items():
        config = _replaced(config, _path_of(config, name), value)
    return config


def _path_of(config: RunConfig, name: str) -> tuple[str, ...]:
    flags = flags_of(config)
    if (flag := f"--{name.replace('_', '-')}") in flags:
        return flags[flag]
    wanted, paths = tuple(name.split(".")), list(flags.values())
    found = [path for path in paths if path[-len(wanted) :] == wanted]
    if len(found) == 1:
        return found[0]
    whole = [".".join(path) for path in found]
    if found:
        raise ValueError(f"setting {name} must name one setting, but {whole} are called so: write more of the path")
    near = difflib.get_close_matches(wanted[-1], sorted({path[-1] for path in paths}), n=3)
    hint = f": did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"setting {name} does not exist for {config.env} and learner {config.learner}{hint}")


def _replaced(node: Any, path: tuple[str, ...], value: Any) -> Any:
    first, *rest = path
    if rest:
        value = _replaced(getattr(node, first), tuple(rest), value)
    else:
        plain = value.item() if isinstance(value, np.generic) else str(value) if isinstance(value, Path) else value
        value = parsed(typing.get_type_hints(type(node), include_extras=True)[first], plain, first)
    return dataclasses.replace(node, **{first: value})
