"""Callbacks are told of every iteration, can end a run, and change nothing else."""

import signal
import threading

import pytest

from maml_rl.storage.checkpoint import load_latest
from maml_rl.training.callbacks import Callback, IterationReport, StopTraining, require_callbacks
from maml_rl.training.trackers import TensorBoard
from maml_rl.training.trainer import TrainingError


class Diary(Callback):
    def __init__(self):
        self.told = []

    def on_start(self, start):
        self.told.append(("start", start.iteration, len(start.rows()), start.settings))

    def on_iteration(self, report):
        self.told.append(("iteration", report.iteration, report.metrics["loss"]))

    def on_evaluation(self, report):
        self.told.append(("evaluation", report.iteration, report.evaluation["eval_at"]))

    def on_end(self, result):
        self.told.append(("end", result and result.iteration))


def test_each_event_of_a_run_is_told_in_turn_with_the_numbers_of_metrics_csv(tmp_path, tools):
    first, second = Diary(), Diary()
    tools.run(tmp_path / "run", 4, callbacks=[first])
    tools.run(tmp_path / "run", 6, callbacks=[second])
    losses = [float(row["loss"]) for row in tools.rows(tmp_path / "run")]
    iterations = [("iteration", i, loss) for i, loss in enumerate(losses, start=1)]
    assert first.told == [
        ("start", 0, 0, {"seed": 7}), *iterations[:3], ("evaluation", 3, 3), iterations[3], ("end", 4)
    ]  # fmt: skip
    assert second.told == [("start", 4, 4, {"seed": 7}), *iterations[4:], ("evaluation", 6, 6), ("end", 6)]


class Stops(Callback):
    def __init__(self, at, raises, method="on_iteration"):
        def told(report):
            if report.iteration != at:
                return None
            if raises:
                raise StopTraining
            return False

        setattr(self, method, told)


@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize("method", ["on_iteration", "on_evaluation"])
def test_a_callback_ends_the_run_cleanly_and_it_can_go_on(tmp_path, tools, capsys, raises, method):
    result = tools.run(tmp_path / "run", 10, callbacks=[TensorBoard(), Stops(3, raises, method)], checkpoint_every=1000)
    assert (result.iteration, result.interrupted_by) == (3, None)
    assert load_latest(tmp_path / "run/checkpoints").iteration == 3
    assert "stopped by Stops after iteration 3, whose checkpoint is saved" in capsys.readouterr().err
    tools.run(tmp_path / "run", 7)
    tools.run(tmp_path / "whole", 7)
    tools.assert_same_run(tmp_path / "whole", tmp_path / "run")


class Meddler(Callback):
    """Alters what it is told."""

    def on_start(self, start):
        start.settings["seed"] = 0
        start.rows().clear()

    def on_iteration(self, report):
        for numbers in (report.metrics, report.evaluation, report.clock):
            numbers.clear()


def test_no_callback_changes_what_a_run_computes_or_saves(tmp_path, tools):
    for stop in (2, 5):
        tools.run(tmp_path / "run", stop, callbacks=[TensorBoard(), Meddler()])
    tools.run(tmp_path / "whole", 5)
    tools.assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("method", ["on_start", "on_iteration", "on_evaluation", "on_end"])
def test_a_callback_that_fails_gives_one_warning_and_training_goes_on(tmp_path, tools, capsys, method):
    calls = []

    class Faulty(Callback):
        pass

    def fail(self, subject):
        calls.append(subject)
        raise ZeroDivisionError("no such\nnumber")

    setattr(Faulty, method, fail)
    after = Diary()
    assert tools.run(tmp_path / "run", 7, callbacks=[Faulty(), after]).iteration == 7
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(calls) == len(warnings) == 1
    assert f"callback Faulty failed in {method} and is left out" in warnings[0]
    assert "ZeroDivisionError: no such (" in warnings[0] and "test_callbacks.py, line" in warnings[0]
    assert len(after.told) == 11


def test_an_error_of_the_run_is_told_as_an_end_without_a_result(tmp_path, tools):
    class Diverges(tools.QuadraticLearner):
        def meta_step(self, state, tasks, key):
            state, report = super().meta_step(state, tasks, key)
            return state, report._replace(metrics={**report.metrics, "loss": float("nan")})

    diary = Diary()
    with pytest.raises(TrainingError):
        tools.run(tmp_path / "run", 4, Diverges(), callbacks=[diary])
    assert diary.told[1:] == [("end", None)]


def test_a_signal_ends_a_run_while_a_callback_is_slow(tmp_path, tools):
    class Slow(Callback):
        def on_iteration(self, report):
            if report.iteration == 3:
                threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
                threading.Event().wait(1.0)

    result = tools.run(tmp_path / "run", 10, callbacks=[Slow()])
    assert (result.iteration, result.interrupted_by) == (3, signal.SIGINT)
    assert load_latest(tmp_path / "run/checkpoints").iteration == 3


@pytest.mark.parametrize("wrong", [print, Diary, "tensorboard", None])
def test_what_is_no_callback_is_refused(wrong):
    with pytest.raises(ValueError, match=r"callbacks must be objects of classes derived from maml_rl\.Callback, got"):
        require_callbacks([Diary(), wrong])


def test_the_held_out_score_is_that_after_the_last_adaptation():
    scores = {"eval_return_0": -9.0, "eval_return_1": -5.0, "eval_return_0_ci95": 1.0, "eval_return_1_ci95": 2.0}
    further = {"eval_success_0": 0.1, "eval_success_1": 0.4}
    assert IterationReport(1, {}, scores | further, {}, None).held_out_score == -5.0
    assert IterationReport(1, {}, {"eval_log_density_0": 3.0}, {}, None).held_out_score == 3.0
    assert IterationReport(1, {}, {}, {}, None).held_out_score is None
