"""Prototypical and Matching Networks, and nearest neighbours."""

import numpy as np
import pytest
import torch

from maml_rl.core.keys import EVALUATION, TRAINING, Key
from maml_rl.core.trees import take_tasks
from maml_rl.learners.matching import Attention, MatchingConfig, embed_query, embed_support
from maml_rl.learners.metric import Encoded, squared_distance
from maml_rl.learners.prototypical import ToPrototypes, prototypes

KEY = Key(0, EVALUATION, 0)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def encoded(shots, ways=3):
    labels = torch.arange(ways).repeat_interleave(shots)
    one_hot = torch.nn.functional.one_hot(labels).double().expand(2, -1, -1)
    return Encoded(normal(2, ways * shots, 5), one_hot, normal(2, 7, 5, seed=1)), labels


def test_prototypes_are_class_means_and_predictions_fall_with_the_squared_distance():
    features, labels = encoded(shots=4)
    found = prototypes(features)
    expected = torch.stack([features.support[:, labels == c].mean(dim=1) for c in range(3)], dim=1)
    torch.testing.assert_close(found, expected)
    log_probs = ToPrototypes().log_probs({}, features)
    distances = torch.cdist(features.query, expected).square()
    torch.testing.assert_close(log_probs, torch.log_softmax(-distances, dim=-1))
    torch.testing.assert_close(squared_distance(features.query, expected), distances)


@pytest.mark.parametrize(("shots", "same"), [(1, True), (2, False)])
def test_with_one_shot_and_the_same_distance_both_networks_are_one(shots, same):
    features, _ = encoded(shots)
    one = ToPrototypes().log_probs({}, features)
    other = Attention(MatchingConfig(distance="squared")).log_probs({}, features)
    assert torch.allclose(one, other, rtol=1e-9, atol=1e-9) == same


def test_attention_is_a_mixture_over_the_support_s_labels():
    features, labels = encoded(shots=2)
    found = Attention(MatchingConfig()).log_probs({}, features)
    cosine = torch.nn.functional.cosine_similarity(features.query[:, :, None], features.support[:, None], dim=-1)
    attention = torch.softmax(MatchingConfig().scale * cosine, dim=-1)
    expected = torch.stack([attention[..., labels == c].sum(dim=-1) for c in range(3)], dim=-1)
    torch.testing.assert_close(found.exp(), expected)
    torch.testing.assert_close(found.exp().sum(dim=-1), torch.ones(2, 7, dtype=torch.float64))


def lstms(width):
    params = Attention(MatchingConfig(full_context=True)).init(torch.Generator().manual_seed(0), width)
    return {name: p.double() for name, p in params.items()}


def test_the_support_s_lstm_is_torch_s():
    width = 5
    params = lstms(width)
    lstm = torch.nn.LSTM(width, width, bidirectional=True, batch_first=True).double()
    for name, ending in (("forward", "l0"), ("backward", "l0_reverse")):
        getattr(lstm, f"weight_ih_{ending}").data = params[f"{name}.input"].mT
        getattr(lstm, f"weight_hh_{ending}").data = params[f"{name}.hidden"].mT
        getattr(lstm, f"bias_ih_{ending}").data = params[f"{name}.bias"]
        getattr(lstm, f"bias_hh_{ending}").data = torch.zeros(4 * width, dtype=torch.float64)
    support = normal(2, 6, width)
    states, _ = lstm(support)
    torch.testing.assert_close(embed_support(params, support), support + states[..., :width] + states[..., width:])


def test_the_query_s_lstm_reads_the_support_before_each_step():
    width = 5
    params = lstms(width)
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
    assert len(state.running) == 8
    assert all(not torch.equal(moved.running[name], value) for name, value in state.running.items())
    support, query = problem.episodes(2)
    found = problem.predict(moved, support, query)
    other = moved._replace(running=state.running)
    assert not torch.allclose(problem.predict(other, support, query), found, rtol=1e-3, atol=1e-3)


def test_more_classes_may_be_asked_for_than_in_training(metric_learner, make_problem):
    problem = make_problem(metric_learner)
    support, query = problem.episodes(2)
    labels = torch.arange(10).expand(1, -1)
    many = support._replace(images=support.images.flatten(0, 1)[None], labels=labels, context=support.context[:1])
    assert problem.predict(problem.state, many, take_tasks(query, 0, 1)).shape[-1] == 10


def test_a_support_in_two_batches_is_the_support(metric_learner, make_problem):
    problem = make_problem(metric_learner, shots=2)
    support, query = problem.episodes(2)
    learner, state = problem.learner, problem.state
    adapted = learner.begin(state, 2, KEY)
    for rows in (slice(0, 4), slice(4, 10)):
        part = support._replace(images=support.images[:, rows], labels=support.labels[:, rows])
        adapted = learner.adapt(state, adapted, part, KEY)
    outputs, _ = learner.actor(state, adapted, KEY).step((), query, None)
    torch.testing.assert_close(outputs, problem.predict(state, support, query)[0])


def test_without_a_support_there_is_no_answer(metric_learner, make_problem):
    problem = make_problem(metric_learner)
    _, query = problem.episodes(2)
    actor = problem.learner.actor(problem.state, problem.learner.begin(problem.state, 2, KEY), KEY)
    with pytest.raises(ValueError, match="the support must hold pictures, got none: adapt before acting"):
        actor.step((), query, None)


def test_the_nearest_picture_s_class_is_the_answer(make_problem):
    problem = make_problem("pixels", shots=2)
    support, query = problem.episodes(3)
    found = problem.predict((), support, query)[0].argmax(dim=-1)
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
