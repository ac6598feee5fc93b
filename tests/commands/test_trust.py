"""A run's folder may come from anybody: nothing in it decides which code runs here, or which cluster is joined."""

import json
import sys
from pathlib import Path

import gymnasium
import pytest

from envs.plug_in import find_world
from maml_rl.api.classifier import FewShotClassifier
from maml_rl.commands.compare import compare
from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.leaderboard import leaderboard
from maml_rl.commands.train import parse_command, train
from maml_rl.commands.visualize import visualize

TINY = ["--num-tasks", "2", "--episodes-per-task", "2", "--horizon", "3", "--num-iterations", "1"]
FLAGS = [*TINY, "--evaluate-every", "0", "--policy.hidden-sizes", "4", "--outer.step", "gradient", "--num-threads", "1"]

TRAP = """
import sys
from pathlib import Path
import gymnasium
from push import PushVectorEnv as Trap
print("snap", file=sys.stderr)
Path({marker!r}).touch()
gymnasium.register("Trap-v0", vector_entry_point=Trap)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    assert train("test/Push-v0", [*FLAGS, "--output-dir", str(run)]) == 0
    return run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current directory of a user, with a module that leaves `snapped` where it is imported."""
    write_trap(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known, registry = set(sys.modules), dict(gymnasium.registry)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in ("trap", "run", "borrowed", "lender"):
            del sys.modules[name]
    gymnasium.registry.clear()
    gymnasium.registry.update(registry)


@pytest.fixture
def run(finished, here):
    """A run folder as a stranger may send it: with whatever environment its config.json names."""
    folder = here / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for file in [f for f in finished.rglob("*") if f.is_file() and f.suffix != ".lock"]:
        target = folder / file.relative_to(finished)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(file.read_bytes())
    name_env(folder, "trap:Trap")
    return folder


def write_trap(folder):
    (folder / "trap.py").write_text(TRAP.format(marker=str(folder / "snapped")))


def name_env(folder, env, **sampling):
    saved = json.loads((folder / "config.json").read_text())
    task = saved["config"]["task"]
    saved["config"] |= {"env": env, "task": task | {"sampling": task["sampling"] | sampling}}
    (folder / "config.json").write_text(json.dumps(saved))


def resume(folder, *flags):
    return train(arguments=["--resume", str(folder), "--num-iterations", "2", *flags])


def score(folder, *flags):
    return evaluate([str(folder), "--num-tasks", "2", "--num-steps", "1", *flags])


def draw(folder, *flags):
    return visualize(None, [str(folder), "--output-dir", "pictures", "--num-tasks", "2", "--no-film", *flags])


COMMANDS = [resume, score, draw]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("attribute", ["Trap", "Trap-v0"])
def test_a_saved_run_has_no_module_imported_unasked(command, attribute, run, here, capfd):
    name_env(run, f"trap:{attribute}")
    assert command(run) == 2
    assert not (here / "snapped").exists()
    (sentence,) = capfd.readouterr().err.splitlines()
    assert f"wants to import 'trap' ({here / 'trap.py'}) for its environment trap:{attribute}" in sentence
    assert f"--env trap:{attribute}" in sentence and ("--trust-env" in sentence) == (command is not resume)


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (resume, ["--env", "trap:Trap"]),
        (score, ["--env", "trap:Trap"]),
        (score, ["--trust-env"]),
        (draw, ["--env", "trap:Trap"]),
        (draw, ["--trust-env"]),
    ],
)
def test_a_module_that_is_trusted_is_named_before_it_is_imported(command, flags, run, here, capfd):
    assert command(run, *flags) == 0
    assert (here / "snapped").exists()
    named, snap = capfd.readouterr().err.splitlines()[:2]
    assert (named, snap) == (f"importing trap from {here / 'trap.py'} for the run in {run}", "snap")


@pytest.mark.parametrize("command", [score, draw])
def test_another_environment_than_the_run_s_is_refused(command, run, here, capfd):
    assert command(run, "--env", "trap:Other") == 2
    assert "env must be the environment of the run, trap:Trap, got trap:Other" in capfd.readouterr().err
    assert not (here / "snapped").exists()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("env", ["trap:Trap", "run.trap:Trap", "run.checkpoints.trap:Trap"])
@pytest.mark.parametrize("place", [".", "run", "run/checkpoints"])
def test_nothing_is_imported_from_the_run_s_own_folder(command, env, place, run, here, monkeypatch, capfd):
    (here / "trap.py").unlink()
    for folder in (run, run / "checkpoints"):
        write_trap(folder)
    monkeypatch.chdir(here / place)
    sys.path += ["", str(run)]  # as in a notebook, and as by PYTHONPATH
    name_env(run, env)
    assert command(run, "--env", env) == 2
    assert "env must name a module" in capfd.readouterr().err
    assert not list(here.rglob("snapped"))


def test_a_trusted_module_imports_nothing_from_the_run_s_folder_either(run, here, monkeypatch, capfd):
    library = here / "library"
    library.mkdir()
    (library / "lender.py").write_text("import trap\n")
    (here / "trap.py").unlink()
    write_trap(run)
    name_env(run, "lender:Trap")
    monkeypatch.chdir(run)
    sys.path += ["", str(library)]
    assert score(run, "--trust-env") == 2
    assert "needs the package trap" in capfd.readouterr().err
    assert not (run / "snapped").exists()


@pytest.mark.parametrize("env", ["os:abort", "os:system", "posix:abort", "http.server:test"])
@pytest.mark.parametrize("command", COMMANDS)
def test_functions_of_python_are_never_called(command, env, run, monkeypatch, capfd):
    called = []
    for name in ("os.abort", "os.system", "posix.abort", "http.server.test"):
        monkeypatch.setattr(name, lambda *_, **__: called.append("one"))
    name_env(run, env)
    assert command(run, "--env", env) == 2
    assert f"env must name a module of yours, but '{env.split(':')[0]}' belongs to Python" in capfd.readouterr().err
    assert not called


BORROWED = """
import functools
from pathlib import Path
from lender import lent
from os import abort
partly = functools.partial(lent)

class Callable:
    def __call__(self):
        return None

own = Callable()
"""


@pytest.mark.parametrize("attribute", ["abort", "lent", "partly"])
def test_a_function_that_a_module_only_borrows_is_never_called(attribute, here):
    (here / "lender.py").write_text("from pathlib import Path\n\ndef lent():\n    Path('lent').touch()\n")
    (here / "borrowed.py").write_text(BORROWED)
    with pytest.raises(ValueError, match=f"a function that borrowed defines, but borrowed:{attribute} is .*: define"):
        find_world(f"borrowed:{attribute}")
    assert not Path("lent").exists()
    assert find_world("borrowed:own").name == "borrowed:own"


def test_other_readers_of_runs_import_nothing(run, here, capfd):
    into = ["--output-dir", str(here / "out")]
    common = ["--num-iterations", "0", "--num-tasks", "2"]
    assert compare(["--env", "test/Push-v0", "--methods", "maml", "--load", "maml", str(run), *common, *into]) == 2
    assert leaderboard(["--learners", "maml", "--load", "maml", str(run), "--data-root", ".", *into]) == 2
    with pytest.raises(ValueError, match="must be one of few-shot classification"):
        FewShotClassifier(run)
    train("test/Push-v0", [*FLAGS, "--init-from", str(run), *into])
    assert not (here / "snapped").exists()


def test_an_env_that_writes_to_the_terminal_is_refused(run, capfd):
    name_env(run, "trap:\x1b[2J")
    assert score(run) == 2
    assert "env must be a name that can be printed, got 'trap:\\x1b[2J'" in capfd.readouterr().err


@pytest.mark.parametrize("sampler", ["processes", "ray"])
@pytest.mark.parametrize("place", [".", "checkpoints"])
def test_workers_are_not_started_in_a_run_s_folder(place, sampler, run, monkeypatch, capfd):
    # a new process imports from its current directory first
    (run / place / "cloudpickle.py").write_text(f"open({str(run / 'snapped')!r}, 'w')\n")
    name_env(run, "test/Push-v0", sampler=sampler)
    monkeypatch.chdir(run / place)
    assert resume(run) == 2
    said = f"sampler {sampler} must be started outside of the run's folder, but {run / place} is in it"
    assert said in capfd.readouterr().err
    assert not (run / "snapped").exists()


@pytest.mark.parametrize("flags", [[], ["--ray-address", "192.0.2.7:6379"]])
def test_a_cluster_is_joined_only_where_the_command_names_it(flags, run, capfd):
    name_env(run, "test/Push-v0", sampler="ray", ray_address="198.51.100.9:6379")
    command = parse_command("any", ["--resume", str(run), *flags])
    assert command.job.config.task.sampling.ray_address == (flags[1] if flags else None)
    said = "sampling on this machine alone, not on the Ray cluster '198.51.100.9:6379'" in capfd.readouterr().err
    assert said != bool(flags)
