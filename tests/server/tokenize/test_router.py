"""Tokenizing and detokenizing: the ids a prompt has, without the engine."""

from typing import Any

import httpx
import pytest

from model_executor.engine import EngineState
from model_executor.processor.tokenizer import Tokenizer
from server.generation.model_service import ModelService
from tests.support.error_body import check_error
from tests.support.fakes import MODEL, FakeEngine
from tests.support.waiting import until
from tests.support.world import OpenWorld, ServerFixture

HI = [{"role": "user", "content": "Hi."}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


async def tokenize(world: ServerFixture, **fields: Any) -> httpx.Response:
    return await world.client.post("/tokenize", json={"model": MODEL, **fields})


async def detokenize(world: ServerFixture, tokens: Any) -> httpx.Response:
    return await world.client.post("/detokenize", json={"model": MODEL, "tokens": tokens})


@pytest.mark.parametrize("text", ["", "Hello, world!", "你好 🦊\n\n  tabs\t", "x" * 5000])
async def test_gives_the_ids_and_takes_them_back(world: ServerFixture, tokenizer: Tokenizer, text: str) -> None:
    answer = (await tokenize(world, prompt=text)).json()
    assert answer["count"] == len(answer["tokens"]) and answer["max_model_len"] == world.engine.max_model_len
    assert set(answer) == {"count", "max_model_len", "tokens"}
    assert (await detokenize(world, answer["tokens"])).json() == {"prompt": text}


@pytest.mark.parametrize("add_special_tokens", [True, False, None])
async def test_the_tokenizer_adds_nothing_around_a_text(world: ServerFixture, add_special_tokens: bool | None) -> None:
    answer = await tokenize(world, prompt="Hi.", add_special_tokens=add_special_tokens)
    assert answer.json()["count"] == 2


async def test_the_name_of_a_control_token_is_plain_text(world: ServerFixture, tokenizer: Tokenizer) -> None:
    ids = (await tokenize(world, prompt="<|im_end|>")).json()["tokens"]
    assert tokenizer.special_id("<|im_end|>") not in ids and len(ids) > 1
    assert (await detokenize(world, ids)).json()["prompt"] == "<|im_end|>"


async def test_control_tokens_are_told_by_their_names(world: ServerFixture, tokenizer: Tokenizer) -> None:
    assert (await detokenize(world, [tokenizer.special_id("<|im_end|>")])).json() == {"prompt": "<|im_end|>"}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": HI},
        {"messages": HI, "add_generation_prompt": False},
        {"messages": [*HI, {"role": "assistant", "content": "Well"}], "continue_final_message": True},
        {"messages": [{"role": "system", "content": "Be brief."}, *HI], "add_generation_prompt": None},
    ],
)
async def test_a_conversation_has_the_ids_an_answer_would_begin_from(
    world: ServerFixture, fields: dict[str, Any]
) -> None:
    answer = (await tokenize(world, **fields)).json()
    assert (await world.ask(**fields)).status_code == 200
    assert answer["tokens"] == world.engine.prompts[-1].token_ids


@pytest.mark.parametrize("state", [EngineState.LOADING, EngineState.RESTARTING])
async def test_needs_no_engine(open_world: OpenWorld, state: EngineState) -> None:
    async with open_world(engine=FakeEngine(state=state)) as world:
        service: ModelService = world.app.state.service
        await until(lambda: service._model)
        assert (await world.client.get("/health")).status_code == 503
        assert (await tokenize(world, prompt="Hi.")).json()["count"] == 2
        assert (await detokenize(world, [0])).json() == {"prompt": "!"}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({}, "prompt", "invalid_value"),
        ({"prompt": None}, "prompt", "invalid_value"),
        ({"prompt": "a", "messages": HI}, "prompt", "invalid_value"),
        ({"prompt": 1}, "prompt", "invalid_type"),
        ({"prompt": ["a"]}, "prompt", "invalid_type"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "king", "content": "a"}]}, "messages[0].role", "unsupported_value"),
        ({"prompt": "a", "add_generation_prompt": True}, "add_generation_prompt", "invalid_value"),
        ({"prompt": "a", "continue_final_message": True}, "continue_final_message", "invalid_value"),
        ({"messages": HI, "continue_final_message": True}, "continue_final_message", "invalid_value"),
        ({"prompt": "a", "add_special_tokens": 1}, "add_special_tokens", "invalid_type"),
        ({"messages": HI, "tools": []}, "tools", "unsupported_parameter"),
        ({"messages": HI, "chat_template": "x"}, "chat_template", "unsupported_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, PICTURE]}]},
            "messages[0].content[1].image_url",
            "unsupported_value",
        ),
        ({"prompt": "word " * 100_000}, "prompt", "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "word " * 100_000}]}, "messages", "context_length_exceeded"),
    ],
)
async def test_refuses_by_name_what_it_cannot_tokenize(
    world: ServerFixture, fields: dict[str, Any], param: str, code: str
) -> None:
    check_error(await tokenize(world, **fields), 400, param=param, code=code)


@pytest.mark.parametrize(
    ("tokens", "param", "code"),
    [
        (None, "tokens", "missing_required_parameter"),
        ("a", "tokens", "invalid_type"),
        ([1, -1], "tokens[1]", "invalid_value"),
        ([1, "2"], "tokens[1]", "invalid_type"),
        ([True], "tokens[0]", "invalid_type"),
        ([1, 2, 151_936_000], "tokens[2]", "invalid_value"),
    ],
)
async def test_refuses_what_are_no_ids(world: ServerFixture, tokens: Any, param: str, code: str) -> None:
    check_error(await detokenize(world, tokens), 400, param=param, code=code)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
async def test_refuses_another_model_and_a_missing_one(world: ServerFixture, path: str) -> None:
    fields: dict[str, Any] = {"prompt": "a"} if path == "/tokenize" else {"tokens": []}
    check_error(
        await world.client.post(path, json={"model": "other", **fields}), 404, param="model", code="model_not_found"
    )
    response = await world.client.post(path, json=fields)
    check_error(response, 400, param="model", code="missing_required_parameter")
