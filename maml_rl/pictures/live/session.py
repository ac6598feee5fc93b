"""The adapted agent and the one before adaptation, side by side on one task, without the page that shows them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from maml_rl.pictures.live.show import Player, Show

REST = 0.6  # between two episodes [s of the show]


class PerformanceError(RuntimeError):
    """Error of an environment in the midst of an episode that is shown."""


class Performance:
    """One agent in an environment, step by step. Its return is undiscounted."""

    def __init__(self, env: gymnasium.Env, player: Player, horizon: int):
        self.env, self.player, self._horizon = env, player, horizon
        self.steps, self.total, self.is_over = 0, 0.0, True
        self._observation: Any = None
        self._reward = 0.0

    def begin(self, task: Any, seed: int) -> None:
        """Begin an episode of a task.

        Raises:
            PerformanceError: if the environment fails.
        """
        with _located("reset"):
            self.env.get_wrapper_attr("set_task")(task)
            self._observation, _ = self.env.reset(seed=seed)
        self.player.begin_episode()
        self.steps, self.total, self._reward, self.is_over = 0, 0.0, 0.0, False

    def step(self, deterministic: bool, seed: int) -> None:
        """Take a step, unless the episode is over.

        Args:
            seed: of the action, if it is drawn.
        Raises:
            PerformanceError: if the environment fails.
        """
        if self.is_over:
            return
        action = self.player.act(self._observation, deterministic, seed, self._reward)
        with _located(f"step {self.steps}"):
            self._observation, reward, terminated, truncated, _ = self.env.step(action)
        self._reward = float(reward)
        self.total += self._reward
        self.steps += 1
        self.is_over = bool(terminated or truncated) or self.steps >= self._horizon


@contextlib.contextmanager
def _located(when: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PerformanceError(f"the environment failed in {when}: {reason}") from error


class Finished(NamedTuple):
    """The returns of one episode of both."""

    num_adaptations: int
    adapted: float
    before: float


class Session:
    """Both performances on the present task, an adaptation in progress, and the returns so far.

    Both episodes of a pair begin from the same seed and draw their actions from the same seeds, so that they are equal
    until the first adaptation. Not to be shared by threads; only adaptation has a thread of its own.
    """

    def __init__(self, show: Show, seed: int):
        self.show = show
        self.is_deterministic = False
        self.task = show.tasks.sample()
        self.num_adaptations = 0
        self.finished: list[Finished] = []
        self._acting, self._adapting = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
        self._adaptation: _Adaptation | None = None
        self._rest = 0
        self.adapted, self.before = (
            Performance(show.make_env(), show.begin(self.task), show.horizon) for _ in range(2)
        )
        self.restart()

    def set_task(self, task: Any) -> None:
        """Change the task, which the agent has yet to adapt to."""
        self.task = task
        self.before.player = self.show.begin(task)
        self.forget()

    def forget(self) -> None:
        """Go back to the agent before adaptation."""
        self._abandon()
        self.adapted.player = self.show.begin(self.task)
        self.num_adaptations = 0
        self.finished = []
        self.restart()

    def restart(self) -> None:
        """Begin another pair of episodes."""
        seed = int(self._acting.integers(2**31))
        for each in (self.adapted, self.before):
            each.begin(self.task, seed)
        self._rest = round(REST * self.show.steps_per_second)

    def adapt(self) -> None:
        """Start to collect episodes and adapt to them, unless that is going on."""
        if self._adaptation is None:
            self._adaptation = _Adaptation(
                self.show, self.adapted.player, self.task, int(self._adapting.integers(2**31))
            )

    @property
    def episodes_collected(self) -> int | None:
        """Episodes that the adaptation in progress has finished; None if there is none."""
        return None if self._adaptation is None else self._adaptation.env.num_finished

    def look(self) -> None:
        """Take over an adaptation that is ready, and begin new episodes with it.

        Raises:
            Exception: whatever the environment or the agent raised during adaptation.
        """
        ready = self._adaptation
        if ready is None or ready.is_running:
            return
        self._adaptation = None
        self.adapted.player = ready.result()
        self.num_adaptations += 1
        self.restart()

    def step(self) -> None:
        """One step of both episodes; when both have ended, after a rest, the next pair."""
        if not (self.adapted.is_over and self.before.is_over):
            seed = int(self._acting.integers(2**31))
            for each in (self.adapted, self.before):
                each.step(self.is_deterministic, seed)
            if self.adapted.is_over and self.before.is_over:
                self.finished.append(Finished(self.num_adaptations, self.adapted.total, self.before.total))
        elif self._rest > 0:
            self._rest -= 1
        else:
            self.restart()

    def close(self) -> None:
        """Give up an adaptation in progress and close the environments."""
        self._abandon()
        for each in (self.adapted, self.before):
            each.env.close()

    def _abandon(self) -> None:
        if self._adaptation is not None:
            self._adaptation.abandon()
        self._adaptation = None


class _Abandoned(BaseException):
    """The end of an adaptation that nobody waits for; no Exception, which environments' adapters would report."""


class _Watched(gymnasium.Wrapper):
    """An environment that counts its episodes and can be stopped from another thread."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self.num_begun, self.is_wanted, self.is_finished = 0, True, False

    @property
    def num_finished(self) -> int:
        return self.num_begun if self.is_finished else max(self.num_begun - 1, 0)

    def reset(self, **options: Any) -> Any:
        self.num_begun += 1
        return super().reset(**options)

    def step(self, action: Any) -> Any:
        if not self.is_wanted:
            raise _Abandoned
        return super().step(action)


class _Adaptation:
    """An adaptation in a thread, in an environment of its own."""

    def __init__(self, show: Show, player: Player, task: Any, seed: int):
        self.env = _Watched(show.make_env())
        self.env.get_wrapper_attr("set_task")(task)
        self._show, self._player, self._seed = show, player, seed
        self._adapted: Player | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> Player:
        """The adapted agent, or the error raised in place of one."""
        if self._error is not None:
            raise self._error
        assert self._adapted is not None
        return self._adapted

    def abandon(self) -> None:
        self.env.is_wanted = False

    def _run(self) -> None:
        try:
            self._adapted = self._player.adapt(self.env, self._show.episodes_per_adaptation, self._seed)
            self.env.is_finished = True
        except _Abandoned:
            pass
        except Exception as error:  # raised again by `result`, in the thread that shows it
            self._error = error
        finally:
            self.env.close()
