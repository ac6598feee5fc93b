"""Resuming equals never having stopped: at will, by signals, by kills, by crashes between any two writes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from maml_rl.storage.checkpoint import CheckpointError, load_latest
from maml_rl.training import trainer as trainer_module
from maml_rl.training.interrupts import ENDING

pytestmark = pytest.mark.posix


@pytest.mark.parametrize("every", [1, 4])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, tools, every):
    tools.run(tmp_path / "whole", 13, checkpoint_every=every)
    for stop in (2, 3, 8, 13):
        assert tools.run(tmp_path / "parts", stop, checkpoint_every=every).iteration == stop
    tools.assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_resuming_a_finished_run_changes_nothing(tmp_path, tools):
    first = tools.run(tmp_path / "run", 3)
    before = (tmp_path / "run/metrics.csv").read_bytes()
    assert tools.run(tmp_path / "run", 3) == first
    assert tools.run(tmp_path / "run", 2).iteration == 3
    assert (tmp_path / "run/metrics.csv").read_bytes() == before


def test_going_back_to_an_older_checkpoint_replays_the_same(tmp_path, tools):
    tools.run(tmp_path / "whole", 9)
    tools.run(tmp_path / "back", 9)
    (tmp_path / "back/checkpoints/latest").write_text("iteration-000007\n")
    assert tools.run(tmp_path / "back", 7).iteration == 7
    assert len(tools.rows(tmp_path / "back")) == 7
    tools.run(tmp_path / "back", 9)
    tools.assert_same_run(tmp_path / "whole", tmp_path / "back")


class Crash(BaseException):
    """The process is gone: from here on nothing reaches the disk."""


def crash_at(monkeypatch: pytest.MonkeyPatch, operation: int) -> list[int]:
    """Let the file operation of that number, and all after it, not happen. Returns their count so far."""
    count = [0]

    def breaking(original):
        def call(*args, **kwargs):
            count[0] += 1
            if count[0] >= operation:
                raise Crash
            return original(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "replace", breaking(os.replace))
    monkeypatch.setattr(os, "fsync", breaking(os.fsync))
    monkeypatch.setattr(Path, "unlink", breaking(Path.unlink))
    return count


@pytest.mark.parametrize("every", [1, 2])
def test_a_crash_before_any_file_operation_leaves_a_folder_to_resume(tmp_path, tools, monkeypatch, every):
    settings = {"checkpoint_every": every, "keep_checkpoints": 1}
    with monkeypatch.context() as patch:
        count = crash_at(patch, operation=10**9)
        tools.run(tmp_path / "whole", 4, **settings)
    for operation in range(1, count[0] + 1):
        path = tmp_path / f"crash-{operation}"
        with monkeypatch.context() as patch, pytest.raises(Crash):
            crash_at(patch, operation)
            tools.run(path, 4, **settings)
        forget_locks(path)
        tools.run(path, 4, **settings)
        tools.assert_same_run(tmp_path / "whole", path)


def forget_locks(path: Path) -> None:
    """A crash that is only an exception leaves the process, and so its lock, alive."""
    from maml_rl.storage import run_folder

    run_folder._locked_here.clear()
    (path / "lock").unlink(missing_ok=True)


def kill_and_resume(path, tools, num_iterations: int, num_kills: int, seed: int) -> int:
    """Kill the run at random moments, then let it end. Returns how many kills came while it was running."""
    rng, kills = random.Random(seed), 0
    for _ in range(num_kills):
        child = tools.fork(lambda: tools.run(path, num_iterations, tools.QuadraticLearner(0.003)) and 0)
        time.sleep(rng.uniform(0.02, 0.12))
        os.kill(child, signal.SIGKILL)
        kills += tools.exit_status(child) == -signal.SIGKILL
    tools.run(path, num_iterations)
    return kills


def test_three_sigkills(tmp_path, tools):
    tools.run(tmp_path / "whole", 60)
    assert kill_and_resume(tmp_path / "killed", tools, 60, num_kills=3, seed=1) == 3
    tools.assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_thirty_sigkills(tmp_path, tools):
    tools.run(tmp_path / "whole", 600)
    assert kill_and_resume(tmp_path / "killed", tools, 600, num_kills=30, seed=2) >= 25
    tools.assert_same_run(tmp_path / "whole", tmp_path / "killed")


def wait_for_rows(path: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not (path / "metrics.csv").exists() or (path / "metrics.csv").read_bytes().count(b"\n") <= count:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)


@pytest.mark.parametrize("signum", ENDING)
@pytest.mark.parametrize("every", [1, 1000])
def test_a_signal_writes_a_checkpoint_and_ends(tmp_path, tools, signum, every):
    def child() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        result = tools.run(tmp_path / "run", 1000, tools.QuadraticLearner(0.02), checkpoint_every=every)
        return 128 + result.interrupted_by

    pid = tools.fork(child)
    wait_for_rows(tmp_path / "run", 4)
    os.kill(pid, signum)
    assert tools.exit_status(pid) == 128 + signum
    tools.assert_clean(tmp_path / "run")
    done = load_latest(tmp_path / "run/checkpoints").iteration
    assert done == len(tools.rows(tmp_path / "run")) >= 4
    tools.run(tmp_path / "run", done + 2, checkpoint_every=every)
    tools.run(tmp_path / "whole", done + 2, checkpoint_every=every)
    tools.assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_process_stopped_by_sigterm_says_so_and_keeps_stdout_clean(tmp_path):
    command = [sys.executable, str(Path(__file__).with_name("conftest.py")), str(tmp_path / "run"), "1000"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for_rows(tmp_path / "run", 3)
    process.terminate()
    output, progress = process.communicate(timeout=60)
    assert process.returncode == 143
    assert output == ""
    assert progress.splitlines()[0].startswith("iteration 1/1000  loss ")
    assert progress.splitlines()[-1].startswith("stopped by SIGTERM after iteration ")
    assert progress.splitlines()[-1].endswith(", whose checkpoint is saved")


def test_signals_during_a_write_wait_until_it_is_done(tmp_path, tools, monkeypatch):
    save = trainer_module.checkpoints.save

    def save_under_fire(folder, checkpoint):
        if checkpoint.iteration == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        save(folder, checkpoint)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.checkpoints, "save", save_under_fire)
        result = tools.run(tmp_path / "run", 8)
    assert (result.iteration, result.interrupted_by) == (3, signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    tools.run(tmp_path / "run", 8)
    tools.run(tmp_path / "whole", 8)
    tools.assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_run_outside_the_main_thread(tmp_path, tools):
    thread = threading.Thread(target=tools.run, args=(tmp_path / "thread", 4))
    thread.start()
    thread.join()
    tools.run(tmp_path / "main", 4)
    tools.assert_same_run(tmp_path / "main", tmp_path / "thread")


def test_a_damaged_latest_is_refused_and_an_older_one_offered(tmp_path, tools):
    tools.run(tmp_path / "whole", 6)
    tools.run(tmp_path / "run", 6)
    latest = tmp_path / "run/checkpoints/iteration-000006.safetensors"
    latest.write_bytes(latest.read_bytes()[:-1])
    rows = tools.rows(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"000006.safetensors.*was cut.*; iteration-000005 is good"):
        tools.run(tmp_path / "run", 6)
    assert tools.rows(tmp_path / "run") == rows
    (tmp_path / "run/checkpoints/latest").write_text("iteration-000005\n")
    tools.run(tmp_path / "run", 6)
    tools.assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("lost", [["checkpoints"], ["checkpoints", "metrics.csv"], ["checkpoints", "tensorboard"]])
@pytest.mark.parametrize("empty", [False, True])
def test_without_checkpoints_a_run_that_has_rows_does_not_start_over(tmp_path, tools, lost, empty):
    tools.run(tmp_path / "run", 3)
    for name in lost:
        path = tmp_path / "run" / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    if empty:
        (tmp_path / "run/checkpoints").mkdir()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"latest cannot be read.*no good checkpoint is left there: put"):
        tools.run(tmp_path / "run", 6)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_first_checkpoint_without_latest_is_no_reason_to_lose_rows(tmp_path, tools):
    tools.run(tmp_path / "run", 3, checkpoint_every=3)
    for path in (tmp_path / "run/checkpoints").iterdir():
        if not path.name.startswith("iteration-000000"):
            path.unlink()
    with pytest.raises(CheckpointError, match=r"iteration-000000 is good: write that name into .*latest"):
        tools.run(tmp_path / "run", 3)
    assert len(tools.rows(tmp_path / "run")) == 3


def test_a_run_without_metrics_goes_on_with_those_of_its_events(tmp_path, tools):
    tools.run(tmp_path / "whole", 6)
    tools.run(tmp_path / "run", 4)
    (tmp_path / "run/metrics.csv").unlink()
    tools.run(tmp_path / "run", 6)
    assert tools.events(tmp_path / "run") == tools.events(tmp_path / "whole")
    pairs = zip(tools.rows(tmp_path / "run"), tools.rows(tmp_path / "whole"), strict=True)
    for found, wanted in pairs:
        assert list(found) == list(wanted)
        numbers = {name: float(text) for name, text in wanted.items() if text}
        assert {name: float(text) for name, text in found.items() if text} == pytest.approx(numbers, rel=1e-6)


def test_without_latest_an_old_run_does_not_start_over(tmp_path, tools):
    tools.run(tmp_path / "run", 3)
    (tmp_path / "run/checkpoints/latest").unlink()
    with pytest.raises(CheckpointError, match=r"latest cannot be read.*iteration-000003 is good"):
        tools.run(tmp_path / "run", 6)
    assert len(tools.rows(tmp_path / "run")) == 3
