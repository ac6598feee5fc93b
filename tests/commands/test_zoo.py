"""The zoo on the command line: a table, a card, and zoo:NAME wherever a run is read."""

import json
import sys
from pathlib import Path

import pytest

from maml_rl.commands.command_line import parse
from maml_rl.commands.evaluate import EvaluateCommand, evaluate
from maml_rl.commands.train import train
from maml_rl.commands.zoo import zoo
from maml_rl.experiments.runs import load_checkpoint, read_config
from maml_rl.experiments.zoo import FOLDER, card, cards

TINY = ["--num-tasks", "2", "--episodes-per-task", "2", "--evaluate-every", "0", "--num-iterations", "0"]


def test_all_runs_are_listed(capsys):
    assert zoo([]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown for name in cards())


@pytest.mark.parametrize("name", cards())
def test_a_card_shows_everything(name, capsys):
    assert zoo([name]) == zoo([f"zoo:{name}"]) == 0
    shown = capsys.readouterr().out
    each = card(name)
    assert all(text in shown for text in (each.task, each.scores, each.command, each.commit, each.licence, each.source))
    assert (each.archive is None) or each.archive.sha256 in shown


def test_an_unknown_run_is_refused_in_one_sentence(capsys):
    assert zoo(["halfcheeta-vel"]) == 2
    assert capsys.readouterr().err == "error: the zoo has no run 'halfcheeta-vel': did you mean halfcheetah-vel?\n"
    with pytest.raises(SystemExit, match="2"):
        evaluate(["zoo:halfcheeta-vel"])
    assert "did you mean halfcheetah-vel" in capsys.readouterr().err


def test_a_command_reads_a_run_of_the_zoo_and_leaves_it_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(FOLDER.rglob("*"))
    assert evaluate(["zoo:navigation", "--num-tasks", "2", "--num-steps", "1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["mean"]) == 2
    assert sorted(FOLDER.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "navigation_evaluation.csv",
        "navigation_evaluation.json",
    ]


def test_other_arguments_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evaluate"])
    assert parse(EvaluateCommand, [], ["runs/zoo:mine"]).runs == (Path("runs/zoo:mine"),)


def test_a_run_begins_with_one_of_the_zoo_and_says_so(tmp_path):
    arguments = ["--init-from", "zoo:navigation", *TINY, "--output-dir", str(tmp_path / "run")]
    assert train("Navigation2D", arguments) == 0
    assert read_config(tmp_path / "run").init_from == "zoo:navigation"
    begun, zoos = load_checkpoint(tmp_path / "run", "last").state, load_checkpoint(FOLDER / "navigation", "last").state
    assert all((begun[name] == zoos[name]).all() for name in zoos if name.startswith("params/"))


def test_a_run_of_the_zoo_is_not_resumed(capsys):
    with pytest.raises(SystemExit, match="2"):
        train("Navigation2D", ["--resume", "zoo:navigation"])
    assert (
        "resume must name a run of yours, got zoo:navigation: begin with it by --init-from" in capsys.readouterr().err
    )
