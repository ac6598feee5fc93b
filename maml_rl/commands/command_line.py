"""Reading of flags and display of help for every command."""

from __future__ import annotations

import dataclasses
import re
import sys
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import docstring_parser
import tyro

from maml_rl.experiments.zoo import PREFIX, resolved

C = TypeVar("C")


def parse(kind: type[C], examples: Sequence[str], arguments: Sequence[str] | None, default: C | None = None) -> C:
    """Parse `arguments`, by default those of the process, into a command of the dataclass `kind`.

    Args:
        examples: commands to paste, shown by --help.
    Raises:
        SystemExit: after --help, and after a flag or a run of the zoo that is refused.
    """
    given = without_zoo(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(given):
        _show_whole_paragraphs(kind)
    description = "\n".join([f"{kind.__doc__}", "", "Examples:", *(f"  {_as_called(each)}" for each in examples)])
    extra: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(kind, args=given, description=description, config=(tyro.conf.AvoidSubcommands,), **extra)


def without_zoo(arguments: Sequence[str]) -> list[str]:
    """The arguments with the folder of each run zoo:NAME that is to be read. A run that begins with it, by --init-from,
    has the name among its settings."""
    found, flag = [], ""
    for each in arguments:
        flag = each if each.startswith("--") else flag
        if each.startswith(PREFIX) and flag != "--init-from":
            try:
                if flag == "--resume":
                    raise ValueError(
                        f"resume must name a run of yours, got {each}: begin with it by --init-from {each}"
                    )
                each = str(resolved(each))
            except ValueError as error:
                print(f"error: {error}", file=sys.stderr)
                raise SystemExit(2) from None
        found.append(each)
    return found


def _as_called(example: str) -> str:
    """The example for this program: maml-rl has a subcommand for every script, and no scripts beside it."""
    if not sys.argv[0].startswith("maml-rl "):
        return example
    return re.sub(r"python scripts/(\w+)\.py", lambda script: f"maml-rl {script[1].replace('_', '-')}", example)


def _show_whole_paragraphs(kind: Any) -> None:
    """Give tyro the docstring of each setting as one paragraph; otherwise it breaks lines where the source does."""
    texts: dict[str, str | None] = {}
    for base in reversed(kind.__mro__[:-1]):  # a command that is made of several has no source code
        texts |= {each.arg_name: each.description for each in docstring_parser.parse_from_object(base).params}
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if text := texts.get(field.name):
            field.metadata = {**field.metadata, "help": " ".join(text.split())}  # type: ignore[assignment]
        for hint in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(hint):
                _show_whole_paragraphs(hint)
