"""What a user and a public host are told about the package is so."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from maml_rl.commands.main import COMMANDS
from maml_rl.commands.train import parse_command
from maml_rl.version import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_names_this_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_ci_runs_every_python_that_the_package_names():
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert f"python: {json.dumps(named)}" in workflow
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert all((ROOT / script).exists() for script in re.findall(r"run: bash (\S+)", workflow))


@pytest.mark.parametrize("extra", ["viewer", "ray", "metaworld", "docs", "wandb", "trackio", "optuna", "dev"])
def test_every_extra_is_explained(extra):
    assert PROJECT["optional-dependencies"][extra]
    assert f"`{extra}`" in (ROOT / "docs" / "install.md").read_text()


def test_the_container_runs_the_first_command_of_the_readme():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    (command,) = (json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD "))
    first = re.search(r"python scripts/train_halfcheetah_vel.py (.*)", (ROOT / "README.md").read_text())
    assert first and command[0] in COMMANDS
    assert parse_command("", command[1:]).run == parse_command("HalfCheetahVel", first[1].split()).run
    assert len([line for line in lines if not line.startswith("#")]) <= 10


def test_exact_versions_are_given_for_all_that_is_required():
    exact = (ROOT / "requirements.txt").read_text()
    needed = [re.split(r"[<>=;\[ ]", each)[0] for each in PROJECT["dependencies"] if "win32" not in each]
    assert [name for name in needed if f"\n{name}==" not in exact] == []
