"""Prototypical and Matching Networks, and nearest neighbours."""

import numpy as np
import pytest
import torch

from maml_rl.core.protocols import EVALUATION, TRAINING, Key
from maml_rl.fewshot.matching import MatchingConfig, embed_query, embed_support
from maml_rl.fewshot.metric import Encoded, squared_distance
from maml_rl.fewshot.prototypical import prototypes

KEY = Key(0, EVALUATION, 0)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def encoded(shots, ways=3):
    labels = torch.arange(ways).repeat_interleave(shots)
    one_hot = torch.nn.functional.one_hot(labels).double().expand(2, -1, -1)
    return Encoded(normal(2, ways * shots, 5), one_hot, normal(2, 7, 5, seed=1)), labels


def test_prototypes_are_class_means_and_predictions_fall_with_the_squared_distance(make_problem):
    features, labels = encoded(shots=4)
    found = prototypes(features)
    expected = torch.stack([features.support[:, labels == c].mean(dim=1) for c in range(3)], dim=1)
    torch.testing.assert_close(found, expected)
    log_probs = make_problem("prototypical").learner.log_probs({}, features)
    distances = torch.cdist(features.query, expected).square()
    torch.testing.assert_close(log_probs, torch.log_softmax(-distances, dim=-1))
    torch.testing.assert_close(squared_distance(features.query, expected), distances)


@pytest.mark.parametrize(("shots", "same"), [(1, True), (2, False)])
def test_with_one_shot_and_the_same_distance_both_networks_are_one(shots, same, make_problem):
    features, _ = encoded(shots)
    one = make_problem("prototypical").learner.log_probs({}, features)
    other = make_problem("matching", distance="squared").learner.log_probs({}, features)
    assert torch.allclose(one, other, rtol=1e-9, atol=1e-9) == same


def test_attention_is_a_mixture_over_the_support_s_labels(make_problem):
    features, labels = encoded(shots=2)
    found = make_problem("matching").learner.log_probs({}, features)
    cosine = torch.nn.functional.cosine_similarity(features.query[:, :, None], features.support[:, None], dim=-1)
    attention = torch.softmax(MatchingConfig().scale * cosine, dim=-1)
    expected = torch.stack([attention[..., labels == c].sum(dim=-1) for c in range(3)], dim=-1)
    torch.testing.assert_close(found.exp(), expected)
    torch.testing.assert_close(found.exp().sum(dim=-1), torch.ones(2, 7, dtype=torch.float64))


def test_the_support_s_lstm_is_torch_s(make_problem):
    width = 5
    params = {name: p.double() for name, p in make_problem("full-context").learner.init_comparison(
        torch.Generator().manual_seed(0), width).items()}  # fmt: skip
    lstm = torch.nn.LSTM(width, width, bidirectional=True, batch_first=True).double()
    for name, ending in (("forward", "l0"), ("backward", "l0_reverse")):
        getattr(lstm, f"weight_ih_{ending}").data = params[f"{name}.input"].mT
        getattr(lstm, f"weight_hh_{ending}").data = params[f"{name}.hidden"].mT
        getattr(lstm, f"bias_ih_{ending}").data = params[f"{name}.bias"]
        getattr(lstm, f"bias_hh_{ending}").data = torch.zeros(4 * width, dtype=torch.float64)
    support = normal(2, 6, width)
    states, _ = lstm(support)
    torch.testing.assert_close(embed_support(params, support), support + states[..., :width] + states[..., width:])


def test_the_query_s_lstm_reads_the_support_before_each_step(make_problem):
    width = 5
    params = {name: p.double() for name, p in make_problem("full-context").learner.init_comparison(
        torch.Generator().manual_seed(0), width).items()}  # fmt: skip
    support, query = normal(6, width), normal(4, width, seed=1)
    # what goes round is twice as wide as what comes out, which torch's own cell cannot do: written out once more
    hidden, memory = query, torch.zeros_like(query)
    for _ in range(3):
        read = torch.softmax(hidden @ support.T, dim=-1) @ support
        gates = torch.addmm(params["reading.bias"], query, params["reading.input"])
        gates = gates + torch.cat([hidden, read], dim=-1) @ params["reading.hidden"]
        i, f, g, o = gates.split(width, dim=-1)
        memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(memory) + query
    torch.testing.assert_close(embed_query(params, query, support, 3), hidden)
    shuffled = support[torch.tensor([5, 0, 3, 1, 2, 4])]
    torch.testing.assert_close(embed_query(params, query, shuffled, 3), hidden)  # attention has no order of its own


def test_training_moves_the_running_statistics_and_prediction_uses_them(make_problem):
    problem = make_problem("prototypical")
    state = problem.state
    tasks = problem.training.sample(1, np.random.default_rng(0))
    moved, _ = problem.learner.meta_step(state, tasks, Key(0, TRAINING, 0))
    names = [name for name in state if name.startswith("running/")]
    assert len(names) == 8 and all(not torch.equal(moved[name], state[name]) for name in names)
    support, query = problem.episodes(2)
    found = problem.learner.predict(moved, support, query, KEY)
    other = moved | {name: state[name] for name in names}
    assert not torch.allclose(problem.learner.predict(other, support, query, KEY), found, rtol=1e-3, atol=1e-3)


def test_more_classes_may_be_asked_for_than_in_training(metric_learner, make_problem):
    problem = make_problem(metric_learner)
    support, query = problem.episodes(2)
    labels = torch.arange(10).expand(1, -1)
    many = support._replace(images=support.images.flatten(0, 1)[None], labels=labels, context=support.context[:1])
    assert problem.learner.predict(problem.state, many, type(query)(*(leaf[:1] for leaf in query)), KEY).shape[-1] == 10


def test_the_nearest_picture_s_class_is_the_answer(make_problem):
    problem = make_problem("pixels", shots=2)
    support, query = problem.episodes(3)
    found = problem.learner.predict({}, support, query, KEY)[0].argmax(dim=-1)
    for i in range(3):
        for j, picture in enumerate(query.images[i]):
            distances = [(picture - other).square().sum() for other in support.images[i]]
            assert found[i, j] == support.labels[i, int(np.argmin(distances))]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 0.0}, r"matching\.scale must be positive"),
        ({"num_readings": 0}, r"matching\.num_readings must be at"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        MatchingConfig(**settings)
