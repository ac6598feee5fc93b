"""The flags of every command, read from the parsers that the commands themselves use."""

from __future__ import annotations

import dataclasses
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn
from unittest import mock

import tyro

from maml_rl.commands.main import main
from maml_rl.experiments.config import DISTRIBUTIONS, OMNIGLOT, SINUSOID
from maml_rl.experiments.table import LEARNERS
from maml_rl.learners.entry import Kind


class Flag(NamedTuple):
    """One flag of a command."""

    name: str
    values: str  # what may stand after it, or the flag that switches it off
    default: str
    text: str


ENVS: dict[Kind, str] = {
    "reinforcement": "maml/HalfCheetahVel-rllab-v0",
    "regression": SINUSOID,
    "pictures": OMNIGLOT,
    "density": DISTRIBUTIONS,
}
"""The tasks that stand for each kind."""

PAIRS = [(kind, name) for kind in ENVS for name, entry in LEARNERS.items() if kind in entry.kinds]


@dataclasses.dataclass
class _CaughtError(BaseException):
    """The arguments that a command hands to tyro."""

    kind: Any
    settings: dict[str, Any]


def description(name: str) -> str:
    """The text above a command's flags."""
    return _caught([name]).settings["description"]


def flags_of(*arguments: str) -> list[Flag]:
    """The flags of `maml-rl ARGUMENTS --help`, in its order."""
    caught = _caught(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of get_parser, which has no successor yet
        parser = tyro.extras.get_parser(caught.kind, **caught.settings)
    return [_flag(action) for action in parser._actions if "--help" not in action.option_strings]


def training_flags(kind: Kind, learner: str) -> list[Flag]:
    """The settings of a training run of a learner on one kind of tasks."""
    return flags_of("train", "--env", ENVS[kind], "--learner", learner)


def require_understood(arguments: Sequence[str]) -> None:
    """Parse the arguments of `maml-rl` without running the command.

    Raises:
        SystemExit: if a flag or value is refused.
    """
    caught = _caught(arguments)
    with mock.patch.object(sys, "argv", [f"maml-rl {arguments[0]}"]):
        tyro.cli(caught.kind, args=list(arguments[1:]), **caught.settings)


def _caught(arguments: Sequence[str]) -> _CaughtError:
    def catch(kind: Any, args: Any = None, **settings: Any) -> NoReturn:
        raise _CaughtError(kind, settings)

    with mock.patch.object(tyro, "cli", catch), _argv():
        try:
            main([*arguments, "--help"])
        except _CaughtError as caught:
            return caught
    raise AssertionError(f"{arguments} does not parse its flags with tyro")


@contextmanager
def _argv() -> Iterator[None]:
    before = sys.argv
    try:
        yield
    finally:
        sys.argv = before  # the program names its subcommand in it


def _flag(action: Any) -> Flag:
    help_text = re.sub("\x1b\\[[0-9;]*m", "", action.help or "")
    text, _, rest = help_text.rpartition("(default: ") if "(default: " in help_text else (help_text, "", "")
    default = rest.removesuffix(")")
    name, *off = action.option_strings or [action.dest]
    values = ", ".join(off) or (action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar or ()))
    values = values.replace("{None}|", "").replace("{None,", "{")  # nothing is given by leaving the flag out
    return Flag(name, values, default, " ".join(text.split()))
