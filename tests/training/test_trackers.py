"""Trackers hold the numbers of metrics.csv; one that is missing is refused, one that fails is left out."""

import errno
import importlib.util
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.record_writer import RecordWriter

from maml_rl.storage import events as event_files
from maml_rl.storage.events import Film, tag
from maml_rl.training.callbacks import Callback
from maml_rl.training.trackers import TensorBoard, flat, make_trackers


def numbers(path: Path, tools) -> list[tuple[str, int, float]]:
    """metrics.csv as (name, step, value)."""
    rows = tools.rows(path)
    found = [(k, int(row["iteration"]), float(v)) for row in rows for k, v in row.items() if v and k != "iteration"]
    return sorted(found, key=lambda entry: (entry[1], entry[0]))


def test_events_are_in_groups_and_hold_every_number(tmp_path, tools):
    tools.run(tmp_path / "run", 7)
    assert tools.events(tmp_path / "run") == [
        (name, step, pytest.approx(value)) for name, step, value in numbers(tmp_path / "run", tools)
    ]
    found = EventAccumulator(str(tmp_path / "run/tensorboard"))
    found.Reload()
    groups = {"learning/loss", "experience/env_steps", "held_out/eval_w", "clock/wall_seconds"}
    assert groups <= set(found.Tags()["scalars"])


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("return_after", "score"),
        ("mse_before", "score"),
        ("return_after_ci95", "spread"),
        ("surrogate_loss_before", "learning"),
        ("entropy_after", "learning"),
        ("kl", "learning"),
        ("eval_return_0_ci95", "held_out"),
        ("evaluation_seconds", "clock"),
        ("steps_per_s", "clock"),
    ],
)
def test_a_tag_is_a_group_and_the_name(name, group):
    assert tag(name) == f"{group}/{name}"


def test_settings_are_hyperparameters(tmp_path, tools):
    tools.run(tmp_path / "run", 1)
    found = EventAccumulator(str(tmp_path / "run/tensorboard"))
    found.Reload()
    (content,) = found.PluginTagToContent("hparams").values()
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["seed"].number_value == 7.0


def test_settings_are_named_by_their_paths():
    nested = {"seed": 1, "method": {"inner": {"step_size": 0.1, "test": None}, "sizes": [100, 100]}}
    assert flat(nested) == {"seed": 1, "method.inner.step_size": 0.1, "method.sizes": "[100, 100]"}


def test_events_without_groups_get_them_when_the_run_goes_on(tmp_path, tools, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(event_files, "tag", lambda name: name)  # as version 0.1
        tools.run(tmp_path / "run", 4)
    tools.run(tmp_path / "run", 6)
    tools.run(tmp_path / "whole", 6)
    tools.assert_same_run(tmp_path / "whole", tmp_path / "run")
    found = EventAccumulator(str(tmp_path / "run/tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("learning/loss")] == [1, 2, 3, 4, 5, 6]
    assert "loss" not in found.Tags()["scalars"] and caplog.text == ""


def test_a_run_that_goes_on_with_tensorboard_gets_all_its_numbers_without_a_warning(tmp_path, tools, caplog):
    tools.run(tmp_path / "run", 3, callbacks=[])
    assert not (tmp_path / "run/tensorboard").exists()
    tools.run(tmp_path / "run", 5)
    tools.run(tmp_path / "whole", 5)
    tools.assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert caplog.text == ""


def test_events_that_cannot_be_written_are_a_warning_and_are_written_when_the_run_goes_on(
    tmp_path, tools, monkeypatch, capsys
):
    def fail(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", fail)
        tools.run(tmp_path / "run", 3)
    err = capsys.readouterr().err
    assert err.count("warning: callback TensorBoard failed in on_start") == 1 and "No space left" in err
    tools.run(tmp_path / "run", 5)
    tools.run(tmp_path / "whole", 5)
    tools.assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_tracker_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="track wandb needs the package wandb, which is not installed: pip install"):
        make_trackers(["wandb"])


def test_a_folder_called_wandb_is_not_taken_for_the_package(tmp_path, monkeypatch):
    (tmp_path / "trackio_or_wandb").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = importlib.util.find_spec("trackio_or_wandb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: folder)
    with pytest.raises(ValueError, match="not installed"):
        make_trackers(["wandb"])


def test_an_unknown_tracker_is_refused_and_one_named_twice_comes_once():
    with pytest.raises(ValueError, match="track must be one of tensorboard, wandb, trackio, got 'mlflow'"):
        make_trackers(["mlflow"])
    (only,) = make_trackers(["tensorboard", "tensorboard"])
    assert isinstance(only, TensorBoard)


class Filmed(Callback):
    """Hands a tracker a film with the second iteration."""

    def __init__(self, tracker: Callback):
        self.on_start, self.on_end = tracker.on_start, tracker.on_end
        film = Film(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", height=1, width=1)
        self.on_iteration = lambda report: tracker.on_iteration(
            report._replace(film=film if report.iteration == 2 else None)
        )


def test_weights_and_biases_offline(tmp_path, tools, monkeypatch, capfd):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tracker,) = make_trackers(["wandb"])
    tools.run(tmp_path / "run", 3, callbacks=[Filmed(tracker)])
    (first,) = (tmp_path / "run/wandb").glob("offline-run-*")
    assert list(first.rglob("*.gif"))
    time.sleep(1.0)  # a folder's name has the second
    tools.run(tmp_path / "run", 5, callbacks=make_trackers(["wandb"]))
    (second,) = (path for path in (tmp_path / "run/wandb").glob("offline-run-*") if path != first)
    assert second.name.rpartition("-")[2] == first.name.rpartition("-")[2]  # the same run
    (written,) = second.glob("*.wandb")
    data = written.read_bytes()
    for row in tools.rows(tmp_path / "run"):
        assert row["loss"].encode() in data
    assert b"learning/loss" in data and b"held_out/eval_w" in data


TRACKED_BY_TRACKIO = """
import sys
sys.path[:0] = [{training!r}, {tests!r}]
import conftest, test_trackers
from pathlib import Path
from maml_rl.training.trackers import make_trackers
for stop in (3, 5):
    (tracker,) = make_trackers(["trackio"])
    conftest.run(Path("run"), stop, callbacks=[test_trackers.Filmed(tracker)])
"""


def test_trackio_on_this_machine(tmp_path, tools):
    pytest.importorskip("trackio")
    place = {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    here = Path(__file__).parent
    code = TRACKED_BY_TRACKIO.format(tests=str(here.parent), training=str(here))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | place, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and "warning: callback" not in done.stderr, done.stderr
    assert done.stdout == ""
    (file,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(file) as database:
        steps = [step for (step,) in database.execute("select step from metrics order by step")]
    assert steps == [1, 2, 3, 4, 5]
    assert list((tmp_path / "trackio").rglob("*.gif"))


def test_a_summary_of_settings_has_no_number():
    """So that it is neither taken for a row nor cut with one."""
    summary = Summary.FromString(event_files.hparams_pb({"seed": 1}).SerializeToString())
    assert not any(value.HasField("simple_value") for value in summary.value)
