"""A policy network of your own: any torch.nn.Module from observations to the numbers of the action distribution."""

import sys
from pathlib import Path

import torch
from torch import nn

import maml_rl

SMALL = {"num_iterations": 1, "num_tasks": 2} if "--small" in sys.argv else {"num_iterations": 10, "num_tasks": 10}


class Waves(nn.Module):
    """A perceptron that sees sines and cosines of the observation, too."""

    def __init__(self, observation_size: int, output_size: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3 * observation_size, 64), nn.Tanh(), nn.Linear(64, output_size))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """[B, O] to [B, output_size]."""
        waves = [observations, torch.sin(3.0 * observations), torch.cos(3.0 * observations)]
        return self.layers(torch.cat(waves, dim=-1))


if __name__ == "__main__":
    run = maml_rl.train("Navigation2D", network=Waves, evaluate_every=0, **SMALL)
    print("return after the gradient step:", run.metrics["return_after"].round(1))

    run.agent().save(Path(run.path) / "agent")
    agent = maml_rl.load_agent(Path(run.path) / "agent")
    print("action at the start:", agent.act([0.0, 0.0]))
