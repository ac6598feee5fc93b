"""The loop: what it asks of the learner, what it writes, and how it stops."""

import errno
import math
import os

import pytest
import torch

from maml_rl.core.contracts import Report
from maml_rl.storage import checkpoint as checkpoints
from maml_rl.storage.checkpoint import CheckpointError, load_best, load_latest
from maml_rl.storage.log import LogError
from maml_rl.storage.run_folder import RunFolder, RunFolderError
from maml_rl.training.trainer import Trainer, TrainingConfig, TrainingError


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("num_iterations", -1, 0),
        ("num_tasks", 0, 1),
        ("evaluate_every", -1, 0),
        ("checkpoint_every", 0, 1),
        ("keep_checkpoints", 0, 1),
    ],
)
def test_bad_settings_are_refused(name, value, least):
    with pytest.raises(ValueError, match=f"{name} must be at least {least}, got {value}"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize("minutes", [0.0, -1.0, math.inf, math.nan])
def test_a_budget_of_time_must_be_one(minutes):
    with pytest.raises(ValueError, match=f"max_minutes must be positive and finite, got {minutes}"):
        TrainingConfig(max_minutes=minutes)


def test_a_run_out_of_time_ends_with_a_checkpoint_and_goes_on_with_more(tmp_path, tools):
    result = tools.run(tmp_path / "run", 4, max_minutes=1e-9, checkpoint_every=10)
    assert (result.iteration, result.interrupted_by) == (1, None)  # when it was begun no time had passed
    assert load_latest(tmp_path / "run/checkpoints").iteration == 1
    assert tools.run(tmp_path / "run", 4, max_minutes=1e-9).iteration == 1  # time spent before counts
    assert tools.run(tmp_path / "run", 4, max_minutes=60.0).iteration == 4
    tools.run(tmp_path / "whole", 4)
    assert tools.rows(tmp_path / "run") == tools.rows(tmp_path / "whole")


def test_rows_have_metrics_totals_evaluations_and_the_clock_last(tmp_path, tools):
    result = tools.run(tmp_path / "run", 7)
    header = (tmp_path / "run/metrics.csv").read_text().split("\n")[0]
    assert header == (
        "iteration,loss,env_steps,env_steps_total,eval_w,eval_at,"
        "fake_seconds,iteration_seconds,evaluation_seconds,wall_seconds"
    )
    rows = tools.rows(tmp_path / "run")
    assert [row["env_steps_total"] for row in rows] == [str(6 * i) for i in range(1, 8)]
    assert [row["eval_at"] for row in rows] == ["", "", "3", "", "", "6", ""]
    assert (result.iteration, result.interrupted_by) == (7, None)
    assert result.metrics["loss"] == float(rows[-1]["loss"])
    logged = {(tag, step): value for tag, step, value in tools.events(tmp_path / "run")}
    assert logged["loss", 7] == pytest.approx(float(rows[-1]["loss"]))
    assert ("eval_w", 6) in logged and ("eval_w", 7) not in logged


def test_no_evaluation_when_it_is_off(tmp_path, tools):
    tools.run(tmp_path / "run", 4, evaluate_every=0)
    assert "eval" not in (tmp_path / "run/metrics.csv").read_text()


@pytest.mark.parametrize("every", [1, 5])
def test_best_holds_the_parameters_that_earned_the_best_score(tmp_path, tools, every):
    tools.run(tmp_path / "run", 12, checkpoint_every=every, keep_checkpoints=1)
    losses = [float(row["loss"]) for row in tools.rows(tmp_path / "run")]
    best = load_best(tmp_path / "run/checkpoints")
    # Row i + 1 was measured before the step of iteration i, by the parameters after i iterations.
    assert best.iteration == losses.index(min(losses))
    tools.run(tmp_path / "short", best.iteration)
    short = load_latest(tmp_path / "short/checkpoints")
    assert torch.equal(best.state["params/w"], short.state["params/w"])
    latest = load_latest(tmp_path / "run/checkpoints")
    assert latest.iteration == 12
    assert latest.counters["best_score"] == min(losses)
    assert checkpoints.iterations_on_disk(tmp_path / "run/checkpoints") == sorted({best.iteration, 12})


def test_zero_iterations_leave_the_initial_parameters(tmp_path, tools):
    assert tools.run(tmp_path / "run", 0) == (0, None, {})
    assert load_latest(tmp_path / "run/checkpoints").iteration == 0


class Failing:
    """The tiny learner, but iteration 3 does `what`."""

    def __init__(self, learner, what):
        self.learner, self.what = learner, what

    def init(self, key):
        return self.learner.init(key)

    def meta_step(self, state, tasks, key):
        new, report = self.learner.meta_step(state, tasks, key)
        return self.what(new, report) if key.iteration == 3 else (new, report)


def infinite_state(state, report):
    return state._replace(params={"w": state.params["w"] / 0}), report


def raise_error(state, report):
    raise ZeroDivisionError("in the learner")


STOPS = {
    "nan metric": (lambda s, r: (s, Report({**r.metrics, "loss": math.nan}, {})), "4.*loss = nan; tasks: "),
    "inf metric": (lambda s, r: (s, Report({**r.metrics, "kl": math.inf}, {})), "iteration 4.*kl = inf"),
    "inf state": (infinite_state, "iteration 4.*state 'params/w'"),
    "no best metric": (lambda s, r: (s, Report({"x": 1.0}, {})), r"must be one of .*\['x'\], got 'loss'"),
    "an error": (raise_error, "in the learner"),
}


@pytest.mark.parametrize("kind", STOPS)
def test_what_stops_a_run_leaves_it_resumable(tmp_path, tools, kind):
    what, message = STOPS[kind]
    expected = ZeroDivisionError if kind == "an error" else TrainingError
    with pytest.raises(expected, match=message):
        tools.run(tmp_path / "run", 6, Failing(tools.QuadraticLearner(), what))
    tools.assert_clean(tmp_path / "run")
    assert load_latest(tmp_path / "run/checkpoints").iteration == 3
    tools.run(tmp_path / "run", 6)
    tools.run(tmp_path / "whole", 6)
    tools.assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("failing_call", range(0, 60, 7))
def test_a_full_disk_ends_in_one_sentence_and_resumes(tmp_path, tools, monkeypatch, failing_call):
    calls = [0]

    def fail_from_then_on(original):
        def call(*args):
            calls[0] += 1
            if calls[0] > failing_call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_from_then_on(os.fsync))
        with pytest.raises((CheckpointError, LogError, RunFolderError), match="No space left") as error:
            tools.run(tmp_path / "run", 6)
    assert "\n" not in str(error.value)
    tools.run(tmp_path / "run", 6)
    tools.run(tmp_path / "whole", 6)
    tools.assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_another_learners_checkpoint_is_refused(tmp_path, tools):
    class Wider(tools.QuadraticLearner):
        def init(self, key):
            return super().init(key)._replace(params={"w": torch.zeros(4)})

    tools.run(tmp_path / "run", 2)
    with pytest.raises(CheckpointError, match=r"must fit this learner, but params/w .*another run's"):
        tools.run(tmp_path / "run", 4, Wider())
    assert len(tools.rows(tmp_path / "run")) == 2


def test_a_run_does_not_begin_where_one_is(tmp_path, tools):
    tools.run(tmp_path / "run", 2)
    with RunFolder.open(tmp_path / "run") as folder:
        learner, config = tools.QuadraticLearner(), TrainingConfig()
        trainer = Trainer(folder, learner, lambda n, rng: [0.0], config, 7, "loss", False, None, ())
        with pytest.raises(RunFolderError, match="a run is in it"):
            trainer.run(resume=False)
    assert len(tools.rows(tmp_path / "run")) == 2


def test_tasks_come_from_the_seed_and_the_iteration_alone(tmp_path, tools):
    seen = []

    class Spy(tools.QuadraticLearner):
        def meta_step(self, state, tasks, key):
            seen.append((key, tuple(tasks)))
            return super().meta_step(state, tasks, key)

    tools.run(tmp_path / "a", 3, Spy())
    tools.run(tmp_path / "b", 2, Spy())
    assert seen[:2] == seen[3:]
    assert len({tasks for _, tasks in seen}) == 3
    assert [key.iteration for key, _ in seen[:3]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("accepted", "said_after"),
    [
        ([0.0] * 25, [10]),
        ([0.0] * 9 + [1.0] + [0.0] * 9 + [1.0], []),
        ([1.0] * 3 + [0.0] * 10 + [1.0] + [0.0] * 10, [13]),
        ([None] * 20, []),  # an outer step that never rejects
    ],
)
def test_outer_steps_that_are_rejected_ten_times_in_a_row_are_mentioned_once(
    accepted, said_after, tmp_path, tools, capsys
):
    class Rejecting(tools.QuadraticLearner):
        def meta_step(self, state, tasks, key):
            state, report = super().meta_step(state, tasks, key)
            verdict = accepted[key.iteration]
            return state, report if verdict is None else report._replace(
                metrics={**report.metrics, "accepted": verdict}
            )

    tools.run(tmp_path / "run", len(accepted), Rejecting())
    lines = capsys.readouterr().err.splitlines()
    warned = [i for i, line in enumerate(lines) if "no outer step was accepted in the last 10 iterations" in line]
    assert warned == said_after  # a line for each iteration, then this one
    assert all("--num-tasks" in lines[i] for i in warned)
