"""The memory module as a learner: what it keeps for how long, how it is trained, what it refuses."""

import dataclasses

import numpy as np
import pytest
import torch
from pictures import write_folders

import maml_rl
from maml_rl.commands.evaluate import evaluate
from maml_rl.commands.leaderboard import leaderboard
from maml_rl.core.acting import answer
from maml_rl.core.adam import AdamConfig
from maml_rl.core.keys import EVALUATION, TRAINING, Key
from maml_rl.core.outer.choice import GradientOuter
from maml_rl.core.trees import named
from maml_rl.evaluation.showings import Showings
from maml_rl.experiments.presets import default_config
from maml_rl.learners.memory import MemoryConfig, MemoryLearner, as_queries, require_episodes
from maml_rl.networks.key_memory import EMPTY, class_log_probs
from maml_rl.storage.checkpoint import load_latest
from maml_rl.supervised.classification import support_of
from maml_rl.supervised.episodes import Examples, as_input

KEY = Key(0, EVALUATION, 0)


def with_memory(**settings):
    return lambda config: dataclasses.replace(config, memory=dataclasses.replace(config.memory, **settings))


def pictures_of(data, chosen, labels):
    """[1, B]: (class, quarter turns, number of the picture) each, under these labels."""
    images = [np.rot90(data.images[data.first[c] + i], r) for c, r, i in chosen]
    pixels = as_input(np.stack(images)).unsqueeze(0)
    return Examples(pixels, torch.tensor([labels]), pixels[:, :0])


def test_a_class_seen_once_is_recognised_a_thousand_examples_later(make_problem):
    problem = make_problem("memory", noise=0.03, change=with_memory(size=2048))
    state, learner, data = problem.trained(40), problem.learner, problem.training.data
    rare = [(int(c), 0) for c in problem.test.classes[:10]]  # of no training episode
    others = [(int(c), r) for c in problem.training.classes for r in range(4)][:100]
    rng = np.random.default_rng(0)
    shown = [others[i] for i in rng.integers(len(others), size=1000)]
    many = pictures_of(data, [(c, r, rng.integers(8)) for c, r in shown], [10 + others.index(each) for each in shown])
    first = pictures_of(data, [(c, r, 0) for c, r in rare], list(range(10)))
    asked = pictures_of(
        data, [(c, r, i) for c, r in rare for i in range(1, 8)], [k for k in range(10) for _ in range(7)]
    )

    def accuracy(*batches):
        adapted = learner.begin(state, 1, KEY)
        for batch in batches:
            adapted = learner.adapt(state, adapted, batch, KEY)
        outputs = answer(learner.actor(state, adapted, KEY), asked, problem.threads).outputs
        return (outputs.argmax(dim=-1) == asked.labels).float().mean().item()

    assert accuracy(first, many) >= 0.8  # one of 110 classes; by chance 0.01
    assert accuracy(many, first) - accuracy(first, many) < 0.1  # hardly worse than if they had come last


def test_a_kept_memory_lasts_over_iterations_and_knows_the_classes_of_training(make_problem):
    # Keys are of the parameters of their time, so the encoder is trained first and hardly changes while it remembers.
    params, _, running, _ = make_problem("memory", noise=0.03).trained(40)
    still = GradientOuter(gradient=AdamConfig(learning_rate=1e-6))
    keeping = with_memory(keep=True, size=512)
    problem = make_problem(
        "memory", noise=0.03, change=lambda config: dataclasses.replace(keeping(config), outer=still)
    )
    state = problem.trained(60, problem.state._replace(params=params, running=running))
    data, values = problem.training.data, state.memory.values
    known = set(values[values != EMPTY].tolist())
    assert state.memory.keys.shape == (1, 512, 32) and len(known) > 100  # of 120; an iteration shows five
    picked = [(c, r, i) for c in range(30) for r in range(4) for i in (0, 5)]
    asked = pictures_of(data, picked, [4 * c + r for c, r, _ in picked])
    learned = state.params | {f"running/{name}": value for name, value in state.running.items()}
    outputs = class_log_probs(state.memory, problem.learner.network.queries(learned, asked.images), 120)
    assert (outputs.argmax(dim=-1) == asked.labels).float().mean() > 0.5  # one of 120 classes
    adapted = problem.learner.begin(state, 3, KEY)
    assert adapted.memory.keys.shape == (3, 512, 32)
    assert (adapted.memory.values <= EMPTY).all()  # none of a task's own classes: these are written beside them
    support, query = problem.episodes(40)
    assert (problem.predict(state, support, query)[0].argmax(dim=-1) == query.labels).float().mean() >= 0.8


def test_without_keeping_it_each_iteration_and_each_task_begins_with_nothing(make_problem):
    problem = make_problem("memory")
    state = problem.trained(2)
    assert state.memory.keys.shape == (1, 0, 32)
    assert problem.learner.begin(state, 3, KEY).memory.keys.shape == (3, 0, 32)
    actor = problem.learner.actor(state, problem.learner.begin(state, 2, KEY), KEY)
    with pytest.raises(ValueError, match="the memory must hold examples, got none: adapt before acting"):
        actor.step((), problem.episodes(2)[1], None)


def test_a_task_takes_no_more_slots_than_its_pictures_and_no_more_than_there_are(make_problem):
    problem = make_problem("memory", shots=3, change=with_memory(size=10))
    support, query = problem.episodes(2)
    state = problem.trained(5)
    adapted = problem.learner.adapt(state, problem.learner.begin(state, 2, KEY), support, KEY)
    assert adapted.memory.keys.shape[1] == 10
    assert set(adapted.memory.values.flatten().tolist()) <= {EMPTY, 0, 1, 2, 3, 4}
    again = problem.learner.adapt(state, adapted, support, KEY)
    assert again.memory.keys.shape[1] == 10 and again.num_classes.tolist() == [5, 5]
    outputs = answer(problem.learner.actor(state, again, KEY), query, problem.threads).outputs
    assert outputs.shape == (2, 15, 5)


@pytest.mark.parametrize(("each", "num_steps"), [(1, 25), (5, 5), (7, 4), (0, 1)])
def test_a_gradient_step_comes_after_so_many_pictures_of_an_episode(each, num_steps, make_problem):
    problem = make_problem("memory", change=with_memory(examples_per_step=each))  # 5 ways, 1 shot and 4 queries
    assert problem.trained(1).adam.num_steps.item() == num_steps


def test_in_training_the_support_is_shown_before_the_queries(make_problem, monkeypatch):
    problem = make_problem("memory", shots=2, change=with_memory(examples_per_step=1))
    shown, gradient_step = [], MemoryLearner._gradient_step

    def watched(self, state, part, noise, rng):
        shown.append(part.images)
        return gradient_step(self, state, part, noise, rng)

    monkeypatch.setattr(MemoryLearner, "_gradient_step", watched)
    episodes = problem.training.sample(3, np.random.default_rng(0))
    problem.learner.meta_step(problem.state, episodes, Key(1, TRAINING, 0))
    sequence, support = torch.cat(shown, dim=1), support_of(problem.training.data, episodes).images
    assert sequence.shape[:2] == (3, 30)  # 5 ways, 2 shots and 4 queries
    for pictures, expected in zip(sequence, support, strict=True):
        is_support = [any(torch.equal(picture, other) for other in expected) for picture in pictures]
        assert is_support == [True] * 10 + [False] * 20


def test_in_training_the_classes_of_different_episodes_differ_unless_the_memory_is_kept(make_problem):
    right = {}
    for keep in (True, False):
        problem = make_problem("memory", noise=0.0, change=with_memory(keep=keep))
        (episode,) = problem.training.sample(1, np.random.default_rng(0))
        _, report = problem.learner.meta_step(problem.state, [episode] * 4, Key(1, TRAINING, 0))
        right[keep] = report.metrics["accuracy_after"]
    # pictures of a class are all alike; of four equal keys at most one is of the own episode
    assert right[True] == 1.0 and right[False] < 0.6


def test_long_gradients_are_shortened(make_problem):
    norms = []
    for longest in (1e-3, 1e9):
        problem = make_problem("memory", change=with_memory(max_gradient_norm=longest))
        after, report = problem.learner.meta_step(
            problem.state, problem.training.sample(1, np.random.default_rng(0)), Key(1, TRAINING, 0)
        )
        norms.append((after.adam.first.norm().item(), report.metrics["gradient_norm"]))
    assert norms[0][1] == norms[1][1] > 1e-3
    assert norms[0][0] == pytest.approx(0.1 * 1e-3, rel=1e-3)  # a tenth of the first gradient
    assert norms[1][0] == pytest.approx(0.1 * norms[1][1], rel=1e-3)


def test_dropout_is_for_training_alone(make_problem):
    problems = [make_problem("memory", change=with_memory(dropout=share)) for share in (0.0, 0.7)]
    states = [problem.trained(2) for problem in problems]
    assert not torch.equal(states[0].adam.first, states[1].adam.first)
    parts = problems[0].episodes(2)
    assert torch.equal(problems[0].predict(states[0], *parts), problems[1].predict(states[0], *parts))


def test_a_factor_of_dropout_is_left_out_of_the_query():
    params = {"embedding.weight": torch.eye(3), "embedding.bias": torch.zeros(3), "query.weight": torch.eye(3)}
    features = torch.tensor([[3.0, 4.0, 12.0]])
    found = as_queries(params, features, torch.tensor([[2.0, 2.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8, 0.0]]))
    torch.testing.assert_close(as_queries(params, features, None), features / 13.0)


def test_by_showings_more_is_known_late_than_at_once(make_problem):
    problem = make_problem("memory", shots=1)
    state, tasks = problem.trained(30), problem.test.sample(60, np.random.default_rng(0))
    evaluation = Showings(problem.family, (1,), block_size=25, threads=problem.threads)
    curve = evaluation.curve(problem.learner, state, tasks, KEY)
    assert list(curve.labels) == [1, 2, 3] and list(curve.used) == [5, 10, 15]
    assert curve.mean[0] >= 0.8 and curve.mean[2] >= curve.mean[0]
    again = dataclasses.replace(evaluation).curve(problem.learner, state, tasks, KEY)
    assert torch.equal(curve.per_task, again.per_task)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, r"memory\.size must be at least 1, got 0"),
        ({"key_size": 0}, r"memory\.key_size must be at least 1, got 0"),
        ({"examples_per_step": -1}, r"memory\.examples_per_step must be at least 0, got -1"),
        ({"margin": -0.1}, r"memory\.margin must be at least 0 and finite, got -0.1"),
        ({"age_noise": float("inf")}, r"memory\.age_noise must be at least 0 and finite, got inf"),
        ({"dropout": 1.0}, r"memory\.dropout must lie in \[0, 1\), got 1.0"),
        ({"max_gradient_norm": 0.0}, r"memory\.max_gradient_norm must be positive, got 0.0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        MemoryConfig(**settings)


def test_more_classes_than_slots_are_refused(make_problem):
    problem = make_problem("memory", change=with_memory(size=4))
    support, _ = problem.episodes(2)
    begun = problem.learner.begin(problem.state, 2, KEY)
    with pytest.raises(
        ValueError, match=r"memory\.size must be at least the number of classes of an episode, 5, got 4"
    ):
        problem.learner.adapt(problem.state, begun, support, KEY)
    config = default_config("omniglot", "memory", ways=20)
    require_episodes(config.method, config.task, num_tasks=16)
    with pytest.raises(
        ValueError, match="classes of 1000 training episodes, 20000, got 8192: raise it, or lower num_ta"
    ):
        require_episodes(config.method, config.task, num_tasks=1000)


def test_the_preset_is_the_released_code_s():
    # few showings: 30 pictures of 5 classes; 16 episodes at once, one gradient step a picture
    config = default_config("omniglot", "memory")
    assert (config.training.num_iterations, config.training.num_tasks) == (100_000, 16)
    size = config.task.training
    assert size.ways * (size.shots + size.queries) == 30
    assert config.method.memory.examples_per_step == 1 and config.method.memory.size == 8192
    assert config.method.network.num_features(28) == 7 * 7 * 128


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("pictures") / "data")


@pytest.fixture
def given(data, own_cache):
    """Settings of a small run."""
    return {
        "env": "images", "learner": "memory", "data_root": str(data), "quiet": True, "num_threads": 1, "ways": 3,
        "num_tasks": 2, "queries": 2, "num_filters": 4, "evaluate_every": 0, "memory.key_size": 8,
        "memory.size": 40, "memory.examples_per_step": 3, "checkpoint_every": 1,
    }  # fmt: skip


def test_a_kept_memory_is_saved_and_a_resumed_run_equals_one_that_never_stopped(given, tmp_path):
    given |= {"memory.keep": True}  # 40 slots, so that the oldest are replaced, with noise
    whole = maml_rl.train(output_dir=tmp_path / "whole", num_iterations=6, **given)
    part = maml_rl.train(output_dir=tmp_path / "part", num_iterations=3, **given)
    resumed = maml_rl.train(resume=part.path, num_iterations=6, quiet=True)
    one, other = (load_latest(run.path / "checkpoints").state for run in (whole, resumed))
    assert one["memory/keys"].shape == (1, 40, 8) and (one["memory/values"] != EMPTY).any()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert np.isfinite(resumed.evaluate(num_tasks=4).mean).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"memory.size": 2},
            r"memory\.size must be at least the number of classes of an episode, 3, got 2: raise it, or",
        ),
        ({"memory.size": 5}, r"classes of 2 training episodes, 6, got 5: raise it, or lower num_tasks or train_ways"),
        ({"queries": 0}, "queries must be at least 1, got 0"),  # an episode of one showing
        ({"norm": "batch"}, "norm must be running or none for learner memory, got batch"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(settings, message, given, tmp_path):
    with pytest.raises(ValueError, match=message):
        maml_rl.train(output_dir=tmp_path / "run", num_iterations=1, **(given | settings))
    assert not (tmp_path / "run").exists()


def test_regression_tasks_are_refused():
    with pytest.raises(ValueError, match="learner memory takes few-shot episodes of pictures"):
        maml_rl.train("sinusoid", learner="memory")


def test_commands_say_by_which_protocol_they_ask(given, data, tmp_path, capfd):
    run = maml_rl.train(output_dir=tmp_path / "run", num_iterations=2, **given)
    flags = ["--data-root", str(data), "--ways", "3", "--shots", "2", "--num-threads", "1", "--json"]
    assert evaluate([str(run.path), *flags, "--num-tasks", "6", "--protocol", "showings"]) == 0
    out, err = capfd.readouterr()
    assert '"protocol": "showings"' in out and '"steps": [1, 2]' in out and '"used": [3, 6]' in out
    assert "whose pictures are asked about one by one and then shown" in " ".join(err.split())
    assert evaluate([str(run.path), *flags, "--num-tasks", "6"]) == 0
    assert '"protocol": "support-query"' in capfd.readouterr().out
    board = ["--env", "images", "--learners", "memory", "--load", "memory", str(run.path), "--num-episodes", "6"]
    board += ["--train-on", "train", *flags]
    rows = {}
    for protocol in ("support-query", "showings"):
        folder = tmp_path / protocol
        assert leaderboard([*board, "--output-dir", str(folder), "--protocol", protocol]) == 0
        rows[protocol] = capfd.readouterr().out
        assert f'"protocol": "{protocol}"' in rows[protocol]
        assert f"protocol {protocol}" in (folder / "leaderboard.md").read_text()
        assert protocol in (folder / "leaderboard.csv").read_text()
    assert "--protocol showings" in rows["showings"] and "--protocol" not in rows["support-query"]
    with pytest.raises(SystemExit):
        leaderboard([*board, "--output-dir", str(tmp_path / "x"), "--protocol", "showings", "--test-queries", "2"])
    assert "test_queries must be 1 with protocol" in capfd.readouterr().err


def test_learners_that_take_gradient_steps_are_not_asked_by_showings(given, data, tmp_path, capfd):
    others = {name: value for name, value in given.items() if not name.startswith("memory.")}
    run = maml_rl.train(output_dir=tmp_path / "run", num_iterations=0, **(others | {"learner": "fomaml"}))
    assert evaluate([str(run.path), "--data-root", str(data), "--protocol", "showings"]) == 2
    assert "protocol showings needs a learner among ['prototypical', 'matching', 'memory'" in capfd.readouterr().err


def test_names_on_disk(make_problem):
    names = named(make_problem("memory").state)
    assert {name.split("/")[0] for name in names} == {"params", "adam", "running", "memory"}
