"""Workers come and go as they should: replaced when they die, gone when they are not needed, silent otherwise."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from players import assert_bit_equal, gaussian
from troubled import UNREACHABLE

from maml_rl.core.contracts import Actor
from maml_rl.core.lift import Threads
from maml_rl.sampling.local import LocalSampler
from maml_rl.sampling.processes import ProcessCrew
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.sampling.work import MAX_ATTEMPTS, WorkSampler

pytestmark = pytest.mark.posix

ROOT = Path(__file__).parents[2]
SECONDS = 100.0  # more than any task here needs


def is_running(pid):
    """Whether there is such a process, and it is more than the record of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


class Sampling:
    """A sampler of the recipe on two workers, with its crew; to be used in a `with` block."""

    def __init__(self, recipe, num_workers=2, task_timeout=SECONDS):
        self.crew = ProcessCrew(recipe, num_workers, task_timeout)
        self.sampler = WorkSampler(self.crew, recipe)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.sampler.close()

    def sample(self, troubles, count):
        return self.sampler.sample(troubles.tasks(count), troubles.actor(count), troubles.key)


def test_a_worker_killed_at_work_is_replaced_and_its_task_played_again(troubles, caplog):
    with Sampling(troubles.recipe("killed", (0.0, 2.0, 3.0))) as sampling:
        before = set(sampling.crew.pids)
        assert_bit_equal(sampling.sample(troubles, 5), troubles.played_here(5))
        assert len(sampling.crew.pids) == 2 and not before & set(sampling.crew.pids)
    assert len(list(troubles.folder.iterdir())) == 3
    said = [record.message for record in caplog.records]
    assert sorted(said) == [f"task {i} is played again: its worker was killed by SIGKILL" for i in (0, 2, 3)]


@pytest.mark.slow
def test_twenty_kills_show_in_no_bit(troubles):
    with Sampling(troubles.recipe("killed", tuple(map(float, range(20))))) as sampling:
        assert_bit_equal(sampling.sample(troubles, 30), troubles.played_here(30))
    assert len(list(troubles.folder.iterdir())) == 20


def test_a_worker_that_died_idle_is_replaced(troubles):
    with Sampling(troubles.recipe()) as sampling:
        for pid in sampling.crew.pids:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: not is_running(pid))
        assert_bit_equal(sampling.sample(troubles, 3), troubles.played_here(3))


def test_a_worker_that_hangs_is_killed_and_its_task_played_again(troubles, caplog):
    with Sampling(troubles.recipe("hung", (1.0,)), task_timeout=3.0) as sampling:
        assert_bit_equal(sampling.sample(troubles, 3), troubles.played_here(3))
    assert [r.message for r in caplog.records] == [
        "task 1 is played again: its worker did not answer within 3 s and was killed"
    ]


def test_a_worker_that_reads_only_half_a_message_is_killed(troubles):
    # Megabytes do not fit between two processes: the parent waits for the other end, and only its clock ends that.
    policy = gaussian(3, 1, (1000, 1000))
    recipe = troubles.recipe()
    params = {name: p.unsqueeze(0) for name, p in policy.init(torch.Generator()).items()}
    with Sampling(recipe, num_workers=1, task_timeout=3.0) as sampling:
        stopped = sampling.crew.pids
        os.kill(stopped[0], signal.SIGSTOP)
        assert sampling.sampler.sample(troubles.tasks(1), Actor(policy, params), troubles.key).mask.all()
        assert sampling.crew.pids != stopped


def test_a_task_that_kills_every_worker_is_given_up(troubles):
    with Sampling(troubles.recipe("always killed", (1.0,))) as sampling:
        wanted = rf"task 1 \(Place\(x=1.0\)\) under Key\(seed=6, .*given up after {MAX_ATTEMPTS} attempts.*SIGKILL"
        with pytest.raises(SamplingError, match=wanted):
            sampling.sample(troubles, 3)


@pytest.mark.parametrize(("trouble", "message"), [("fails", "KeyError: 'the leg fell off'"), ("exits", "SystemExit")])
def test_an_error_of_the_environment_comes_back_whole_and_is_not_tried_again(troubles, trouble, message, caplog):
    with Sampling(troubles.recipe(trouble, (2.0,))) as sampling:
        with pytest.raises(SamplingError, match=message) as caught:
            sampling.sample(troubles, 4)
        assert caught.value.task == 2 and "Place(x=2.0)" in str(caught.value)
        note = "".join(caught.value.__notes__)
        assert "in _get_into_trouble" in note and "Key(seed=6, stream=0, iteration=4, phase=1)" in note
        assert not caplog.records
        # and the sampler goes on with other tasks
        assert_bit_equal(sampling.sample(troubles, 2), troubles.played_here(2))


@pytest.fixture(scope="module")
def untroubled(calm):
    with Sampling(calm.recipe(), num_workers=1) as sampling:
        yield sampling


def test_numbers_that_are_not_finite_are_told_as_by_the_local_sampler(calm, untroubled):
    actor, messages = calm.actor(2), []
    actor.params["log_std"][1] = float("nan")
    local = LocalSampler(calm.recipe(), Threads(1))
    for sampler in (local, untroubled.sampler):
        with pytest.raises(SamplingError) as caught:
            sampler.sample(calm.tasks(2), actor, calm.key)
        messages.append((str(caught.value), caught.value.task, caught.value.episode))
    assert messages[0] == messages[1]


def test_the_workers_time_is_added_up(calm, untroubled):
    begun = time.perf_counter()
    untroubled.sample(calm, 4)
    assert 0 < untroubled.sampler.worker_seconds < time.perf_counter() - begun


def test_closing_leaves_no_process(troubles):
    sampling = Sampling(troubles.recipe())
    pids = sampling.crew.pids
    assert len(pids) == 2 and all(map(is_running, pids))
    sampling.crew.close()
    sampling.crew.close()
    assert not any(map(is_running, pids))


def test_an_exception_in_the_parent_ends_the_work_under_way(troubles):
    # A signal's exception, as Ctrl-C is one, while both workers are busy for ever.
    with Sampling(troubles.recipe("slow", (0.0, 1.0))) as sampling:
        pids = sampling.crew.pids
        threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            sampling.sample(troubles, 2)
        assert not any(map(is_running, pids))


@pytest.mark.parametrize(("make_env", "message"), UNREACHABLE)
def test_an_environment_that_reaches_no_worker_is_refused_at_once(troubles, make_env, message):
    with pytest.raises(ValueError, match=message):
        ProcessCrew(troubles.with_env(make_env), 1, SECONDS)


def test_a_task_that_cannot_be_pickled_is_named(calm, untroubled):
    with pytest.raises(SamplingError, match="task 0 must be picklable to reach a worker, but lock is not"):
        untroubled.sampler.sample([threading.Lock()], calm.actor(1), calm.key)


# --- as programs ---------------------------------------------------------------------------------------------------

PROGRAM = """
import os, sys
sys.path.insert(0, {tests!r})
import torch
from push import PushVectorEnv, Place
from players import gaussian, recipe_for
from maml_rl.core.contracts import Actor
from maml_rl.core.keys import TRAINING, Key
from maml_rl.core.trees import stack
from maml_rl.sampling.processes import ProcessCrew
from maml_rl.sampling.work import WorkSampler

class Mine(PushVectorEnv):
    def _step_rows(self, actions, alive):
        {in_step}
        return super()._step_rows(actions, alive)

def main():
    policy = gaussian(3, 1)
    recipe = recipe_for(Mine, policy, 2, 10)
    crew = ProcessCrew(recipe, 2, 100.0)
    print(*crew.pids, flush=True)
    actor = Actor(policy, stack(policy.init(torch.Generator().manual_seed(0)), 3))
    out = WorkSampler(crew, recipe).sample([Place(1.0)] * 3, actor, Key(0, TRAINING, 0))
    print(out.rewards.sum().item(), flush=True)

main()
"""


def program(in_step="pass"):
    return PROGRAM.format(tests=str(ROOT / "tests"), in_step=in_step)


def start(arguments, **settings):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **settings,
    )


@pytest.mark.parametrize("way", ["script", "module", "stdin"])
def test_a_program_of_any_kind_may_start_workers_and_need_not_close_them(tmp_path, way):
    # The environment is the main program's own class, nothing asks for __main__, and nobody calls close.
    source = program()
    (tmp_path / "mine.py").write_text(source)
    arguments = {"script": ["mine.py"], "module": ["-m", "mine"], "stdin": ["-"]}[way]
    process = start(arguments, cwd=tmp_path)
    out, err = process.communicate(source if way == "stdin" else None, timeout=120)
    assert process.returncode == 0 and err == "", err
    pids, total = out.splitlines()
    assert float(total) < 0
    assert not any(map(is_running, pids.split()))


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    process = start(["-c", program(in_step="__import__('time').sleep(1000)")], cwd=tmp_path)
    pids = process.stdout.readline().split()
    assert len(pids) == 2 and all(map(is_running, pids))
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: not any(map(is_running, pids)))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a stopped worker ends when it is continued")
def test_a_stopped_worker_does_not_outlive_a_killed_parent(tmp_path):
    process = start(["-c", program(in_step="__import__('time').sleep(1000)")], cwd=tmp_path)
    pids = process.stdout.readline().split()
    try:
        assert len(pids) == 2 and all(map(is_running, pids))
        for pid in map(int, pids):
            os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait(timeout=60)
        wait_until(lambda: not any(map(is_running, pids)), seconds=10)
    finally:
        for pid in filter(is_running, pids):
            os.kill(int(pid), signal.SIGKILL)
        process.communicate(timeout=60)


CTRL_C_SOON = """
import os, signal, threading
signal.signal(signal.SIGINT, lambda *_: None)  # the parent answers it by going on
threading.Timer(0.3, os.killpg, [0, signal.SIGINT]).start()
"""


def test_ctrl_c_does_not_reach_workers_that_are_starting(tmp_path):
    # The first one was open to it while it imported: multiprocessing starts another process with it.
    source = program().replace("\nmain()", f"\n{CTRL_C_SOON}\nmain()")
    process = start(["-c", source], cwd=tmp_path, start_new_session=True)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and err == "", err
    assert len(out.splitlines()) == 2


def test_workers_outlive_the_thread_that_started_them(troubles):
    with ThreadPoolExecutor(1) as pool:
        sampling = pool.submit(Sampling, troubles.recipe()).result()
    with sampling:
        pids = sampling.crew.pids
        assert_bit_equal(sampling.sample(troubles, 3), troubles.played_here(3))
        assert sampling.crew.pids == pids


def test_ctrl_c_is_the_parent_s_to_answer(tmp_path):
    # Ctrl-C in a terminal reaches the parent and its workers alike, here while these sleep in a step.
    process = start(["-c", program(in_step="__import__('time').sleep(1000)")], cwd=tmp_path, start_new_session=True)
    pids = process.stdout.readline().split()
    assert len(pids) == 2 and all(map(is_running, pids))
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert err.count("Traceback") == 1 and err.rstrip().endswith("KeyboardInterrupt"), err
    assert not any(map(is_running, pids))
