"""The Messages routes over fakes: what is taken, what it becomes, why an answer ends, and what is refused, by name."""

import json
from typing import Any

import httpx
import pytest

from model_executor.engine import Delta
from tests.support.fakes import MODEL, FakeEngine, say
from tests.support.world import OpenWorld, ServerFixture

URL = "data:image/png;base64,AA=="
HI = {"role": "user", "content": "Hi."}
TOOL = {"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
USE = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"a": "b"}}]}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "Rain."}


async def ask(world: ServerFixture, path: str = "/v1/messages", **changes: Any) -> httpx.Response:
    body = {"model": MODEL, "max_tokens": 16, "messages": [HI], **changes}
    return await world.client.post(path, json=body)


def rendered(world: ServerFixture, number: int = -1) -> str:
    tokenizer = world.app.state.service.model().tokenizer
    text: str = tokenizer.decode(world.engine.prompts[number].token_ids, skip_special_tokens=False)
    return text


def told(response: httpx.Response, status: int, kind: str) -> str:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"type", "error"} and body["type"] == "error"
    assert set(body["error"]) == {"type", "message"} and body["error"]["type"] == kind
    message: str = body["error"]["message"]
    return message


@pytest.mark.parametrize(
    ("asked", "chat"),
    [
        ({}, {"messages": [HI]}),
        ({"system": "Be brief."}, {"messages": [{"role": "system", "content": "Be brief."}, HI]}),
        (
            {"system": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
            {"messages": [{"role": "system", "content": "Be brief."}, HI]},
        ),
        (
            {"messages": [HI, {"role": "assistant", "content": "Ho"}]},
            {"messages": [HI, {"role": "assistant", "content": "Ho"}], "continue_final_message": True},
        ),
        (
            {"messages": [HI, {"role": "system", "content": "Now French."}, HI]},
            {"messages": [HI, {"role": "system", "content": "Now French."}, HI]},
        ),
        (
            {
                "messages": [
                    HI,
                    {
                        "role": "assistant",
                        "content": [
                            {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                            {"type": "redacted_thinking", "data": "x"},
                            {"type": "text", "text": "Ho.", "citations": None},
                        ],
                    },
                    HI,
                ]
            },
            {"messages": [HI, {"role": "assistant", "content": "Ho."}, HI]},
        ),
        (
            {"messages": [HI, USE, {"role": "user", "content": [RESULT]}], "tools": [TOOL]},
            {
                "messages": [
                    HI,
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}
                        ],
                    },
                    {"role": "tool", "tool_call_id": "t1", "content": "Rain."},
                ],
                "tools": [{"type": "function", "function": {"name": "f", "parameters": TOOL["input_schema"]}}],
            },
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "source": {"type": "url", "url": URL}},
                            {"type": "video", "source": {"type": "url", "url": "https://a.org/a.mp4"}, "fps": 1.0},
                        ],
                    }
                ]
            },
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": URL}},
                            {"type": "video_url", "video_url": {"url": "https://a.org/a.mp4"}, "fps": 1.0},
                        ],
                    }
                ]
            },
        ),
    ],
)
async def test_a_prompt_is_that_of_the_same_chat(
    world: ServerFixture, asked: dict[str, Any], chat: dict[str, Any]
) -> None:
    assert (await ask(world, **asked)).status_code == 200
    answer = await world.ask(**chat)
    assert answer.status_code == 200, answer.text
    assert world.engine.prompts[0] == world.engine.prompts[1]
    parts = world.media.parts
    assert [part.limits for part in parts[: len(parts) // 2]] == [part.limits for part in parts[len(parts) // 2 :]]


async def test_texts_of_documents_and_searches_are_read(world: ServerFixture) -> None:
    document = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "D"}}
    found = {"type": "search_result", "source": "S", "title": "W", "content": [{"type": "text", "text": "F"}]}
    assert (await ask(world, messages=[{"role": "user", "content": [document, found]}])).status_code == 200
    assert "T\nDW\nS\nF" in rendered(world)


@pytest.mark.parametrize(
    ("choice", "must_call", "names"),
    [
        (None, False, ["f", "g"]),
        ({"type": "auto"}, False, ["f", "g"]),
        ({"type": "any"}, True, ["f", "g"]),
        ({"type": "tool", "name": "g"}, True, ["g"]),
    ],
)
async def test_choices_of_functions(
    world: ServerFixture, choice: dict[str, Any] | None, must_call: bool, names: list[str]
) -> None:
    answer = await ask(world, tools=[TOOL, {**TOOL, "name": "g"}], tool_choice=choice)
    assert answer.status_code == 200
    grammar = world.engine.limits[0].grammar
    assert grammar is not None
    form = json.loads(grammar.value)["format"]
    assert (form["type"] == "tags_with_separator") == must_call
    assert [name for name in ("f", "g") if f'"name": "{name}"' in json.dumps([tag["begin"] for tag in form["tags"]])
            .replace('\\"', '"')] == names  # fmt: skip


async def test_no_choice_hides_the_functions(world: ServerFixture) -> None:
    assert (await ask(world, tools=[TOOL], tool_choice={"type": "none"})).status_code == 200
    assert world.engine.limits[0].grammar is None and "<tools>" not in rendered(world)


async def test_one_call_is_the_most_where_parallel_ones_are_disabled(world: ServerFixture) -> None:
    choice = {"type": "any", "disable_parallel_tool_use": True}
    assert (await ask(world, tools=[TOOL], tool_choice=choice)).status_code == 200
    grammar = world.engine.limits[0].grammar
    assert grammar is not None and json.loads(grammar.value)["format"]["stop_after_first"]


async def test_tools_of_others_are_left_out_and_told(world: ServerFixture) -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
    answer = await ask(world, tools=[search, TOOL])
    assert answer.status_code == 200
    assert set(answer.headers["x-tessera-ignored"].split(", ")) == {"tools[0]", "tools[0].max_uses"}
    assert "web_search" not in rendered(world)
    refused = await ask(world, tools=[search, TOOL], tool_choice={"type": "tool", "name": "web_search"})
    assert "'tool_choice.name'" in told(refused, 400, "invalid_request_error")


@pytest.mark.parametrize(
    ("last", "room", "reason", "sequence"),
    [
        (Delta(0, "!", [3], finish_reason="stop"), 16, "end_turn", None),
        (Delta(0, "!", [3], finish_reason="stop", stop_string="END"), 16, "stop_sequence", "END"),
        (Delta(0, "!", [3], finish_reason="length"), 3, "max_tokens", None),
        (Delta(0, "!", [3], finish_reason="length"), 16, "model_context_window_exceeded", None),
    ],
)
async def test_why_an_answer_ends(
    open_world: OpenWorld, last: Delta, room: int, reason: str, sequence: str | None
) -> None:
    engine = FakeEngine(script=lambda *_: [Delta(0, "a", [1]), Delta(0, "b", [2]), last])
    async with open_world(engine=engine) as world:
        answer = (await ask(world, max_tokens=room)).json()
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)


async def test_an_answer_longer_than_the_context_leaves_is_lowered(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(max_model_len=64)) as world:
        assert (await ask(world, max_tokens=32_000)).status_code == 200
        (limits,) = world.engine.limits
        assert limits.max_tokens == 64 - len(world.engine.prompts[0].token_ids)


async def test_what_comes_from_the_cache_is_counted_apart(open_world: OpenWorld) -> None:
    engine = FakeEngine(script=lambda *_: [Delta(0, "a", [1], finish_reason="stop", num_cached_tokens=5)])
    async with open_world(engine=engine) as world:
        usage = (await ask(world)).json()["usage"]
    length = len(world.engine.prompts[0].token_ids)
    assert usage == {
        "input_tokens": length - 5,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 5,
        "output_tokens": 1,
    }


async def test_no_text_is_an_answer(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(script=lambda *_: say(""))) as world:
        assert (await ask(world)).json()["content"] == [{"type": "text", "text": ""}]


@pytest.mark.parametrize("cut", ['{"a": "b', '{"a": "\\', '{"a": "\\ud8', "{", '{"a": 1e', '{"a": "b", "c'])
async def test_arguments_that_are_cut_are_an_object(open_world: OpenWorld, cut: str) -> None:
    engine = FakeEngine(script=lambda *_: say('<tool_call>\n{"name": "f", "arguments": ', cut, finish="length"))
    async with open_world(engine=engine) as world:
        answer = (await ask(world, max_tokens=2, tools=[TOOL])).json()
    assert answer["stop_reason"] == "max_tokens" and isinstance(answer["content"][0]["input"], dict)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "'max_tokens' is missing"),
    ({"max_tokens": 0}, "'max_tokens'"),
    ({"messages": []}, "'messages'"),
    ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "'messages[0].content[0].type'"),
    ({"messages": [{"role": "user", "content": []}]}, "'messages[0].content'"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "ftp"}}]}]},
        "'messages[0].content[0].source.type'",
    ),
    (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "document", "source": {"type": "base64", "media_type": "application/pdf"}}],
                }
            ]
        },
        "'messages[0].content[0].source.type'",
    ),
    ({"messages": [HI, USE]}, "'messages[1].content[0]'"),
    ({"messages": [HI, USE, HI]}, "'messages[1].content[0]'"),
    (
        {"messages": [HI, USE, {"role": "user", "content": [{"type": "text", "text": "a"}, RESULT]}]},
        "'messages[1].content[0]'",
    ),
    ({"messages": [{"role": "user", "content": [RESULT]}]}, "'messages[0].content[0].tool_use_id'"),
    ({"tools": [TOOL, TOOL]}, "'tools[1].name'"),
    ({"tools": [{**TOOL, "name": "a b"}]}, "'tools[0].name'"),
    ({"tool_choice": {"type": "any"}}, "'tool_choice'"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "'tool_choice.name'"),
    ({"tools": [{**TOOL, "input_schema": {"type": "array"}}]}, "'tools[0].input_schema.type'"),
    ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "zoo"}}}}, "output_config.format.schema"),
    ({"mcp_servers": [{"url": "https://a.org"}]}, "'mcp_servers'"),
    ({"container": "c"}, "'container'"),
    ({"temperature": 3}, "'temperature'"),
    ({"stop_sequences": [""]}, "'stop_sequences[0]'"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "no"}}]}]}, ""),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_refuses_by_name(world: ServerFixture, path: str, changes: dict[str, Any], words: str) -> None:
    response = await ask(world, path, **changes)
    if path.endswith("count_tokens") and changes.keys() & {
        "max_tokens", "output_config", "container", "temperature", "stop_sequences"
    }:  # fmt: skip
        assert response.status_code == 200
        return
    if path.endswith("count_tokens") and "input_schema" in str(changes) and "array" in str(changes):
        assert response.status_code == 200  # what would be enforced does not count
        return
    status = 404 if not words else 400
    message = told(response, status, "not_found_error" if status == 404 else "invalid_request_error")
    assert words in message and not world.engine.prompts


async def test_errors_of_every_layer_have_the_body_of_these_routes(open_world: OpenWorld) -> None:
    async with open_world(api_key="secret", max_body_bytes=1024) as world:
        key = {"x-api-key": "secret"}
        client = world.client
        told(await client.post("/v1/messages", json={}), 401, "authentication_error")
        told(await client.get("/v1/messages", headers=key), 405, "invalid_request_error")
        told(await client.get("/v1/messages/batches", headers=key), 404, "not_found_error")
        told(await client.post("/v1/messages", headers=key, content="{"), 400, "invalid_request_error")
        told(await client.post("/v1/messages", headers=key, json={"a": "b" * 2000}), 413, "request_too_large")
        elsewhere = await client.get("/v1/messagesandmore", headers=key)
        assert elsewhere.status_code == 404 and elsewhere.json()["error"]["code"] == "unknown_url"


async def test_a_key_in_either_header_opens_every_route(open_world: OpenWorld) -> None:
    async with open_world(api_key="secret") as world:
        for headers in ({"x-api-key": "secret"}, {"authorization": "Bearer secret", "x-api-key": "other"}):
            assert (await world.client.get("/v1/models", headers=headers)).status_code == 200
        for headers in ({"x-api-key": "other"}, {"x-api-key": ""}, {"authorization": "Basic secret"}):
            assert (await world.client.get("/v1/models", headers=headers)).status_code == 401
