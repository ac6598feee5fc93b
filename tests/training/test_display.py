"""Progress goes to stderr: plain lines, or a live table on a terminal."""

import io

from rich.console import Console

from maml_rl.training.display import LiveDisplay, PlainDisplay, _Progress, make_display


def test_plain_lines_go_to_stderr_one_per_iteration(capsys):
    with make_display(3, 5, ("loss", "missing", "kl")) as display:
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
    assert isinstance(make_display(0, 5, ()), PlainDisplay)


def test_the_live_table_shows_the_headline_and_keeps_evaluations(capsys):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    with LiveDisplay(console, _Progress(0, 5), ("loss", "kl")) as display:
        display.show({"iteration": 2, "loss": 0.5, "other": 1.0}, {"eval [x]": 7.0})
        display.say("[bold]as it is")
    text = screen.getvalue()
    assert "iteration 2/5" in text
    assert "loss" in text and "0.5" in text and "other" not in text
    assert "evaluation after 2: eval [x] 7" in text
    assert "[bold]as it is" in text
    assert capsys.readouterr() == ("", "")


def test_nothing_to_do_can_be_shown():
    console = Console(file=io.StringIO(), force_terminal=True)
    with LiveDisplay(console, _Progress(0, 0), ("loss",)):
        pass
    assert "0/0" in console.file.getvalue()
