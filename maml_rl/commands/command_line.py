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

C = TypeVar("C")


def parse(kind: type[C], examples: Sequence[str], arguments: Sequence[str] | None, default: C | None = None) -> C:
    """Parse `arguments`, by default those of the process, into a command of the dataclass `kind`.

    Args:
        examples: commands to paste, shown by --help.
    Raises:
        SystemExit: after --help, and after a flag that is refused.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if {"-h", "--help"} & set(given):
        _show_whole_paragraphs(kind)
    description = "\n".join([f"{kind.__doc__}", "", "Examples:", *(f"  {_as_called(each)}" for each in examples)])
    extra: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(kind, args=given, description=description, config=(tyro.conf.AvoidSubcommands,), **extra)


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
