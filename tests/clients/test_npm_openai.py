"""How the npm `openai` package takes errors and retries, against a live server over fakes."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from model_executor.engine import EngineBusyError, EngineState, EngineUnavailableError
from server.core.errors import BadRequestError
from tests.support.fakes import FakeEngine, hello
from tests.support.programs import run
from tests.support.world import OpenWorld, ServerFixture

pytestmark = pytest.mark.slow


async def told(world: ServerFixture, javascript: Path, *, retries: int = 0, **variables: str) -> dict[str, Any]:
    """What the program says it got."""
    done = await run("node", "errors.mjs", str(retries), url=world.url, folder=javascript, **variables)
    assert done.code == 0, done.err
    result: dict[str, Any] = json.loads(done.out)
    return result


@pytest.mark.parametrize(
    ("failure", "kind", "status"),
    [
        (BadRequestError("no"), "BadRequestError", 400),
        (EngineBusyError("64 wait"), "RateLimitError", 429),
        (RuntimeError("fault"), "InternalServerError", 500),
        (EngineUnavailableError("lost", EngineState.RESTARTING), "InternalServerError", 503),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
async def test_errors_of_an_answer_have_the_right_class(
    open_world: OpenWorld, javascript: Path, failure: Exception, kind: str, status: int
) -> None:
    async with open_world(live=True, engine=FakeEngine(script=lambda *_: [failure])) as world:
        error = await told(world, javascript)
    assert (error["kind"], error["status"]) == (kind, status) and error["requestID"]


async def test_a_wrong_key_and_an_unknown_model_have_their_classes(open_world: OpenWorld, javascript: Path) -> None:
    async with open_world(live=True, api_key="secret") as world:
        wrong = await told(world, javascript)
        unknown = await told(world, javascript, OPENAI_API_KEY="secret", MODEL="other")
    assert (wrong["kind"], wrong["code"]) == ("AuthenticationError", "invalid_api_key")
    assert (unknown["kind"], unknown["code"]) == ("NotFoundError", "model_not_found")


async def test_retries_wait_as_long_as_they_are_told(open_world: OpenWorld, javascript: Path) -> None:
    asked_s: list[float] = []

    def script(*request: Any) -> Any:
        asked_s.append(time.monotonic())
        return [EngineBusyError("64 wait")] if len(asked_s) < 3 else hello(*request)

    async with open_world(live=True, engine=FakeEngine(script=script)) as world:
        answer = await told(world, javascript, retries=2)
    assert answer == {"text": "Hello, world!"}
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(asked_s))
