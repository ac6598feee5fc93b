"""Ray loses workers and nodes; the sampler does not lose tasks. All but the slow tests share one cluster."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from players import assert_bit_equal
from troubled import UNREACHABLE

from maml_rl.sampling.ray import RayCrew
from maml_rl.sampling.trajectory import SamplingError
from maml_rl.sampling.work import WorkSampler

ROOT = Path(__file__).parents[2]
SECONDS = 100.0  # more than any task here needs


def sample(troubles, recipe, count, task_timeout=SECONDS):
    sampler = WorkSampler(RayCrew(recipe, None, None, task_timeout), recipe)
    try:
        return sampler.sample(troubles.tasks(count), troubles.actor(count), troubles.key)
    finally:
        sampler.close()


@pytest.mark.usefixtures("cluster")
def test_a_worker_killed_at_work_loses_no_task(troubles, caplog):
    found = sample(troubles, troubles.recipe("killed", (0.0, 2.0, 3.0)), 5)
    assert_bit_equal(found, troubles.played_here(5))
    lost = [record.message for record in caplog.records if record.name.startswith("maml_rl")]
    assert sorted(lost) == [
        f"task {i} is played again: its worker or node was lost (WorkerCrashedError)" for i in (0, 2, 3)
    ]


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_hangs_is_left_behind_at_its_deadline(troubles, caplog):
    found = sample(troubles, troubles.recipe("hung", (1.0,)), 3, task_timeout=10.0)
    assert_bit_equal(found, troubles.played_here(3))
    assert "task 1 is played again: it was not done within 10 s" in [record.message for record in caplog.records]


@pytest.mark.usefixtures("cluster")
def test_an_error_of_the_environment_is_not_tried_again(troubles, caplog):
    with pytest.raises(SamplingError, match=r"task 2 \(Place\(x=2.0\)\).*KeyError: 'the leg fell off'") as caught:
        sample(troubles, troubles.recipe("fails", (2.0,)), 4)
    assert "in _get_into_trouble" in "".join(caught.value.__notes__)
    assert not [record for record in caplog.records if record.name.startswith("maml_rl")]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("make_env", "message"), UNREACHABLE)
def test_an_environment_that_reaches_no_worker_is_refused_at_once(troubles, make_env, message):
    with pytest.raises(ValueError, match=message):
        RayCrew(troubles.with_env(make_env), None, None, SECONDS)


def test_without_ray_one_is_told_how_to_get_it(troubles, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"needs the package ray, .*: pip install 'maml_rl\[ray\]'"):
        RayCrew(troubles.recipe(), None, None, SECONDS)


PROGRAM = """
import logging, sys, threading, time
sys.path.insert(0, {tests!r})
from pathlib import Path
import torch
from troubled import MakeTroubled
from push import Place
from players import assert_bit_equal, gaussian, recipe_for
from maml_rl.core.contracts import Actor
from maml_rl.core.lift import Threads
from maml_rl.core.keys import TRAINING, Key
from maml_rl.core.trees import stack
from maml_rl.sampling.local import LocalSampler
from maml_rl.sampling.ray import RayCrew
from maml_rl.sampling.work import WorkSampler

policy = gaussian(3, 1)
params = policy.init(torch.Generator().manual_seed(0))

def played_by(sampler, count):
    return sampler.sample([Place(float(i)) for i in range(count)], Actor(policy, stack(params, count)), KEY)

def sample(crew, count):
    return played_by(WorkSampler(crew, recipe), count)

KEY = Key(0, TRAINING, 0)
{body}
"""


def run(body, folder, **environment):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(tests=str(ROOT / "tests"), body=body)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_an_address_at_which_nobody_answers_is_refused_at_once(troubles):
    with socket.socket() as taken:  # and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        body = f"RayCrew(recipe_for(MakeTroubled('', '.'), policy, 2, 10), {address!r}, None, 9.0)"
        done = run(body, troubles.folder)
    assert done.returncode == 1
    assert (
        f"ValueError: ray_address must be that of a running Ray cluster, but {address} gives no answer" in done.stderr
    )


@pytest.mark.usefixtures("cluster")
def test_nothing_is_asked_of_a_ray_that_has_ended(troubles, monkeypatch):
    recipe = troubles.recipe()
    crew = RayCrew(recipe, None, None, SECONDS)
    try:
        monkeypatch.setattr(crew, "_ended", lambda: "raylet")
        with pytest.raises(SamplingError, match="Ray's raylet on this machine has ended"):
            WorkSampler(crew, recipe).sample(troubles.tasks(2), troubles.actor(2), troubles.key)
    finally:
        monkeypatch.undo()
        crew.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_ray_that_is_killed_ends_sampling_with_a_sentence(name, troubles):
    body = f"""
import os, ray, threading
recipe = recipe_for(MakeTroubled('', '.'), policy, 2, 10)
crew = RayCrew(recipe, None, 2, 100.0)
(process,) = ray._private.worker._global_node.all_processes[{name!r}]
threading.Timer(1.0, lambda: os.kill(process.process.pid, 9)).start()
try:
    while True:
        sample(crew, 3)
finally:
    crew.close()
"""
    done = run(body, troubles.folder)
    assert done.returncode == 1 and f"SamplingError: Ray's {name} on this machine has ended" in done.stderr, done.stderr


@pytest.mark.slow
def test_a_ray_of_its_own_is_silent_and_ends_with_the_crew(troubles):
    body = """
recipe = recipe_for(MakeTroubled('', '.'), policy, 2, 10)
crew = RayCrew(recipe, None, 2, 100.0)
assert sample(crew, 3).mask.all()
crew.close()
import ray
assert not ray.is_initialized()
"""
    done = run(body, troubles.folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_ray_of_its_own_listens_on_the_loopback_interface_only(troubles):
    body = """
import os
recipe = recipe_for(MakeTroubled('', '.'), policy, 2, 10)
crew = RayCrew(recipe, None, 2, 100.0)
assert sample(crew, 3).mask.all()
family, sockets, parents = {str(os.getpid())}, set(), {}
for process in Path('/proc').glob('[0-9]*'):
    try:
        parents[process.name] = (process / 'stat').read_text().rpartition(')')[2].split()[1]
    except OSError:
        pass  # it has ended
while more := {child for child, parent in parents.items() if parent in family} - family:
    family |= more
for name in family:
    links = [os.readlink(link) for link in Path('/proc', name, 'fd').iterdir() if link.is_symlink()]
    sockets |= {link[8:-1] for link in links if link.startswith('socket:[')}
rows = [line.split() for table in ('tcp', 'tcp6') for line in Path('/proc/net', table).read_text().splitlines()[1:]]
listening = [row[1].rpartition(':')[0] for row in rows if row[3] == '0A' and row[9] in sockets]
print(len(family), *listening)
crew.close()
"""
    done = run(body, troubles.folder)
    assert done.returncode == 0, done.stderr
    num_processes, *listening = done.stdout.split()
    assert int(num_processes) >= 5  # this one, Ray's server of the cluster, its raylet and two workers
    # 127.0.0.1 as the kernel writes it, alone or as the last four bytes of an address of version 6
    assert len(listening) >= 5 and {address[-8:] for address in listening} == {"0100007F"}


@pytest.mark.slow
def test_a_node_that_is_lost_at_work_shows_in_no_bit(troubles):
    # Two nodes of two CPUs; the second dies while its tasks sleep in their third step.
    body = """
import ray
from ray.cluster_utils import Cluster
class Slow:
    def __call__(self, num_envs):
        env = MakeTroubled('', '.')(num_envs)
        step = env._step_rows
        env._step_rows = lambda actions, alive: (time.sleep(0.3), step(actions, alive))[1]
        return env
cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=2, include_dashboard=False))
node = cluster.add_node(num_cpus=2)
cluster.wait_for_nodes()
ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
recipe = recipe_for(Slow(), policy, 2, 10)
crew = RayCrew(recipe, None, None, 100.0)
sample(crew, 8)  # all four workers have started
threading.Timer(4.0, lambda: cluster.remove_node(node, allow_graceful=False)).start()
found = sample(crew, 16)
wanted = played_by(LocalSampler(recipe_for(MakeTroubled('', '.'), policy, 2, 10), Threads(1)), 16)
assert len([n for n in ray.nodes() if n['Alive']]) == 1
assert_bit_equal(found, wanted)
ray.shutdown()
cluster.shutdown()
print("equal")
"""
    done = run(body, troubles.folder)
    assert done.returncode == 0 and "equal" in done.stdout, done.stderr
    assert "is played again: its worker or node was lost" in done.stderr
