"""A live server over fakes, an official client of it, and the command line as people type it."""

import asyncio
import contextlib
import io
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from unittest.mock import patch

import openai
import pytest
from PIL import Image

from server.__main__ import main
from tests.support.images import encoded
from tests.support.programs import Done, install_javascript
from tests.support.world import OpenWorld, ServerFixture


@pytest.fixture
async def live(open_world: OpenWorld) -> AsyncIterator[ServerFixture]:
    """A real socket over the fakes."""
    async with open_world(live=True) as world:
        yield world


@pytest.fixture
def sdk(live: ServerFixture) -> Iterator[openai.OpenAI]:
    """The official client, which blocks: call it in a thread."""
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="unused", max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
def photo_path(tmp_path: Path) -> Path:
    """A small picture as a file."""
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(Image.new("RGB", (40, 30), "teal")))
    return path


@pytest.fixture(scope="session")
def javascript(tmp_path_factory: pytest.TempPathFactory, outer_environment: dict[str, str]) -> Path:
    """Programs in JavaScript with their packages, in a folder of their own."""
    return install_javascript(tmp_path_factory.mktemp("examples"), outer_environment)


async def tessera(*arguments: str, stdin: bytes = b"", **variables: str) -> Done:
    """Run the command `tessera` with streams of its own, in a thread: a process of its own would take a second each."""
    return await asyncio.wait_for(asyncio.to_thread(_run, arguments, stdin, variables), 120)


def _run(arguments: tuple[str, ...], stdin: bytes, variables: Mapping[str, str]) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, {"COLUMNS": "200", **variables}),
        patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Done(code, out.getvalue(), err.getvalue())
