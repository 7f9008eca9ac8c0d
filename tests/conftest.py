"""Fixtures shared by all tests."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

# Parallel workers share the cores; and the processes that tests start are limited to one thread,
# whose sums differ in their last digits from those of two.
torch.set_num_threads(1)

os.environ.pop("SSL_EBM_TRUST_CONFIG", None)  # files are a stranger's, except where a test says otherwise

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests may take longest come first, so that no worker waits for another at the end."""
    longest: dict[Path, float] = {}
    for item in items:
        mark = item.get_closest_marker("timeout")
        longest[item.path] = max(longest.get(item.path, 0), mark.args[0] if mark else 0)
    items.sort(key=lambda item: -longest[item.path])  # stable


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree (``configs/`` and ``scripts/`` are below it)."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real clips, images and texts beside the source tree; skips the test without it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data not found: no folder ../shared/data beside the repository")
    return folder


@pytest.fixture(scope="module")
def own_classes() -> Iterator[None]:
    """Configs name classes of the tests, as those of a user who trusts his own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_EBM_TRUST_CONFIG", "1")
        yield


@pytest.fixture
def seed() -> int:
    """Seeds the global generators (Python, NumPy, torch) and returns the seed."""
    value = 0
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
    return value


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint of one of `tiny_runs.RUNS`, trained once."""
    from tiny_runs import tiny_run  # most tests need none of it

    folder, made = tmp_path_factory.mktemp("runs"), {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = tiny_run(name, folder)
        return made[name]

    return of


@pytest.fixture
def generator(seed: int) -> torch.Generator:
    """A seeded CPU generator of its own."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Nothing is compiled before, and what is compiled is forgotten: torch counts for the whole process."""
    import torch._dynamo as dynamo  # most tests need none of it

    def forget() -> None:
        dynamo.reset()
        dynamo.utils.counters.clear()

    forget()
    with dynamo.config.patch(recompile_limit=dynamo.config.recompile_limit):
        yield
    forget()
