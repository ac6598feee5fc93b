# %% [markdown]
# # Your own environment
#
# Any `gymnasium.Env` becomes a family of tasks by two methods more: one that draws tasks and one that sets one. No
# class of this project is needed. Ours is a thermostat: a room is to be held at a temperature that suits whoever is
# in it, and nobody says which that is.

# %%
import gymnasium
import matplotlib.pyplot as plt
import numpy as np

import maml_rl

# %% tags=["parameters"]
NUM_ITERATIONS = 15
NUM_TASKS = 20


# %%
class Thermostat(gymnasium.Env):
    """A room that leaks heat; comfort is how near it is to a temperature that only the reward tells."""

    observation_space = gymnasium.spaces.Box(-4.0, 4.0, (2,), np.float32)  # temperature and its change, in units of 5 K
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)  # cooling to heating
    horizon = 30  # [steps]
    next_wish = 0.0

    def sample_tasks(self, num_tasks, rng):
        return rng.uniform(-1.0, 1.0, num_tasks).tolist()  # the wished temperature, in units of 5 K around 20 degrees

    def set_task(self, task):
        self.next_wish = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.wish = self.next_wish
        self.temperature, self.change = self.np_random.normal(0.0, 0.2), 0.0
        return self._seen(), {}

    def step(self, action):
        self.change = 0.5 * self.change + 0.15 * float(action[0]) - 0.02 * self.temperature
        self.temperature += self.change
        return self._seen(), -abs(self.temperature - self.wish), False, False, {}

    def _seen(self):
        return np.array([self.temperature, self.change], dtype=np.float32).clip(-4.0, 4.0)


# %% [markdown]
# ## Is it sound?
#
# `maml-rl check-env my_module:Thermostat` looks for what training would trip over: episodes that a seed does not
# repeat, observations outside their space, tasks without effect, state shared among copies. Training itself runs the
# quick part of that before it makes anything. Here is a thermostat whose observation is too large:


# %%
class Overheated(Thermostat):
    def _seen(self):
        return 10.0 + super()._seen()


try:
    maml_rl.train(Overheated, num_iterations=1)
except ValueError as error:
    print(error)

# %% [markdown]
# ## Train
#
# The class itself is the first argument. Settings go by the names of their flags.

# %%
run = maml_rl.train(
    Thermostat,
    num_iterations=NUM_ITERATIONS,
    num_tasks=NUM_TASKS,
    max_kl=0.02,
    evaluate_every=0,
    quiet=True,
    output_dir="runs/thermostat",
)
figure, axes = plt.subplots(figsize=(7, 3))
axes.plot(run.metrics["iteration"], run.metrics["return_before"], label="before the step")
axes.plot(run.metrics["iteration"], run.metrics["return_after"], label="after the step")
axes.set(xlabel="iteration", ylabel="return", title="Thermostat in training")
axes.legend()
plt.show()

# %% [markdown]
# ## Adapt to somebody
#
# Three people, who like 17, 20 and 23.5 degrees. For each the agent plays twenty episodes and takes a gradient step on
# how comfortable they were. The agent before that is the same for all three.

# %%
env = Thermostat()


def temperatures(agent):
    """Temperatures over an episode with mean actions [degrees]."""
    observation, _ = env.reset(seed=1)
    seen = [observation[0]]
    for _ in range(env.horizon):
        observation, *_ = env.step(agent.act(observation))
        seen.append(observation[0])
    return 20.0 + 5.0 * np.array(seen)


agent = run.agent()
figure, axes = plt.subplots(figsize=(7, 3.4))
axes.plot(temperatures(agent), color="black", label="before adaptation")
for wish, colour in ((17.0, "tab:blue"), (20.0, "tab:green"), (23.5, "tab:red")):
    env.set_task((wish - 20.0) / 5.0)
    adapted = agent.adapt(env, num_episodes=20)
    axes.plot(temperatures(adapted), color=colour, label=f"adapted to {wish:g} degrees")
    axes.axhline(wish, color=colour, linestyle=":")
axes.set(xlabel="step", ylabel="temperature [degrees]")
axes.legend(fontsize=8)
plt.show()

# %% [markdown]
# A step is an estimate from twenty episodes: it goes towards what the person wants where that is far off, and seldom
# all the way. A person who wants what the agent does already gains nothing by it, and may lose.
#
# ## Score it
#
# Fresh people, before and after the step, and how many of them it has served worse:

# %%
curve = run.evaluate(num_tasks=40, num_steps=1)
print("return     ", [round(value, 2) for value in curve.mean])
print("made worse ", f"{curve.share_worse[1]:.0%}")

# %% [markdown]
# From a terminal the same is `maml-rl train --env my_module:Thermostat`. Length of episodes, other spaces, success,
# randomness, environments that are stepped as a batch: [custom environments](../custom_environments.md).
