"""Which tests run, and in which process: a plugin of pytest, loaded by `tests/conftest.py`.

Plain `pytest` runs the quick tests, in as many processes as there are cores. Whoever names files, single tests or a
folder of slow ones gets all of them, in this process. `make test` runs all but `make chaos`: tests that share servers
or engines stay together in one process, and the longest of these start first.
"""

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from model_executor.cpu import num_cores

TESTS = Path(__file__).parents[1]
QUICK = re.search(r'-m "(.+?)"', Path(__file__).parents[2].joinpath("pyproject.toml").read_text())[1]  # type: ignore[index]
"""What plain `pytest` runs."""
TOGETHER = ("e2e", "engine", "browser")
"""Folders whose tests share what takes long to start, the longest first."""
MAX_WORKERS = 8
"""Each takes half a gigabyte and some seconds to start."""

if num_workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # Threads of torch that wait for each other by spinning, more than there are cores, take several times as long.
    os.environ |= {"OMP_NUM_THREADS": str(max(1, num_cores() // num_workers)), "OMP_WAIT_POLICY": "PASSIVE"}
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine is busy
settings.load_profile("tests")


def names_tests(config: pytest.Config) -> bool:
    """Whether all that was asked for is files, single tests, or within a folder of slow ones."""
    named = [Path(name.partition("::")[0]).absolute() for name in config.option.file_or_dir]
    return bool(named) and all(path.is_file() or _folder(path) in TOGETHER for path in named)


def pytest_configure(config: pytest.Config) -> None:
    """What is named is run, however long it takes."""
    if config.option.markexpr == QUICK and names_tests(config):
        config.option.markexpr = ""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """None for what is named, which is done before other processes have started, or must not be spread."""
    return 0 if names_tests(config) else min(num_cores(), MAX_WORKERS)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Importing what is not run takes longer than much of what is."""
    return True if config.option.markexpr == QUICK and _folder(collection_path) in TOGETHER else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that nothing waits for them in the end."""
    order = {folder: place for place, folder in enumerate(TOGETHER)}
    items.sort(key=lambda item: order.get(_folder(item.path), len(order)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Hands whole files to processes, and whole folders of tests that share something."""
    return _ByFileOrFolder(config, log)


class _ByFileOrFolder(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = file.split("/")[1]
        return folder if folder in TOGETHER else file


def _folder(path: Path) -> str:
    """The folder of `tests/` that a path lies in; empty outside."""
    return path.relative_to(TESTS).parts[:1][0] if path.is_relative_to(TESTS) and path != TESTS else ""
