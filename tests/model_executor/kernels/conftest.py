"""Skips what needs the compiled library; `REQUIRE_KERNELS=1` makes it fail instead."""

import pytest

from model_executor.kernels import native


@pytest.fixture(scope="session")
def compiled() -> None:
    """The compiled library, loaded."""
    if not native.load():
        pytest.skip("the kernels are not compiled")
