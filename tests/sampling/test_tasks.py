"""As many tasks as were asked for, or one sentence that names both numbers and the flags."""

import numpy as np
import pytest

from maml_rl.sampling.tasks import draw_tasks
from maml_rl.sampling.trajectory import SamplingError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "draw",
    [
        lambda n, rng: rng.uniform(-1.0, 1.0, n).tolist(),
        lambda n, rng: rng.uniform(-1.0, 1.0, n),
        lambda n, rng: tuple("abc"[:n]),
    ],
)
def test_any_sequence_of_the_right_length_is_taken(draw):
    tasks = draw_tasks(draw, "sample_tasks", 3, RNG)
    assert isinstance(tasks, list) and len(tasks) == 3


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda n, rng: [0.0] * 10, "returned 10"),
        (lambda n, rng: [0.0] * (n + 1), "returned 21"),
        (lambda n, rng: [], "returned 0"),
        (lambda n, rng: None, "returned NoneType in place of a list"),
        (lambda n, rng: 0.5, "returned float in place of a list"),
        (lambda n, rng: (0.0 for _ in range(n)), "returned generator in place of a list"),
        (lambda n, rng: rng.choice(10, n, replace=False), "raised ValueError: Cannot take a larger sample"),
        (lambda n: [0.0] * n, "raised TypeError: "),
    ],
)
def test_anything_else_is_refused(draw, words):
    with pytest.raises(SamplingError, match=f"^sample_test_tasks was asked for 20 tasks and {words}") as caught:
        draw_tasks(draw, "sample_test_tasks", 20, RNG)
    message = str(caught.value)
    assert "--num-tasks" in message and "--evaluation.num-tasks" in message and "\n" not in message
    notes = getattr(caught.value, "__notes__", [])
    assert [note.startswith("in sample_test_tasks(20, rng):\nTraceback") for note in notes] == [True] * (
        "raised" in words
    )
