import subprocess
import sys
import threading
import time
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from maml_rl.core.lift import Threads, available_cores, lift, takes_stacked
from maml_rl.runtime import product_threads


class Data(NamedTuple):
    values: Tensor
    weights: Tensor


def weighted_sum(params: dict[str, Tensor], data: Data) -> Tensor:
    return (params["scale"] * data.values * data.weights).sum()


@pytest.mark.parametrize("num_tasks", [1, 2, 5])
def test_lifted_equals_a_loop(num_tasks):
    generator = torch.Generator().manual_seed(0)
    values, weights = torch.randn(2, num_tasks, 4, generator=generator, dtype=torch.float64)
    scale = torch.randn(num_tasks, generator=generator, dtype=torch.float64)
    loop = [weighted_sum({"scale": scale[i]}, Data(values[i], weights[i])) for i in range(num_tasks)]
    lifted = lift(weighted_sum)({"scale": scale}, Data(values, weights))
    torch.testing.assert_close(lifted, torch.stack(loop), rtol=1e-14, atol=0)


@pytest.mark.parametrize("limit", [1, 7, 8, 20, 10_000])
@pytest.mark.parametrize("num_tasks", [1, 2, 5])
def test_chunks_cover_the_tasks_in_order(limit, num_tasks):
    data = Data(torch.zeros(num_tasks, 3), torch.zeros(num_tasks, 4))  # 7 numbers a task
    threads = Threads(1, chunk_elements=limit)
    chunks = threads.chunks(data)
    assert threads.over_chunks(lambda start, stop: (start, stop), data) == chunks
    assert [task for start, stop in chunks for task in range(start, stop)] == list(range(num_tasks))
    sizes = [stop - start for start, stop in chunks]
    assert all(7 * size <= limit or size == 1 for size in sizes) and max(sizes) - min(sizes) <= 1
    most = max(1, limit // 7)
    assert len(chunks) == -(-num_tasks // most)  # no more than are needed


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_results_come_in_the_order_of_the_pieces(num_threads):
    threads = Threads(num_threads)
    assert threads.map(lambda a, b: (a, b), range(20), range(20, 40)) == [(i, i + 20) for i in range(20)]
    threads.close()


@pytest.mark.parametrize("count", [1, 3])
def test_every_thread_shares_products_as_the_process_does(count):
    # Two pieces that wait for one another run on two threads.
    with product_threads(count):
        threads, barrier = Threads(2), threading.Barrier(2, timeout=10)

        def one_piece(_):
            barrier.wait()
            return threading.get_ident(), torch.get_num_threads()

        pieces = threads.map(one_piece, range(2))
        threads.close()
    assert len({thread for thread, _ in pieces}) == 2
    assert [shared for _, shared in pieces] == [count, count]


def test_an_error_in_a_piece_is_not_lost():
    def fail(piece):
        raise ArithmeticError(f"piece {piece}")

    for num_threads, failed in ((1, "piece 0"), (2, "piece")):  # of two threads, either may be the first to fail
        threads = Threads(num_threads)
        with pytest.raises(ArithmeticError, match=failed):
            threads.map(fail, range(3))
        threads.close()


def test_an_error_spares_the_pieces_that_have_not_begun():
    done = []

    def piece(number):
        if number == 0:
            raise ArithmeticError
        time.sleep(0.01)
        done.append(number)

    threads = Threads(2)
    with pytest.raises(ArithmeticError):
        threads.map(piece, range(100))
    assert len(done) < 50
    assert threads.map(str, range(3)) == ["0", "1", "2"]
    threads.close()


INTERRUPTED = """
import sys
from maml_rl.core.lift import Threads

class Signal(Exception):
    pass

def interrupted_at(event):
    count = 0
    def profile(frame, kind, argument):
        nonlocal count
        count += 1
        if count == event:
            sys.setprofile(None)
            raise Signal
    threads = Threads(2)
    try:
        sys.setprofile(profile)
        threads.map(abs, range(4))
        sys.setprofile(None)
    except Signal:
        return True
    finally:
        threads.close()
    return False

event = 1
while interrupted_at(event):
    event += 1
print(event)
"""


def test_a_signal_at_any_point_leaves_threads_that_can_be_closed():
    # A signal's exception comes when a function is entered or left, and so does a profiler's.
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], timeout=30, check=True, capture_output=True)
    assert int(done.stdout) > 10


def test_a_closed_pool_of_one_thread_still_works():
    threads = Threads(1)
    threads.close()
    assert threads.map(abs, [-1, -2]) == [1, 2]


def test_zero_threads_stands_for_one_per_core():
    threads = Threads(0)
    assert threads.num_threads == available_cores() >= 1
    threads.close()
    with pytest.raises(ValueError, match="num_threads must be at least 1, or 0 for one per core, got -1"):
        Threads(-1)


def test_a_function_that_takes_stacked_trees_is_called_with_them():
    @takes_stacked
    def total(tree):
        assert tree["a"].dim() == 2
        return tree["a"].sum(dim=-1)

    tree = {"a": torch.arange(6.0).view(3, 2)}
    assert torch.equal(lift(total)(tree), torch.tensor([1.0, 5.0, 9.0]))
    assert torch.equal(lift(lambda each: each["a"].sum())(tree), torch.tensor([1.0, 5.0, 9.0]))
