"""Train on a family of tasks, adapt to one that nobody tells, act."""

import sys

import gymnasium

import maml_rl

SMALL = {"num_iterations": 1, "num_tasks": 2} if "--small" in sys.argv else {}


def play(env, agent):
    """The return of one episode with mean actions."""
    observation, _ = env.reset(seed=0)
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(agent.act(observation))
        total += float(reward)
        ended = terminated or truncated
    return total


if __name__ == "__main__":
    run = maml_rl.train("Navigation2D", **SMALL)

    env = gymnasium.make("maml/Navigation2D-v0")
    env.unwrapped.set_task(run.sample_tasks(1, seed=3)[0])  # a goal that only rewards give away
    agent = run.agent()
    adapted = agent.adapt(env, num_episodes=20)  # one gradient step
    print(f"return {play(env, agent):.1f} before the step, {play(env, adapted):.1f} after it")
