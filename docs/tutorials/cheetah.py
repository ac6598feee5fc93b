# %% [markdown]
# # Adapt a trained cheetah with your own loop
#
# A half cheetah was meta-trained to run at a speed that it is not told; its run comes with the package, in the
# [zoo](../zoo.md). We take its policy into a loop of our own, as a program around a real robot would, record
# episodes, and hand them over.

# %%
import gymnasium
import matplotlib.pyplot as plt
import numpy as np

import maml_rl
from envs.tasks import TargetVelocity

# %% tags=["parameters"]
NUM_EPISODES = 20
SPEEDS = (0.4, 1.0, 1.8)  # [m/s]

# %%
run = maml_rl.load("zoo:halfcheetah-vel")
agent = run.agent()
print(run.config.env, "after", run.checkpoints[-1], "iterations")

# %% [markdown]
# ## A loop of our own
#
# Nothing here is special to meta-learning: reset, act, step, write down. With `deterministic=False` the policy
# explores, which is what makes episodes worth adapting to.

# %%
env = gymnasium.make(run.config.env)


def record(agent, seed, deterministic=False):
    """One episode, in the environment's own units."""
    observation, _ = env.reset(seed=seed)
    episode = {"observations": [observation], "actions": [], "rewards": [], "terminated": False}
    speeds, ended = [], False
    while not ended:
        step = len(episode["actions"])
        action = agent.act(observation, deterministic=deterministic, seed=1000 * seed + step)
        observation, reward, terminated, truncated, info = env.step(action)
        episode["observations"].append(observation)
        episode["actions"].append(action)
        episode["rewards"].append(reward)
        episode["terminated"] = terminated
        speeds.append(info["x_velocity"])
        ended = terminated or truncated
    return episode, speeds


# %% [markdown]
# ## Three speeds
#
# For each, twenty episodes of the policy as it is, a gradient step, and twenty of what came out, for a second step:

# %%
results = {}
for speed in SPEEDS:
    env.unwrapped.set_task(TargetVelocity(speed))
    stages = [agent]
    for step in range(2):
        episodes = [record(stages[-1], seed=100 * step + index)[0] for index in range(NUM_EPISODES)]
        stages.append(stages[-1].adapt_to(episodes))
    results[speed] = [record(stage, seed=7, deterministic=True) for stage in stages]
    print(f"{speed:.1f} m/s: return", [round(sum(episode["rewards"]), 1) for episode, _ in results[speed]])

# %%
figure, plots = plt.subplots(1, len(SPEEDS), figsize=(12, 3.4), sharey=True)
for axes, speed in zip(plots, SPEEDS, strict=True):
    for step, (_, speeds) in enumerate(results[speed]):
        smooth = np.convolve(speeds, np.ones(10) / 10, mode="valid")  # over a tenth of a second: strides show otherwise
        axes.plot(smooth, label=f"after {step} step{'s' * (step != 1)}")
    axes.axhline(speed, color="tab:red", linestyle=":")
    axes.set(title=f"told by rewards alone: {speed} m/s", xlabel="step of 10 ms")
plots[0].set_ylabel("forward speed [m/s]")
plots[0].legend(fontsize=8)
plt.show()

# %% [markdown]
# Before adaptation the cheetah runs at some 0.9 m/s whatever is wanted. The rewards of its episodes say whether to
# go slower or faster, and their sum says by how much: this policy's steps are in proportion to it
# ([why](../findings.md#a-policy-gradient-says-which-way-not-how-far)). One step goes nearly all the way, at times
# a little too far, which the second corrects.
#
# ## Keep it

# %%
stages[-1].save("agents/fast_cheetah")  # adapted to the last speed
again = maml_rl.load_agent("agents/fast_cheetah")
observation, _ = env.reset(seed=0)
assert np.array_equal(again.act(observation), stages[-1].act(observation))
print("adapted", again.num_steps, "steps, on", again.num_episodes, "episodes")

# %% [markdown]
# `agent.adapt(env)` is this loop written once. Films of the cheetah are `maml-rl visualize zoo:halfcheetah-vel
# --output-dir pictures`; a plain torch module for another program is [`export_torch`](../howto/export.md).
