"""Every script ends on Ctrl-C with one sentence, from its first lines on."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
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


def assert_quiet_end(done: subprocess.CompletedProcess) -> None:
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped by SIGINT\n")


@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_while_a_script_is_imported(script, tmp_path):
    (tmp_path / "torch.py").write_text(CTRL_C)
    assert_quiet_end(run(script, tmp_path))


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


def test_ctrl_c_that_is_to_be_ignored_is(tmp_path):
    # A shell starts what it runs in the background so.
    (tmp_path / "torch.py").write_text(f"{CTRL_C}\nraise SystemExit(7)")
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    assert run("train", tmp_path, preexec_fn=ignore).returncode == 7
