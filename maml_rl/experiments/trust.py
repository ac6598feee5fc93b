"""The guard against code in saved runs, which may come from anybody: only modules that the user names are imported."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from maml_rl.experiments.config import RunConfig
from maml_rl.experiments.environments import is_live, module_file, no_such_module
from maml_rl.policies import module as modules


class Import(NamedTuple):
    """A class of the user's own that a run needs."""

    name: str  # module:Class
    purpose: str
    flag: str  # of training that names the class


def imports_of(config: RunConfig) -> Iterator[Import]:
    """The user's own classes that using a run would import and that this process does not have yet."""
    if ":" in config.env and not is_live(config.env):
        yield Import(config.env, "environment", "--env")
    network = getattr(getattr(config.method, "policy", None), "network", None)
    if network is not None and not modules.is_live(network):
        yield Import(network, "network", "--policy.network")


def trusted_names(config: RunConfig, env: str | None, trust_env: bool) -> tuple[str, ...]:
    """The classes whose import a command line asks for, by --env or, all that the run names, by --trust-env.

    Raises:
        ValueError: if the environment is not that of the run with these settings.
    """
    if env not in (None, config.env):
        raise ValueError(f"env must be the environment of the run, {config.env}, got {env}: leave it out")
    if trust_env:
        return tuple(each.name for each in imports_of(config))
    return () if env is None else (env,)


def by_flag(wanted: Import) -> str:
    """The remedy for a run that is resumed."""
    return f"add {wanted.flag} {shlex.quote(wanted.name)}"


def by_trust(wanted: Import) -> str:
    """The remedy for a run that a command reads."""
    return f"{by_flag(wanted)}, or --trust-env" if wanted.flag == "--env" else "add --trust-env"


def require_trust(run: Path, config: RunConfig, named: tuple[str, ...], remedy: Callable[[Import], str]) -> None:
    """Refuse to import a user's module just because a saved run names it; otherwise say what is imported.

    A run's folder may come from anybody, and importing a module runs it.

    Args:
        named: the classes that the caller names, independently of the run.
        remedy: what a user who trusts the code is to do.
    Raises:
        ValueError: if something else would be imported, or its module lies in the run's folder or nowhere.
    """
    for wanted in imports_of(config):
        module = wanted.name.rpartition(":")[0]
        file = module_file(module, run)
        if wanted.name not in named:
            raise ValueError(
                f"the run in {run} wants to import {module!r} ({file or 'not found'}) for its {wanted.purpose} "
                f"{wanted.name}: if you trust that code, {remedy(wanted)}"
            )
        if file is not None:
            print(f"importing {module} from {file} for the run in {run}", file=sys.stderr)
        elif module not in sys.modules:
            raise no_such_module(module)
