"""The benchmark command on tiny settings: what it prints, how its numbers hang together, what it refuses."""

import json
from collections import Counter

import pytest
import torch

from maml_rl.commands import benchmark_fewshot
from maml_rl.commands.benchmark import benchmark
from maml_rl.core.keys import TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.core.objective import MetaObjective
from maml_rl.core.trees import flatten

TINY = ["--num-tasks", "2", "--episodes-per-task", "2", "--horizon", "5", "--hidden-sizes", "4", "--repeats", "1"]


def printed(capsys, *arguments):
    assert benchmark([*TINY, *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("physics", ["gym", "rllab"])
@pytest.mark.parametrize("robot", ["HalfCheetahVel", "AntVel"])
def test_sampling_is_put_beside_the_bare_physics(robot, physics, capsys):
    result = printed(capsys, "sampling", "--env", robot, "--physics", physics)
    assert result["env"] == f"maml/{robot}-{physics}-v0"
    assert result["ratio"] == pytest.approx(result["sampling_steps_per_s"] / result["raw_physics_steps_per_s"])
    assert result["ratio_to_untimed"] == pytest.approx(
        result["sampling_steps_per_s"] / result["untimed_physics_steps_per_s"]
    )
    assert min(result["raw_physics_steps_per_s"], result["untimed_physics_steps_per_s"]) > 0


def test_an_iteration_is_its_parts(capsys):
    result = printed(capsys, "iteration", "--physics", "rllab")
    parts = sum(result[f"{part}_seconds"] for part in ("sample", "adapt", "outer"))
    assert 0 < parts <= result["seconds_per_iteration"]
    assert result["ratio_to_floor"] == pytest.approx(result["seconds_per_iteration"] / result["physics_floor_seconds"])
    assert all(result[f"{part}_seconds"] > 0 for part in ("gradient", "fisher", "line_search"))


def test_an_iteration_may_have_the_proximal_step(capsys):
    result = printed(capsys, "iteration", "--outer", "proximal")
    assert result["outer"] == "proximal" and result["ratio_to_floor"] > 0
    assert all(result[f"{part}_seconds"] > 0 for part in ("outer", "first_epoch", "later_epochs", "scores"))
    assert "fisher_seconds" not in result


def test_few_shot_learners_are_put_beside_plain_code(capsys):
    result = printed(capsys, "fewshot", "--num-threads", "1")
    assert result["num_tasks"] == 2 and result["tasks_per_s"] == pytest.approx(2 / result["meta_batch_seconds"])
    speedup = result["loop_seconds"] / result["meta_batch_seconds"]
    assert result["speedup_over_loop"] == pytest.approx(speedup)
    ratio = result["prototypical_episode_seconds"] / result["encoder_seconds"]
    assert result["prototypical_ratio"] == pytest.approx(ratio)
    assert 0.0 < result["loading_share"] < 1.0
    share = result["memory_lookup_seconds"] / result["memory_step_seconds"]
    assert result["memory_keys"] == 8192 and result["memory_lookup_share"] == pytest.approx(share)
    ratio = result["statistician_step_seconds"] / result["statistician_networks_seconds"]
    assert result["statistician_ratio"] == pytest.approx(ratio)


def test_the_statistician_s_plain_modules_have_its_weights_and_see_as_many_pictures():
    bench = benchmark_fewshot._bench("neural-statistician", Threads(1), "fast")
    found = benchmark_fewshot._statistician_modules(bench.config.method.network, 32, 5)
    own, plain = (
        Counter(tuple(value.shape) for value in values if value.dim() == 4)
        for values in (bench.state.params.values(), [p for module, _ in found for p in module.parameters()])
    )
    assert own == plain
    pictures, logits = found[0][1], found[-1][0](found[-1][1])
    assert len(pictures) == len(logits) == 160 and logits.shape == pictures.shape


def test_the_plain_loop_s_sums_are_ours():
    # what is compared for speed must be the same: mean over tasks of the loop's gradients, and the meta-gradient
    threads = Threads(1)
    bench = benchmark_fewshot._bench("maml", threads)
    tasks, key = bench.tasks(2, 0), Key(0, TRAINING, 0)
    learner, theta = bench.learner, bench.state.params
    support, query = (learner.collector.collect(tasks, None, key.at_phase(phase)) for phase in (0, 1))
    sizes = learner.inner.sizes_for(theta, learner.inner.step_sizes, learner.model.head)
    objective = MetaObjective(learner.model, learner.inner, [support], query, threads, sizes)
    found = objective.linearize(theta, fisher_share=0.0).gradient
    loss = torch.func.grad(benchmark_fewshot._loss_after_a_step)
    batches = zip(support.images, support.labels, query.images, query.labels, strict=True)
    slopes = [flatten(loss(theta, *each, learner.inner.step_size)) for each in batches]
    expected = torch.stack(slopes).mean(dim=0)
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_workers_are_put_beside_one_process(capsys):
    # Two workers cannot do more than twice the work of one, but for noise in what both take.
    result = printed(capsys, "scale", "--num-workers", "2", "--step-seconds", "0.001", "--num-tasks", "4")
    assert result["num_workers"] == [1, 2] and result["efficiency"][0] == 1.0
    assert result["efficiency"][1] == pytest.approx(result["steps_per_s"][1] / result["steps_per_s"][0] / 2)
    assert result["speedup"] == pytest.approx([rate / result["local_steps_per_s"] for rate in result["steps_per_s"]])
    assert 0.0 < result["share_outside_workers"] < 1.0


def test_sleeping_tasks_show_how_many_workers_a_driver_can_serve(capsys):
    result = printed(capsys, "saturation", "--num-workers", "1", "--task-seconds", "0.2", "--num-tasks", "3")
    assert result["seconds"] >= 3 * 0.2
    assert result["share_busy"] == pytest.approx(3 * 0.2 / result["seconds"])
    assert result["workers_per_driver"] == pytest.approx(0.2 / result["driver_cpu_seconds_per_task"])


def test_figures_are_drawn_and_their_numbers_kept(tmp_path, capsys):
    result = printed(capsys, "figures", "--task-counts", "1", "3", "--output-dir", str(tmp_path / "new"))
    assert result["tasks"]["num_tasks"] == [1, 3]
    assert [each["env"] for each in result["iteration"]] == [f"maml/HalfCheetahVel-{p}-v0" for p in ("gym", "rllab")]
    assert json.loads((tmp_path / "new/benchmark.json").read_text()) == result
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "benchmark.json",
        "cost_per_task.png",
        "iteration.png",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "repeats must be at least 1, got 0"),
        (["--device", "cuda:99"], "device cuda:99 must be a GPU that torch can use"),
        (["--episodes-per-task", "0"], "episodes_per_task must be at least 1, got 0"),
        (["--task-counts", "3", "0"], "task_counts must be one number or more of at least 1, got (3, 0)"),
        (["--step-seconds", "0"], "step_seconds must be positive and finite, got 0.0"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(arguments, message, capsys):
    assert benchmark(["sampling", *TINY, *arguments]) == 2
    assert message in capsys.readouterr().err
