"""The command maml-rl, which an installed package has in place of scripts."""

import sys

import pytest

from maml_rl.commands import main as entry
from maml_rl.commands.main import COMMANDS, main, program
from maml_rl.version import __version__


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["maml-rl"])


def test_it_lists_its_subcommands(capsys):
    assert main(["--help"]) == 0 and main([]) == 2
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_only_the_program_handles_signals(monkeypatch, capsys):
    handled = []
    monkeypatch.setattr(entry, "exit_on_signals", lambda: handled.append(True))
    assert main(["--version"]) == 0 and not handled
    monkeypatch.setattr(sys, "argv", ["maml-rl", "--version"])
    assert program() == 0 and handled


def test_its_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"maml-rl {__version__}\n"


def test_another_subcommand_is_refused(capsys):
    assert main(["trian", "--env", "Navigation2D"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: subcommand must be one of train, evaluate,") and "got 'trian'" in error


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_subcommand_call_it(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and f"\n  maml-rl {name} " in shown and "scripts/" not in shown
