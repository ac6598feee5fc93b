"""A user's pictures through a trained run."""

import contextlib
import dataclasses
import json
import re
import shutil
import warnings

import numpy as np
import pytest
import torch
from pictures import write_folders
from PIL import Image

import maml_rl
from maml_rl.api.classifier import FewShotClassifier
from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.train import train, train_omniglot
from maml_rl.core.keys import EVALUATION, INITIALISATION, Key
from maml_rl.experiments.runs import fitted, load_trained, read_config
from maml_rl.experiments.table import learner_entry
from maml_rl.storage.checkpoint import CheckpointError, load_latest, without
from maml_rl.supervised.episodes import Examples

pytestmark = pytest.mark.usefixtures("own_cache")

LEARNERS = ("maml", "reptile", "joint", "prototypical", "matching", "memory", "neural-statistician", "pixels")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("classifier") / "data")


@pytest.fixture
def train_run(pictures, tmp_path):
    def run(learner, data=pictures, *more):
        folder = tmp_path / f"{learner}-{len(list(tmp_path.iterdir()))}"
        flags = ["--env", "images", "--data-root", str(data), "--image-size", "16"]
        flags += [] if learner == "pixels" else ["--num-filters", "8"]
        flags += ["--learner", learner, "--num-iterations", "20", "--evaluate-every", "0", "--num-threads", "1"]
        flags += ["--ways", "3", "--num-tasks", "2", "--queries", "2", "--test-queries", "2"]
        flags += ["--output-dir", str(folder)]
        flags += ["--train-ways", "6"] if learner in ("prototypical", "matching", "neural-statistician") else []
        flags += ["--train-shots", "3"] if learner == "reptile" else []
        flags += ["--rotations", "classes", "--invert"]  # more classes to learn from, and ink 1
        assert train_omniglot([*flags, *more]) == 0
        return folder

    return run


def some(pictures, count=3, shots=1):
    """Pictures of test classes to learn from, and another of each."""
    folders = sorted((pictures / "test").iterdir())[:count]
    files = {folder.name: sorted(folder.iterdir()) for folder in folders}
    return {name: paths[:shots] for name, paths in files.items()}, {name: paths[-1] for name, paths in files.items()}


@pytest.mark.parametrize("learner", LEARNERS)
def test_drawings_of_ones_own_are_classified(learner, train_run, pictures, tmp_path):
    run = train_run(learner)
    elsewhere = shutil.move(pictures, tmp_path / "elsewhere")  # the data set is not asked for
    try:
        examples, others = some(elsewhere)
        classify = FewShotClassifier(run).learn(examples)
        answers = {name: classify(path) for name, path in others.items()}
    finally:
        shutil.move(elsewhere, pictures)
    for name, shares in answers.items():
        assert list(shares) == list(examples) and sum(shares.values()) == pytest.approx(1.0)
        if learner not in ("maml", "reptile"):  # which take more than these few iterations
            assert max(shares, key=shares.get) == name


def test_another_order_of_the_classes_changes_no_probability(train_run, pictures):
    # The learned head tells outputs apart, so that MAML's may; distances do not.
    classifier = FewShotClassifier(train_run("prototypical"))
    examples, others = some(pictures, count=4, shots=2)
    backwards = dict(reversed(examples.items()))
    for path in others.values():
        one, other = classifier.learn(examples)(path), classifier.learn(backwards)(path)
        assert [one[name] for name in one] == pytest.approx([other[name] for name in one], abs=1e-5)


def test_what_does_not_fit_is_refused(train_run, pictures, tmp_path):
    classifier = FewShotClassifier(train_run("maml"))
    examples, _ = some(pictures)
    two = dict(list(examples.items())[:2])
    with pytest.raises(
        ValueError, match="examples must be of 3 classes, for which this run of maml was trained, got 2"
    ):
        classifier.learn(two)
    with pytest.raises(ValueError, match=re.escape("as many pictures of each, got {'c00': 1, 'c01': 1, 'c02': 0}")):
        classifier.learn({**examples, "c02": []})
    with pytest.raises(ValueError, match=r"picture 0 of 'c02' must be a picture, .*floats must lie in 0\.\.1"):
        classifier.learn({**examples, "c02": [np.full((16, 16), 255.0)]})
    with pytest.raises(ValueError, match=r"nowhere\.png must be a picture, but it cannot be read .*No such file"):
        classifier.learn({**examples, "c02": ["nowhere.png"]})
    with pytest.raises(ValueError, match="examples of 'c02' must be a list of pictures, got a single one"):
        classifier.learn({**examples, "c02": "a.png"})
    with pytest.raises(ValueError, match="no run folder"):
        FewShotClassifier(tmp_path)
    flags = ["--env", "sinusoid", "--num-iterations", "1", "--num-tasks", "2"]
    assert train("sinusoid", [*flags, "--evaluate-every", "0", "--output-dir", str(tmp_path / "waves")]) == 0
    with pytest.raises(ValueError, match=r"run must be one of few-shot classification, but .*waves is of sinusoid"):
        FewShotClassifier(tmp_path / "waves")


@pytest.mark.parametrize("learner", ["maml", "reptile", "joint", "prototypical", "pixels"])
def test_it_answers_as_the_learner_does(learner, train_run, pictures):
    # The same files read by hand, and the learner that was built around its data set.
    run, (examples, others) = train_run(learner), some(pictures)

    def read(path):
        return torch.from_numpy(1.0 - np.asarray(Image.open(path)) / np.float32(255)).unsqueeze(-1)

    support = torch.stack([read(path) for (path,) in examples.values()]).unsqueeze(0)
    config, key = read_config(run), Key(0, EVALUATION, 0)
    takes_steps = learner in ("maml", "reptile", "joint")
    if takes_steps:  # a single picture cannot be normalised by itself: it stands beside the support
        network = dataclasses.replace(config.method.network, norm="support")
        config = dataclasses.replace(config, method=dataclasses.replace(config.method, network=network))
    trained = load_trained(run, config, "last")
    with contextlib.closing(trained.built) as built:
        adapted = built.learner.begin(trained.state, 1, key)
        seen = Examples(support, torch.arange(3).unsqueeze(0), support[:, :0])
        for _ in range(config.evaluation.num_steps if takes_steps else 1):
            adapted = built.learner.adapt(trained.state, adapted, seen, key)
        actor = built.learner.actor(trained.state, adapted, key)
        asked = [
            Examples(read(path)[None, None], torch.zeros(1, 1, dtype=torch.int64), support) for path in others.values()
        ]
        expected = [actor.step((), one, None)[0][0, 0].softmax(dim=-1).tolist() for one in asked]
    classify = FewShotClassifier(run).learn(examples)
    for path, shares in zip(others.values(), expected, strict=True):
        assert list(classify(path).values()) == pytest.approx(shares, abs=1e-6)


def test_with_batch_normalisation_each_picture_stands_beside_the_support(train_run, pictures):
    # by batches in training: a gradient learner is asked as with norm support, a metric one in a batch of support and
    # picture; either way no answer depends on what was asked before
    for learner in ("maml", "prototypical"):
        run, (examples, others) = train_run(learner, pictures, "--norm", "batch"), some(pictures)
        assert read_config(run).method.network.norm == "batch"
        answers = []
        for order in (list(others.values()), list(others.values())[::-1]):
            classify = FewShotClassifier(run).learn(examples)
            answers.append({path: classify(path) for path in order})
        assert answers[0] == answers[1]
        assert len({tuple(shares.values()) for shares in answers[0].values()}) == len(others)


def test_joint_training_knows_more_classes_than_it_was_trained_on(train_run, pictures, tmp_path):
    small = write_folders(tmp_path / "small", num_train=3, num_test=3)
    run = train_run("joint", small, "--rotations", "none", "--test-rotations", "none")
    examples, others = some(pictures, count=5)
    shares = FewShotClassifier(run).learn(examples)(others["c03"])
    assert list(shares) == list(examples) and sum(shares.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("learner", ["prototypical", "pixels"])
def test_a_picture_in_any_form_gets_the_same_answer(learner, train_run, pictures):
    examples, others = some(pictures)
    classifier = FewShotClassifier(train_run(learner))
    classify = classifier.learn(examples)
    for path in others.values():
        image = Image.open(path)
        levels = np.array(image)
        ink = Image.fromarray(np.stack([0 * levels, 255 - levels], axis=-1))
        forms = [image, image.convert("RGB"), ink, image.resize((32, 48), Image.Resampling.NEAREST), levels]
        forms += [levels.astype(np.uint16) * 257, torch.from_numpy(levels)[None] / 255]
        expected = list(classify(path).values())
        assert max(expected) - min(expected) > 0.01
        for form in forms:
            assert list(classify(form).values()) == pytest.approx(expected, abs=1e-6)
    again = classifier.learn({name: [np.array(Image.open(path)) for path in paths] for name, paths in examples.items()})
    assert again(path) == classify(path)


@pytest.mark.parametrize("learner", ["prototypical", "pixels"])
def test_grey_and_colour_are_turned_into_each_other(learner, train_run, pictures, tmp_path):
    colour = write_folders(tmp_path / "colour", mode="RGB")
    greys, colours = (FewShotClassifier(train_run(learner, data)) for data in (pictures, colour))
    (grey_examples, greys_asked), (colour_examples, colours_asked) = some(pictures), some(colour)
    mixed = {**grey_examples, "c01": colour_examples["c01"]}
    for classifier in (greys, colours):
        answers = [classifier.learn(e)(q["c00"]) for e in (grey_examples, mixed) for q in (greys_asked, colours_asked)]
        if classifier is colours or learner != "pixels":  # where the run decides
            assert all(list(a.values()) == pytest.approx(list(answers[0].values())) for a in answers)


def test_white_on_black_is_said(train_run, pictures):
    classifier = FewShotClassifier(train_run("prototypical"))
    examples, others = some(pictures)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classify = classifier.learn(examples)
        classify(others["c00"])
    with pytest.warns(UserWarning, match="the picture looks white on black, but dark strokes on light paper are"):
        classify(255 - np.asarray(Image.open(others["c00"])))
    backwards = {name: [255 - np.asarray(Image.open(path)) for path in paths] for name, paths in examples.items()}
    with pytest.warns(UserWarning, match="picture 0 of 'c00' and 2 more look white on black"):
        classifier.learn(backwards)


def test_a_run_that_inverts_nothing_takes_the_examples_as_they_are(train_run, pictures):
    classifier = FewShotClassifier(train_run("prototypical", pictures, "--no-invert"))
    examples, _ = some(pictures)
    backwards = {name: [255 - np.asarray(Image.open(path)) for path in paths] for name, paths in examples.items()}
    night = np.random.default_rng(0).integers(0, 100, (16, 16), dtype=np.uint8)  # dark, but of many levels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier.learn(examples)(night)
        classifier.learn(backwards)(backwards["c00"][0])
    with pytest.warns(UserWarning, match="white on black"):
        classifier.learn(examples)(backwards["c00"][0])


def test_a_run_is_evaluated_on_pictures_turned_into_its_channels(train_run, tmp_path):
    runs = {mode: write_folders(tmp_path / mode, mode=mode) for mode in ("L", "RGB")}
    for mode, data in runs.items():
        run, scores = train_run("prototypical", data), []
        for other in runs.values():
            config = read_config(run)
            evaluation = dataclasses.replace(config.evaluation, num_tasks=20)
            config = dataclasses.replace(config, evaluation=evaluation, task=config.task.found_in(str(other)))
            trained = load_trained(run, config, "last")
            with contextlib.closing(trained.built) as built:
                scores.append(built.curve(trained.state, 0).mean)
        assert scores[0] == scores[1], mode


def test_python_scores_the_classes_that_the_command_scores(pictures, train_run, capfd):
    run = train_run("prototypical")
    scores = maml_rl.load(run).evaluate(num_tasks=6).per_task.mean(dim=1).tolist()
    capfd.readouterr()
    assert evaluate([str(run), "--num-tasks", "6", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["mean"] == pytest.approx(scores)


@pytest.mark.parametrize(("learner", "is_needed"), [("reptile", ("moments/",)), ("memory", ("memory/", "running/"))])
def test_a_checkpoint_without_something_learned_is_refused(learner, is_needed, train_run):
    run = train_run(learner)
    loaded, config = load_latest(run / "checkpoints"), read_config(run)
    with contextlib.closing(load_trained(run, config, "last").built) as built:
        template = built.learner.init(Key(config.seed, INITIALISATION, 0))
        for name in loaded.state:
            state = {each: value for each, value in loaded.state.items() if each != name}
            if name.startswith(("params/", *is_needed)):
                with pytest.raises(CheckpointError, match=r"has shape None in place of \["):
                    fitted(state, template, config, run / "checkpoints" / loaded.name)
        needed = without(loaded.state, learner_entry(learner, "pictures").training_only)
        fitted(needed, template, config, run / "checkpoints" / loaded.name)
