"""The report: what its file says, and what is refused. tests/pictures/report/test_page.py opens it in a browser."""

import csv
import html
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from pictures import write_folders

import maml_rl
from maml_rl.commands import report as report_command
from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.report import report
from maml_rl.commands.train import MAIN_ENV, parse_command, train
from maml_rl.evaluation.seeds import over_seeds
from maml_rl.evaluation.statistics import probability_of_improvement
from maml_rl.experiments.flags import changes
from maml_rl.experiments.report.entries import entries_of
from maml_rl.experiments.report.gather import Choices, gather
from maml_rl.experiments.report.history import course_of, smoothed, time_spent
from maml_rl.experiments.report.settings import NOT_CHOSEN, command_of, deviation_of
from maml_rl.experiments.runs import read_config
from maml_rl.pictures.backend import NO_BACKEND, DrawingError

RESULTS = Path(__file__).parents[2] / "docs" / "results"
SHIPPED = sorted(path.parent for path in RESULTS.rglob("config.json"))
NAVIGATION = "maml/Navigation2D-v0"
TINY = ["--num-tasks", "2", "--evaluate-every", "1", "--episodes-per-task", "2", "--horizon", "5", "--num-threads", "1"]
TINY += ["--evaluation.episodes-per-task", "2", "--evaluation.num-tasks", "2", "--outer.step", "gradient"]
SINUSOID = ["--num-tasks", "2", "--num-iterations", "2", "--num-threads", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An experiment of two seeds, another run, and one of other tasks."""
    folder = tmp_path_factory.mktemp("runs")
    flags = {"both": ["--seeds", "1", "2"], "large": ["--seed", "1", "--inner.step-size", "0.25"]}
    for name, own in flags.items():
        assert train(NAVIGATION, [*TINY, "--num-iterations", "2", *own, "--output-dir", str(folder / name)]) == 0
    assert train("sinusoid", [*SINUSOID, "--output-dir", str(folder / "sinusoid")]) == 0
    return folder


def written(*arguments, tmp_path):
    path = tmp_path / "report.html"
    assert report([*map(str, arguments), "--output", str(path)]) == 0
    return path.read_text(encoding="utf-8")


def of_ours(text):
    """All that stands before plotly.js."""
    return text[: text.index("<script>")]


def figures(text):
    """The figures' titles and what they are drawn from."""
    data = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)[1]
    titles = re.findall(r"<h3>([^<]*)</h3><div class=\"plot\"", text)
    return dict(zip(map(html.unescape, titles), json.loads(data), strict=True))


def trace(figure, name):
    return next(each for each in figure["data"] if each.get("name") == name)


def test_the_file_needs_nothing_else(runs, tmp_path):
    text = written(runs / "both", "--num-tasks", "3", tmp_path=tmp_path)
    ours = of_ours(text)
    assert re.findall(r'(?:src|href)="(?!data:|#)', ours) == [] and "@import" not in ours and "url(" not in ours
    assert text.count("plotly.js v") == 1 and len(text) < 5_500_000
    titles = ["Learning curve", "Adaptation curve", "Each task before and after adaptation"]
    assert list(figures(text)) == [*titles, "Training time by what it was spent on"]


def test_scores_are_those_of_the_evaluation_saved_beside_the_runs(runs, tmp_path):
    assert evaluate([str(runs / "both"), "--num-tasks", "4", "--num-steps", "2"]) == 0
    curves = maml_rl.load_experiment(runs / "both").curves(num_tasks=4, num_steps=2)
    (found,) = gather([runs / "both"], Choices())
    assert found.scores.values == pytest.approx(np.stack([curve.per_task.numpy() for curve in curves], axis=1))
    assert found.scores.gain.mean() == pytest.approx(over_seeds(curves).gain[-1].value)
    text = written(runs / "both", tmp_path=tmp_path)
    assert trace(figures(text)["Adaptation curve"], "mean over tasks and seeds")["y"] == pytest.approx(
        [each.value for each in over_seeds(curves).mean]
    )
    for seed in (1, 2):  # each by itself finds its rows in a table of its own, or in none
        (alone,) = gather([runs / "both" / f"seed-{seed}"], Choices())
        assert alone.scores is None and "has no saved evaluation" in alone.remark


def test_new_scores_are_those_of_python(runs):
    (found,) = gather([runs / "large"], Choices(num_tasks=3, seed=5))
    assert found.scores.values[:, 0] == pytest.approx(maml_rl.load(runs / "large").evaluate(3, seed=5).per_task.numpy())


def test_entries_are_compared_on_tasks_that_all_have_met(runs, tmp_path):
    text = written(runs / "both", runs / "large", "--num-tasks", "4", tmp_path=tmp_path)
    one, other = gather([runs / "both", runs / "large"], Choices(num_tasks=4))
    expected = probability_of_improvement(one.scores.values[-1], other.scores.values[-1], higher_is_better=True)
    (drawn,) = figures(text)["Probability of improvement"]["data"]
    assert drawn["y"] == ["both (2 seeds) over large"] and drawn["x"] == [pytest.approx(expected.value)]
    assert "--inner.step-size" in text and "MAML, published" in text


def test_a_task_is_marked_where_adaptation_has_made_it_worse(runs, tmp_path):
    text = written(runs / "large", "--num-tasks", "6", tmp_path=tmp_path)
    (found,) = gather([runs / "large"], Choices(num_tasks=6))
    number = int(found.scores.is_worse.sum())
    assert text.count("<tr class=marked>") == number
    crosses = trace(figures(text)["Each task before and after adaptation"], "tasks")["marker"]["symbol"]
    assert crosses.count("x") == number and len(crosses) == 6


def test_curves_of_seeds_are_interquartile_means_with_bands(runs, tmp_path):
    histories = [maml_rl.load(runs / "both" / f"seed-{seed}").metrics for seed in (1, 2)]
    course = course_of(histories, "return_after")
    middle = np.mean([history["return_after"] for history in histories], axis=0)  # of two, none is left out
    assert [each.value for each in course.estimates] == pytest.approx(middle.tolist())
    assert all(each.low <= each.value <= each.high for each in course.estimates)
    assert course_of([{**histories[0], "iteration": histories[0]["iteration"] + 5}, histories[1]], "kl") is None
    data = figures(written(runs / "both", tmp_path=tmp_path))["Learning curve"]["data"]
    bands = [each for each in data if each.get("fill") == "toself"]
    assert len(bands) == 2 and trace({"data": data}, "after adaptation")["y"] == pytest.approx(middle.tolist())


def test_long_courses_are_means_over_windows():
    iterations = np.arange(1.0, 1001.0)
    course = course_of([{"iteration": iterations, "score": 3.0 * iterations}], "score")
    assert len(course.iterations) <= 400
    assert [each.value for each in course.estimates] == pytest.approx([3.0 * x for x in course.iterations])
    assert smoothed([1.0] * 500) == pytest.approx([1.0] * 500) and smoothed([1.0, 3.0]) == [1.0, 3.0]


def test_the_parts_of_the_time_add_up(runs):
    metrics = maml_rl.load(runs / "large").metrics
    first = metrics["iteration_seconds"][0] + metrics["evaluation_seconds"][0]
    since = metrics["wall_seconds"][-1] - metrics["wall_seconds"][0]  # another run may come before the first row
    assert sum(time_spent(metrics).values()) == pytest.approx(first + since, rel=0.01)
    assert time_spent({}) == {}
    thinned = {name: column[::2] for name, column in metrics.items()}
    later = {name: column + 1e4 * (name == "wall_seconds") for name, column in metrics.items()}  # after another run
    assert "saving and logging" not in time_spent(thinned)
    assert time_spent(later) == pytest.approx(time_spent(metrics))


@pytest.mark.parametrize("run", SHIPPED, ids=lambda path: str(path.relative_to(RESULTS)))
def test_the_command_of_a_run_gives_its_settings(run):
    """Also the nearest preset and the settings that differ are right then."""
    (entry,) = entries_of([run])
    program, command, *flags = shlex.split(command_of(entry))
    assert (program, command) == ("maml-rl", "train")
    if entry.config.env == "images":
        pytest.skip("its pictures are not shipped")
    given = parse_command(MAIN_ENV, flags).run
    assert set(changes(given, entry.config)) <= {("device",), ("num_threads",)}
    assert not {path for path in NOT_CHOSEN if f"--{path[0]}" in deviation_of(entry.config).changed}


def test_seeds_of_one_experiment_are_one_entry_and_others_are_not(runs):
    seeds = [runs / "both" / f"seed-{seed}" for seed in (1, 2)]
    assert [entry.seeds for entry in entries_of([*seeds, runs / "large"])] == [[1, 2], [1]]
    assert [entry.label for entry in entries_of([runs / "both", runs / "large"])] == ["both (2 seeds)", "large"]


def test_what_a_run_says_is_text_and_no_markup(runs, tmp_path):
    evil = tmp_path / "<img src=x onerror=alert(1)>"
    (runs / "large").rename(evil)
    try:
        text = written(evil, runs / "both", "--num-tasks", "2", tmp_path=tmp_path)
    finally:
        evil.rename(runs / "large")
    assert "<img src=x" not in text and "&lt;img src=x" in text
    assert "</script" not in re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)[1]


def test_sinusoids_are_scored_unasked_and_robots_are_not(runs, tmp_path, capfd):
    (sinusoid,), (robot,) = (gather([path], Choices()) for path in (runs / "sinusoid", RESULTS / "halfcheetah_vel"))
    assert sinusoid.scores is not None and sinusoid.remark == ""
    assert robot.scores is None
    assert re.search(r"--num-tasks 40 makes one \([\d,]+ environment steps, some \d+ seconds", robot.remark)
    written(RESULTS / "halfcheetah_vel", tmp_path=tmp_path)
    assert "note: halfcheetah_vel has no saved evaluation" in capfd.readouterr().err


def test_a_learner_that_is_scored_once_has_a_learning_curve(tmp_path, own_cache):
    folder, run = write_folders(tmp_path / "data"), tmp_path / "run"
    flags = ["--learner", "prototypical", "--num-filters", "4", "--image-size", "16", "--num-iterations", "2"]
    flags += ["--evaluate-every", "1", "--evaluation.num-tasks", "3", "--data-root", str(folder)]
    assert train("images", [*flags, "--output-dir", str(run)]) == 0
    history = maml_rl.load(run).metrics
    curve = figures(written(run, "--num-tasks", "3", tmp_path=tmp_path))["Learning curve"]
    assert trace(curve, "after adaptation")["y"] == history["accuracy_after"].tolist()
    assert trace(curve, "held-out tasks")["y"] == history["eval_accuracy_0"].tolist()


def test_published_errors_stand_beside_a_sinusoid_s(runs, tmp_path, capfd):
    on_ten = written(runs / "sinusoid", tmp_path=tmp_path)
    assert "Published: Finn et al. 2017, on 5 examples of a task; maml-rl evaluate --num-examples 5 gives" in on_ten
    five = runs / "sinusoid" / "five"
    flags = ["--num-examples", "5", "--num-tasks", "3", "--num-steps", "10", "--output", str(five)]
    assert evaluate([str(runs / "sinusoid"), *flags]) == 0
    table = capfd.readouterr().err
    assert "published" in table and "0.67" in table and "0.35" in table
    text = written(runs / "sinusoid", "--evaluation", "five", tmp_path=tmp_path)
    published = trace(figures(text)["Adaptation curve"], "MAML, published")
    assert (published["x"], published["y"]) == ([1, 5, 10], [0.67, 0.38, 0.35])
    assert "on 5 examples of a task." in text and "pretrained, published" in of_ours(text)


def test_scores_of_an_earlier_iteration_are_called_so(runs, tmp_path):
    folder = tmp_path / "longer"
    flags = [*TINY, "--num-iterations", "1", "--output-dir", str(folder)]
    assert train(NAVIGATION, flags) == 0 and evaluate([str(folder), "--num-tasks", "2", "--num-steps", "1"]) == 0
    assert gather([folder], Choices())[0].remark == ""
    assert train(NAVIGATION, ["--resume", str(folder), "--num-iterations", "2"]) == 0
    assert "was scored at iteration 1 and has reached 2 since" in gather([folder], Choices())[0].remark


def test_pictures_that_visualize_has_left_are_embedded(runs, tmp_path):
    folder = runs / "sinusoid" / "pictures"
    maml_rl.load(runs / "sinusoid").plot(folder, num_tasks=3)
    text = of_ours(written(runs / "sinusoid", tmp_path=tmp_path))
    assert "Predicted functions" in text and text.count("data:image/png;base64") == 1  # the other plots it has itself
    without, drawn = (
        of_ours(written(runs / "sinusoid", "--pictures", each, tmp_path=tmp_path)) for each in ("none", "drawn")
    )
    assert "data:image/png" not in without and "data:image/png" in drawn


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}"], "{tmp} is no run folder, because it has no config.json: name one that training has made\n"),
        (["{tmp}/no"], "{tmp}/no is no run folder, because it does not exist: name one that training has made\n"),
        (
            ["{runs}"],
            "name one that training has made, such as {runs}/large, {runs}/sinusoid\n",
        ),
        (["{runs}/large", "{runs}/sinusoid"], "runs must be of the same tasks to be compared, but {runs}/large is of"),
        (["{runs}/large", "{runs}/large"], "runs must be named once each, but {runs}/large is named 2 times"),
        (["{runs}/both", "{runs}/both/seed-2"], "runs must be named once each, but {runs}/both/seed-2 is named 2"),
        (["{runs}/large", "--num-tasks", "0"], "num_tasks must be at least 1, got 0"),
        ([f"{RESULTS}/navigation", "--num-tasks", "3"], "must have a checkpoint to be scored or drawn, but it has"),
        (["{runs}/large", "--env", "Other-v0"], "env must be the environment of the run"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_before_anything_is_written(arguments, message, runs, tmp_path, capfd):
    given = [each.format(runs=runs, tmp=tmp_path) for each in arguments]
    assert report([*given, "--output", str(tmp_path / "new" / "report.html")]) == 2
    error = capfd.readouterr().err
    assert message.format(runs=runs, tmp=tmp_path) in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_backend_no_film_is_promised(runs, tmp_path, monkeypatch, capfd):
    def refuse(*_):
        raise DrawingError(NO_BACKEND)

    monkeypatch.setattr("maml_rl.experiments.report.media.require_drawing", refuse)
    arguments = [str(RESULTS / "halfcheetah_vel_fast"), "--pictures", "drawn", "--output", str(tmp_path / "r.html")]
    assert report(arguments) == 2
    assert capfd.readouterr().err == f"error: {NO_BACKEND}\n" and list(tmp_path.iterdir()) == []


def test_an_evaluation_of_another_form_is_no_evaluation(runs, tmp_path):
    for name, text in (("empty", ""), ("other", "a,b\n1,2\n")):
        (runs / "large" / f"{name}.csv").write_text(text)
        (runs / "large" / f"{name}.json").write_text('{"metric": "return"}')
        (found,) = gather([runs / "large"], Choices(evaluation=name))
        assert found.scores is None and f"no saved evaluation named {name}" in found.remark


def test_published_returns_stand_beside_the_scores(tmp_path):
    cheetahs = [RESULTS / f"halfcheetah_vel_fast{suffix}" for suffix in ("", "_seed2", "_seed3")]
    text = written(*cheetahs, "--evaluation", "published", tmp_path=tmp_path)
    curve = figures(text)["Adaptation curve"]
    assert trace(curve, "MAML, published")["y"] == [-129.5, -78.6, -66.6, -60.8]
    with open(RESULTS / "halfcheetah_vel_fast" / "published.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    means = [np.mean([float(row[f"return_{step}"]) for row in rows]) for step in range(4)]
    assert trace(curve, "mean over tasks and seeds")["y"] == pytest.approx(means)
    assert "on the same tasks" in text and "published fresh tasks" not in text
    assert read_config(cheetahs[0]).training.num_iterations == 100


def test_the_version_stands_at_the_end(runs, tmp_path):
    text = written(runs / "large", tmp_path=tmp_path)
    assert f"<footer>Made by maml-rl {report_command.__version__} on " in text
