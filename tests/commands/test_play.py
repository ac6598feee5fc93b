"""The command of live views: what it refuses, and how it ends."""

import http.client
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from maml_rl.commands.play import play_run
from maml_rl.commands.train import train

ROOT = Path(__file__).parents[2]
TINY = ["--num-tasks", "2", "--evaluation.num-tasks", "2", "--num-iterations", "1", "--evaluate-every", "0"]
EPISODES = ["--episodes-per-task", "2", "--horizon", "6"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, env, flags in (
        ("navigation", "maml/Navigation2D-v0", EPISODES),
        ("cheetah", "maml/HalfCheetahVel-rllab-v0", EPISODES),
        ("bandit", "maml/Bandit-K5-v0", ["--episodes-per-task", "2"]),
        ("sinusoid", "sinusoid", []),
    ):
        assert train(env, [*TINY, *flags, "--output-dir", str(folder / name)]) == 0
    return folder


@pytest.fixture
def port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        yield str(found.getsockname()[1])


def refused(capsys, *arguments):
    assert play_run([str(each) for each in arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    return said[0]


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert str(tmp_path) in refused(capsys, tmp_path)


def test_runs_without_anything_to_show_are_refused(runs, capsys):
    assert "a run of sinusoid: look at its plots by maml-rl visualize" in refused(capsys, runs / "sinusoid")
    assert "draws no pictures" in refused(capsys, runs / "bandit")


def test_a_port_in_use_is_refused_before_anything_is_loaded(runs, port, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        assert f"{number} cannot be listened on" in refused(capsys, runs / "navigation", "--port", number)


def test_missing_packages_are_named_for_robots_alone(runs, capsys, monkeypatch):
    monkeypatch.setattr("maml_rl.pictures.live.needs.PACKAGES", ("no_such_viewer",))
    said = refused(capsys, runs / "cheetah")
    assert "need no_such_viewer" in said and "maml_rl[viewer]" in said


def test_ctrl_c_ends_it_with_130_and_tells_the_page(runs, tmp_path):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, str(ROOT / "scripts" / "play.py"), str(runs / "navigation"), "--port", str(port)]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        assert f"http://127.0.0.1:{port}" in child.stdout.readline()
        page = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        page.request("GET", "/news")
        news = page.getresponse()
        assert news.readline().startswith(b"data: ")
        child.send_signal(signal.SIGINT)
        assert news.read().endswith(b"event: end\ndata: maml-rl play was stopped.\n\n")
        assert child.wait(30) == 130
        assert child.stderr.read().strip() == "stopped by SIGINT"
    finally:
        child.kill()
        child.communicate()
