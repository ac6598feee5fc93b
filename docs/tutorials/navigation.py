# %% [markdown]
# # Navigation: train, adapt, look inside
#
# A point in the plane must find a goal. It sees where it stands, not where the goal is: only rewards, minus the
# squared distance, give it away. So a policy must try something, and learn from how that went.

# %%
import gymnasium
import matplotlib.pyplot as plt
import numpy as np

import maml_rl

# %% tags=["parameters"]
NUM_ITERATIONS = 15
NUM_TASKS = 20

# %% [markdown]
# ## Train
#
# Less than a minute on two idle cores. Everything about the run is in its folder.

# %%
run = maml_rl.train(
    "Navigation2D", num_iterations=NUM_ITERATIONS, num_tasks=NUM_TASKS, quiet=True, output_dir="runs/nav"
)
print(sorted(path.name for path in run.path.iterdir()))

# %% [markdown]
# An iteration is an outer update: twenty tasks, twenty episodes of each before and after the gradient step.
# `run.metrics` has the columns of `metrics.csv`:

# %%
figure, axes = plt.subplots(figsize=(7, 3.2))
iterations = run.metrics["iteration"]
for name, label in (("return_before", "before the step"), ("return_after", "after the step")):
    mean, half = run.metrics[name], run.metrics[f"{name}_ci95"]
    axes.plot(iterations, mean, label=label)
    axes.fill_between(iterations, mean - half, mean + half, alpha=0.2)
axes.set(xlabel="iteration", ylabel="return", title="Training tasks, 95 % interval over tasks")
axes.legend()
plt.show()

# %% [markdown]
# ## Adapt
#
# An agent is a value. `adapt` plays episodes in an environment and gives back a *new* agent, one gradient step
# further; the old one stays.

# %%
env = gymnasium.make("maml/Navigation2D-v0")
tasks = run.sample_tasks(4, seed=5)


def path(agent, task, seed):
    """Where the point goes in one episode with mean actions: [T + 1, 2]."""
    env.unwrapped.set_task(task)
    observation, _ = env.reset(seed=seed)
    seen, ended = [observation], False
    while not ended:
        observation, _, terminated, truncated, _ = env.step(agent.act(observation))
        seen.append(observation)
        ended = terminated or truncated
    return np.array(seen)


agent = run.agent()
figure, plots = plt.subplots(1, len(tasks), figsize=(12, 3.2), sharex=True, sharey=True)
for axes, task in zip(plots, tasks, strict=True):
    env.unwrapped.set_task(task)
    stages = [agent]
    for step in range(3):
        stages.append(stages[-1].adapt(env, num_episodes=20, seed=step))
    for step, stage in enumerate(stages):
        axes.plot(
            *path(stage, task, seed=0).T, ".-", color=plt.cm.viridis(step / 3), label=f"{step} steps", markersize=3
        )
    axes.plot(task.x, task.y, "r*", markersize=12)
    axes.set_aspect("equal")
plots[0].legend(fontsize=7)
figure.suptitle("Four goals (stars): the path of the mean action before and after gradient steps")
plt.show()

# %% [markdown]
# Before the first step the point has no idea. After it, it heads for the goal, and further steps correct what is
# left.
#
# ## How good is that?
#
# Four pictures are an anecdote. `evaluate` draws fresh tasks and scores every number of steps on new episodes:

# %%
curve = run.evaluate(num_tasks=40, num_steps=3)
for step, used in enumerate(curve.used):
    print(
        f"{step} steps, {used:2} episodes: return {curve.mean[step]:7.2f} +- {curve.ci95[step]:.2f}, "
        f"gain {curve.gain[step].mean():6.2f}, tasks made worse {curve.share_worse[step]:.0%}"
    )

# %% [markdown]
# ## Look inside
#
# What has meta-training put into the initial policy? Its mean action at every place, beside that after one step
# towards a goal on the upper left:

# %%
side = np.linspace(-0.6, 0.6, 9)
places = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2).astype(np.float32)
goal = type(tasks[0])(-0.35, 0.4)
env.unwrapped.set_task(goal)
adapted = agent.adapt(env, num_episodes=20)
figure, both = plt.subplots(1, 2, figsize=(8, 4), sharey=True)
for axes, stage, title in zip(both, (agent, adapted), ("theta", "theta' after one step"), strict=True):
    axes.quiver(*places.T, *stage.act(places).T, angles="xy", color="tab:blue")
    axes.plot(goal.x, goal.y, "r*", markersize=12)
    axes.set(title=title, aspect="equal")
plt.show()

# %% [markdown]
# `theta` draws the point back to the middle, from where its noise tries all directions alike; the step moves the place
# that the arrows point to. That noise is a parameter, too, `log_std`, and adapts with the others:

# %%
with run.opened() as trained:
    start = trained.state.params
print({name: tuple(value.shape) for name, value in start.items()})

# %% [markdown]
# The same pictures come from the command line, `maml-rl visualize runs/nav --output-dir pictures`; how MAML compares
# with pretraining and an oracle here is on [results](../results.md#2-d-navigation).
