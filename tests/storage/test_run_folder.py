"""A run folder is made once, holds its config, and has one writer."""

import errno
import itertools
import json
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from children import exit_status, fork
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maml_rl.storage import run_folder
from maml_rl.storage.run_folder import ConfigError, RunFolder, RunFolderError

CONFIG = {"seed": 1, "inner": {"step_size": 0.1, "steps": [1, 2]}, "env": None}


def test_the_config_comes_back(tmp_path):
    with RunFolder.create(tmp_path / "a/b", CONFIG) as folder:
        assert folder.path == tmp_path / "a/b"
    assert RunFolder.read_config(tmp_path / "a/b") == (2, CONFIG)
    assert sorted(entry.name for entry in (tmp_path / "a/b").iterdir()) == ["checkpoints", "config.json"]
    RunFolder.open(tmp_path / "a/b").close()


def test_a_folder_that_is_no_run_is_refused_with_what_is_wrong_and_the_runs_in_it(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "whole/config.json").mkdir(parents=True)
    for name, reason in (
        ("nowhere", "does not exist"),
        ("file", "is a file"),
        ("whole", r"has a config.json that.*\)"),
    ):
        with pytest.raises(ConfigError, match=rf"{name} is no run folder, because it {reason}: name one that .* made$"):
            RunFolder.read_config(tmp_path / name)
    RunFolder.create(tmp_path / "several/seed-1", CONFIG).close()
    with pytest.raises(ConfigError, match=r"several is no .* has no config.json: .* such as .*/several/seed-1$"):
        RunFolder.read_config(tmp_path / "several")


def test_an_existing_folder_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match=r"must not exist or be empty.*overwritten: choose another --output-dir"):
        RunFolder.create(tmp_path, CONFIG)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]
    RunFolder.create(tmp_path / "run", CONFIG).close()
    with pytest.raises(RunFolderError, match=r"go on with it by --resume .*/run, or choose another --output-dir"):
        RunFolder.create(tmp_path / "run", CONFIG)


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunFolderError, match="cannot be made: File exists"):
        RunFolder.create(tmp_path / "run", CONFIG)


def test_an_empty_folder_and_what_a_kill_left_of_a_new_one_are_taken(tmp_path):
    (tmp_path / "lock").touch()
    (tmp_path / "config.json.tmp").write_text("{")
    RunFolder.create(tmp_path, CONFIG).close()
    assert not (tmp_path / "config.json.tmp").exists()


def test_runs_that_ask_for_one_name_at_one_time_get_names_side_by_side(tmp_path):
    def make(number: int) -> Path:
        with RunFolder.create(tmp_path / "runs/push", {"seed": number}, or_beside=True) as folder:
            return folder.path

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    assert sorted(path.name for path in made) == ["push", *(f"push-{i}" for i in range(2, 9))]
    assert [RunFolder.read_config(path)[1]["seed"] for path in made] == list(range(8))


def filled(path: Path) -> RunFolder:
    folder = RunFolder.create(path, CONFIG)
    for name in ("checkpoints/latest", "tensorboard/events.out.tfevents.1", "metrics.csv"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(name)
    return folder


def contents(path: Path) -> dict[str, bytes]:
    return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def test_a_copy_is_the_run_without_what_is_not_its_own(tmp_path):
    with filled(tmp_path / "a") as folder:
        whole = contents(tmp_path / "a")
        (tmp_path / "a/thesis.txt").write_text("years of work")
        with folder.copy(tmp_path / "b"):
            assert contents(tmp_path / "b") == whole  # the lock as well
        with pytest.raises(RunFolderError, match=r"b must not exist or be empty.*--resume"):
            folder.copy(tmp_path / "b")
        with pytest.raises(RunFolderError, match=r"c must not lie in .*a, which is to be copied"):
            folder.copy(tmp_path / "a/checkpoints/c")
        assert not (tmp_path / "a/checkpoints/c").exists()


@pytest.mark.parametrize("operation", range(1, 5))
@pytest.mark.parametrize("then", ["copied", "begun"])
def test_a_copy_that_was_killed_at_any_file_may_be_made_again_or_begun_anew(tmp_path, monkeypatch, operation, then):
    class Killed(BaseException):
        pass

    count = itertools.count(1)

    def breaking(original):
        def call(*args, **settings):
            if next(count) == operation:
                raise Killed
            return original(*args, **settings)

        return call

    with filled(tmp_path / "a") as folder:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            for module, name in ((shutil, "copyfile"), (shutil, "copytree"), (os, "replace")):
                patch.setattr(module, name, breaking(getattr(module, name)))
            folder.copy(tmp_path / "b")
        whole = contents(tmp_path / "a")
        with folder.copy(tmp_path / "b") if then == "copied" else RunFolder.create(tmp_path / "b", CONFIG):
            found = contents(tmp_path / "b")
    assert found == (whole if then == "copied" else {name: whole[name] for name in ("config.json", "lock")})


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()])
def test_a_config_that_is_not_json_is_refused_before_anything_is_made(tmp_path, value):
    with pytest.raises(ConfigError, match="plain JSON"):
        RunFolder.create(tmp_path / "run", {"value": value})
    assert not (tmp_path / "run").exists()


REFUSED = {
    "": "cut or not JSON",
    '{"format_version": 1, "config"': "cut or not JSON",
    '{"format_version": 1, "config": {"a": NaN}}': "NaN is not a number",
    "[" * 100_000: "cut or not JSON",
    "[]": "must hold an object",
    '{"format_version": 1, "config": []}': "must hold an object",
    '{"format_version": 3, "config": {}}': "format_version 2 or an earlier one, got 3",
    '{"format_version": true, "config": {}}': "format_version 2 or an earlier one, got True",
    '{"config": {}}': "format_version 2 or an earlier one, got None",
}


@pytest.mark.parametrize("text", REFUSED)
def test_bad_configs_are_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=REFUSED[text]):
        RunFolder.open(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.json"]


def test_a_folder_without_config_is_no_run(tmp_path):
    with pytest.raises(ConfigError, match="no run folder"):
        RunFolder.open(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no run folder"):
        RunFolder.open(tmp_path)


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=100) | st.dictionaries(st.text(), st.integers() | st.text()).map(as_json))
def test_arbitrary_bytes_are_refused(tmp_path, data):
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(ConfigError):
        RunFolder.read_config(tmp_path)


def opens(path) -> bool:
    try:
        RunFolder.open(path).close()
    except RunFolderError as error:
        assert "must have one writer" in str(error)
        return False
    return True


@pytest.mark.posix
@pytest.mark.parametrize("hold", ["_held_on_posix", "_held_on_windows"])
def test_a_second_process_is_refused(tmp_path, monkeypatch, hold):
    monkeypatch.setattr(run_folder._Lock, "_held_on_posix", getattr(run_folder._Lock, hold))
    with RunFolder.create(tmp_path, CONFIG):

        def child() -> int:
            run_folder._locked_here.clear()  # the child is another process and knows nothing of this one
            return int(opens(tmp_path))

        assert exit_status(fork(child)) == 0
        assert not opens(tmp_path)  # nor may this process take it twice
    assert exit_status(fork(child)) == 1
    assert opens(tmp_path)


@pytest.mark.posix
def test_the_lock_of_a_killed_process_is_void_even_if_its_workers_live(tmp_path):
    def child() -> int:
        RunFolder.create(tmp_path / "run", CONFIG)
        worker = os.fork()  # inherits every open file
        if worker == 0:
            time.sleep(30)
            os._exit(0)
        (tmp_path / "worker").write_text(str(worker))
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert exit_status(fork(child)) == -signal.SIGKILL
    try:
        assert (tmp_path / "run/lock").exists()
        assert opens(tmp_path / "run")
        assert not (tmp_path / "run/lock").exists()
    finally:
        os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    RunFolder.create(tmp_path / "run", CONFIG).close()

    def fail(*args):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(RunFolderError, match="must be writable: Read-only file system"):
        RunFolder.open(tmp_path / "run")
    with pytest.raises(RunFolderError, match="cannot be made: Read-only file system"):
        RunFolder.create(tmp_path / "other", CONFIG)
