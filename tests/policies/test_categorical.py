import pytest
import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import kl_divergence

from maml_rl.policies.categorical import Categorical, MultiCategorical

CATEGORICAL = Categorical(4)
MULTI = MultiCategorical((2, 3, 1))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_against_torch_s():
    outputs, old = random(5, 6, 4), random(5, 6, 4, seed=1)
    actions = torch.arange(30).remainder(4).view(5, 6)
    distribution = TorchCategorical(logits=outputs)
    found = CATEGORICAL.log_prob(outputs, actions.unsqueeze(-1).double())
    torch.testing.assert_close(found, distribution.log_prob(actions))
    torch.testing.assert_close(CATEGORICAL.kl(old, outputs), kl_divergence(TorchCategorical(logits=old), distribution))
    torch.testing.assert_close(CATEGORICAL.entropy(outputs), distribution.entropy())
    assert torch.equal(CATEGORICAL.mean_action(outputs).squeeze(-1).long(), outputs.argmax(dim=-1))


def test_several_choices_against_torch_s():
    outputs, old = random(5, 6, 6), random(5, 6, 6, seed=1)
    actions = torch.stack([torch.arange(30) % 2, torch.arange(30) % 3, torch.zeros(30)], dim=-1).view(5, 6, 3)
    now, before = ([TorchCategorical(logits=part) for part in each.split((2, 3, 1), dim=-1)] for each in (outputs, old))

    def total(parts):
        return sum(parts, torch.zeros(()))

    expected = total(each.log_prob(actions[..., i]) for i, each in enumerate(now))
    torch.testing.assert_close(MULTI.log_prob(outputs, actions.double()), expected)
    torch.testing.assert_close(MULTI.kl(old, outputs), total(map(kl_divergence, before, now)))
    torch.testing.assert_close(MULTI.entropy(outputs), total(each.entropy() for each in now))
    best = torch.stack([each.logits.argmax(dim=-1) for each in now], dim=-1)
    assert torch.equal(MULTI.mean_action(outputs).long(), best)


def test_one_choice_among_several_is_a_categorical_distribution():
    alone = MultiCategorical((4,))
    outputs, old, noise = random(5, 6, 4), random(5, 6, 4, seed=1), torch.rand(5, 6, 1)
    actions = CATEGORICAL.sample(outputs, noise)
    assert torch.equal(alone.sample(outputs, noise), actions)
    assert torch.equal(alone.log_prob(outputs, actions), CATEGORICAL.log_prob(outputs, actions))
    assert torch.equal(alone.kl(old, outputs), CATEGORICAL.kl(old, outputs))
    for name in ("network_width", "action_width", "noise_size", "own_params"):
        assert getattr(alone, name) == getattr(CATEGORICAL, name)
    assert CATEGORICAL.within_reach(outputs) is alone.within_reach(outputs) is outputs  # nothing is clipped


def test_choices_are_drawn_independently():
    # On an even grid of n * n noises the frequency of every pair is the product of the probabilities.
    n = 300
    outputs = random(6, seed=5)
    grid = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    noise = torch.cat([torch.cartesian_prod(grid, grid), torch.zeros(n * n, 1)], dim=-1)
    actions = MULTI.sample(outputs.expand(n * n, 6), noise).long()
    assert actions.shape == (n * n, 3) and (actions[:, 2] == 0).all()
    frequencies = torch.bincount(3 * actions[:, 0] + actions[:, 1], minlength=6).double() / n**2
    one, other = outputs[:2].softmax(dim=-1), outputs[2:5].softmax(dim=-1)
    torch.testing.assert_close(frequencies.view(2, 3), one[:, None] * other, rtol=0, atol=2.0 / n)


# Probabilities that single precision holds exactly, with the sums 0.25, 0.75, 0.75, 1: the third action is
# impossible.
LOGITS = torch.tensor([0.25, 0.5, 0.0, 0.25]).log()


@pytest.mark.parametrize(
    ("noise", "action"),
    [(0.0, 0), (0.2499999, 0), (0.25, 1), (0.7499999, 1), (0.75, 3), (0.9999999, 3)],
)
def test_uniform_noise_is_inverted_at_exact_thresholds(noise, action):
    assert CATEGORICAL.sample(LOGITS, torch.tensor([noise])).item() == action


def test_sampling_frequencies_are_the_probabilities():
    # On an even grid of n noises every frequency is within one grid step of its probability.
    outputs, n = random(4, seed=5), 10_000
    noise = (torch.arange(n, dtype=torch.float64).unsqueeze(-1) + 0.5) / n
    actions = CATEGORICAL.sample(outputs.expand(n, 4), noise)
    assert actions.shape == (n, 1)
    frequencies = torch.bincount(actions.squeeze(-1).long(), minlength=4) / n
    torch.testing.assert_close(frequencies.double(), outputs.softmax(dim=-1), rtol=0, atol=1.0 / n)
