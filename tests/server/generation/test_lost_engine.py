"""An engine is lost while it answers, and another one is there: who has been sent nothing gets a whole answer."""

from collections.abc import Iterator

import pytest

from model_executor.engine import EngineState, EngineUnavailableError, Prompt, SamplingParams
from tests.support.fakes import FakeEngine, Script, Step, hello, say
from tests.support.world import OpenWorld

BODY = {"model": "tessera-test", "messages": [{"role": "user", "content": "Hi"}]}


def lost_after_two(times: int) -> Script:
    """The engine is lost in the middle of so many answers, and then no more."""
    losses = iter(range(times))

    def script(prompt: Prompt, limits: SamplingParams) -> Iterator[Step]:
        if next(losses, None) is None:
            yield from hello(prompt, limits)
        else:
            yield from say("Half an", " answer", "")[:2]
            yield EngineUnavailableError("the engine was lost while generating", EngineState.READY)

    return script


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_a_whole_answer_is_generated_again(open_world: OpenWorld, path: str) -> None:
    body = BODY if path.endswith("completions") else {"model": "tessera-test", "input": "Hi"}
    async with open_world(engine=FakeEngine(lost_after_two(1))) as world:
        response = await world.client.post(path, json=body)
        assert response.status_code == 200
        assert "Hello, world!" in response.text and "Half an" not in response.text


async def test_but_only_once(open_world: OpenWorld) -> None:
    engine = FakeEngine(lost_after_two(5))
    async with open_world(engine=engine) as world:
        assert (await world.client.post("/v1/chat/completions", json=BODY)).status_code == 503
        assert len(engine.prompts) == 2


async def test_and_not_while_no_engine_is_ready(open_world: OpenWorld) -> None:
    engine = FakeEngine(lost_after_two(1))

    def script(prompt: Prompt, limits: SamplingParams) -> Iterator[Step]:
        engine.state = EngineState.RESTARTING
        return iter(lost_after_two(1)(prompt, limits))

    engine.script = script
    async with open_world(engine=engine) as world:
        assert (await world.client.post("/v1/chat/completions", json=BODY)).status_code == 503
        assert len(engine.prompts) == 1


async def test_a_stream_that_has_begun_ends_with_the_error(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(lost_after_two(1))) as world:
        response = await world.client.post("/v1/chat/completions", json={**BODY, "stream": True})
        assert response.status_code == 200
        assert "Half an" in response.text and '"error"' in response.text and "Hello" not in response.text
