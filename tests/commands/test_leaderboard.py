"""The leaderboard command: each learner trained once under its budget, all asked the same, nothing done twice."""

import csv
import json
import shutil

import pytest
from pictures import write_folders
from safetensors.torch import load_file

from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.leaderboard import MAX_SHIPPED_BYTES, LeaderboardCommand, leaderboard, learner_config
from maml_rl.evaluation.evaluator import Evaluation
from maml_rl.experiments.runs import read_config
from maml_rl.experiments.table import LEARNERS, names_for
from maml_rl.experiments.training import Prepared
from maml_rl.training.trainer import TrainingResult

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("pictures") / "data", size=28)


def arguments(data, folder, *more):
    flags = ["--env", "images", "--ways", "3", "--num-iterations", "2", "--evaluate-every", "1", "--num-episodes", "5"]
    flags += ["--learners", "fomaml", "pixels", "--data-root", str(data), "--num-threads", "1", "--json"]
    return [*flags, "--output-dir", str(folder), *more]


@pytest.fixture(scope="module")
def ranked(data, tmp_path_factory, pictures_cache):
    folder = tmp_path_factory.mktemp("leaderboard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAML_RL_CACHE", str(pictures_cache))
        assert leaderboard(arguments(data, folder)) == 0
    return folder


def table(folder):
    return json.loads((folder / "leaderboard.json").read_text())


def test_every_learner_has_a_row_in_every_form(ranked):
    rows = table(ranked)
    assert {row["learner"] for row in rows} == {"fomaml", "pixels"}
    assert [row["accuracy"] for row in rows] == sorted((row["accuracy"] for row in rows), reverse=True)
    by_name = {row["learner"]: row for row in rows}
    assert (by_name["fomaml"]["iterations"], by_name["pixels"]["iterations"]) == (2, 0)
    assert len(by_name["fomaml"]["progress"]) == 2 and by_name["pixels"]["progress"] == []
    with open(ranked / "leaderboard.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [(row["learner"], float(row["accuracy"])) for row in written] == [
        (r["learner"], r["accuracy"]) for r in rows
    ]
    text = (ranked / "leaderboard.md").read_text()
    assert all(
        f"| {row['learner']} | {100 * row['accuracy']:.2f} ±" in text and row["evaluate"] in text for row in rows
    )
    assert (ranked / "leaderboard.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("learner", ["fomaml", "pixels"])
def test_a_row_is_scored_again_by_its_command(learner, data, ranked, tmp_path, capfd):
    (row,) = (row for row in table(ranked) if row["learner"] == learner)
    program, script, *flags = row["evaluate"].split()
    assert (program, script) == ("python", "scripts/evaluate.py") and flags[0] == str(ranked / "checkpoints" / learner)
    capfd.readouterr()
    assert evaluate([*flags, "--data-root", str(data), "--json", "--output", str(tmp_path / "again")]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["mean"][-1], found["ci95"][-1]) == (row["accuracy"], row["ci95"])


def test_what_is_shipped_is_small_and_names_no_place(data, ranked):
    folder = ranked / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"fomaml", "pixels"}
    tensors = next((folder / "fomaml" / "checkpoints").glob("*.safetensors"))
    assert tensors.stat().st_size < MAX_SHIPPED_BYTES
    names = load_file(tensors).keys()
    assert names and all(name.startswith("params/") for name in names)
    assert str(data) not in (folder / "fomaml" / "config.json").read_text()


def test_what_is_done_is_not_done_again(data, ranked, tmp_path, monkeypatch, capfd):
    before = table(ranked)
    again = tmp_path / "again"
    shutil.copytree(ranked, again)
    shutil.rmtree(again / "runs")  # as in a fresh checkout: rows and shipped parameters are enough
    monkeypatch.setattr(Prepared, "train", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(Evaluation, "curve", lambda *_: pytest.fail("scored again"))
    for folder in (ranked, again):
        capfd.readouterr()
        assert leaderboard(arguments(data, folder)) == 0
        assert json.loads(capfd.readouterr().out) == before


def test_other_episodes_are_asked_without_training(data, ranked, tmp_path, monkeypatch, capfd):
    again = tmp_path / "again"
    shutil.copytree(ranked, again)
    shutil.rmtree(again / "runs")
    monkeypatch.setattr(Prepared, "train", lambda *_: pytest.fail("trained again"))
    assert leaderboard(arguments(data, again, "--num-episodes", "7")) == 0
    old, new = ({row["learner"]: row for row in table(folder)} for folder in (ranked, again))
    for learner in old:
        assert new[learner]["asked"]["num_episodes"] == 7 and new[learner]["progress"] == old[learner]["progress"]
        assert new[learner]["commit"] == old[learner]["commit"]


def test_a_run_cut_short_goes_on_and_time_is_a_budget_too(data, tmp_path, capfd):
    flags = ["--learners", "fomaml", "--minutes", "1e-9"]
    assert leaderboard(arguments(data, tmp_path, *flags)) == 0
    assert table(tmp_path)[0]["iterations"] == 1  # when it was begun no time had passed
    assert leaderboard(arguments(data, tmp_path, "--learners", "fomaml", "--minutes", "60")) == 0
    (row,) = table(tmp_path)
    assert row["iterations"] == 2 and 0.0 < row["minutes"] < 60.0
    assert "1e-09 minutes" not in (tmp_path / "leaderboard.md").read_text()


def test_finished_runs_may_be_loaded(data, ranked, tmp_path, capfd):
    run = str(ranked / "runs" / "fomaml")
    assert leaderboard(arguments(data, tmp_path, "--learners", "fomaml", "--load", "fomaml", run)) == 0
    (loaded,), (row,) = table(tmp_path), (row for row in table(ranked) if row["learner"] == "fomaml")
    assert loaded["accuracy"] == row["accuracy"] and not (tmp_path / "runs").exists()
    assert leaderboard(arguments(data, tmp_path / "new", "--load", "pixels", run)) == 2
    assert "load must name a run with learner pixels, but in" in capfd.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_row_names_the_run_it_began_with_and_counts_its_minutes(data, ranked, tmp_path, capfd):
    first = {row["learner"]: row for row in table(ranked)}["fomaml"]
    source = str(ranked / "checkpoints" / "fomaml")  # what is shipped is enough
    flags = ["--learners", "fomaml", "--init-from", "fomaml", source]
    assert leaderboard(arguments(data, tmp_path, *flags)) == 0
    (row,) = table(tmp_path)
    assert (first["init_from"], row["init_from"]) == (None, source) and row["iterations"] == 2
    assert row["minutes"] > first["minutes"] and all(minutes > first["minutes"] for minutes, _ in row["progress"])
    assert f"-shot, from {source} |" in (tmp_path / "leaderboard.md").read_text()
    other = str(ranked / "runs" / "pixels")
    assert leaderboard(arguments(data, tmp_path / "new", "--init-from", "fomaml", other)) == 2
    assert "init_from must name a run with a parameter of this one's" in capfd.readouterr().err
    assert not (tmp_path / "new").exists()


def test_other_rotations_are_other_episodes_and_loaded_runs_must_have_them(data, ranked, tmp_path, capfd):
    turned = ["--learners", "pixels", "--test-rotations", "classes"]
    assert leaderboard(arguments(data, tmp_path, *turned)) == 0
    (row,) = table(tmp_path)
    assert row["asked"]["test_rotations"] == "classes"
    assert {row["asked"]["test_rotations"] for row in table(ranked)} == {"none"}  # the default for own pictures
    capfd.readouterr()
    assert evaluate([*row["evaluate"].split()[2:], "--data-root", str(data), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["mean"][-1] == row["accuracy"]
    run = str(ranked / "runs" / "pixels")
    assert leaderboard(arguments(data, tmp_path / "new", *turned, "--load", "pixels", run)) == 2
    assert "load must name a run with test_rotations classes, but in" in capfd.readouterr().err


def test_rows_of_earlier_versions_began_with_no_other_run(data, tmp_path, monkeypatch):
    flags = ["--learners", "pixels", "--test-rotations", "classes"]  # the only rotations that they knew
    command = arguments(data, tmp_path, *flags)
    assert leaderboard(command) == 0
    before = table(tmp_path)
    for file in (tmp_path / "rows").iterdir():
        row = json.loads(file.read_text())
        del row["init_from"], row["asked"]["split"], row["asked"]["test_rotations"]
        file.write_text(json.dumps(row))
    monkeypatch.setattr(Evaluation, "curve", lambda *_: pytest.fail("scored again"))
    assert leaderboard(command) == 0
    assert table(tmp_path) == before


def test_the_pictures_of_a_leaderboard_stay_the_same(tmp_path, capfd):
    data, flags = write_folders(tmp_path / "data", size=28), ["--learners", "pixels"]
    assert leaderboard(arguments(data, tmp_path / "board", *flags)) == 0
    (data / "test" / "c00" / "0.png").unlink()
    capfd.readouterr()
    assert leaderboard(arguments(data, tmp_path / "board", *flags)) == 2
    assert "holds another run (task.fingerprint was" in capfd.readouterr().err
    run = str(tmp_path / "board" / "runs" / "pixels")
    assert leaderboard(arguments(data, tmp_path / "new", *flags, "--load", "pixels", run)) == 2
    assert "must hold the pictures that the run learned from" in capfd.readouterr().err
    assert not (tmp_path / "new").exists()


def test_learners_ask_for_no_more_than_the_user_s_pictures(tmp_path, capfd):
    data = write_folders(tmp_path / "data", num_train=6, num_test=4, per_class=4, size=28)
    flags = ["--learners", "prototypical", "--num-iterations", "0"]
    assert leaderboard(arguments(data, tmp_path / "board", *flags)) == 0
    assert "note: prototypical: train_ways is 6 in place of 60, queries is 3" in capfd.readouterr().err
    assert read_config(tmp_path / "board" / "runs" / "prototypical").task.train_ways == 6


def test_a_loaded_run_may_be_asked_fewer_classes_and_more_pictures_but_not_more_classes(data, ranked, tmp_path, capfd):
    run = ranked / "runs" / "fomaml"
    trained = read_config(run).task.training
    load = ["--learners", "fomaml", "--load", "fomaml", str(run)]
    fewer = ["--ways", str(trained.ways - 1), "--shots", str(trained.shots + 1)]
    assert leaderboard([*arguments(data, tmp_path, *load), *fewer]) == 0
    (row,) = table(tmp_path)
    assert (row["asked"]["ways"], row["asked"]["shots"]) == (trained.ways - 1, trained.shots + 1)
    assert (row["train_ways"], row["train_shots"]) == (trained.ways, trained.shots)
    assert {"commit", "evaluate"} < row.keys() and row["progress"] == []  # its points are of other episodes
    capfd.readouterr()
    assert evaluate([*row["evaluate"].split()[2:], "--data-root", str(data), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["mean"][-1] == row["accuracy"]
    assert leaderboard([*arguments(data, tmp_path / "more", *load), "--ways", str(trained.ways + 1)]) == 2
    assert f"train_ways must be at least ways, {trained.ways + 1}, for learner fomaml" in capfd.readouterr().err


def test_a_signal_stops_the_command_and_says_how_to_go_on(data, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Prepared, "train", lambda *_: TrainingResult(0, 2, {}))
    assert leaderboard(arguments(data, tmp_path)) == 130
    assert "stopped in fomaml; to continue: " in capfd.readouterr().err
    assert not (tmp_path / "leaderboard.json").exists()


def test_all_learners_are_asked_the_same_and_reptile_s_steps_end_with_its_budget(tmp_path):
    command = LeaderboardCommand(tmp_path, num_iterations=70, minutes=3.0)
    assert list(command.learners) == names_for("pictures")
    configs = {learner: learner_config(learner, command) for learner in command.learners}
    sizes = {(c.task.ways, c.task.shots, c.task.test_rotations, c.task.images.image_size) for c in configs.values()}
    assert len(sizes) == 1
    assert {name for name, c in configs.items() if c.task.images.resize != "nearest"} == {"neural-statistician"}
    assert {c.training.max_minutes for c in configs.values()} == {3.0}
    assert {c.training.num_iterations for name, c in configs.items() if name != "pixels"} == {70}
    assert configs["reptile"].method.outer.reptile.decay_steps == 70 and configs["pixels"].training.num_iterations == 0


def test_the_fast_preset_decays_with_the_budget_and_leaves_other_learners_alone(tmp_path):
    paper, fast = (LeaderboardCommand(tmp_path, num_iterations=70, preset=preset) for preset in ("paper", "fast"))
    for learner in names_for("pictures"):
        config = learner_config(learner, fast)
        if "fast" in LEARNERS[learner].presets:
            gradient = config.method.outer.gradient
            assert gradient.rate_after(70) == 0.0 < gradient.rate_after(69)
        else:
            assert config == learner_config(learner, paper)


def test_queries_may_be_normalised_otherwise_than_in_training(data, ranked, tmp_path, capfd):
    runs = [word for name in ("fomaml", "pixels") for word in (name, str(ranked / "checkpoints" / name))]
    flags = ["--num-episodes", "40", "--test-queries", "1", "--load", *runs]
    for norm in ("batch", "support"):
        assert leaderboard(arguments(data, tmp_path / norm, *flags, "--norm", norm)) == 0
    rows = {norm: {row["learner"]: row for row in table(tmp_path / norm)} for norm in ("batch", "support")}
    assert {rows[norm]["fomaml"]["norm"] for norm in rows} == {"batch", "support"}
    capfd.readouterr()
    again = rows["support"]["fomaml"]["evaluate"].split()[2:]
    assert evaluate([*again, "--data-root", str(data), "--json", "--output", str(tmp_path / "again")]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["norm"], found["mean"][-1]) == ("support", rows["support"]["fomaml"]["accuracy"])
    assert "--norm" not in rows["support"]["pixels"]["evaluate"]


def test_the_command_of_a_row_names_other_mini_batches_at_test(data, tmp_path, capfd):
    flags = ["--learners", "reptile", "pixels", "--num-iterations", "2", "--num-episodes", "40"]
    assert leaderboard(arguments(data, tmp_path, *flags, "--test-batch-size", "3")) == 0
    rows = {row["learner"]: row for row in table(tmp_path)}
    assert "--test-batch-size" not in rows["pixels"]["evaluate"]
    capfd.readouterr()
    again = rows["reptile"]["evaluate"].split()[2:]
    assert again[again.index("--test-batch-size") + 1] == "3"
    assert evaluate([*again, "--data-root", str(data), "--json", "--output", str(tmp_path / "again")]) == 0
    assert json.loads(capfd.readouterr().out)["mean"][-1] == rows["reptile"]["accuracy"]


def test_another_run_in_the_last_folder_is_refused_before_the_first_is_trained(data, tmp_path, capfd):
    flags = arguments(data, tmp_path, "--num-iterations", "1", "--learners")
    assert leaderboard([*flags, "maml"]) == 0
    capfd.readouterr()
    assert leaderboard([*flags, "anil", "maml", "--train-on", "train"]) == 2
    assert "holds another run (task.train_on was" in capfd.readouterr().err
    assert not (tmp_path / "runs" / "anil").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--learners", "pixels", "pixels"], "learners must be named once each"),
        (["--learners", "nobody"], "learner must be one of ['maml', "),
        (["--load", "maml", "runs/x"], "load must name learners among"),
        (["--init-from", "maml", "runs/x"], "init_from must name learners among"),
        (["--preset", "warm"], "preset warm must have init_from, got none"),
        (["--learners", "pixels", "--norm", "batch"], "norm batch needs a learner that normalises by the episode"),
        (["--learners", "pixels", "--test-batch-size", "5"], "test_batch_size 5 needs a learner that takes steps on"),
        (["--learners", "reptile", "--test-batch-size", "0"], "test_batch_size must be at least 1, got 0"),
        (["--num-episodes", "0"], "num_episodes must be at least 1, got 0"),
        (["--minutes", "0"], "max_minutes must be positive and finite, got 0.0"),
        (["--ways", "1"], "ways must be at least 2, got 1"),
        (["--test-queries", "0"], "test_queries must be at least 1, got 0"),
        (["--test-queries", "99"], "queries"),
        (["--seed", "-1"], "seed must be at least 0, got -1"),
        (["--split", "random-1200"], "--split random-1200 applies to --env omniglot, not to --env images"),
        (["--ways", "8"], "ways must be at most the number of classes, 6, got 8"),
        (["--ways", "40", "--rotations", "classes", "--test-rotations", "classes"], "number of classes, 24, got 40"),
    ],
)
def test_bad_input_is_refused(changes, message, data, tmp_path, capfd):
    try:
        status = leaderboard(arguments(data, tmp_path / "new", *changes))
    except SystemExit as refusal:  # by the parser
        status = refusal.code
    assert status == 2
    assert message in " ".join(capfd.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "new").exists()
