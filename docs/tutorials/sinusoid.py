# %% [markdown]
# # Sinusoids: what MAML does, in pictures
#
# A task is a sinusoid, y = a sin(x - p), with an amplitude a and a phase p that nobody tells. The learner sees ten
# points of it and must draw the rest. This is the regression experiment of [Finn, Abbeel and Levine
# 2017](https://arxiv.org/abs/1703.03400), section 5.1.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import maml_rl
from maml_rl.core.keys import EVALUATION, Key
from maml_rl.supervised.sinusoid import Examples, Sinusoid

# %% tags=["parameters"]
NUM_ITERATIONS = 4000  # the paper has 70,000: ten minutes

# %% [markdown]
# ## Two ways to train
#
# Both see the same tasks, 25 in an iteration. **MAML** asks for a network that is right *after* a gradient step on
# ten points of a task. The other, `joint`, takes no step: it is trained on all sinusoids at once, as one would train
# a network that is to be fine-tuned later.

# %%
maml = maml_rl.train("sinusoid", num_iterations=NUM_ITERATIONS, evaluate_every=0, quiet=True)
joint = maml_rl.train("sinusoid", inner__num_steps=0, num_iterations=NUM_ITERATIONS, evaluate_every=0, quiet=True)

# %% [markdown]
# `metrics.csv` holds the error of every iteration, before and after the step:

# %%
figure, axes = plt.subplots(figsize=(7, 3))
window = max(1, NUM_ITERATIONS // 50)
for name, colour in (("mse_before", "tab:orange"), ("mse_after", "tab:blue")):
    smooth = np.convolve(maml.metrics[name], np.ones(window) / window, mode="valid")
    axes.plot(smooth, color=colour, label=name)
axes.set(xlabel="iteration", ylabel="mean squared error", title="MAML in training", ylim=(0, None))
axes.legend()
plt.show()

# %% [markdown]
# The error *before* the step stops falling at what the mean of all sinusoids has, and may: nobody has asked for more.
# Only the one after the step counts.
#
# ## One task, step by step
#
# A learner begins on a task with what it has meta-learned, acts, and adapts to what it has seen. These are its
# methods `begin`, `actor` and `adapt`; evaluation, films and the command line use no others. Here we call them
# ourselves, on a sinusoid of amplitude 4.

# %%
task = Sinusoid(amplitude=4.0, phase=1.0)
grid = np.linspace(-5.0, 5.0, 200)
points = np.random.default_rng(3).uniform(-5.0, 5.0, 10)


def column(values):
    """Numbers as the one task of a batch: [1, K, 1]."""
    return torch.from_numpy(np.asarray(values)).float().view(1, -1, 1)


def curves(run, num_steps, points):
    """The predicted curve after 0, 1, ... gradient steps on points of the task."""
    key = Key(0, EVALUATION, 0)
    with run.opened() as trained:
        learner, state = trained.built.learner, trained.state
        support = Examples(column(points), column(task.at(points)))
        adapted = learner.begin(state, 1, key)
        found = []
        for _ in range(num_steps + 1):
            outputs, _ = learner.actor(state, adapted, key).step((), Examples(column(grid), column(grid)), None)
            found.append(outputs.detach().flatten().numpy())
            adapted = learner.adapt(state, adapted, support, key)
    return found


def draw(axes, run, points, title):
    axes.plot(grid, task.at(grid), color="black", label="the task")
    for steps, values in enumerate(curves(run, 5, points)):
        if steps in (0, 1, 5):
            style = {0: ":", 1: "--", 5: "-"}[steps]
            axes.plot(grid, values, style, color="tab:blue", label=f"after {steps} step{'s' * (steps != 1)}")
    axes.plot(points, task.at(points), "^", color="tab:red", label="shown")
    axes.set(title=title, ylim=(-6, 6), xlabel="x")


figure, both = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
draw(both[0], maml, points, "MAML")
draw(both[1], joint, points, "trained on all tasks at once")
both[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# MAML's first curve is nobody's sinusoid; one step makes it nearly the task's. The jointly trained network begins at
# the mean of all sinusoids and hardly moves, though its gradient step has the same size.
#
# ## It has learned what the tasks have in common
#
# Show points of the right half only. The valley on the left deepens along with it, where nothing was shown, because
# the network has learned that these curves are waves:

# %%
figure, axes = plt.subplots(figsize=(6, 4))
draw(axes, maml, np.linspace(0.5, 4.5, 10), "MAML, shown the right half")
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## Over many tasks
#
# One picture may flatter. `evaluate` scores fresh tasks after 0, 1, ... steps, with the same data for everybody:

# %%
scores = {"MAML": maml.evaluate(num_tasks=200, num_steps=10), "jointly": joint.evaluate(num_tasks=200, num_steps=10)}
figure, axes = plt.subplots(figsize=(6, 3.5))
for name, curve in scores.items():
    axes.errorbar(range(11), curve.mean, yerr=curve.ci95, label=name, capsize=2)
axes.set(xlabel="gradient steps", ylabel="mean squared error", title="200 fresh sinusoids, 95 % interval")
axes.legend()
plt.show()
for name, curve in scores.items():
    print(f"{name:8} " + " ".join(f"{value:.2f}" for value in curve.mean[:6]))

# %% [markdown]
# The paper reports 0.67 after one step and 0.35 after ten, with more iterations and five points. The whole experiment
# is `maml-rl train --env sinusoid`; its numbers stand in [results](../results.md#sinusoid-regression).
#
# **Try it.** Change `inner__num_steps` to 5, or `learner` to `"fomaml"`, `"anil"` or `"reptile"`.
