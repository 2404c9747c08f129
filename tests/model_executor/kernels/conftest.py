"""Skips what needs a device or the compiled library; `REQUIRE_GPU=1` and `REQUIRE_KERNELS=1` make it fail instead."""

import os

import pytest
import torch

from model_executor.kernels import native


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        if os.environ.get("REQUIRE_GPU") == "1":
            pytest.fail("REQUIRE_GPU=1, and there is no CUDA device")
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def compiled() -> None:
    """The compiled library, loaded."""
    if not native.load():
        pytest.skip("the kernels are not compiled")
