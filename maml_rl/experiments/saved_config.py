"""Configs on disk: written whole and read strictly. (cattrs would take "3" for 3, and name no entry by its path.)"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Annotated, Any, Literal

from maml_rl.experiments.config import RunConfig, config_type, kind_of
from maml_rl.experiments.table import learner_entry
from maml_rl.storage.run_folder import FORMAT_VERSION as FORMAT_VERSION  # of agents, too
from maml_rl.storage.run_folder import ConfigError

IN_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def to_dict(config: RunConfig) -> dict[str, Any]:
    return dataclasses.asdict(config)


def from_dict(saved: Any) -> RunConfig:
    """The config that `to_dict` saved.

    Raises:
        ConfigError: for anything that is not one, naming the entry.
    """
    _require(isinstance(saved, dict), saved, "an object", "config")
    for name in ("env", "learner"):
        _require(isinstance(saved.get(name), str), saved.get(name), "a name", f"config.{name}")
    try:
        entry = learner_entry(saved["learner"], kind_of(saved["env"]))
    except ValueError as error:
        raise ConfigError(f"config.learner: {error}") from error
    return parsed(config_type(saved["env"], entry), saved, "config")


def parsed(kind: Any, value: Any, path: str) -> Any:
    """`value`, as JSON has it, as a `kind`: a dataclass, tuple, literal, optional, union of named steps or number."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return parsed(arguments[0], value, path)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, path)
    if origin is Literal:
        return _require(value in arguments and type(value) in map(type, arguments), value, f"one of {arguments}", path)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        others = [a for a in arguments if a is not type(None)]
        return parsed(others[0] if len(others) == 1 else _named(others, value, path), value, path)
    if origin is tuple:
        _require(isinstance(value, list | tuple), value, "a list", path)
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        _require(len(kinds) == len(value), value, f"a list of {len(kinds)}", path)
        return tuple(parsed(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if kind is float and type(value) is int:
        return float(value)
    return _require(type(value) is kind, value, IN_WORDS[kind], path)


def _named(kinds: list[Any], value: Any, path: str) -> Any:
    """The outer step that a saved one names."""
    _require(isinstance(value, dict), value, "an object", path)
    found = [kind for kind in kinds if kind.name == value.get("step")]
    _require(bool(found), value.get("step"), f"one of {[kind.name for kind in kinds]}", f"{path}.step")
    return found[0]


def _parse_dataclass(kind: Any, value: Any, path: str) -> Any:
    _require(isinstance(value, dict), value, "an object", path)
    hints = {
        name: hint
        for name, hint in typing.get_type_hints(kind, include_extras=True).items()
        if name in {field.name for field in dataclasses.fields(kind)}
    }
    unknown, missing = value.keys() - hints.keys(), hints.keys() - value.keys()
    if unknown or missing:
        raise ConfigError(
            f"{path} has unknown entries {sorted(unknown)} and lacks {sorted(missing)}: another version's?"
        )
    values = {name: parsed(hint, value[name], f"{path}.{name}") for name, hint in hints.items()}
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _require(holds: bool, value: Any, rule: str, path: str) -> Any:
    if not holds:
        raise ConfigError(f"{path} must be {rule}, got {value!r}")
    return value
