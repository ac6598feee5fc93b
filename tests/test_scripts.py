"""Every script ends on Ctrl-C, SIGTERM or SIGHUP with one sentence, from its first lines on."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from maml_rl.training.interrupts import ENDING

pytestmark = pytest.mark.posix

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted({path.stem for path in (ROOT / "scripts").glob("*.py")} - {"zoo"})
"""All but the one that does not import torch, which takes seconds."""
CTRL_C = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
except BaseException:  # as some packages do when they are imported
    pass
"""


def run(script: str, folder: Path, *arguments: str, **settings) -> subprocess.CompletedProcess:
    """The script, with the modules in `folder` before all others."""
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100, **settings
    )


def assert_quiet_end(done: subprocess.CompletedProcess, signum: signal.Signals = signal.SIGINT) -> None:
    assert (done.returncode, done.stdout, done.stderr) == (128 + signum, "", f"stopped by {signum.name}\n")


@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_while_a_script_is_imported(script, tmp_path):
    (tmp_path / "torch.py").write_text(CTRL_C)
    assert_quiet_end(run(script, tmp_path))


@pytest.mark.parametrize("signum", ENDING[1:])
def test_a_signal_to_end_while_a_script_is_imported(signum, tmp_path):
    (tmp_path / "torch.py").write_text(CTRL_C.replace("SIGINT", signum.name))
    assert_quiet_end(run("train", tmp_path), signum)


SLOW = """
from push import PushVectorEnv

class SlowEnv(PushVectorEnv):
    def __init__(self, num_envs=None):
"""


def test_ctrl_c_while_an_environment_is_made(tmp_path):
    # One that cannot be made is refused with its error, and an exception would be taken for that.
    (tmp_path / "push.py").write_bytes((ROOT / "tests" / "push.py").read_bytes())
    (tmp_path / "slow.py").write_text(SLOW + textwrap.indent(CTRL_C, " " * 8))
    assert_quiet_end(run("train", tmp_path, "--env", "slow:SlowEnv", "--output-dir", "run"))
    assert not (tmp_path / "run").exists()


IN_A_WORKER = """
import os, signal, sys, time
import sound

class Slow(sound.Push):
    def __init__(self):
        if "default_worker.py" in " ".join(sys.orig_argv):
            os.kill(int(os.environ["THE_DRIVER"]), signal.SIGTERM)
            time.sleep(60.0)
"""
OF_THE_DRIVER = """
import os
os.environ.setdefault("THE_DRIVER", str(os.getpid()))  # workers inherit it
"""


@pytest.mark.slow
def test_sigterm_while_ray_makes_its_first_worker(tmp_path):
    (tmp_path / "sound.py").write_bytes((ROOT / "tests" / "sound.py").read_bytes())
    (tmp_path / "slow.py").write_text(IN_A_WORKER)
    (tmp_path / "sitecustomize.py").write_text(OF_THE_DRIVER)
    flags = ["--env", "slow:Slow", "--sampler", "ray", "--num-workers", "1", "--output-dir", "run"]
    done = run("train", tmp_path, *flags)
    assert done.returncode == 143 and done.stderr.splitlines()[-1] == "stopped by SIGTERM", done.stderr
    assert "received at" not in done.stderr and not (tmp_path / "run").exists()


def test_ctrl_c_that_is_to_be_ignored_is(tmp_path):
    # A shell starts what it runs in the background so.
    (tmp_path / "torch.py").write_text(f"{CTRL_C}\nraise SystemExit(7)")
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    assert run("train", tmp_path, preexec_fn=ignore).returncode == 7
