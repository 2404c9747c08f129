"""The Responses route over fakes: the same conversation as chat, other names, typed events."""

import json
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from model_executor.engine import (
    Delta,
    EngineBusyError,
    EngineState,
    EngineUnavailableError,
    PositionLogprobs,
    RequestFailedError,
    RequestRefusedError,
    TokenLogprob,
)
from server.core.errors import BadRequestError, DeadlineError
from tests.support.error_body import check_error, check_error_body
from tests.support.events import response_events
from tests.support.fakes import MODEL, FakeEngine, FakeMedia, say
from tests.support.images import png
from tests.support.world import OpenWorld, ServerFixture

URL = "data:image/png;base64,AA=="


def user(*content: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


def rendered(world: ServerFixture) -> str:
    tokenizer = world.app.state.service.model().tokenizer
    text: str = tokenizer.decode(world.engine.prompts[-1].token_ids, skip_special_tokens=False)
    return text


async def test_answers_as_a_whole(world: ServerFixture) -> None:
    response = await world.respond(metadata={"a": "b"}, user="somebody", store=True)
    answer = response.json()
    Response.model_validate(answer, strict=False)
    assert answer["object"] == "response" and answer["model"] == MODEL and answer["status"] == "completed"
    (item,) = answer["output"]
    assert item["id"].startswith("msg_") and item["status"] == "completed" and item["role"] == "assistant"
    assert item["content"] == [{"type": "output_text", "text": "Hello, world!", "annotations": [], "logprobs": []}]
    assert answer["usage"] == {
        "input_tokens": len(world.engine.prompts[0].token_ids),
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "image_tokens": 0, "video_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": len(world.engine.prompts[0].token_ids) + 3,
    }
    assert (answer["error"], answer["incomplete_details"], answer["store"]) == (None, None, True)
    assert (answer["metadata"], answer["user"]) == ({"a": "b"}, "somebody")
    assert answer["created_at"] <= answer["completed_at"]


async def test_a_stream_has_every_event_in_its_place(world: ServerFixture) -> None:
    found = response_events(await world.respond(stream=True, stream_options={"include_obfuscation": False}))
    assert [event["type"] for event in found] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert (
        "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta") == "Hello, world!"
    )
    first, last = found[0]["response"], found[-1]["response"]
    assert (first["status"], first["output"], first["usage"]) == ("in_progress", [], None)
    assert first["id"] == last["id"] and last["output"] == [found[-2]["item"]]
    assert found[-2]["item"]["content"] == [found[-3]["part"]] and found[-3]["part"]["text"] == found[-4]["text"]
    items = {event["item_id"] for event in found if "item_id" in event} | {found[2]["item"]["id"]}
    assert items == {found[-2]["item"]["id"]}


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_cut_short_is_incomplete(open_world: OpenWorld, stream: bool) -> None:
    engine = FakeEngine(script=lambda *_: say("Hel", "lo", finish="length"))
    async with open_world(engine=engine) as world:
        response = await world.respond(stream=stream, max_output_tokens=2)
    answer = response_events(response)[-1]["response"] if stream else response.json()
    if stream:
        assert response_events(response)[-1]["type"] == "response.incomplete"
    assert answer["status"] == "incomplete" and answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert answer["output"][0]["status"] == "incomplete" and answer["output"][0]["content"][0]["text"] == "Hello"
    assert answer["completed_at"] is None and engine.limits[0].max_tokens == 2


async def test_limits_reach_the_engine(world: ServerFixture) -> None:
    assert (await world.respond(temperature=0.5, top_p=0.25, max_output_tokens=7)).status_code == 200
    (limits,) = world.engine.limits
    assert (limits.temperature, limits.top_p, limits.max_tokens) == (0.5, 0.25, 7)


@pytest.mark.parametrize(
    ("asked", "turns"),
    [
        ({"input": "Hi."}, [{"role": "user", "content": "Hi."}]),
        (
            {"input": "Hi.", "instructions": "Be brief."},
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}],
        ),
        (
            {
                "input": [
                    {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
                    {"type": "message", "role": "user", "content": "Hi."},
                    {
                        "type": "message",
                        "id": "msg_1",
                        "status": "completed",
                        "role": "assistant",
                        "content": [{"type": "output_text", "text": "Ho.", "annotations": [], "logprobs": []}],
                    },
                    {"role": "assistant", "content": "Well."},
                    {"role": "user", "content": [{"type": "input_text", "text": "And?"}]},
                ]
            },
            [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": "Hi."},
                {"role": "assistant", "content": "Ho."},
                {"role": "assistant", "content": "Well."},
                {"role": "user", "content": "And?"},
            ],
        ),
        (
            {
                "input": user(
                    {"type": "input_text", "text": "What?"},
                    {"type": "input_image", "image_url": URL},
                    {"type": "input_video", "video_url": "https://example.org/a.mp4"},
                    {"type": "input_video", "video_url": [URL, URL]},
                    {
                        "type": "input_file",
                        "file_data": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ",
                    },
                )
            },
            user(
                {"type": "text", "text": "What?"},
                {"type": "image_url", "image_url": {"url": URL}},
                {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}},
                {"type": "video", "video": [URL, URL]},
                {"type": "image", "image": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"},
            ),
        ),
    ],
)
async def test_asks_the_engine_what_chat_asks(
    world: ServerFixture, asked: dict[str, Any], turns: list[dict[str, Any]]
) -> None:
    assert (await world.respond(**asked)).status_code == 200
    assert (await world.ask(messages=turns)).status_code == 200
    here, there = world.engine.prompts
    assert here == there
    media = world.media.parts
    half = len(media) // 2
    assert [(part.modality, part.source) for part in media[:half]] == [
        (part.modality, part.source) for part in media[half:]
    ]
    assert not world.media.held


async def test_media_have_the_names_and_limits_the_client_wrote(world: ServerFixture) -> None:
    parts: list[dict[str, Any]] = [
        {"type": "input_image", "image_url": URL, "detail": "low"},
        {"type": "input_video", "video_url": URL, "fps": 1.5, "video_start": 2},
        {"type": "input_video", "video_url": [URL]},
        {"type": "input_image", "image_url": URL, "max_pixels": 100_000},
    ]
    assert (await world.respond(instructions="Be brief.", input=user(*parts))).status_code == 200
    low, clip, _, limited = world.media.parts
    assert [part.param for part in world.media.parts] == [
        "input[0].content[0].image_url",
        "input[0].content[1].video_url",
        "input[0].content[2].video_url",
        "input[0].content[3].image_url",
    ]
    assert low.limits.max_pixels == 64 * 28 * 28 and limited.limits.max_pixels == 100_000
    assert (clip.limits.fps, clip.limits.video_start) == (1.5, 2)


async def uploaded(world: ServerFixture) -> str:
    made = await world.client.post("/v1/files", files={"file": ("a.png", png(2_000))}, data={"purpose": "vision"})
    file_id: str = made.json()["id"]
    return file_id


async def test_uploaded_files_are_taken_where_they_fit(world: ServerFixture) -> None:
    file_id = await uploaded(world)
    for part in (
        {"type": "input_image", "file_id": file_id},
        {"type": "input_image", "file_id": file_id, "detail": "low"},
        {"type": "input_file", "file_id": file_id},
    ):
        assert (await world.respond(input=user(part))).status_code == 200
    assert [part.modality for part in world.media.parts] == ["image"] * 3
    assert {part.param for part in world.media.parts} == {"input[0].content[0].file_id"}
    assert [part.limits.max_pixels for part in world.media.parts] == [None, 64 * 28 * 28, None]
    name = "input[0].content[0].file_id"
    refused = await world.respond(input=user({"type": "input_video", "file_id": file_id}))
    check_error(refused, 400, param=name, code="invalid_value")
    check_error(
        await world.respond(input=user({"type": "input_image", "file_id": "file-x"})),
        404,
        param=name,
        code="file_not_found",
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_are_told_where_asked_for(open_world: OpenWorld, stream: bool) -> None:
    def script(*_: Any) -> list[Delta]:
        likely = [TokenLogprob(100, -0.5), TokenLogprob(101, -1.5)]
        position = PositionLogprobs(likely[0], likely)
        return [Delta(index=0, text="a", token_ids=[100], logprobs=[position], finish_reason="stop")]

    engine = FakeEngine(script=script)
    async with open_world(engine=engine) as world:
        response = await world.respond(stream=stream, include=["message.output_text.logprobs"], top_logprobs=2)
    assert engine.limits[0].logprobs == 2
    answer = response_events(response)[-1]["response"] if stream else response.json()
    (told,) = answer["output"][0]["content"][0]["logprobs"]
    assert told["logprob"] == -0.5 and [top["logprob"] for top in told["top_logprobs"]] == [-0.5, -1.5]
    if stream:
        (delta,) = (event for event in response_events(response) if event["type"] == "response.output_text.delta")
        assert delta["logprobs"] == [told]


async def test_a_form_is_enforced_and_told(world: ServerFixture) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "name": "thing", "schema": schema, "strict": True}
    answer = (await world.respond(text={"format": form, "verbosity": "low"})).json()
    assert answer["text"] == {"format": form, "verbosity": "low"}
    await world.ask(response_format={"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}})
    await world.respond(text={"format": {"type": "json_object"}})
    await world.respond(text={"format": {"type": "text"}})
    here, there, any_object, free = (limits.grammar for limits in world.engine.limits)
    assert here is not None and there is not None and (here.kind, here.value) == (there.kind, there.value)
    assert (here.kind, here.param) == ("json", "text.format.schema")
    assert any_object is not None and any_object.kind == "json_object" and free is None


async def test_samples_as_chat_does(world: ServerFixture) -> None:
    extras = {
        "ignore_eos": True,
        "top_k": 5,
        "min_p": 0.1,
        "seed": 3,
        "stop": ["x"],
        "presence_penalty": 1,
        "repetition_penalty": 1.1,
        "min_tokens": 2,
        "temperature": 0.5,
    }
    assert (await world.respond(**extras, max_output_tokens=9)).status_code == 200
    await world.ask(**extras, max_tokens=9)
    first, second = world.engine.limits
    assert first == second and first.ignore_eos and first.top_k == 5


REFUSED: list[tuple[dict[str, Any], int, str | None, str | None]] = [
    ({"n": 2}, 400, "n", "invalid_value"),
    ({"structured_outputs": {"regex": "a"}}, 400, "structured_outputs", "unsupported_parameter"),
    ({"model": "gpt-5"}, 404, "model", "model_not_found"),
    ({"input": None}, 400, "input", "missing_required_parameter"),
    ({"input": []}, 400, "input", "invalid_value"),
    ({"input": 5}, 400, "input", "invalid_type"),
    ({"input": ["Hi."]}, 400, "input[0]", "invalid_type"),
    ({"input": [{"content": "x"}]}, 400, "input[0].type", "missing_required_parameter"),
    ({"input": [{"type": "message", "content": "x"}]}, 400, "input[0].role", "missing_required_parameter"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, 404, "input[0].id", "item_not_found"),
    ({"input": [{"type": "reasoning", "summary": []}]}, 400, "input", "invalid_value"),
    ({"input": [{"role": "robot", "content": "x"}]}, 400, "input[0].role", "unsupported_value"),
    ({"input": user({"type": "text", "text": "x"})}, 400, "input[0].content[0].type", "unsupported_value"),
    ({"input": user({"type": "input_audio"})}, 400, "input[0].content[0].type", "unsupported_value"),
    ({"input": user({"type": "input_image"})}, 400, "input[0].content[0].image_url", "missing_required_parameter"),
    (
        {"input": user({"type": "input_image", "image_url": {"url": URL}})},
        400,
        "input[0].content[0].image_url",
        "invalid_type",
    ),
    ({"input": user({"type": "input_video"})}, 400, "input[0].content[0].video_url", "missing_required_parameter"),
    (
        {"input": user({"type": "input_file", "file_url": URL})},
        400,
        "input[0].content[0].file_url",
        "unsupported_parameter",
    ),
    (
        {"input": user({"type": "input_file", "file_data": "data:,x"})},
        400,
        "input[0].content[0].file_data",
        "unsupported_file",
    ),
    ({"temperature": 2.1}, 400, "temperature", "invalid_value"),
    ({"top_p": 0}, 400, "top_p", "invalid_value"),
    ({"max_output_tokens": 0}, 400, "max_output_tokens", "invalid_value"),
    ({"max_output_tokens": 5000}, 400, "input", "context_length_exceeded"),
    ({"input": "word " * 5000}, 400, "input", "context_length_exceeded"),
    ({"top_logprobs": 1}, 400, "top_logprobs", "invalid_value"),
    ({"include": ["everything"]}, 400, "include[0]", "invalid_value"),
    ({"truncation": "some"}, 400, "truncation", "invalid_value"),
    ({"top_k": -2}, 400, "top_k", "invalid_value"),
    ({"min_tokens": 5, "max_output_tokens": 4}, 400, "min_tokens", "invalid_value"),
    ({"ignore_eos": True, "text": {"format": {"type": "json_object"}}}, 400, "ignore_eos", "invalid_value"),
    ({"background": True}, 400, "background", "invalid_value"),
    ({"previous_response_id": "resp_1"}, 400, "previous_response_id", "previous_response_not_found"),
    ({"conversation": "conv_1"}, 404, "conversation", "conversation_not_found"),
    ({"prompt": {"id": "p"}}, 400, "prompt", "unsupported_parameter"),
    ({"text": {"format": {"type": "xml"}}}, 400, "text.format.type", "invalid_value"),
    (
        {"text": {"format": {"type": "json_schema", "name": "a"}}},
        400,
        "text.format.schema",
        "missing_required_parameter",
    ),
    ({"text": {"format": {"type": "text", "name": "a"}}}, 400, "text.format.name", "invalid_value"),
    (
        {
            "text": {
                "format": {"type": "json_schema", "name": "a", "schema": {"type": "object", "not": {}}, "strict": True}
            }
        },
        400,
        "text.format.schema.not",
        "unsupported_value",
    ),
]


@pytest.mark.parametrize(("changes", "status", "param", "code"), REFUSED)
async def test_refusals_are_http_errors_under_the_clients_names(
    world: ServerFixture, changes: dict[str, Any], status: int, param: str | None, code: str | None
) -> None:
    for stream in (False, True):
        message = check_error(await world.respond(**changes, stream=stream), status, param=param, code=code)
        assert "'messages" not in message and "response_format" not in message
    assert not world.engine.prompts and not world.media.held


async def test_only_streams_have_stream_options(world: ServerFixture) -> None:
    refused = await world.respond(stream_options={"include_obfuscation": True})
    check_error(refused, 400, param="stream_options", code="invalid_value")


NULLABLE = (
    "instructions text max_output_tokens temperature top_p include top_logprobs stream stream_options store truncation "
    "metadata user safety_identifier service_tier prompt_cache_key prompt_cache_retention reasoning background "
    "previous_response_id conversation prompt tools tool_choice parallel_tool_calls max_tool_calls"
)


async def test_null_is_the_same_as_absent(world: ServerFixture) -> None:
    assert (await world.respond(**dict.fromkeys(NULLABLE.split()))).status_code == 200
    assert (await world.respond()).status_code == 200
    assert world.engine.limits[0] == world.engine.limits[1]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_medium_that_cannot_be_used_is_refused_by_its_own_name(open_world: OpenWorld, stream: bool) -> None:
    param = "input[0].content[1].image_url"
    failure = BadRequestError(f"'{param}' is no picture.", param=param)
    content = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": URL}]
    async with open_world(media=FakeMedia(failure=failure)) as world:
        response = await world.respond(instructions="Be brief.", input=user(*content), stream=stream)
        assert [part.param for part in world.media.parts] == [param]
    check_error(response, 400, param=param)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "status", "param", "code"),
    [
        (EngineBusyError("64 wait"), 429, None, "rate_limit_exceeded"),
        (EngineUnavailableError("lost", EngineState.RESTARTING), 503, None, "engine_unavailable"),
        (RequestFailedError("no"), 500, None, None),
        (
            RequestRefusedError("'text.format.schema' is too large", "text.format.schema"),
            400,
            "text.format.schema",
            None,
        ),
    ],
)
async def test_early_failures_are_http_errors(
    open_world: OpenWorld, failure: Exception, status: int, param: str | None, code: str | None, stream: bool
) -> None:
    async with open_world(engine=FakeEngine(script=lambda *_: [failure])) as world:
        check_error(await world.respond(stream=stream), status, param=param, code=code)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (EngineUnavailableError("lost", EngineState.RESTARTING), "server_error"),
        (RuntimeError("a fault in /srv"), "server_error"),
        (BadRequestError("no"), "invalid_prompt"),
    ],
)
async def test_a_late_failure_ends_the_response_as_failed(open_world: OpenWorld, failure: Exception, code: str) -> None:
    first, _ = say("one", "two")
    async with open_world(engine=FakeEngine(script=lambda *_: [first, failure])) as world:
        last = response_events(await world.respond(stream=True))[-1]
        whole = await world.respond()
    assert last["type"] == "response.failed" and last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == code and "/srv" not in last["response"]["error"]["message"]
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert last["response"]["output"][0]["content"][0]["text"] == "one"
    assert whole.status_code in (400, 500, 503)
    check_error_body(whole.json(), whole.status_code, code=whole.json()["error"]["code"])


async def test_a_failure_after_a_comment_and_before_a_response_is_an_error_event(open_world: OpenWorld) -> None:
    media = FakeMedia(failure=DeadlineError("too slow", param="input[0].content[0].image_url"), delay_s=0.2)
    async with open_world(media=media, keep_alive_s=0.05) as world:
        response = await world.respond(input=user({"type": "input_image", "image_url": URL}), stream=True)
    (event,) = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    assert event == {
        "type": "error",
        "sequence_number": 0,
        "message": "too slow",
        "code": "media_deadline_exceeded",
        "param": "input[0].content[0].image_url",
    }


async def test_an_answer_to_a_departed_client_is_aborted(open_world: OpenWorld) -> None:
    engine = FakeEngine(script=lambda *_: [step for delta in say(*["word "] * 1000) for step in (delta, 0.01)])
    async with open_world(live=True, engine=engine) as world:
        client = openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="unused", max_retries=0)
        async with client, await client.responses.create(model=MODEL, input="Hi.", stream=True) as stream:
            async for event in stream:
                if event.type == "response.output_text.delta":
                    break
    assert engine.aborted and not engine.running
