"""The documentation's code does what the documentation says."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from printed import printed_by

from maml_rl.commands.check_env import check_env
from maml_rl.commands.compare import compare
from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.train import train
from maml_rl.commands.visualize import visualize

ROOT = Path(__file__).parents[1]
TINY = [
    "--num-tasks",
    "2",
    "--episodes-per-task",
    "2",
    "--horizon",
    "5",
    "--evaluate-every",
    "0",
    "--num-iterations",
    "1",
]


OWN = ["--env", "my_module:Valley"]


@pytest.fixture
def guide(tmp_path, monkeypatch):
    """A user's folder with the guide's modules, which is the current one."""
    text = (ROOT / "docs" / "custom_environments.md").read_text()
    sources = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", text, re.DOTALL)
    for name, source in sources:
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name, _ in sources:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("env", ["my_module:Valley", "my_batch:ValleyVectorEnv"])
def test_the_guide_s_environments_are_sound(env, guide, capfd):
    assert check_env([env]) == 0
    assert capfd.readouterr().err == f"{env}: 0 errors, 0 warnings: fit to be trained on\n"


def test_the_guide_s_commands_as_a_user_gives_them(guide):
    def run(script, *flags):
        return printed_by(str(ROOT / "scripts" / f"{script}.py"), *flags, folder=guide)

    run("train", "--env", "my_module:Valley", *TINY, "--output-dir", "runs/valley")
    assert json.loads((guide / "runs" / "valley" / "config.json").read_text())["config"]["env"] == "my_module:Valley"
    assert json.loads(run("evaluate", "runs/valley", *OWN, "--num-tasks", "2", "--json"))["env"] == OWN[1]


@pytest.mark.parametrize("env", ["my_module:Valley", "my_batch:ValleyVectorEnv"])
def test_a_run_of_the_guide_s_environment_is_read_again(env, guide):
    assert train(env, TINY) == 0
    (folder,) = (guide / "runs").iterdir()
    assert folder.name.startswith(f"{env.split(':')[1]}-2")
    assert train(arguments=["--resume", str(folder), "--env", env, "--num-iterations", "2"]) == 0
    assert evaluate([str(folder), "--env", env, "--num-tasks", "2"]) == 0
    assert (
        visualize(None, [str(folder), "--trust-env", "--output-dir", "pictures", "--num-tasks", "2", "--no-film"]) == 0
    )
    assert (guide / "pictures" / "learning_curve.png").exists()


@pytest.mark.parametrize("sampler", ["processes", "ray"])
def test_the_guide_s_environment_gives_the_same_numbers_in_workers(sampler, guide):
    if sampler == "ray":
        pytest.importorskip("ray")
    flags = [*TINY, "--num-iterations", "3"]
    for name, where in (("here", []), ("there", ["--sampler", sampler, "--num-workers", "2"])):
        assert train("my_module:Valley", [*flags, *where, "--output-dir", name]) == 0
    for name in ("here", "there"):
        assert (guide / name / "checkpoints" / "latest").read_text().strip() == "iteration-000003"
    here, there = (guide / n / "checkpoints" / "iteration-000003.safetensors" for n in ("here", "there"))
    assert here.read_bytes() == there.read_bytes()


def test_a_run_of_a_module_that_cannot_be_found(guide, tmp_path_factory, monkeypatch, capfd):
    assert train("my_module:Valley", [*TINY, "--output-dir", "run"]) == 0
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(guide)])
    sys.modules.pop("my_module")
    for again in (
        lambda: evaluate([str(guide / "run"), "--trust-env"]),
        lambda: train(arguments=["--resume", str(guide / "run"), *OWN]),
    ):
        assert again() == 2
        assert "'my_module' is neither on sys.path nor in" in capfd.readouterr().err


def test_the_guide_s_environment_is_compared(guide):
    flags = ["--methods", "random", "oracle", "--num-iterations", "1", "--num-tasks", "2"]
    assert compare(["--env", "my_module:Valley", *flags, "--output-dir", "comparison"]) == 0
    assert json.loads((guide / "comparison" / "comparison.json").read_text())["env"] == "my_module:Valley"


def test_adaptation_finds_the_guide_s_valley(guide):
    flags = ["--num-iterations", "8", "--num-tasks", "10", "--evaluate-every", "8", "--output-dir", "run"]
    assert train("my_module:Valley", flags) == 0
    with open("run/metrics.csv", newline="") as file:
        row = list(csv.DictReader(file))[-1]
    assert float(row["eval_return_3"]) > 0.8 * float(row["eval_return_0"])  # negative: a fifth of the way is gone


ADDING = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", (ROOT / "docs" / "adding.md").read_text(), re.DOTALL))


@pytest.mark.parametrize("name", ADDING)
def test_the_examples_of_adding_something_work_and_learn(name, tmp_path):
    (tmp_path / f"{name}.py").write_text(ADDING[name])
    errors = json.loads(printed_by(f"{name}.py", folder=tmp_path))
    assert errors[-1] < errors[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "said"), [("python.md", "1 2"), ("tracking.md", "stopped by EndWhenGood"), ("zoo.md", "")]
)
def test_a_guide_to_python_runs_from_top_to_bottom(page, said, tmp_path):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    (tmp_path / "guide.py").write_text("\n".join(code))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "guide.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout + done.stderr
