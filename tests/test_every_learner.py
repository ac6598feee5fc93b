"""One battery for every learner of the table, on every kind of tasks that it claims: a learner is tested by being
registered. Three more are registered here that the project does not have, as proof that the contract is wide enough."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from pictures import drawings
from PIL import Image
from two_arms import TwoArms

import maml_rl
from maml_rl.commands.report import report
from maml_rl.experiments.flags import require_own_flags
from maml_rl.experiments.presets import default_config
from maml_rl.experiments.saved_config import to_dict
from maml_rl.experiments.table import LEARNERS
from maml_rl.storage.checkpoint import load_latest
from maml_rl.storage.columns import column

sys.path.insert(0, str(Path(__file__).parent / "learners"))
import proof

PROOFS = (proof.RECURRENT, proof.POSTERIOR, proof.MEMORY)
OUTSIDE = {entry.name for entry in PROOFS}
"""Learners that may report what no page explains."""
WITH = " with --outer.step "
PAIRS = [(entry.name, kind) for entry in (*LEARNERS.values(), *PROOFS) for kind in entry.kinds]
PAIRS += [(f"{name}{WITH}proximal", "reinforcement") for name in ("fomaml", "anil", "meta-sgd")]
CLOCK = ("seconds", "steps_per_s")
SMALL = {"num_iterations": 4, "num_tasks": 3, "evaluate_every": 2, "checkpoint_every": 1, "keep_checkpoints": 9}


@pytest.fixture(scope="module", autouse=True)
def registered():
    """The proofs are in the table for these tests alone."""
    for entry in PROOFS:
        maml_rl.register(entry)
    yield
    for entry in PROOFS:
        del LEARNERS[entry.name]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures of a user's own: 8 classes to train on, 6 to test."""
    root = tmp_path_factory.mktemp("pictures")
    pictures = drawings(14, 12, 16, np.random.default_rng(0), 0.02)
    for number, several in enumerate(pictures):
        folder = root / ("train" if number < 8 else "test") / f"c{number:02}"
        folder.mkdir(parents=True)
        for index, picture in enumerate(several):
            Image.fromarray(picture.reshape(16, 16)).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    """A run that was told which arm pays."""
    folder = tmp_path_factory.mktemp("expert") / "run"
    told = {"oracle": True, "inner.num_steps": 0, "num_iterations": 1, "num_tasks": 3, "episodes_per_task": 4}
    return maml_rl.train(TwoArms, output_dir=folder, quiet=True, evaluate_every=0, **told).path


@pytest.fixture
def settings(data, expert, own_cache):
    """Small runs: (learner, kind) -> keyword arguments of maml_rl.train."""

    def small(named, kind):
        name, _, step = named.partition(WITH)
        given = {"learner": name, "quiet": True, "num_threads": 1, **SMALL, **({"outer.step": step} if step else {})}
        if kind == "reinforcement":
            given |= {"env": TwoArms, "episodes_per_task": 4, "evaluation.num_tasks": 3, "evaluation.num_steps": 2}
        if kind == "regression":
            given |= {"env": "sinusoid", "evaluation.num_tasks": 3, "evaluation.num_steps": 2}
        if kind == "density":
            given |= {"env": "distributions", "evaluation.num_tasks": 3, "num_examples": 20}
        if kind == "pictures":
            given |= {"env": "images", "data_root": str(data), "evaluation.num_tasks": 3, "image_size": 16}
            given |= {"ways": 3, "shots": 1, "train_ways": 3, "queries": 2, "test_queries": 2}
            config = LEARNERS[name].configs[kind]()
            given |= {"num_filters": 4} if hasattr(config, "network") else {}
            given |= {"train_shots": None} if name == "reptile" else {}
        if hasattr(LEARNERS[name].configs[kind](), "inner") and name != "joint":
            given |= {"inner.num_steps": 2}
        if name == "gmps":
            given |= {"expert": str(expert)}
        if name == "promp":  # with all that it can carry along
            given |= {"outer.proximal.inner_kl": (0.1, 0.2), "target_kl": 0.01, "outer.proximal.max_kl": 0.02}
        return given

    return small


def rows(run):
    with open(run.path / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if not k.endswith(CLOCK)} for row in csv.DictReader(file)]


def state(run):
    return load_latest(run.path / "checkpoints").state


def assert_same(one, other):
    assert rows(one) == rows(other)
    left, right = state(one), state(other)
    assert list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_it_trains_is_evaluated_drawn_and_gives_an_agent(name, kind, settings, tmp_path):
    given = settings(name, kind)
    run = maml_rl.train(output_dir=tmp_path / "run", **given)
    name = given["learner"]
    metric = {"reinforcement": "return", "regression": "mse", "pictures": "accuracy", "density": "log_density"}[kind]
    assert run.config.learner == name and len(rows(run)) == 4
    assert np.isfinite(run.metrics[f"{metric}_after"]).all()
    assert name in OUTSIDE or not [each for each in run.metrics if column(each) is None]

    curve = run.evaluate(num_tasks=3)
    assert curve.metric == metric and np.isfinite(curve.per_task.numpy()).all()
    assert list(curve.used) == sorted(curve.used) and curve.used[-1] > 0
    assert run.evaluate(num_tasks=3).mean == curve.mean

    files = run.film(tmp_path / "pictures", num_tasks=3) if kind == "reinforcement" else run.plot(tmp_path / "p", 3)
    assert {path.name for path in files} >= {"learning_curve.png"} and all(path.stat().st_size for path in files)
    if kind == "reinforcement":
        assert {"adaptation.gif", "tasks.mp4"} <= {path.name for path in files}

    written = tmp_path / "report.html"
    assert report([str(run.path), "--num-tasks", "3", "--output", str(written)]) == 0
    drawn = "Adaptation curve" if len(curve.steps) > 1 else "Scores of the tasks"
    assert name in written.read_text() and f"<h3>{drawn}</h3>" in written.read_text()

    if kind == "reinforcement":
        agent = run.agent().adapt(TwoArms(), num_episodes=4)
        assert agent.num_steps == (1 if LEARNERS[name].gradient_steps else 0)
        assert agent.act(np.ones(1, np.float32)) in (0, 1)
    if kind == "pictures":
        classify = maml_rl.FewShotClassifier(run.path)
        examples = {
            c: [str(p)]
            for c, p in zip("abc", sorted((Path(given["data_root"]) / "test").glob("*/0.png")), strict=False)
        }
        shares = classify.learn(examples)(examples["a"][0])
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_resuming_equals_never_having_stopped(name, kind, settings, tmp_path):
    given = settings(name, kind)
    whole = maml_rl.train(output_dir=tmp_path / "whole", **given)
    part = maml_rl.train(output_dir=tmp_path / "part", **(given | {"num_iterations": 2}))
    assert len(rows(part)) == 2
    assert_same(whole, maml_rl.train(resume=part.path, num_iterations=4, quiet=True))


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_the_number_of_threads_changes_no_bit(name, kind, settings, tmp_path):
    given = settings(name, kind)
    one = maml_rl.train(output_dir=tmp_path / "one", **given)
    assert_same(one, maml_rl.train(output_dir=tmp_path / "three", **(given | {"num_threads": 3})))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if pair[0] not in OUTSIDE])
def test_a_gpu_gives_the_cpu_s_first_numbers_and_pictures_and_a_run_goes_on_without_it(name, kind, settings, tmp_path):
    given = settings(name, kind) | {"num_iterations": 1}
    on_cpu = maml_rl.train(output_dir=tmp_path / "cpu", **given)
    on_gpu = maml_rl.train(output_dir=tmp_path / "gpu", device="cuda", **given)
    before = [each for each in on_cpu.metrics if each in ("loss", "bound") or each.endswith("_before")]
    for each in before:  # what comes after depends on last bits: Adam's first step has the sign of a slope near 0
        assert on_gpu.metrics[each] == pytest.approx(on_cpu.metrics[each], rel=0.02, abs=0.02), each
    assert np.isfinite(on_gpu.evaluate(num_tasks=3).per_task.numpy()).all()
    if kind != "reinforcement":
        assert all(path.stat().st_size for path in on_gpu.plot(tmp_path / "p", 3))
    assert len(rows(maml_rl.train(resume=on_gpu.path, num_iterations=3, device="cpu", quiet=True))) == 3


@pytest.mark.parametrize("name", [name for name, kind in PAIRS if kind == "reinforcement"])
def test_processes_give_the_same_bits(name, settings, tmp_path):
    given = settings(name, "reinforcement")
    local = maml_rl.train(output_dir=tmp_path / "local", **given)
    processes = {"sampler": "processes", "num_workers": 2}
    assert_same(local, maml_rl.train(output_dir=tmp_path / "processes", **(given | processes)))


KILLED = """
import sys; sys.path[:0] = {path!r}
import maml_rl, proof
from two_arms import TwoArms
maml_rl.register(proof.RECURRENT)
maml_rl.train(TwoArms, learner="recurrent", num_iterations=100000, num_tasks=3, episodes_per_task=4, evaluate_every=0,
              output_dir={folder!r}, num_threads=1)
"""


def test_a_killed_run_of_a_learner_with_a_memory_goes_on_bit_for_bit(settings, tmp_path):
    here = Path(__file__).parent
    code = KILLED.format(path=[str(here.parent), str(here), str(here / "learners")], folder=str(tmp_path / "killed"))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    latest = tmp_path / "killed" / "checkpoints" / "latest"
    deadline = time.monotonic() + 120
    while not (latest.exists() and int(latest.read_text().strip()[-6:]) >= 2):
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.05)
    child.kill()
    child.wait()
    reached = load_latest(tmp_path / "killed" / "checkpoints").iteration + 2
    wanted = {"num_iterations": reached, "quiet": True}
    resumed = maml_rl.train(resume=tmp_path / "killed", **wanted)
    given = {"learner": "recurrent", "num_tasks": 3, "episodes_per_task": 4, "evaluate_every": 0, "num_threads": 1}
    assert_same(maml_rl.train(TwoArms, output_dir=tmp_path / "whole", **given, **wanted), resumed)


def test_a_hidden_state_that_lasts_beats_a_policy_without_one(tmp_path):
    # Who remembers nothing earns 0.5 a pull whatever it does. Ten pulls suffice to find the arm that pays: 0.9 from
    # then on.
    given = {"learner": "recurrent", "num_iterations": 60, "num_tasks": 100, "episodes_per_task": 10, "quiet": True}
    given |= {"evaluate_every": 0, "checkpoint_every": 60}
    last = {
        told: maml_rl.train(TwoArms, output_dir=tmp_path / str(told), is_told=told, **given).metrics["return_after"]
        for told in (True, False)
    }
    assert last[False][-10:].mean() < 0.6
    assert last[True][-10:].mean() > 0.75


def test_a_posterior_is_scored_by_several_draws(settings, tmp_path):
    curves = []
    for num_draws in (1, 10):
        given = settings("posterior", "regression") | {"num_draws": num_draws}
        run = maml_rl.train(output_dir=tmp_path / str(num_draws), **given)
        assert maml_rl.load(run.path).config.evaluation.num_draws == num_draws
        curves.append(run.evaluate(num_tasks=20, num_steps=1))
        assert curves[-1].mean[1] < 0.5 * curves[-1].mean[0]
    assert curves[0].mean != curves[1].mean


def test_only_learners_that_draw_have_a_number_of_draws(settings):
    config = default_config("sinusoid", "maml")
    assert "num_draws" not in to_dict(config)["evaluation"]
    with pytest.raises(ValueError, match=r"^setting num_draws does not exist for sinusoid and learner maml"):
        maml_rl.train(**settings("maml", "regression"), num_draws=3)
    flags, sentence = (
        ["--evaluation.num-draws", "3"],
        "--evaluation.num-draws 3 applies to learners platipus, posterior, not to",
    )
    with pytest.raises(ValueError, match=f"^{sentence} --learner maml: leave it out$"):
        require_own_flags(flags, config, [])
    require_own_flags(flags, default_config("sinusoid", "posterior"), [])


class Scaled(gymnasium.Env):
    """A ball on a line, pushed by up to 0.2 m a step towards a hidden goal."""

    observation_space = gymnasium.spaces.Dict(
        {"where": gymnasium.spaces.Box(-5.0, 5.0, (1,), np.float64), "sign": gymnasium.spaces.Discrete(2)}
    )
    action_space = gymnasium.spaces.Box(-0.2, 0.2, (1,), np.float64)
    horizon, next_goal = 10, 0.0

    def sample_tasks(self, num_tasks, rng):
        return rng.uniform(-1.0, 1.0, num_tasks).tolist()

    def set_task(self, task):
        self.next_goal = task

    def seen(self):
        return {"where": self.x.copy(), "sign": int(self.x[0] > 0)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal, self.x, self.steps = self.next_goal, self.np_random.normal(0.0, 0.1, 1), 0
        return self.seen(), {}

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.x, self.steps = np.clip(self.x + action, -5.0, 5.0), self.steps + 1
        return self.seen(), -abs(float(self.x[0]) - self.goal), False, self.steps >= 10, {}


class Started(TwoArms):
    """Two arms that are numbered 3 and 4."""

    action_space = gymnasium.spaces.Discrete(2, start=3)

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        return super().step(action - 3)


class Plain(gymnasium.Env):
    """The same environment, without any way to its tasks."""

    def __init__(self, env):
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.reset, self.step = env.reset, env.step


def returns_of(agent, env, count, seed):
    """The mean return of an agent that steps a plain environment itself."""
    total = 0.0
    for episode in range(count):
        observation, _ = env.reset(seed=seed + episode)
        ended = False
        while not ended:
            action = agent.act(observation, deterministic=False, seed=seed + 1000 * episode)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, ended = total + float(reward), terminated or truncated
            seed += 1
    return total / count


@pytest.mark.parametrize(
    ("env", "flags"), [(Scaled, {}), (Scaled, {"oracle": True, "inner.num_steps": 0}), (Started, {})]
)
def test_an_agent_earns_in_a_plain_environment_what_the_evaluator_says(env, flags, tmp_path):
    given = {"num_iterations": 3, "num_tasks": 8, "episodes_per_task": 10, "evaluate_every": 0, "quiet": True, **flags}
    run = maml_rl.train(env, output_dir=tmp_path / "run", **given)
    steps = 0 if flags else 1
    curve = run.evaluate(num_tasks=6, num_steps=steps, seed=3)
    earned = []
    for task in run.sample_tasks(6, seed=3):
        one = env()
        one.set_task(task)
        within = gymnasium.wrappers.RecordEpisodeStatistics(one)
        agent = run.agent().told(task) if flags else run.agent().adapt(within, num_episodes=10, seed=5)
        assert agent.num_steps == steps
        earned.append(returns_of(agent, Plain(one), 30, seed=11))
    # each task's mean rests on 10 episodes here and 30 there
    assert np.mean(earned) == pytest.approx(curve.mean[-1], abs=4 * curve.per_task[-1].std().item() / 6**0.5 + 0.3)
    np.testing.assert_allclose(earned, curve.per_task[-1].numpy(), atol=2.5 if env is Scaled else 0.6)
