"""Fields the server does not know: left out and reported, or refused where it is strict, at every level and route."""

import logging
import time
from typing import Any

import pytest

from server.api.ignored import header_value
from tests.support.error_body import check_error
from tests.support.fakes import MODEL
from tests.support.world import OpenWorld, ServerFixture

HI = {"role": "user", "content": "Hi."}
URL = "data:image/png;base64,AA=="
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {}}}


def chat(**changes: Any) -> dict[str, Any]:
    return {"messages": [HI], **changes}


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES = "/v1/messages"
UNKNOWN: list[tuple[str, dict[str, Any], list[str]]] = [
    (CHAT, chat(keep_alive="5m"), ["keep_alive"]),
    (CHAT, chat(mirostat=2, num_ctx=None), ["mirostat", "num_ctx"]),
    (CHAT + "/preview", chat(keep_alive="5m"), ["keep_alive"]),
    (CHAT, chat(stream=True, stream_options={"usage": True}), ["stream_options.usage"]),
    (CHAT, {"messages": [{**HI, "mood": 1}]}, ["messages[0].mood"]),
    (CHAT, {"messages": [HI, {**HI, "role": "assistant", "reasoning": None}, HI]}, ["messages[1].reasoning"]),
    (
        CHAT,
        {"messages": user({"type": "text", "text": "Hi.", "cache_control": {"type": "ephemeral"}})},
        ["messages[0].content[0].cache_control"],
    ),
    (
        CHAT,
        {"messages": user({"type": "image_url", "image_url": {"url": URL, "<url>": 1}, "uuid": "a", "fps": 2})},
        ["messages[0].content[0].image_url.<url>", "messages[0].content[0].uuid", "messages[0].content[0].fps"],
    ),
    (CHAT, {"messages": [{**HI, "<user>": {"content": 1}, "x": 2}]}, ["messages[0].<user>", "messages[0].x"]),
    (CHAT, chat(tools=[{**FUNCTION, "cache_control": {}}]), ["tools[0].cache_control"]),
    (COMPLETIONS, {"prompt": "Hi.", "messages": [], "n_keep": 4}, ["messages", "n_keep"]),
    (RESPONSES, {"input": "Hi.", "client_metadata": {"a": "b"}}, ["client_metadata"]),
    (
        RESPONSES,
        {"input": user({"type": "input_text", "text": "Hi.", "prompt_cache_breakpoint": {}})},
        ["input[0].content[0].prompt_cache_breakpoint"],
    ),
    (MESSAGES, chat(max_tokens=1, billing_policy={"a": 1}), ["billing_policy"]),
    (
        MESSAGES,
        {"max_tokens": 1, "messages": user({"type": "text", "text": "a", "b": 1})},
        ["messages[0].content[0].b"],
    ),
    (MESSAGES + "/count_tokens", chat(max_tokens=1), ["max_tokens"]),
    ("/tokenize", {"prompt": "a", "return_token_strs": True}, ["return_token_strs"]),
    ("/detokenize", {"tokens": [1], "x": 1}, ["x"]),
]


@pytest.mark.parametrize(("route", "body", "paths"), UNKNOWN)
async def test_unknown_fields_are_left_out_and_told(
    world: ServerFixture, caplog: pytest.LogCaptureFixture, route: str, body: dict[str, Any], paths: list[str]
) -> None:
    with caplog.at_level(logging.INFO, "tessera.access"):
        answer = await world.client.post(route, json={"model": MODEL, **body})
    assert answer.status_code == 200, answer.text
    told = answer.headers["x-tessera-ignored"]
    assert sorted(told.split(", ")) == sorted(path.replace("<", "?").replace(">", "?") for path in paths)
    (record,) = [record for record in caplog.records if record.name == "tessera.access"]
    assert record.__dict__["fields"]["ignored"] == told


@pytest.mark.parametrize(("route", "body"), [(CHAT, {"messages": [HI]}), (RESPONSES, {"input": "Hi."})])
async def test_options_that_the_template_does_not_read_are_told(
    world: ServerFixture, route: str, body: dict[str, Any]
) -> None:
    options = {"enable_thinking": False, "add_vision_id": True, "add_generation_prompt": False}
    answer = await world.client.post(route, json={"model": MODEL, **body, "chat_template_kwargs": options})
    assert answer.status_code == 200
    told = answer.headers["x-tessera-ignored"]
    assert told == "chat_template_kwargs.enable_thinking, chat_template_kwargs.add_generation_prompt"


@pytest.mark.parametrize(("route", "body", "paths"), UNKNOWN)
async def test_a_strict_server_refuses_them(
    open_world: OpenWorld, route: str, body: dict[str, Any], paths: list[str]
) -> None:
    async with open_world(strict_requests=True) as world:
        answer = await world.client.post(route, json={"model": MODEL, **body})
    assert answer.status_code == 400
    if route.startswith(MESSAGES):
        assert "is not a known parameter" in answer.json()["error"]["message"]
    else:
        assert answer.json()["error"]["code"] == "unknown_parameter"
    assert "x-tessera-ignored" not in answer.headers


async def test_what_is_left_out_changes_nothing(world: ServerFixture) -> None:
    plain = await world.ask()
    extended = await world.ask(messages=[{**HI, "mood": 1}], keep_alive=5)
    assert "x-tessera-ignored" not in plain.headers
    first, second = plain.json(), extended.json()
    assert {**first, "id": 0, "created": 0} == {**second, "id": 0, "created": 0}
    assert world.engine.prompts[0].token_ids == world.engine.prompts[1].token_ids


async def test_what_is_wrong_besides_is_refused_and_both_are_told(world: ServerFixture) -> None:
    answer = await world.ask(keep_alive=5, temperature=3)
    check_error(answer, 400, param="temperature", code="invalid_value")
    assert answer.headers["x-tessera-ignored"] == "keep_alive"
    answer = await world.ask(messages=[{**HI, "mood": 1}], top_logprobs=3)  # a fault of the whole, found last
    check_error(answer, 400, param="top_logprobs", code="invalid_value")


async def test_many_are_left_out_at_no_great_cost(world: ServerFixture) -> None:
    messages = [{**HI, "a" * 100_000: {"b": {"c": 1}}, **{f"k{number}": 1 for number in range(10)}}] * 300
    started_s = time.process_time()
    answer = await world.ask(messages=messages[:1], **{f"k{number}": {"x": [1]} for number in range(20_000)})
    assert answer.status_code == 200 and len(answer.headers["x-tessera-ignored"]) < 1100
    answer = await world.ask(messages=messages)
    assert len(answer.headers["x-tessera-ignored"]) < 1100
    assert time.process_time() - started_s < 5


def test_the_header_is_bounded_and_ascii() -> None:
    assert header_value(["a", "b[0].c"]) == "a, b[0].c"
    assert header_value(["a, b\r\nx: 1", "\u00e9"]) == "a??b??x:?1, ?"
    told = header_value([f"field{number}" for number in range(1000)])
    assert len(told) < 1100
    listed, _, rest = told.rpartition(", and ")
    assert rest == f"{1000 - len(listed.split(', '))} more"
