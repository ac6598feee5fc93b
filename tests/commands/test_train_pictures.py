"""Few-shot classification by its commands: training with each learner, resuming, evaluation, refusals."""

import ast
import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from pictures import write_folders, write_omniglot
from safetensors.torch import load_file

import maml_rl
from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.train import MAIN_ENV, train, train_omniglot
from maml_rl.commands.visualize import visualize
from maml_rl.experiments.config import IMAGES, OMNIGLOT
from maml_rl.experiments.presets import default_config, learners_with
from maml_rl.experiments.runs import read_config
from maml_rl.experiments.table import LEARNERS, names_for

pytestmark = pytest.mark.usefixtures("own_cache")

SMALL = ["--env", "images", "--image-size", "16", "--ways", "3", "--num-tasks", "2"]
SMALL += ["--evaluation.num-tasks", "4", "--evaluate-every", "2", "--test-queries", "2", "--queries", "2"]
SMALL += ["--checkpoint-every", "1", "--num-threads", "1"]
CLOCK = ("_seconds", "_per_s")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("pictures") / "data")


def small(learner, data, folder, *flags):
    shape = ["--train-shots", "3"] if learner == "reptile" else []
    shape += ["--train-ways", "6"] if learner in ("prototypical", "matching") else []
    shape += ["--num-filters", "4"] if learner != "pixels" else []
    return [*SMALL, "--learner", learner, "--data-root", str(data), "--output-dir", str(folder), *shape, *flags]


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if not k.endswith(CLOCK)} for row in csv.DictReader(file)]


def state(folder):
    name = (folder / "checkpoints" / "latest").read_text().strip()
    return load_file(folder / "checkpoints" / f"{name}.safetensors")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-filters"], "lower num_filters"),
        (["--num-tasks"], "for the pictures of an iteration, but this machine has"),
        (["--evaluation.num-tasks"], "lower evaluation.num_tasks"),
        (["--ways"], "ways must be at most the number of classes"),
        (["--queries"], "every class must have shots + queries"),
        (["--learner", "matching", "--matching.num-readings"], "num_readings must be at most 1000"),
    ],
)
def test_numbers_without_measure_are_refused_before_anything_is_made(flags, message, data, tmp_path, capfd):
    given = [*SMALL, "--data-root", str(data), "--output-dir", str(tmp_path / "run"), *flags, str(10**20)]
    try:
        status = train_omniglot(given)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert message in " ".join(capfd.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("learner", names_for("pictures"))
def test_a_resumed_run_is_the_run_that_never_stopped_and_can_be_evaluated(learner, data, tmp_path, capfd):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train_omniglot(small(learner, data, whole, "--num-iterations", "4")) == 0
    assert train_omniglot(small(learner, data, parts, "--num-iterations", "2")) == 0
    assert train(MAIN_ENV, ["--resume", str(parts), "--num-iterations", "4"]) == 0
    assert rows(whole) == rows(parts) and len(rows(whole)) == 4
    ones, others = state(whole), state(parts)
    assert ones.keys() == others.keys()
    assert all(ones[name].numpy().tobytes() == others[name].numpy().tobytes() for name in ones)
    capfd.readouterr()
    assert evaluate([str(whole), "--num-tasks", "5", "--data-root", str(data), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    config = default_config(OMNIGLOT, learner, ways=3)
    assert found["metric"] == "accuracy" and found["num_tasks"] == 5 and found["learner"] == learner
    network = getattr(config.method, "network", None)
    assert found["norm"] == ("none" if network is None else network.norm)
    takes_steps = LEARNERS[learner].gradient_steps
    assert found["gradient_steps"][-1] == (config.evaluation.num_steps if takes_steps else 0)
    assert found["used"][-1] == 3  # one picture of each class
    assert len(found["mean"]) == len(found["ci95"]) == len(found["steps"])
    assert all(0.0 <= mean <= 1.0 for mean in found["mean"])
    with open(whole / "evaluation.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 5


@pytest.mark.parametrize("learner", learners_with("fast"))
def test_the_fast_preset_is_what_holds_where_nothing_is_said(learner, data, tmp_path):
    flags = small(learner, data, tmp_path / "run", "--preset", "fast", "--num-iterations", "1")
    assert train_omniglot(flags) == 0
    config, paper = read_config(tmp_path / "run"), default_config(OMNIGLOT, learner, ways=3)
    assert config.method.outer.gradient.decay == "cosine" and config.learner == learner
    if learner != "memory":  # whose paper has another encoder
        assert config.method.network.norm == paper.method.network.norm
    assert config.training.num_tasks == 2  # what is said holds
    if LEARNERS[learner].gradient_steps:
        inner = config.method.inner
        assert inner.only == paper.method.inner.only
        assert inner.step_size == 0.4 and inner.test_step_sizes(config.evaluation.num_steps) == (0.4,) * 3


def test_a_learner_without_a_fast_preset_is_told_so(data, tmp_path, capfd):
    assert train_omniglot(small("reptile", data, tmp_path / "run", "--preset", "fast")) == 2
    assert "preset fast exists for the learners ['anil', 'fomaml', " in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("learner", "plots"), [("reptile", {"adaptation_curve.png"}), ("prototypical", set())])
def test_pictures_of_a_run_show_episodes(learner, plots, data, tmp_path, capfd):
    run, pictures = tmp_path / "run", tmp_path / "pictures"
    assert train_omniglot(small(learner, data, run, "--num-iterations", "2")) == 0
    capfd.readouterr()
    flags = ["--output-dir", str(pictures), "--data-root", str(data), "--num-tasks", "3", "--num-shown", "2"]
    assert visualize(None, [str(run), *flags]) == 0
    expected = {"learning_curve.png", "episodes.png", "reliability.png"} | plots
    assert {path.name for path in pictures.iterdir()} == expected  # nothing that was written aside is left
    assert {line.split("/")[-1] for line in capfd.readouterr().out.splitlines()} == expected
    assert visualize(None, [str(run), *flags, "--actions", "mean"]) == 2
    assert "mean actions need a policy, but the run's environment is images" in capfd.readouterr().err


def test_pictures_of_ones_own_are_taken_as_they_are_and_omniglot_s_as_in_the_papers(data, tmp_path):
    assert train_omniglot(small("maml", data, tmp_path / "own", "--num-iterations", "0")) == 0
    own, papers = read_config(tmp_path / "own").task, default_config(OMNIGLOT, "maml", ways=3).task
    assert (own.rotations, own.test_rotations, own.images.resize, own.images.invert) == ("none", "none", "area", False)
    kinds = (papers.rotations, papers.test_rotations, papers.images.resize, papers.images.invert)
    assert kinds == ("classes", "classes", "nearest", True)
    given = ["--rotations", "random", "--test-rotations", "classes", "--resize", "nearest", "--invert"]
    assert train_omniglot(small("maml", data, tmp_path / "given", "--num-iterations", "0", *given)) == 0
    own = read_config(tmp_path / "given").task
    kinds = (own.rotations, own.test_rotations, own.images.resize, own.images.invert)
    assert kinds == ("random", "classes", "nearest", True)
    assert train(MAIN_ENV, ["--resume", str(tmp_path / "given"), "--num-iterations", "1"]) == 0
    assert read_config(tmp_path / "given").task == own  # what an earlier version has saved is kept, too


def test_the_general_script_has_the_learner_s_protocol_too(data, tmp_path):
    flags = small("prototypical", data, tmp_path / "run", "--num-iterations", "0")
    assert train(MAIN_ENV, flags) == 0
    expected, found = default_config(IMAGES, "prototypical", ways=3).method, read_config(tmp_path / "run").method
    assert found == dataclasses.replace(expected, network=dataclasses.replace(expected.network, num_filters=4))


@pytest.mark.parametrize(
    ("learner", "flags", "fitted"),
    [
        ("prototypical", ["--ways", "3"], {"train_ways": 6, "queries": 3, "test_queries": 2}),
        ("matching", ["--ways", "3", "--preset", "fast"], {"train_ways": 6, "queries": 3, "test_queries": 2}),
        ("reptile", ["--ways", "3"], {"train_shots": 3}),
        ("reptile", ["--ways", "3", "--queries", "2"], {"train_shots": 2}),
        ("maml", ["--shots", "2", "--ways", "3", "--preset", "fast"], {"queries": 2}),
        ("maml", [], {"ways": 4}),
        ("prototypical", ["--train-ways", "5", "--test-queries", "1"], {"ways": 4, "queries": 3}),
        ("maml", ["--ways", "3"], {}),
    ],
)
def test_a_preset_asks_for_no_more_than_the_user_s_pictures_and_says_so(learner, flags, fitted, scant, tmp_path, capfd):
    common = ["--env", "images", "--data-root", str(scant), "--learner", learner, "--num-filters", "4"]
    common += ["--num-iterations", "0", "--evaluation.num-tasks", "2"]
    assert train_omniglot([*common, *flags, "--output-dir", str(tmp_path / "run")]) == 0
    said, saved = capfd.readouterr().err, read_config(tmp_path / "run")
    assert {name: getattr(saved.task, name) for name in fitted} == fitted
    assert all(f"{name} is {value} in place of " in said for name, value in fitted.items())
    assert ("note: " in said) == bool(fitted) and said.count("in place of") == len(fitted)
    if fitted:
        assert "6 classes of at least 4 pictures to train on, and 4 classes of at least 3 pictures to evaluate" in said
    if learner == "maml":  # the steps are those of so many classes
        assert saved.method.inner.step_size == (0.4 if "fast" in flags else 0.4 * saved.task.ways)

    # the same from Python: names for flags, numbers for words
    pairs = zip([*common, *flags][::2], [*common, *flags][1::2], strict=True)
    given = {name.removeprefix("--").replace("-", "_"): int(v) if v.isdigit() else v for name, v in pairs}
    run = maml_rl.train(**given, output_dir=tmp_path / "from_python")
    assert run.config == saved
    assert notes(capfd.readouterr().err) == notes(said)


def notes(text):
    return [line for line in text.splitlines() if line.startswith("note: ")]


@pytest.mark.parametrize(
    ("learner", "given", "message"),
    [
        ("maml", {"ways": 5}, "ways must be at most the number of classes, 4, got 5"),
        ("prototypical", {"train_ways": 60}, "in training, ways must be at most the number of classes, 6, got 60"),
        ("maml", {"queries": 4}, "every class must have shots \\+ queries = 1 \\+ 4 pictures"),
    ],
)
def test_numbers_that_a_user_gives_from_python_are_refused_and_never_lowered(learner, given, message, scant, tmp_path):
    common = {"data_root": scant, "num_iterations": 0, "output_dir": tmp_path / "run"}
    with pytest.raises(ValueError, match=message):
        maml_rl.train("images", learner=learner, **common, **given)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def scant(tmp_path):
    """A folder with fewer pictures than presets ask for: 6 classes of 4 to train on, 4 classes of 3 to evaluate on."""
    data = write_folders(tmp_path / "data", num_train=6, num_test=4, per_class=4)
    for path in (data / "test").glob("*/3.png"):
        path.unlink()
    return data


@pytest.fixture
def own(tmp_path):
    """A folder of pictures that a test may change, and a run that learned from them."""
    data, run = write_folders(tmp_path / "data"), tmp_path / "run"
    assert train_omniglot(small("pixels", data, run, "--num-iterations", "0")) == 0
    return data, run


def evaluated(run, *flags, capfd):
    capfd.readouterr()
    assert evaluate([str(run), "--num-tasks", "3", "--json", *flags]) == 0
    said = capfd.readouterr()
    return json.loads(said.out), said.err


def test_a_run_is_judged_by_its_own_pictures_wherever_the_command_is_given(tmp_path, monkeypatch, capfd):
    data, other = write_folders(tmp_path / "data"), write_folders(tmp_path / "other", num_test=3)
    monkeypatch.chdir(tmp_path)
    assert train_omniglot(small("pixels", "data", "named", "--num-iterations", "0")) == 0
    monkeypatch.setenv("MAML_RL_DATA", "data")
    flags = small("pixels", "data", "from_variable", "--num-iterations", "0")
    where = flags.index("--data-root")
    assert train_omniglot(flags[:where] + flags[where + 2 :]) == 0
    monkeypatch.setenv("MAML_RL_DATA", str(other))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    for name in ("named", "from_variable"):
        run = tmp_path / name
        assert read_config(run).task.data_root == str(data)
        found, said = evaluated(run, capfd=capfd)
        assert found["data_root"] == str(data) and found["pictures_as_trained"] is True and "warning" not in said
        assert json.loads((run / "evaluation.json").read_text()) == found
        assert visualize(None, [str(run), "--output-dir", "pictures", "--num-tasks", "3"]) == 0
    found, said = evaluated(run, "--data-root", str(other), capfd=capfd)
    assert found["data_root"] == str(other) and found["pictures_as_trained"] is False
    assert f"warning: {run} learned from other pictures than those in --data-root" in said


def flip(path):
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # as long as before


@pytest.mark.parametrize(
    "change",
    [
        lambda data: flip(data / "test" / "c01" / "2.png"),
        lambda data: (data / "test" / "c01" / "2.png").unlink(),
        lambda data: shutil.copy(data / "test" / "c01" / "2.png", data / "test" / "c01" / "9.png"),
        lambda data: (data / "train" / "c01").rename(data / "train" / "c99"),
        lambda data: (data / "test" / "c01" / "2.png").rename(data / "test" / "c02" / "20.png"),
    ],
    ids=["edited", "removed", "added", "another class name", "another class"],
)
def test_changed_pictures_are_not_taken_for_those_of_the_run(change, own, tmp_path, capfd):
    data, run = own
    change(data)
    drawn = ["--output-dir", str(tmp_path / "pictures"), "--num-tasks", "3"]
    for refused in (
        lambda: evaluate([str(run), "--num-tasks", "3"]),
        lambda: visualize(None, [str(run), *drawn]),
        lambda: train(MAIN_ENV, ["--resume", str(run), "--num-iterations", "1"]),
    ):
        capfd.readouterr()
        assert refused() == 2
        assert f"{data} must hold the pictures that the run learned from, but some have been" in capfd.readouterr().err
    found, said = evaluated(run, "--data-root", str(data), capfd=capfd)  # unless they are asked for by name
    assert found["pictures_as_trained"] is False and "learned from other pictures" in said
    assert visualize(None, [str(run), *drawn, "--data-root", str(data)]) == 0
    assert "learned from other pictures" in capfd.readouterr().err


def test_pictures_that_were_moved_are_named_once_more_and_known_again(own, tmp_path, capfd):
    data, run = own
    moved = tmp_path / "moved"
    shutil.copytree(data, moved, copy_function=shutil.copyfile)  # with new times
    shutil.rmtree(data)
    assert evaluate([str(run), "--num-tasks", "3"]) == 2
    assert f"{data} must hold train/ and test/" in (said := capfd.readouterr().err) and "by --data-root" in said
    assert evaluated(run, "--data-root", str(moved), capfd=capfd)[0]["pictures_as_trained"] is True
    assert train(MAIN_ENV, ["--resume", str(run), "--num-iterations", "1", "--data-root", str(moved)]) == 0
    assert read_config(run).task.data_root == str(moved)
    assert evaluated(run, capfd=capfd)[0]["pictures_as_trained"] is True


def test_a_run_that_does_not_know_its_pictures_has_them_from_the_variable(own, monkeypatch, capfd):
    data, run = own
    saved = json.loads((run / "config.json").read_text())
    unknown = {"fingerprint": None, "data_root": None}
    saved["config"]["task"] |= {**unknown, "rotations": "classes", "test_rotations": "classes"}
    saved["config"]["task"]["images"] |= {"resize": "nearest", "invert": True}
    (run / "config.json").write_text(json.dumps(saved))
    monkeypatch.setenv("MAML_RL_DATA", str(data))
    found, _ = evaluated(run, capfd=capfd)
    assert found["data_root"] == str(data) and found["pictures_as_trained"] is None
    assert (found["rotations"], found["resize"]) == ("classes", "nearest")  # what it was trained with
    assert train(MAIN_ENV, ["--resume", str(run), "--num-iterations", "1"]) == 0


def test_omniglot_is_found_where_training_was_told_to_look_or_by_each_machine_s_variable(tmp_path, monkeypatch, capfd):
    contents = {"background": [("Latin", 6), ("Hebrew", 6)], "evaluation": [("Tengwar", 6)]}
    data = write_omniglot(tmp_path / "data", contents)
    monkeypatch.chdir(tmp_path)
    flags = ["--learner", "pixels", "--ways", "3", "--num-iterations", "0", "--output-dir"]
    assert train_omniglot([*flags, "named", "--data-root", "data"]) == 0
    assert evaluated("named", capfd=capfd)[0]["data_root"] == str(data)
    monkeypatch.setenv("MAML_RL_DATA", str(data))
    assert train_omniglot([*flags, "variable"]) == 0
    found, _ = evaluated("variable", capfd=capfd)
    assert (found["data_root"], found["pictures_as_trained"]) == (str(data), None)
    saved = [read_config(tmp_path / name).task.data_root for name in ("named", "variable")]
    assert saved == [str(data), None]


def test_normalisation_of_a_run_may_be_judged_both_ways(data, tmp_path, capfd):
    assert train_omniglot(small("maml", data, tmp_path / "run", "--num-iterations", "1")) == 0
    for norm in ("batch", "support"):
        capfd.readouterr()
        flags = ["--norm", norm, "--data-root", str(data), "--num-tasks", "3", "--json"]
        assert evaluate([str(tmp_path / "run"), *flags]) == 0
        assert json.loads(capfd.readouterr().out)["norm"] == norm


def test_a_run_of_reptile_may_adapt_on_other_mini_batches_at_test(data, tmp_path, capfd):
    run = tmp_path / "run"
    assert train_omniglot(small("reptile", data, run, "--num-iterations", "3")) == 0
    found = {}
    for size in (None, 1, 99, 100):  # the last two hold the whole support
        flags = [] if size is None else ["--test-batch-size", str(size)]
        capfd.readouterr()
        assert evaluate([str(run), *flags, "--data-root", str(data), "--num-tasks", "20", "--json"]) == 0
        found[size] = json.loads(capfd.readouterr().out)
    saved = read_config(run).method.optimiser.test_batch_size
    assert [each["test_batch_size"] for each in found.values()] == [saved, 1, 99, 100]
    assert found[99]["nll"] == found[100]["nll"] and found[99]["mean"] == found[100]["mean"]
    assert found[1]["nll"] != found[99]["nll"]
    assert evaluate([str(run), "--test-batch-size", "0", "--data-root", str(data)]) == 2
    assert "test_batch_size must be at least 1, got 0" in capfd.readouterr().err


def test_a_run_may_be_asked_episodes_of_another_size(data, tmp_path, capfd):
    run = tmp_path / "run"
    assert train_omniglot(small("maml", data, run, "--num-iterations", "1", "--train-ways", "6")) == 0
    flags = [str(run), "--data-root", str(data), "--num-tasks", "3", "--json"]
    capfd.readouterr()
    assert evaluate([*flags, "--ways", "6", "--shots", "2"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["ways"], found["shots"]) == (6, 2) and read_config(run).task.shots == 1
    assert evaluate([*flags, "--ways", "7"]) == 2
    assert "train_ways must be at least ways, 7, for learner maml, got 6" in capfd.readouterr().err
    assert evaluate([*flags, "--shots", "0"]) == 2
    assert "shots must be at least 1, got 0" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ways", "100"], "in training, ways must be at most the number of classes, 12, got 100: ask for fewer"),
        (["--ways", "8"], "error: ways must be at most the number of classes, 6, got 8: ask for fewer, or add classes"),
        (["--ways", "30", "--test-rotations", "classes", "--rotations", "classes"], "number of classes, 24, got 30"),
        (["--learner", "prototypical", "--train-ways", "60"], "ways must be at most the number of classes, 12, got 60"),
        (["--shots", "5"], "every class must have shots + queries = 5 + 2 pictures, but train/c00 has 6"),
        (["--ways", "5", "--train-ways", "4"], "train_ways must be at least ways, 5, for learner maml, got 4"),
        (["--norm", "running"], "norm must be batch, support or none for learner maml, got running"),
        (["--learner", "fomaml", "--inner.no-first-order"], "learner fomaml needs first_order True in inner"),
        (["--learner", "prototypical", "--image-size", "8", "--train-ways", "6"], "image_size must be at least 16"),
        (["--image-size", "1000000"], "for the network's first maps of one picture, but this machine has"),
        (["--inner.only", "tail"], "inner.only must name some of the parameters"),
        (["--data-root", "nowhere"], "nowhere must hold train/ and test/"),
        (["--env", "omniglot", "--data-root", "nowhere"], "--data-root must name a folder that holds omniglot/"),
        (
            ["--env", "sinusoid", "--learner", "prototypical"],
            "learner prototypical takes few-shot episodes of pictures (--env omniglot or images), not regression tasks",
        ),
        (
            ["--learner", "prototypical", "--outer.step", "reptile"],
            "prototypical, got 'reptile': take --learner reptile",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(flags, message, data, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    assert train_omniglot([*small("maml", data, tmp_path / "run"), "--num-iterations", "1", *flags]) == 2
    assert message in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_fill_the_memory_are_refused_without_a_network_too(data, tmp_path, capfd):
    flags = small("pixels", data, tmp_path / "run", "--image-size", "1000000")
    assert train_omniglot(flags) == 2
    assert "for 108 pictures, but this machine has" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("learner", "flags", "said"),
    [
        (
            "maml",
            ["--sampler", "processes"],
            "--sampler processes applies to task environments, not to --env images:",
        ),
        ("maml", ["--num-workers", "2"], "--num-workers 2 applies to task environments"),
        ("maml", ["--evaluation.split", "train"], "--evaluation.split train applies to task environments"),
        (
            "maml",
            ["--policy.hidden-sizes", "8", "9"],
            "--policy.hidden-sizes 8 9 applies to task environments",
        ),
        ("maml", ["--inner.estimator", "dice"], "--inner.estimator dice applies to task environments"),
        ("maml", ["--sinusoid.num-examples", "3"], "--sinusoid.num-examples 3 applies to --env sinusoid, not to"),
        ("maml", ["--split", "random-1200"], "--split random-1200 applies to --env omniglot, not to --env images"),
        ("maml", ["--outer.reptile.step-size", "0.5"], "0.5 applies to --learner reptile, not to --learner maml"),
        ("maml", ["--outer.trust-region.max-kl", "1"], "--outer.trust-region.max-kl 1 applies to --outer.step trust"),
        ("maml", ["--outer.gradient.decay-steps", "7"], "applies to a learning rate that decays, not to decay none"),
        (
            "maml",
            ["--matching.scale", "2"],
            "--matching.scale 2 applies to --learner matching, not to --learner maml",
        ),
        ("matching", ["--matching.num-readings", "2"], "applies to --matching.full-context, not to a run without it"),
        ("maml", ["--inner-optimiser.batch-size", "3"], "--inner-optimiser.batch-size 3 applies to --learner reptile"),
        (
            "reptile",
            ["--inner.first-order"],
            "--inner.first-order True applies to learners that differentiate through the steps, not to --learner rep",
        ),
        (
            "reptile",
            ["--inner.learn-step-sizes"],
            "--inner.learn-step-sizes True applies to learners that differentiate",
        ),
        (
            "joint",
            ["--inner.learn-step-sizes"],
            "--inner.learn-step-sizes True applies to learners that differentiate",
        ),
        ("meta-sgd", ["--inner.later-ratio", "0.3"], "0.3 applies to step sizes that are set, not to learned ones"),
        (
            "prototypical",
            ["--inner.num-steps", "3"],
            "applies to learners maml, fomaml, anil, meta-sgd, reptile, joint, platipus, not to --learner prot",
        ),
        ("prototypical", ["--evaluation.num-steps", "3"], "learners that take gradient steps on a task, not to"),
        ("prototypical", ["--head-std", "3"], "--head-std 3.0 applies to learners that adapt a last layer"),
        (
            "joint",
            ["--outer.step", "trust_region"],
            "for learner joint, got 'trust_region'",
        ),
        ("joint", ["--inner.num-steps", "3"], "--inner.num-steps 3 applies to learners that adapt in training"),
        (
            "pixels",
            ["--num-filters", "8"],
            "prototypical, matching, memory, neural-statistician, platipus, not to --learner pixels",
        ),
        ("maml", ["--sampler", "ray", "--horizon", "9"], "; --horizon 9 applies to task environments, not to"),
    ],
)
def test_settings_that_nothing_would_read_are_refused(learner, flags, said, data, tmp_path, capfd):
    run = tmp_path / "run"
    assert train_omniglot(small(learner, data, run, "--num-iterations", "0", *flags)) == 2
    refusal = capfd.readouterr().err
    assert said in refusal and refusal.rstrip().endswith((": leave it out", ": leave them out"))
    assert not run.exists()


def test_a_saved_setting_that_nothing_reads_stays_and_is_refused_only_where_it_is_changed(own, capfd):
    _, run = own
    saved = json.loads((run / "config.json").read_text())
    saved["config"]["evaluation"]["num_steps"] = 7
    (run / "config.json").write_text(json.dumps(saved))
    assert train(MAIN_ENV, ["--resume", str(run), "--num-iterations", "1"]) == 0
    assert evaluate([str(run), "--num-tasks", "3"]) == 0
    assert train(MAIN_ENV, ["--resume", str(run), "--num-iterations", "2", "--evaluation.num-steps", "8"]) == 2
    said = "--evaluation.num-steps 8 applies to learners that take gradient steps on a task, not to --learner pixels"
    assert said in capfd.readouterr().err
    assert train(MAIN_ENV, ["--resume", str(run), "--num-iterations", "2", "--sampler", "ray"]) == 2
    assert "--sampler ray applies to task environments, not to --env images" in capfd.readouterr().err


def test_pictures_refuse_settings_that_they_would_not_show(own, tmp_path, capfd):
    _, run = own
    for name in ("--num-steps", "--first-step-size", "--later-step-size"):
        assert evaluate([str(run), name, "2"]) == 2
        said = capfd.readouterr().err
        assert f"{name} 2" in said and "not to --learner pixels: leave it out" in said
    assert visualize(None, [str(run), "--output-dir", str(tmp_path / "pictures"), "--num-steps", "2"]) == 2
    assert "--num-steps 2 applies to learners that take gradient steps on a task" in capfd.readouterr().err
    assert not (tmp_path / "pictures").exists()


def test_evaluation_refuses_what_a_run_cannot_do(data, tmp_path, capfd):
    assert train_omniglot(small("pixels", data, tmp_path / "run", "--num-iterations", "0")) == 0
    assert evaluate([str(tmp_path / "run"), "--one-shot-runs", "--data-root", str(data)]) == 2
    needs = "one_shot_runs needs a run trained with --env omniglot --split background-evaluation"
    assert needs in capfd.readouterr().err
    assert evaluate([str(tmp_path / "run"), "--norm", "batch", "--data-root", str(data)]) == 2
    assert "norm must stay none, with which the run was trained, got batch" in capfd.readouterr().err
    assert evaluate([str(tmp_path / "run"), "--test-batch-size", "5", "--data-root", str(data)]) == 2
    assert "--test-batch-size 5 applies to learners that take steps on mini-batches" in capfd.readouterr().err
    assert evaluate([str(tmp_path / "run"), "--split", "train", "--data-root", str(data)]) == 2
    assert "split does not apply to images: choose episodes by --part and --test-queries" in capfd.readouterr().err


def test_evaluation_asks_about_the_classes_it_is_told(data, tmp_path, capfd):
    assert train_omniglot(small("pixels", data, tmp_path / "run", "--num-iterations", "0")) == 0
    asked = {}
    for part in ("train", "test"):
        capfd.readouterr()
        flags = ["--part", part, "--num-tasks", "30", "--data-root", str(data), "--json"]
        assert evaluate([str(tmp_path / "run"), *flags]) == 0
        captured = capfd.readouterr()
        assert json.loads(captured.out)["part"] == part
        assert f"30 {'tasks of training' if part == 'train' else 'fresh tasks'}" in captured.err
        with open(tmp_path / "run" / "evaluation.csv", newline="") as file:
            asked[part] = {c for row in csv.DictReader(file) for c in ast.literal_eval(row["classes"])}
    assert len(asked["train"]) == 12 and len(asked["test"]) == 6 and not asked["train"] & asked["test"]


def test_the_real_omniglot_is_learned_from_and_judged_by_its_one_shot_runs(real_data, tmp_path, capfd):
    flags = ["--learner", "prototypical", "--split", "background-evaluation", "--data-root", real_data]
    flags += ["--num-iterations", "12", "--train-ways", "10", "--num-filters", "16", "--evaluate-every", "0"]
    flags += ["--outer.gradient.learning-rate", "0.01"]
    run = tmp_path / "run"
    assert train_omniglot([*flags, "--output-dir", str(run)]) == 0
    for question, chance in ((["--num-tasks", "20"], 0.2), (["--one-shot-runs"], 0.05)):
        capfd.readouterr()
        assert evaluate([str(run), "--json", *question]) == 0
        found = json.loads(capfd.readouterr().out)
        assert found["data_root"] == str(Path(real_data).resolve())
        assert found["mean"][0] > 1.5 * chance and found["num_tasks"] == 20
    assert found["part"] == "one-shot runs"
