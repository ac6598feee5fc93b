"""The command line for the model zoo: a table of its runs, or one run's card."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from maml_rl.commands.command_line import parse
from maml_rl.commands.streams import lenient_streams
from maml_rl.experiments.zoo import PREFIX, Card, card, cards

EXAMPLES = (
    "python scripts/zoo.py",
    "python scripts/zoo.py halfcheetah-vel",
    "python scripts/evaluate.py zoo:halfcheetah-vel --tasks published",
)


@dataclass(frozen=True)
class ZooCommand:
    """List the trained runs of the zoo, or show the card of one."""

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = None
    """Run whose card to show; by default all are listed. Every command that takes a run's folder takes zoo:NAME."""


@lenient_streams()
def zoo(arguments: Sequence[str] | None = None) -> int:
    """Run the zoo command; return the exit status: 0, or 2 if there is no run of that name."""
    given = sys.argv[1:] if arguments is None else arguments
    command = parse(ZooCommand, EXAMPLES, [each.removeprefix(PREFIX) for each in given])
    if command.name is None:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
        console.print(_table(cards().values()))
        return 0
    try:
        shown = card(command.name)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, text in _lines(shown):
        print(f"{name:8} {text}")
    return 0


def _table(runs: Iterable[Card]) -> Table:
    table = Table("name", "task", "learner", "score (published)", "from", box=None, padding=(0, 2, 0, 0))
    for each in runs:
        origin = "package" if each.archive is None else f"release, {each.archive.size / 1e6:.1f} MB"
        table.add_row(each.name, each.task, each.learner, each.score, origin)
    return table


def _lines(of: Card) -> list[tuple[str, str]]:
    shown = {name: text for name, text in vars(of).items() if name != "archive"}
    if of.archive is not None:
        shown |= {"file": f"{of.name}.zip, {of.archive.size:,} bytes", "sha256": of.archive.sha256}
    return [*shown.items(), ("use", f"maml-rl evaluate {PREFIX}{of.name}, maml_rl.load({PREFIX + of.name!r})")]
