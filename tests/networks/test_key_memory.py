"""Keys, values and ages: what is looked up, what is written, and where the released code goes wrong."""

import math

import pytest
import torch
import torch.nn.functional as F

from maml_rl.networks.key_memory import (
    EMPTY,
    SHARPNESS,
    Memory,
    class_log_probs,
    empty_memory,
    margin_loss,
    remember,
    similarities,
    with_room,
)


def directions(*angles):
    """[B, 2] of length 1. angles: in degrees."""
    turned = torch.tensor(angles, dtype=torch.float64).deg2rad()
    return torch.stack([turned.cos(), turned.sin()], dim=-1)


def memory(*slots, num_slots=None):
    """One memory with (angle, value, age) in its first slots."""
    num_slots = len(slots) if num_slots is None else num_slots
    made = Memory(*(part.clone() for part in empty_memory(1, num_slots, 2)))._replace(
        keys=torch.zeros(1, num_slots, 2, dtype=torch.float64)
    )
    for place, (angle, value, age) in enumerate(slots):
        made.keys[0, place] = directions(angle)[0]
        made.values[0, place], made.ages[0, place] = value, age
    return made


def shown(before, *pictures, noise=None):
    """The memory after (angle, class) pictures at once, and their readings."""
    queries = directions(*(angle for angle, _ in pictures)).view(1, 1, -1, 2)
    return remember(before, queries, torch.tensor([label for _, label in pictures]).view(1, 1, -1), noise)


def angles(after):
    return (torch.atan2(after.keys[0, :, 1], after.keys[0, :, 0]).rad2deg() % 360).round(decimals=6).tolist()


def test_a_right_answer_turns_the_key_half_way_to_the_query_and_makes_it_young():
    before = memory((0, 3, 7), (90, 5, 2))
    after, readings = shown(before, (20, 3))
    assert readings.right.tolist() == [[True]]
    assert angles(after) == [10, 90] and after.values.tolist() == [[3, 5]] and after.ages.tolist() == [[0, 3]]
    torch.testing.assert_close(after.keys.norm(dim=-1), torch.ones(1, 2, dtype=torch.float64))


def test_a_wrong_answer_replaces_the_oldest_slot():
    before = memory((0, 3, 7), (90, 5, 9), (180, 3, 1))
    after, readings = shown(before, (20, 5))
    assert readings.right.tolist() == [[False]]
    assert angles(after) == [0, 20, 180] and after.values.tolist() == [[3, 5, 3]]
    assert after.ages.tolist() == [[8, 0, 2]]


def test_a_full_memory_forgets_what_it_has_not_used_for_longest():
    now, order = memory(num_slots=4), [(45 * label, label) for label in range(8)]
    for each in order[:4]:
        now, _ = shown(now, each)
    assert sorted(now.values[0].tolist()) == [0, 1, 2, 3]
    now, _ = shown(now, order[0])  # class 0 is confirmed, so class 1 is the oldest now
    for each in order[4:6]:
        now, _ = shown(now, each)
    assert sorted(now.values[0].tolist()) == [0, 3, 4, 5]


def test_noise_in_ages_decides_among_slots_of_like_age():
    before = memory((0, 3, 7), (90, 5, 9))
    noise = torch.tensor([[[3.0, 0.0]]])  # 7 + 3 is more than 9
    after, _ = shown(before, (180, 4), noise=noise)
    assert after.values.tolist() == [[4, 5]]


def test_an_empty_slot_is_filled_before_any_other_is_replaced():
    after, _ = shown(memory((0, 3, 1000), num_slots=2), (180, 4), noise=torch.full((1, 1, 2), 8.0))
    assert after.values.tolist() == [[3, 4]]


def test_hazard_a_an_empty_slot_is_of_no_class_not_of_class_0():
    # With value 0 in empty slots, the first picture of class 0 would be "right" and never be written.
    after, readings = shown(memory(num_slots=2), (30, 0))
    assert readings.right.tolist() == [[False]]
    assert after.values.tolist() == [[0, EMPTY]] and angles(after)[0] == 30
    assert not readings.positive.any() and not readings.negative.any()


def test_hazard_b_a_class_whose_keys_are_all_unlike_the_query_is_still_found():
    # cos 120 = -0.5: multiplied by a mask, the 0 of a slot of another class would be larger.
    before = memory((120, 3, 0), (150, 3, 0), (200, 5, 0))
    _, readings = shown(before, (0, 3))
    torch.testing.assert_close(readings.positive[0], directions(120))
    torch.testing.assert_close(readings.negative[0], directions(200))
    assert readings.right.tolist() == [[True]]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_hazard_c_pictures_written_at_once_get_a_slot_each_and_never_one_that_was_just_confirmed(order):
    before = memory((0, 9, 50), (90, 8, 20), (180, 7, 10), (270, 6, 5))
    pictures = [(2, 9), (92, 1), (182, 2)]  # the first confirms the oldest slot, the others are new
    after, readings = shown(before, *(pictures[i] for i in order))
    assert sorted(readings.right[0].tolist()) == [False, False, True]
    assert angles(after)[0] == 1 and after.values[0, 0] == 9
    assert sorted(after.values[0].tolist()) == [1, 2, 6, 9] and after.values[0, 3] == 6
    assert sorted(after.ages[0].tolist()) == [0, 0, 0, 6]


def test_hazard_c_two_pictures_that_confirm_one_slot_both_turn_it():
    after, _ = shown(memory((0, 3, 5), (180, 4, 5)), (30, 3), (-30, 3))
    assert angles(after) == [0, 180] and after.ages.tolist() == [[0, 6]]
    after, _ = shown(memory((0, 3, 5), (180, 4, 5)), (30, 3), (30, 3))
    assert angles(after)[0] == pytest.approx(20.104, abs=1e-3)  # of (1, 0) + 2 (cos 30, sin 30)


def test_hazard_d_zero_keys_and_zero_queries_give_no_nan_and_no_match():
    before = memory((120, 3, 0), (240, 5, 0), num_slots=4)
    cosines = similarities(before, directions(0).unsqueeze(0))
    assert cosines[0, 0, 2:].tolist() == [-math.inf] * 2  # a cosine of 0 would beat both others
    assert class_log_probs(before, directions(0).unsqueeze(0), 6).argmax() in (3, 5)
    nothing = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    after, readings = remember(before, nothing, torch.tensor([[[3]]]), None)
    assert all(part.isfinite().all() for part in (after.keys, readings.positive, readings.negative))
    after, _ = shown(memory((0, 3, 0)), (180, 3))  # the sum of key and query is zero
    assert after.keys.isfinite().all()


def test_class_probabilities_are_those_of_each_class_s_nearest_key():
    before = memory((0, 1, 0), (40, 1, 0), (90, 0, 0), (180, EMPTY - 1, 0), num_slots=6)
    found = class_log_probs(before, directions(50, 175).unsqueeze(0), 3)
    cosines = torch.tensor([[40.0, 10.0], [85.0, 135.0]]).double().deg2rad().cos()
    expected = torch.log_softmax(SHARPNESS * cosines, dim=-1)
    torch.testing.assert_close(found[0, :, :2], expected)
    assert found[0, :, 2].tolist() == [-math.inf] * 2  # a class without a key; values below EMPTY are not asked about


def test_the_loss_is_the_margin_between_the_nearest_keys_and_reaches_the_queries_alone():
    queries = directions(20, 80).unsqueeze(0).requires_grad_()
    before = memory((0, 3, 0), (100, 5, 0))
    _, readings = remember(before, queries.detach().view(1, 1, 2, 2), torch.tensor([[[3, 3]]]), None)
    loss = margin_loss(queries, readings, 0.1)
    gaps = torch.tensor([[80.0, 20.0], [20.0, 80.0]]).double().deg2rad().cos()  # negative, positive of each picture
    expected = (gaps[:, 0] - gaps[:, 1] + 0.1).clamp(min=0.0).mean() - 0.1
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert not queries.grad[0, 0].any() and queries.grad[0, 1].any()  # the first has its margin
    assert not readings.positive.requires_grad


def test_memories_do_not_see_each_other_and_the_one_before_is_unchanged():
    generator = torch.Generator().manual_seed(0)
    queries = F.normalize(torch.randn(3, 20, 2, 4, generator=generator), dim=-1)
    labels = torch.randint(4, (3, 20, 2), generator=generator)
    before = with_room(empty_memory(3, 2, 4), 40, 6)
    kept = [part.clone() for part in before]
    together, readings = remember(before, queries, labels, None)
    for i in range(3):
        own = Memory(*(part[i : i + 1] for part in before))
        alone, reading = remember(own, queries[i : i + 1], labels[i : i + 1], None)
        assert all(torch.equal(a[0], b[i]) for a, b in zip(alone, together, strict=True))
        assert torch.equal(reading.right[0], readings.right[i])
    assert all(torch.equal(a, b) for a, b in zip(before, kept, strict=True))


def test_slots_that_do_not_exist_yet_are_as_good_as_empty_ones():
    generator = torch.Generator().manual_seed(1)
    queries = F.normalize(torch.randn(1, 30, 1, 4, generator=generator), dim=-1)
    labels = torch.randint(5, (1, 30, 1), generator=generator)
    large, _ = remember(empty_memory(1, 100, 4), queries, labels, None)
    grown, _ = remember(with_room(empty_memory(1, 0, 4), 30, 100), queries, labels, None)
    assert grown.keys.shape[1] == 30 and not (large.values[:, 30:] != EMPTY).any()
    assert torch.equal(large.keys[:, :30], grown.keys) and torch.equal(large.values[:, :30], grown.values)
    assert with_room(grown, 100, 32).keys.shape[1] == 32
