"""Progress goes to stderr: plain lines, or a live table on a terminal."""

import io

import pytest
from rich.console import Console

from maml_rl.training import display as display_module
from maml_rl.training.display import NUM_ROWS, LiveDisplay, PlainDisplay, Progress, make_display


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when they are set."""
    now = [100.0]
    monkeypatch.setattr(display_module.time, "perf_counter", lambda: now[0])
    return now


def live(progress, headline, width=80):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=40)
    return console.file, LiveDisplay(console, progress, "runs/mine on cuda:1", headline)


def test_plain_lines_go_to_stderr_one_per_iteration(capsys):
    with make_display(Progress(3, 5, 0.0, None), "run", ("loss", "missing", "kl")) as display:
        assert isinstance(display, PlainDisplay)
        display.show({"iteration": 4, "loss": 0.123456, "kl": 1e-5, "other": 1.0}, {})
        display.show({"iteration": 5, "loss": 123456.7}, {"eval_return_1": -20.0})
        display.say("done")
    output, progress = capsys.readouterr()
    assert output == ""
    assert progress.splitlines() == [
        "iteration 4/5  loss 0.1235  kl 1e-05  left 0:00:00",
        "iteration 5/5  loss 123457  eval_return_1 -20  left 0:00:00",
        "done",
    ]


def test_a_forced_color_pipe_is_still_a_pipe(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(make_display(Progress(0, 5, 0.0, None), "run", ()), PlainDisplay)


def test_the_live_table_shows_run_phase_and_last_rows_and_keeps_evaluations(capsys):
    screen, display = live(Progress(0, 50, 0.0, None), ("loss", "kl"))
    with display:
        display.phase("evaluation")
        display._live.refresh()  # as its thread does every second
        for iteration in range(1, NUM_ROWS + 3):
            display.show({"iteration": iteration, "loss": 1000.0 + iteration, "other": 1.0}, {})
        display.show({"iteration": iteration + 1, "loss": 0.5}, {"eval [x]": 7.0})
        display.say("[bold]as it is")
    text = screen.getvalue()
    assert "runs/mine on cuda:1: evaluation" in text
    last = text[text.rindex("runs/mine on cuda:1") :]  # as it was drawn at the end
    assert f"iteration {NUM_ROWS + 3}/50" in last
    assert "loss" in last and "0.5" in last and "other" not in last
    assert [n for n in range(1, NUM_ROWS + 3) if f"{1000 + n}" in last] == list(range(4, NUM_ROWS + 3))
    assert f"evaluation after {NUM_ROWS + 3}: eval [x] 7" in text
    assert "[bold]as it is" in text
    assert capsys.readouterr() == ("", "")


def test_a_table_of_eighty_columns_cuts_nothing():
    headline = ("accuracy_before", "accuracy_after", "kl", "steps_per_s")
    screen, display = live(Progress(0, 50_000, 0.0, 36_000.0), headline)
    with display:
        display.show({"iteration": 40_000, **dict.fromkeys(headline, -1234.5)}, {})
    text = screen.getvalue()
    last = text[text.rindex("runs/mine") :]
    assert "…" not in last and all(name in last for name in headline)


def test_time_that_is_left_ends_with_the_iterations_or_the_budget(clock):
    # 100 s before; then 2 iterations in 20 s, at 10 s each: 8 more take 80 s
    free, bound = Progress(2, 12, 100.0, None), Progress(2, 12, 100.0, 150.0)
    assert (free.remaining, bound.remaining) == ("?", "0:00:50")
    clock[0] += 20.0
    for progress in (free, bound):
        progress.advance(4)
        assert progress.elapsed == "0:02:00"
    assert (free.remaining, bound.remaining) == ("0:01:20", "0:00:30")
    clock[0] += 100.0
    assert bound.remaining == "0:00:00"


def test_nothing_to_do_can_be_shown():
    screen, display = live(Progress(0, 0, 0.0, None), ("loss",))
    with display:
        pass
    assert "0/0" in screen.getvalue()
