"""How every command reads its flags, and shows them."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import docstring_parser
import tyro

C = TypeVar("C")


def parse(kind: type[C], examples: Sequence[str], arguments: Sequence[str] | None, default: C | None = None) -> C:
    """A command as a `kind`, a dataclass, from `arguments`, by default those of the process.

    Args:
        examples: commands to paste, shown by --help.
    Raises:
        SystemExit: after --help, and after a flag that is refused.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if {"-h", "--help"} & set(given):
        _show_whole_paragraphs(kind)
    description = "\n".join([f"{kind.__doc__}", "", "Examples:", *(f"  {example}" for example in examples)])
    extra: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(kind, args=given, description=description, **extra)


def _show_whole_paragraphs(kind: Any) -> None:
    """Hand tyro the docstring of each setting as one paragraph: it would break the lines where the source does."""
    texts = {each.arg_name: each.description for each in docstring_parser.parse_from_object(kind).params}
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if text := texts.get(field.name):
            field.metadata = {**field.metadata, "help": " ".join(text.split())}  # type: ignore[assignment]
        if dataclasses.is_dataclass(hints[field.name]):
            _show_whole_paragraphs(hints[field.name])
