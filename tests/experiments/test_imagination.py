"""Pictures of a run whose learner models sets."""

import itertools

import numpy as np
import pytest
import torch
from pictures import write_folders

import maml_rl
from maml_rl.core.gaussians import kl
from maml_rl.experiments import imagination
from maml_rl.experiments.imagination import _from_all, _imagined, _summarised, _unseen, summary
from maml_rl.experiments.runs import load_trained

NAME = "neural-statistician"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagination")
    write_folders(root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAML_RL_CACHE", str(root / "cache"))
        given = {"ways": 3, "train_ways": 4, "train_shots": 3, "queries": 1, "test_queries": 2, "image_size": 16}
        size = {"num_filters": 4, "context_size": 8, "hidden_size": 16, "num_iterations": 3, "evaluate_every": 0}
        yield maml_rl.train(
            "images", learner=NAME, data_root=str(root / "data"), output_dir=root / "run", quiet=True, **given, **size
        )


@pytest.fixture
def trained(run):
    loaded = load_trained(run.path, run.config, "last")
    yield loaded
    loaded.built.close()


def test_the_pictures_are_drawn_from_python_and_by_the_command(run, tmp_path):
    files = {path.name: path for path in run.plot(tmp_path / "p", num_tasks=3)}
    assert {"learning_curve.png", "episodes.png", "imagined.png", "summary.png"} <= files.keys()
    assert all(path.stat().st_size for path in files.values())


def test_other_learners_have_no_such_pictures(run, tmp_path):
    given = {"ways": 3, "train_ways": 3, "test_queries": 2, "image_size": 16, "num_iterations": 1, "num_filters": 4}
    given |= {"data_root": run.config.task.data_root, "output_dir": tmp_path / "run"}
    other = maml_rl.train("images", learner="prototypical", quiet=True, **given)
    assert not {"imagined.png", "summary.png"} & {path.name for path in other.plot(tmp_path / "p", num_tasks=3)}


def test_shown_classes_are_those_that_training_has_not_seen(trained):
    key = trained.built.key(0)
    drawings, names = _unseen(trained, 4, 5, key)
    assert drawings.shape == (4, 5, 16, 16, 1) and len(set(names)) == 4
    data = trained.built.spec.data
    unseen = {i for i, name in enumerate(data.names) if name.startswith("test/")}
    rows = torch.from_numpy(data.images).float() / 255.0
    for of_class, name in zip(drawings, names, strict=True):
        (own,) = [i for i in unseen if data.names[i].endswith(name)]
        pictures = rows[data.first[own] : data.first[own + 1]]
        assert all(any(torch.equal(one, other) for other in pictures) for one in of_class)


def test_what_is_imagined_of_a_class_follows_from_its_own_drawings_alone(trained, monkeypatch):
    learner, key = trained.built.learner, trained.built.key(0)
    drawings, names = _unseen(trained, 4, 5, key)
    others = torch.cat([drawings[1:2], drawings[1:]])  # those of the second class in place of the first's
    one, other = [], []
    for given, made in ((drawings, one), (others, other)):
        monkeypatch.setattr(imagination, "_unseen", lambda *_, given=given: (given, names))
        made.extend(row.new for row in _imagined(learner, trained, key))
    assert np.abs(one[0] - other[0]).max() > 1e-3
    for first, second in zip(one[1:], other[1:], strict=True):
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)


def test_a_summary_takes_the_most_telling_member_each_time_and_ends_with_all(trained):
    learner, state = trained.built.learner, trained.state
    drawings, _ = _unseen(trained, 1, 6, trained.built.key(0))
    instances = learner.instances(state, drawings)[0]
    chosen, divergences = summary(learner, trained, instances, 6)
    assert sorted(chosen) == list(range(6))
    assert divergences[-1] == pytest.approx(0.0, abs=1e-4)
    alone = _from_all(learner, trained, instances, np.arange(6)[:, None])
    assert chosen[0] == int(alone.argmin()) and divergences[0] == pytest.approx(alone.min().item(), rel=1e-4)
    pairs = np.array([pair for pair in itertools.permutations(range(6), 2) if pair[0] == chosen[0]])
    assert divergences[1] == pytest.approx(_from_all(learner, trained, instances, pairs).min().item(), rel=1e-4)
    one = learner.believed(state, instances[chosen[:1]].unsqueeze(0), torch.ones(1, 1))
    every = learner.believed(state, instances.unsqueeze(0), torch.ones(1, 6))
    assert divergences[0] == pytest.approx(kl(one, every).item(), rel=1e-3, abs=1e-4)


def test_a_summary_tells_more_than_members_at_random(trained):
    rows = _summarised(trained.built.learner, trained, trained.built.key(0))
    assert all(row.divergences[0] <= row.at_random[0] for row in rows)


def test_distributions_are_drawn_as_densities_and_contexts(tmp_path):
    given = {"num_examples": 20, "hidden_size": 8, "num_iterations": 2, "evaluate_every": 0, "evaluation.num_tasks": 8}
    run = maml_rl.train("distributions", learner=NAME, output_dir=tmp_path / "run", quiet=True, **given)
    names = {path.name for path in run.plot(tmp_path / "p", num_tasks=8)}
    assert names == {"learning_curve.png", "adaptation_curve.png", "densities.png", "contexts.png"}
