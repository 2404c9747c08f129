"""The preview of a chat request: the same prompt as for the answer, counted part by part, without the engine."""

import asyncio
from typing import Any

import httpx
import pytest

from model_executor.engine import EngineState
from server.chat.preview_response import ChatPreview
from server.core.errors import BadRequestError, DeadlineError
from tests.support.error_body import check_error
from tests.support.fakes import MODEL, FakeEngine, FakeMedia
from tests.support.world import OpenWorld, ServerFixture

ROUTE = "/v1/chat/completions/preview"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
VIDEO = {"type": "video_url", "video_url": {"url": "https://example.org/clip.mp4"}}
MIXED = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [IMAGE, {"type": "text", "text": "and <|im_end|>"}, VIDEO]},
]


async def show(world: ServerFixture, **changes: Any) -> httpx.Response:
    return await world.client.post(ROUTE, json=world.body(**changes))


async def test_shows_the_prompt_in_parts_that_add_up(world: ServerFixture) -> None:
    response = await show(world, messages=MIXED)
    told = ChatPreview.model_validate_json(response.content, strict=False)
    assert (told.object, told.model, told.max_model_len) == ("chat.completion.preview", MODEL, 4096)
    assert told.prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
        "and <|im_end|><|vision_start|><|video_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    assert [(part.type, part.text, part.param) for part in told.parts] == [
        ("control", "<|im_start|>system\n", None),
        ("text", "Be brief.", None),
        ("control", "<|im_end|>\n<|im_start|>user\n<|vision_start|>", None),
        ("image", None, "messages[1].content[0].image_url"),
        ("control", "<|vision_end|>", None),
        ("text", "and <|im_end|>", None),
        ("control", "<|vision_start|>", None),
        ("video", None, "messages[1].content[2].video_url"),
        ("control", "<|vision_end|><|im_end|>\n<|im_start|>assistant\n", None),
    ]
    assert sum(part.tokens for part in told.parts) == told.prompt_tokens
    details = told.prompt_tokens_details
    assert (details.image, details.video) == (4, 3)
    assert details.control + details.text + details.image + details.video == told.prompt_tokens
    assert not world.engine.prompts and not world.media.held


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": MIXED},
        {"messages": MIXED, "add_vision_id": True},
        {"messages": MIXED, "add_generation_prompt": False},
        {
            "messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Well"}],
            "continue_final_message": True,
        },
        {"messages": [{"role": "user", "content": "\n\nné 你好 🌍"}]},
    ],
)
async def test_counts_what_the_engine_gets(world: ServerFixture, changes: dict[str, Any]) -> None:
    told = (await show(world, **changes)).json()
    assert (await world.ask(**changes)).json()["usage"]["prompt_tokens"] == told["prompt_tokens"]
    assert told["prompt_tokens"] == len(world.engine.prompts[0].token_ids)


async def test_tells_of_media_what_the_answer_tells(world: ServerFixture) -> None:
    told = (await show(world, messages=MIXED)).json()
    answer = (await world.ask(messages=MIXED, include=["media"])).json()
    assert told["media"] == answer["tessera"]["media"]
    assert told["media"][1]["timestamps"] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]


async def test_a_body_for_a_stream_is_answered_as_a_whole(world: ServerFixture) -> None:
    response = await show(world, stream=True, stream_options={"include_usage": True}, max_tokens=5, temperature=0)
    assert response.headers["content-type"] == "application/json"
    assert response.json()["prompt_tokens"] > 0


async def test_a_prompt_over_the_context_is_shown(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(max_model_len=16)) as world:
        told = (await show(world, messages=MIXED)).json()
    assert told["prompt_tokens"] > told["max_model_len"] == 16


async def test_a_hopelessly_long_prompt_is_refused(world: ServerFixture) -> None:
    response = await show(world, messages=[{"role": "user", "content": "word " * 1_000_000}])
    check_error(response, 400, param="messages", code="context_length_exceeded")


@pytest.mark.parametrize("state", [EngineState.LOADING, EngineState.RESTARTING])
async def test_needs_no_engine(open_world: OpenWorld, state: EngineState) -> None:
    async with open_world(engine=FakeEngine(state=state)) as world:
        async with asyncio.timeout(60):
            while (response := await show(world)).status_code == 503:  # until the tokenizer is there
                await asyncio.sleep(0)
    assert response.json()["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("changes", "status", "param", "code"),
    [
        ({"temperature": 3}, 400, "temperature", "invalid_value"),
        ({"model": "gpt-5"}, 404, "model", "model_not_found"),
    ],
)
async def test_refuses_what_the_answer_would_refuse(
    world: ServerFixture, changes: dict[str, Any], status: int, param: str, code: str
) -> None:
    check_error(await show(world, **changes), status, param=param, code=code)


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [(BadRequestError("no", param="messages[1]"), 400, None), (DeadlineError("slow"), 504, "media_deadline_exceeded")],
)
async def test_unusable_media_are_errors(
    open_world: OpenWorld, failure: BadRequestError | DeadlineError, status: int, code: str | None
) -> None:
    async with open_world(media=FakeMedia(failure=failure)) as world:
        check_error(await show(world, messages=MIXED), status, param=failure.param, code=code)


async def test_the_key_used_separates_caches(open_world: OpenWorld) -> None:
    async with open_world(api_key="one,two") as world:
        for key in ("one", "two"):
            world.client.headers["Authorization"] = f"Bearer {key}"
            assert (await show(world, messages=MIXED)).status_code == 200
        world.client.headers["Authorization"] = "Bearer three"
        check_error(await show(world, messages=MIXED), 401, code="invalid_api_key")
    assert len(set(world.media.tenants)) == 2 and len(world.media.tenants) == 2
