"""What is printed may get lost; what is trained may not."""

import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from maml_rl.commands.streams import lenient_streams
from maml_rl.storage.checkpoint import load_latest

ROOT = Path(__file__).parents[2]
TRAIN = f"exec {sys.executable} {ROOT}/scripts/train_navigation.py --num-tasks 2 --episodes-per-task 2 --horizon 5"
TRAIN += " --evaluate-every 0 --num-threads 1 --output-dir run"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("2>&1 | head -1", "iteration 1/20"),
        (">&- 2>&-", ""),
        ("> /dev/full 2>&1", ""),
        ("> /dev/full", "warning: stdout could not be written: No space left on device"),
        ("2> err | true", ""),
    ],
)
def test_progress_that_cannot_be_written_ends_no_run(where, said, tmp_path):
    # the shell's own status is that of the run, also in a pipe
    command = ["bash", "-c", f"set -o pipefail; ({TRAIN} --num-iterations 20) {where}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    everything = done.stdout + done.stderr
    assert "Traceback" not in everything and "Exception ignored" not in everything
    assert said in everything
    assert load_latest(tmp_path / "run" / "checkpoints").iteration == 20


def test_a_terminal_that_is_closed_leaves_a_checkpoint(tmp_path):
    mine, theirs = pty.openpty()

    def take_the_terminal():
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    command = ["bash", "-c", f"{TRAIN} --num-iterations 100000"]
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, preexec_fn=take_the_terminal, **streams)
    os.close(theirs)
    os.set_blocking(mine, False)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run/checkpoints/iteration-000003.json").exists() and time.monotonic() < deadline:
        try:
            os.read(mine, 100_000)  # a terminal that nobody reads would block the run
        except BlockingIOError:
            time.sleep(0.05)
    os.close(mine)  # the kernel now sends SIGHUP to all processes in it
    assert process.wait(timeout=60) == 128 + 1
    done = load_latest(tmp_path / "run/checkpoints").iteration
    assert done == len((tmp_path / "run/metrics.csv").read_text().splitlines()) - 1 >= 3
    assert not (tmp_path / "run/lock").exists()


def test_a_command_without_stderr_prints_nothing_on_stdout_instead(tmp_path):
    # print(..., file=None) goes to stdout, where only the result belongs
    done = subprocess.run(
        ["bash", "-c", f"{TRAIN} --num-iterations 1 2>&-"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    assert json.loads(done.stdout)["iteration"] == 1


def test_streams_are_put_back_and_exceptions_pass(capsys):
    before = sys.stdout, sys.stderr
    with pytest.raises(KeyError), lenient_streams():
        print("printed", file=sys.stderr)
        raise KeyError
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().err == "printed\n"
