"""metrics.csv gives back the numbers that went in; resuming cuts it, and the events, to the checkpoint."""

import errno
import math
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from maml_rl.storage.events import Film
from maml_rl.storage.log import LogError, MetricsLog, read_columns, require_rows
from maml_rl.training.callbacks import IterationReport, Start
from maml_rl.training.trackers import TensorBoard

FILM = Film(b"GIF89a...", height=2, width=3)


class RunLog:
    """metrics.csv as the trainer writes it, with TensorBoard's events beside it."""

    def __init__(self, folder, after):
        self._log, self._board = MetricsLog(folder, after), TensorBoard()
        self._board.on_start(Start(folder, {"seed": 1}, after, 10, self._log.rows))
        self.sync, self.close = self._log.sync, lambda: self._board.on_end(None)

    @property
    def last(self):
        return self._log.last

    def append(self, metrics, clock, film=None):
        self._log.append(metrics, clock)
        numbers = {name: value for name, value in metrics.items() if name != "iteration"}
        self._board.on_iteration(IterationReport(metrics["iteration"], numbers, {}, clock, film))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()


def lines(folder: Path) -> list[str]:
    return (folder / "metrics.csv").read_text().splitlines()


def filled(folder: Path, count: int, after: int = 0) -> None:
    with RunLog(folder, after) as log:
        for i in range(after + 1, count + 1):
            log.append({"iteration": i, "loss": i / 3}, {"seconds": 0.5})


def test_columns_keep_the_order_of_their_first_row_with_the_clock_last(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.append({"iteration": 1, "loss": 0.1, "steps": 10}, {"seconds": 2.0})
        log.append({"iteration": 2, "steps": 20, "loss": -1e-300}, {"seconds": 3.0})
        log.append({"iteration": 3, "loss": math.nan, "eval": 5.0}, {"seconds": 1.0, "rate": 7.0})
        assert log.last["eval"] == 5.0
    assert lines(tmp_path) == [
        "iteration,loss,steps,eval,seconds,rate",
        "1,0.1,10,,2.0,",
        "2,-1e-300,20,,3.0,",
        "3,nan,,5.0,1.0,7.0",
    ]


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=3))
def test_floats_come_back_bit_for_bit(values):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with RunLog(folder, 0) as log:
            for i, value in enumerate(values, start=1):
                log.append({"iteration": i, "x": value}, {})
        back = [float(line.split(",")[1]) for line in lines(folder)[1:]]
        assert [value.hex() for value in back] == [value.hex() for value in values]


def test_reopening_cuts_rows_and_events_past_the_checkpoint(tmp_path, tools):
    filled(tmp_path, 5)
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("6,2.")  # killed while it wrote
    filled(tmp_path, 7, after=3)
    assert [line.split(",")[0] for line in lines(tmp_path)[1:]] == ["1", "2", "3", "4", "5", "6", "7"]
    steps = [step for tag, step, _ in tools.events(tmp_path) if tag == "loss"]
    assert steps == [1, 2, 3, 4, 5, 6, 7]


def test_a_cut_takes_columns_with_it_that_only_later_rows_had(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.append({"iteration": 1, "loss": 1.0}, {"seconds": 1.0})
        log.append({"iteration": 2, "loss": 1.0, "eval": 3.0}, {"seconds": 1.0})
    RunLog(tmp_path, 1).close()
    assert lines(tmp_path) == ["iteration,loss,seconds", "1,1.0,1.0"]
    RunLog(tmp_path, 0).close()
    assert lines(tmp_path) == []


def test_events_of_the_summary_writer_are_understood(tmp_path, tools):
    with SummaryWriter(str(tmp_path / "tensorboard")) as writer:
        for step in (1, 2, 3):
            writer.add_scalar("loss", step / 3, step)
    (tmp_path / "metrics.csv").write_text("iteration,loss\n1,0.3\n2,0.6\n")
    filled(tmp_path, 4, after=2)
    assert [step for tag, step, _ in tools.events(tmp_path) if tag == "loss"] == [1, 2, 3, 4]


def test_a_half_written_event_is_cut(tmp_path, tools):
    filled(tmp_path, 3)
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    filled(tmp_path, 5, after=2)
    assert [step for tag, step, _ in tools.events(tmp_path) if tag == "loss"] == [1, 2, 3, 4, 5]


def test_metrics_that_are_deleted_or_altered_during_a_run_are_written_anew(tmp_path):
    path = tmp_path / "metrics.csv"
    with RunLog(tmp_path, 0) as log:
        for i, trouble in enumerate(
            [
                lambda: None,
                path.unlink,  # before a row
                lambda: path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n")),  # by an editor
                lambda: path.write_bytes(path.read_bytes()[:-3]),
            ],
            start=1,
        ):
            trouble()
            log.append({"iteration": i, "loss": i / 3}, {"seconds": 0.5})
        path.unlink()
        log.sync()  # as before a checkpoint
    assert path.read_bytes() == b"iteration,loss,seconds\n" + b"".join(
        f"{i},{i / 3!r},0.5\n".encode() for i in (1, 2, 3, 4)
    )


def test_events_that_are_deleted_during_a_run_are_written_anew(tmp_path, tools):
    with RunLog(tmp_path, 0) as log:
        for i in (1, 2, 3):
            if i == 3:
                shutil.rmtree(tmp_path / "tensorboard")
            log.append({"iteration": i, "loss": i / 3}, {})
    assert [step for _, step, _ in tools.events(tmp_path)] == [1, 2, 3]


def test_rows_with_windows_line_ends_are_read_as_they_were(tmp_path):
    filled(tmp_path, 3)
    path = tmp_path / "metrics.csv"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"\n", b"\r\n"))
    filled(tmp_path, 4, after=3)
    assert path.read_bytes() == whole + b"4,1.3333333333333333,0.5\n"


def test_missing_metrics_are_made_from_the_events(tmp_path, caplog):
    with RunLog(tmp_path, 0) as log:
        log.append({"iteration": 1, "loss": 1 / 3, "steps": 2**24}, {"seconds": 1.0}, FILM)
        log.append({"iteration": 2, "loss": math.nan, "steps": 10, "eval": 5.5}, {"seconds": 2.0})
        log.append({"iteration": 3, "loss": 1.0, "steps": 20}, {"seconds": 3.0})
    path = tmp_path / "metrics.csv"
    path.unlink()
    require_rows(tmp_path, 2)
    assert not path.exists()
    RunLog(tmp_path, 2).close()
    assert lines(tmp_path) == [
        "iteration,loss,steps,eval,seconds",
        "1,0.33333334,1.6777216e+07,,1.0",
        "2,nan,10.0,5.5,2.0",
    ]
    assert "metrics.csv is missing: its rows are taken from tensorboard/" in caplog.text


def test_the_remedy_for_damaged_metrics_works(tmp_path):
    filled(tmp_path, 4)
    path = tmp_path / "metrics.csv"
    path.write_text("".join(f"{line}\n" for line in lines(tmp_path)[1:]))  # without its header
    with pytest.raises(LogError, match=r"rows of iterations 1 to 3, .*put the file back, or delete it"):
        RunLog(tmp_path, 3)
    path.unlink()
    filled(tmp_path, 5, after=3)
    assert [line.split(",")[0] for line in lines(tmp_path)] == ["iteration", "1", "2", "3", "4", "5"]
    shutil.rmtree(tmp_path / "tensorboard")
    path.write_text("iteration\n")
    for _ in ("damaged", "missing"):
        with pytest.raises(LogError, match=rf"put the file back, or start a new run .* --init-from {tmp_path}"):
            RunLog(tmp_path, 3)
        path.unlink(missing_ok=True)


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


EVENT_DAMAGES = {
    "cut in the middle": lambda data: data[: len(data) // 2],
    "a length altered": lambda data: flip(data, len(data) // 3 * 2),
    "a number altered": lambda data: flip(data, data.index(b"loss") + 8),
    "empty": lambda data: b"",
    "deleted": lambda data: None,
}


@pytest.mark.parametrize("damage", EVENT_DAMAGES)
def test_numbers_that_damaged_events_have_lost_are_written_again(tmp_path, tools, caplog, damage):
    filled(tmp_path, 6)
    before = tools.events(tmp_path)
    (file,) = (tmp_path / "tensorboard").iterdir()
    damaged = EVENT_DAMAGES[damage](file.read_bytes())
    file.unlink() if damaged is None else file.write_bytes(damaged)
    RunLog(tmp_path, 6).close()
    assert tools.events(tmp_path) == before
    found = EventAccumulator(str(tmp_path / "tensorboard"))  # which stops at the first wrong CRC
    found.Reload()
    assert [event.step for event in found.Scalars("learning/loss")] == [1, 2, 3, 4, 5, 6]
    assert "has lost numbers of" in caplog.text and "written again from metrics.csv" in caplog.text
    caplog.clear()
    RunLog(tmp_path, 6).close()
    assert caplog.text == "" and tools.events(tmp_path) == before


def test_a_film_in_a_damaged_event_is_lost_with_a_word(tmp_path, caplog):
    with RunLog(tmp_path, 0) as log:
        log.append({"iteration": 1, "loss": 1.0}, {}, FILM)
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.write_bytes(flip(file.read_bytes(), -8))
    RunLog(tmp_path, 1).close()
    assert "has a damaged event, which is left out" in caplog.text


DAMAGES = {
    "a missing row": lambda text: text.replace("2,0.6666666666666666,0.5\n", ""),
    "a word": lambda text: text.replace("0.6666666666666666", "much"),
    "a short row": lambda text: text.replace("2,0.6666666666666666,0.5\n", "2,0.5\n"),
    "another header": lambda text: text.replace("iteration", "epoch"),
    "a column twice": lambda text: text.replace("seconds", "loss"),
    "nothing": lambda text: "",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_rows_that_the_checkpoint_has_are_refused_and_left(tmp_path, damage):
    filled(tmp_path, 4)
    text = DAMAGES[damage]((tmp_path / "metrics.csv").read_text())
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(LogError, match=r"rows of iterations 1 to 3.*missing or damaged"):
        RunLog(tmp_path, 3)
    assert (tmp_path / "metrics.csv").read_text() == text


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80) | st.text("iteraon,123.\n-", max_size=40).map(str.encode), st.integers(0, 2))
def test_arbitrary_bytes_are_refused_or_cut(tmp_path, data, after):
    (tmp_path / "metrics.csv").write_bytes(data)
    try:
        RunLog(tmp_path, after).close()
        assert len(lines(tmp_path)) in (0, after + 1)
    except LogError:
        assert (tmp_path / "metrics.csv").read_bytes() == data


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80))
def test_arbitrary_bytes_in_an_event_file_do_no_harm(tmp_path, data):
    (tmp_path / "tensorboard").mkdir(exist_ok=True)
    (tmp_path / "tensorboard/events.out.tfevents.1").write_bytes(data)
    with RunLog(tmp_path, 0) as log:
        log.append({"iteration": 1, "loss": 2.0}, {})
        assert log.last["loss"] == 2.0


@pytest.mark.parametrize("name", ["", "a,b", "a\nb", 'a"b'])
def test_names_that_do_not_fit_a_column_are_refused(tmp_path, name):
    with RunLog(tmp_path, 0) as log, pytest.raises(LogError, match="must be without commas"):
        log.append({"iteration": 1, name: 1.0}, {})


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_a_full_disk_ends_in_one_sentence(tmp_path, monkeypatch, function):
    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    filled(tmp_path, 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(LogError, match=r"cannot be written: No space left on device; .*--resume"):
            RunLog(tmp_path, 1)
    filled(tmp_path, 3, after=2)
    assert len(lines(tmp_path)) == 4


def test_films_are_images_of_their_iteration_and_are_cut_like_the_rows(tmp_path):
    with RunLog(tmp_path, 0) as log:
        for i in (1, 2, 3):
            log.append({"iteration": i, "loss": 1.0}, {}, FILM)
    RunLog(tmp_path, 2).close()
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(e.step, e.height, e.width, e.encoded_image_string) for e in found.Images("film")] == [
        (step, 2, 3, b"GIF89a...") for step in (1, 2)
    ]
    assert lines(tmp_path) == ["iteration,loss", "1,1.0", "2,1.0"]


def test_columns_are_read_back_by_iteration(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.append({"iteration": 1, "loss": 0.1}, {"seconds": 1.0})
        log.append({"iteration": 2, "loss": 0.3, "eval": 5.0}, {"seconds": 1.0})
    path = tmp_path / "metrics.csv"
    assert read_columns(path, ["loss", "eval", "other"]) == {"loss": {1: 0.1, 2: 0.3}, "eval": {2: 5.0}}
    path.write_text("iteration,loss\n1,much\n")
    with pytest.raises(LogError, match="must hold a row of numbers for each iteration"):
        read_columns(path, ["loss"])
    path.unlink()
    with pytest.raises(LogError, match="cannot be read"):
        read_columns(path, ["loss"])
