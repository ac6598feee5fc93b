"""What trajectories are worth, and where they come from."""

import pytest
import torch

from maml_rl.core.contracts import Actor
from maml_rl.core.keys import TRAINING, Key
from maml_rl.rl.experience import EpisodeSampler, Return, recipe_of
from maml_rl.sampling.trajectory import Trajectory

KEY = Key(2, TRAINING, 0)


def one_task(rewards, successes=None):
    """Three episodes of 5, 3 and 1 steps, observed as zeros."""
    mask = torch.tensor([[[1.0, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]])
    zeros, ended = torch.zeros(1, 3, 5, 2), torch.tensor([[False, True, True]])
    if successes is None:
        successes = torch.zeros(1, 3, 0, dtype=torch.bool)
    return Trajectory(zeros, zeros, rewards * mask, mask, zeros[:, :, 0], ended, ~ended, successes, ())


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e8])
def test_the_score_is_the_sum_of_rewards_even_beside_a_large_offset(offset):
    rewards = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = Return().score(one_task(rewards + offset))
    lengths = torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64)
    plain = torch.stack([rewards[0, e, : int(n)].sum() for e, n in enumerate(lengths)])
    torch.testing.assert_close(found, (plain + lengths * offset).unsqueeze(0), rtol=0.0, atol=1e-6)
    assert len(set(found.flatten().tolist())) == 3


def test_success_is_a_further_score_and_logged():
    # Of one task's three episodes two had success before adaptation, one afterwards.
    rewards, measure = torch.ones(1, 3, 5), Return()
    before = one_task(rewards, torch.tensor([[[True], [False], [True]]]))
    after = one_task(rewards, torch.tensor([[[False], [True], [False]]]))
    assert measure.further_scores(before)["success"].tolist() == [[True, False, True]]
    described = measure.describe([before, after])
    assert described["success_before"] == pytest.approx(2 / 3) and described["success_after"] == pytest.approx(1 / 3)
    silent = one_task(rewards)
    assert measure.further_scores(silent) == {}
    assert measure.describe([silent, silent]) == {"env_steps": 2 * 9.0}


class Given:
    """A sampler that returns what it was given."""

    def __init__(self, trajectory):
        self.trajectory, self.asked = trajectory, []

    def sample(self, tasks, actor, key):
        self.asked.append((tasks, actor, key))
        return self.trajectory

    def close(self):
        pass


def test_a_collector_hands_over_raw_experience_of_whoever_acts():
    sampler = Given(one_task(torch.ones(1, 3, 5)))
    collector, actor = EpisodeSampler(sampler, "a recipe"), Actor(None, {})
    assert collector.resamples and recipe_of(collector) == "a recipe"
    assert collector.collect(["task"], actor, KEY) is sampler.trajectory
    assert sampler.asked == [(["task"], actor, KEY)]
    with pytest.raises(AssertionError, match="somebody must act"):
        collector.collect(["task"], None, KEY)
