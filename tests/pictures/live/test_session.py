"""Two performances on one task, without a page."""

import time

import pytest
from live_session import Place, Walker, make_session

from maml_rl.pictures.live.session import PerformanceError


def play(session, episodes=1):
    wanted = len(session.finished) + episodes
    while len(session.finished) < wanted:
        session.step()
    return session.finished[-1]


def adapt(session):
    session.adapt()
    while session.episodes_collected is not None:
        session.look()
        time.sleep(0.001)


def test_both_play_the_same_until_the_first_adaptation_even_with_noise():
    session, _ = make_session()
    for _ in range(3):
        shown = play(session)
        assert shown.adapted == shown.before
    assert len({each.adapted for each in session.finished}) == 3  # another seed for each episode


def test_the_horizon_ends_an_episode_that_has_no_clock():
    session, _ = make_session()
    play(session)
    assert session.adapted.is_over and session.adapted.steps == 5


def test_an_adaptation_raises_the_return_and_leaves_the_ghost_as_it_was():
    session, _ = make_session()
    session.is_deterministic = True
    play(session)
    adapt(session)
    shown = play(session)
    # after adaptation the walker is at the place after one step, and the ghost stays within 0.1 of 0
    assert shown.num_adaptations == 1 and shown.adapted == pytest.approx(0.0)
    assert shown.before == pytest.approx(-5.0, abs=0.5)
    assert session.adapted.player.num_episodes == 2 and session.before.player.num_episodes == 0


def test_a_new_task_or_forgetting_takes_both_back_to_the_beginning():
    session, _ = make_session()
    for change in (session.forget, lambda: session.set_task(Place(0.5))):
        adapt(session)
        play(session)
        change()
        assert session.num_adaptations == 0 and session.finished == [] and session.adapted.steps == 0
        shown = play(session)
        assert shown.adapted == shown.before


def test_an_adaptation_under_way_is_given_up_for_another_task():
    session, made = make_session(Walker(delay=0.02))
    session.adapt()
    assert session.episodes_collected == 0
    session.set_task(Place(0.0))
    assert session.episodes_collected is None
    session.look()
    assert session.num_adaptations == 0
    until = time.monotonic() + 5.0
    while not made[-1].is_closed:  # its thread ends by itself, long before the two episodes would
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_second_order_to_adapt_waits_for_the_first():
    session, made = make_session(Walker(delay=0.01))
    session.adapt()
    session.adapt()
    assert len(made) == 3  # both performances, and one adaptation
    session.close()


def test_an_environment_that_fails_is_named_in_one_sentence():
    session, _ = make_session()
    session.adapted.env.at = 9.0
    with pytest.raises(PerformanceError, match=r"failed in step 0: ZeroDivisionError: off the line$"):
        session.step()


def test_an_error_of_an_adaptation_is_raised_where_it_is_awaited():
    class Failing(Walker):
        def adapt(self, env, num_episodes=None, seed=0):
            raise RuntimeError("no memory")

    session, _ = make_session(Failing())
    with pytest.raises(RuntimeError, match="no memory"):
        adapt(session)
