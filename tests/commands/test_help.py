"""What --help shows of every command, in a terminal of eighty columns."""

import functools
import io
import itertools
import re
import shlex
import signal
import sys
from pathlib import Path
from unittest import mock

import pytest

from maml_rl.api.settings import with_settings
from maml_rl.commands import (
    benchmark,
    check_env,
    compare,
    evaluate,
    leaderboard,
    main,
    play,
    report,
    train,
    visualize,
    zoo,
)
from maml_rl.commands.command_line import parse
from maml_rl.experiments.config import DISTRIBUTIONS, OMNIGLOT, SINUSOID
from maml_rl.experiments.flags import flags_of
from maml_rl.experiments.presets import default_config
from maml_rl.experiments.table import names_for
from maml_rl.training.interrupts import ENDING

ENVS = {"reinforcement": train.MAIN_ENV, "regression": SINUSOID, "pictures": OMNIGLOT, "density": DISTRIBUTIONS}
TRAININGS = [(env, learner) for kind, env in ENVS.items() for learner in names_for(kind)]


def training(env, learner):
    """The module, the type and the default of a training command."""
    run = default_config(env, learner)
    kind = train.command_type(type(run))
    return train, kind, kind(run=run)


WIDTH = 80
COMMANDS = {
    "train": training(train.MAIN_ENV, "maml"),
    "train_omniglot": training(OMNIGLOT, "maml"),
    "evaluate": (evaluate, evaluate.EvaluateCommand, None),
    "visualize": (visualize, visualize.VisualizeCommand, None),
    "report": (report, report.ReportCommand, None),
    "play": (play, play.PlayCommand, None),
    "compare": (compare, compare.CompareCommand, None),
    "leaderboard": (leaderboard, leaderboard.LeaderboardCommand, None),
    "zoo": (zoo, zoo.ZooCommand, None),
    "check_env": (check_env, check_env.CheckEnvCommand, None),
    "benchmark": (benchmark, benchmark.BenchmarkCommand, None),
}
OWN = {"--help", "--physics", "--output-dir", "--resume", "--preset", "--film-every", "--track", "--seeds", "--jobs"}
"""Flags of training that are no settings of the run."""


@functools.cache
def help_of(name):
    """The lines of a command's help, or of training by (environment, learner)."""
    module, kind, default = training(*name) if isinstance(name, tuple) else COMMANDS[name]
    script = "train" if isinstance(name, tuple) else name
    screen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with (
        mock.patch.dict("os.environ", COLUMNS=str(WIDTH)),
        mock.patch.object(sys, "argv", [f"scripts/{script}.py"]),
        mock.patch.object(sys, "stdout", screen),
        pytest.raises(SystemExit, match="0"),
    ):
        parse(kind, module.EXAMPLES, ["--help"], default)
    screen.seek(0)
    return re.sub("\x1b\\[[0-9;]*m", "", screen.read()).splitlines()


@pytest.fixture(params=[*COMMANDS, *TRAININGS], ids=str)
def shown(request):
    return help_of(request.param)


def entries(shown):
    """(flag, lines of its text) of all flags."""
    found = []
    for line in (line.strip("│").rstrip() for line in shown if line.startswith("│")):
        if re.match(r" (-|\[?(STR|PATH|WHAT|NAME)\b)", line):
            flag, _, text = line.strip().partition("  ")
            found.append((flag, [text.strip()] if text else []))
        elif found and re.match(r" {4,}\S", line):
            found[-1][1].append(line.strip())
    return found


def test_no_line_is_wider_than_the_terminal(shown):
    assert [line for line in shown if len(line) > WIDTH] == []


def test_every_flag_says_what_it_does(shown):
    found = entries(shown)
    assert len(found) > 1
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


def flags_shown(env, learner):
    """The flags in the help of training; --flag, --no-flag is shown for a flag that is on or off."""
    shown = itertools.chain.from_iterable(
        re.findall(r"--[\w.-]+", flag) for flag, _ in entries(help_of((env, learner)))
    )
    return {re.sub(r"(--|\.)no-", r"\1", flag) for flag in shown}


@pytest.mark.parametrize(("env", "learner"), TRAININGS)
def test_training_shows_the_flags_of_its_task_and_learner_and_no_others(env, learner):
    assert flags_shown(env, learner) == {*flags_of(default_config(env, learner)), *OWN}


def test_flags_of_other_kinds_are_not_shown():
    shown = {kind: flags_shown(env, names_for(kind)[0]) for kind, env in ENVS.items()}
    own = {"reinforcement": "--horizon", "regression": "--sinusoid.num-examples", "pictures": "--ways"}
    own |= {"density": "--distributions.num-examples"}
    for kind, flag in own.items():
        assert [name for name, flags in shown.items() if flag in flags] == [kind]
    assert "--inner.num-steps" in shown["pictures"]
    assert not any(flag.startswith("--inner") for flag in flags_shown(OMNIGLOT, "prototypical"))


@pytest.mark.parametrize(("kind", "env"), ENVS.items())
def test_training_names_the_learners_of_its_tasks(kind, env):
    first = names_for(kind)[0]
    text = next(" ".join(text) for flag, text in entries(help_of((env, first))) if flag.startswith("--learner"))
    assert text == f"Learning algorithm: {', '.join(names_for(kind))}. (default: {first})"


def value_at(config, path):
    return functools.reduce(getattr, path, config)


def as_given(flag, value):
    """A setting as it stands on a command line."""
    if isinstance(value, bool):
        return [flag if value else re.sub(r"(^--.*\.|^--)", r"\1no-", flag)]
    return [flag, *map(str, value if isinstance(value, tuple) else [value])]


@pytest.mark.parametrize(("env", "learner"), TRAININGS)
def test_every_flag_that_is_shown_is_accepted_here_and_in_python(env, learner):
    config = default_config(env, learner)
    values = {flag: value_at(config, path) for flag, path in flags_of(config).items()}
    given = [part for flag, value in values.items() for part in as_given(flag, value)]
    assert train.parse_command(env, given).run == config
    assert with_settings(config, {flag.removeprefix("--").replace("-", "_"): v for flag, v in values.items()}) == config


@pytest.fixture
def own_signals():
    """Signals mean again what they did, after a command has set what they do."""
    before = {signum: signal.getsignal(signum) for signum in ENDING}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.mark.usefixtures("own_signals")
def test_the_command_lists_its_subcommands(capsys):
    assert main.main(["--help"]) == 0
    listed = dict(re.findall(r"^  (\S+) +(\S.*)$", capsys.readouterr().out, re.MULTILINE))
    scripts = {path.stem.replace("_", "-") for path in (Path(__file__).parents[2] / "scripts").glob("*.py")}
    assert listed.keys() == main.COMMANDS.keys() == {name for name in scripts if not name.startswith("train-")}
    assert all(text.endswith(".") for text in listed.values())
    assert main.main([]) == 2  # nothing was asked for
    capsys.readouterr()
    assert main.main(["trian"]) == 2
    assert capsys.readouterr().err == (
        "error: subcommand must be one of train, evaluate, visualize, report, play, compare, leaderboard, zoo, "
        "check-env, benchmark, got 'trian'\n"
    )


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_a_subcommand_has_the_help_of_its_script(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["maml-rl"])
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    with pytest.raises(SystemExit, match="0"):
        main.main([name, "--help"])
    assert f"usage: maml-rl {name}" in re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
