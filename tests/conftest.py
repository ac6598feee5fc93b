"""What all tests share."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import maml_rl  # noqa: F401 - chooses how MuJoCo draws, before anything imports it
from maml_rl.training.interrupts import ENDING

sys.path.insert(0, str(Path(__file__).parent))
import push  # noqa: F401 - registers test/Push-v0 and test/Reach-v0

# A shell that starts the tests in the background has them ignore Ctrl-C, and every process they start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # as every run does; products of tests are too small to be shared out

DATA = Path(os.environ.get("MAML_RL_DATA") or Path(__file__).parents[2] / "shared" / "data")
"""The folder that holds omniglot/, if it is on this machine."""


collect_ignore = ["commands/test_streams.py"] if sys.platform == "win32" else []  # it opens terminals


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if sys.platform == "win32" and item.get_closest_marker("posix"):
            item.add_marker(pytest.mark.skip(reason="Windows neither forks nor sends signals"))


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A test leaves the process's signal handlers as they were: one that ends the process would end all later tests."""
    before = [signal.getsignal(signum) for signum in ENDING]
    yield
    after = [signal.getsignal(signum) for signum in ENDING]
    for signum, handler in zip(ENDING, before, strict=True):
        signal.signal(signum, handler)
    changed = [(old, new) for old, new in zip(before, after, strict=True) if new != old and not _is_ray_s(new)]
    assert not changed, f"signal handlers are left changed: {changed}"


def _is_ray_s(handler: object) -> bool:
    """Whether Ray has set a handler, which it does in every process that it is first used in."""
    return str(getattr(handler, "__module__", "")).startswith("ray.")


@pytest.fixture(scope="session")
def pictures_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def own_cache(pictures_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Decoded pictures are kept where only these tests see them; no data but their own are found."""
    monkeypatch.setenv("MAML_RL_CACHE", str(pictures_cache))
    monkeypatch.delenv("MAML_RL_DATA", raising=False)
    return pictures_cache


@pytest.fixture
def real_data(own_cache: Path) -> str:
    """The data root with the real Omniglot."""
    if not (DATA / "omniglot").is_dir():
        pytest.skip(f"no Omniglot in {DATA}: name the folder that holds omniglot/ by MAML_RL_DATA")
    return str(DATA)
