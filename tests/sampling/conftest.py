"""What the tests of samplers share: a recipe of trouble, and an end to waiting."""

import logging
import os
import signal

import pytest
from players import gaussian, own_params, recipe_for
from push import Place
from troubled import MakeTroubled

from maml_rl.core.contracts import Actor
from maml_rl.core.keys import TRAINING, Key
from maml_rl.core.lift import Threads
from maml_rl.sampling.local import LocalSampler

KEY = Key(6, TRAINING, 4, 1)
POLICY = gaussian(3, 1)
NUM_EPISODES, HORIZON = 2, 10
SECONDS = 400  # for one test on a busy machine

os.environ["RAY_USAGE_STATS_ENABLED"] = os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"


@pytest.fixture(autouse=True)
def limit():
    """No test of other processes may wait for them for ever."""

    def stop(signum, frame):
        raise TimeoutError(f"a test lasted longer than {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture(scope="session")
def cluster():
    """A Ray of two CPUs, which all tests share: crews find it and leave it."""
    ray = pytest.importorskip("ray")
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(address="local", num_cpus=2, object_store_memory=200_000_000, **quiet)
    yield ray
    ray.shutdown()


class Troubles:
    """Recipes for a crew, tasks for it, and what it should make of them."""

    key = KEY

    def __init__(self, folder):
        self.folder = folder

    def recipe(self, trouble="", places=()):
        return self.with_env(MakeTroubled(trouble, self.folder, places))

    def with_env(self, make_env):
        return recipe_for(make_env, POLICY, NUM_EPISODES, HORIZON)

    @staticmethod
    def tasks(count):
        return [Place(float(i)) for i in range(count)]

    @staticmethod
    def actor(count):
        """Other parameters for every task."""
        return Actor(POLICY, own_params(POLICY, count))

    def played_here(self, count):
        """What a sampler without workers makes of the tasks."""
        return LocalSampler(self.recipe(), Threads(1)).sample(self.tasks(count), self.actor(count), self.key)


@pytest.fixture
def troubles(tmp_path):
    return Troubles(tmp_path)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """Recipes without trouble, for what several tests share."""
    return Troubles(tmp_path_factory.mktemp("calm"))
