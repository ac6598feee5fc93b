"""What --help shows of every command, in a terminal of eighty columns."""

import io
import itertools
import re
import shlex
import sys

import pytest

from maml_rl import cli, cli_benchmark, cli_check_env, cli_compare, cli_evaluate, cli_leaderboard, cli_visualize
from maml_rl.command_line import parse
from maml_rl.config import RunConfig
from maml_rl.presets import omniglot

WIDTH = 80
COMMANDS = {
    "train": (cli, cli.TrainCommand, cli.TrainCommand(RunConfig())),
    "train_omniglot": (cli, cli.TrainCommand, cli.TrainCommand(omniglot("maml", 5, 1))),
    "evaluate": (cli_evaluate, cli_evaluate.EvaluateCommand, None),
    "visualize": (cli_visualize, cli_visualize.VisualizeCommand, None),
    "compare": (cli_compare, cli_compare.CompareCommand, None),
    "leaderboard": (cli_leaderboard, cli_leaderboard.LeaderboardCommand, None),
    "check_env": (cli_check_env, cli_check_env.CheckEnvCommand, None),
    "benchmark": (cli_benchmark, cli_benchmark.BenchmarkCommand, None),
}


@pytest.fixture(params=COMMANDS)
def shown(request, monkeypatch):
    """The lines of a command's help."""
    module, kind, default = COMMANDS[request.param]
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setattr(sys, "argv", [f"scripts/{request.param}.py"])
    screen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="0"):
        patch.setattr(sys, "stdout", screen)
        parse(kind, module.EXAMPLES, ["--help"], default)
    screen.seek(0)
    return re.sub("\x1b\\[[0-9;]*m", "", screen.read()).splitlines()


def entries(shown):
    """(flag, lines of its text) of all flags."""
    found = []
    for line in (line.strip("│").rstrip() for line in shown if line.startswith("│")):
        if re.match(r" (-|(STR|PATH|WHAT)\b)", line):
            flag, _, text = line.strip().partition("  ")
            found.append((flag, [text.strip()] if text else []))
        elif found and re.match(r" {4,}\S", line):
            found[-1][1].append(line.strip())
    return found


def test_no_line_is_wider_than_the_terminal(shown):
    assert [line for line in shown if len(line) > WIDTH] == []


def test_every_flag_says_what_it_does(shown):
    found = entries(shown)
    assert len(found) > 3
    silent = [flag for flag, text in found if re.fullmatch(r"(\(.*\))?", " ".join(text))]
    assert silent == []


def test_text_is_one_paragraph(shown):
    """A line ends only where the next word would not fit, and not where the source's does."""
    for line, following in itertools.pairwise(shown):
        texts = [re.match(r"│( {6,})(\S.*?) *│$", each) for each in (line, following)]
        if all(texts) and texts[0][1] == texts[1][1]:
            assert len(f"│{texts[0][1]}{texts[0][2]} {texts[1][2].split()[0]} │") > WIDTH, (line, following)


def test_sentences_begin_with_what_they_are_about(shown):
    assert [flag for flag, text in entries(shown) if text and re.match(r"(Of|What) ", text[0])] == []


def test_examples_are_right(shown):
    start = shown.index("Examples:")
    examples = [line.strip() for line in shown[start + 1 : shown.index("", start)]]
    assert len(examples) >= 2
    for example in examples:
        python, script, *flags = shlex.split(example)
        name = script.removeprefix("scripts/").removesuffix(".py")
        assert python == "python" and name in COMMANDS
        module, kind, default = COMMANDS[name]
        parse(kind, module.EXAMPLES, flags, default)
