"""Requests that build on earlier ones, and the routes for what is kept, by the official client where it has them."""

from collections.abc import AsyncIterator
from typing import Any, cast

import openai
import pytest
from openai import AsyncOpenAI

from tests.support.error_body import check_error
from tests.support.events import response_events
from tests.support.fakes import MODEL, FakeEngine, say
from tests.support.images import png
from tests.support.world import OpenWorld, ServerFixture

CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
FUNCTION: Any = {"type": "function", "name": "f", "parameters": None, "strict": False}
URL = "data:image/png;base64,AA=="


@pytest.fixture
async def live(open_world: OpenWorld) -> AsyncIterator[ServerFixture]:
    async with open_world(live=True, api_key="secret,other") as world:
        yield world


def sdk(world: ServerFixture, key: str = "secret") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{world.url}/v1", api_key=key, max_retries=0, timeout=20)


def rendered(world: ServerFixture, number: int = -1) -> str:
    tokenizer = world.app.state.service.model().tokenizer
    text: str = tokenizer.decode(world.engine.prompts[number].token_ids, skip_special_tokens=False)
    return text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_goes_on(live: ServerFixture, stream: bool) -> None:
    async with sdk(live) as client:
        if stream:
            async with client.responses.stream(model=MODEL, input="Hi.", instructions="Be brief.") as opened:
                first: Any = await opened.get_final_response()
        else:
            first = await client.responses.create(model=MODEL, input="Hi.", instructions="Be brief.")
        assert first.store is True and first.previous_response_id is None
        second = await client.responses.create(model=MODEL, input="And?", previous_response_id=first.id)
        assert second.previous_response_id == first.id
        third = await client.responses.create(model=MODEL, input="So?", previous_response_id=second.id)
        whole = await client.responses.create(
            model=MODEL,
            input=[
                {"role": "user", "content": "Hi."},
                {"role": "assistant", "content": "Hello, world!"},
                {"role": "user", "content": "And?"},
                {"role": "assistant", "content": "Hello, world!"},
                {"role": "user", "content": "So?"},
            ],
        )
        assert live.engine.prompts[2] == live.engine.prompts[3] and whole.usage == third.usage
        listed = await client.responses.input_items.list(third.id, order="asc")
        assert [cast(Any, item).content[0].text for item in listed.data] == [
            "Hi.", "Hello, world!", "And?", "Hello, world!", "So?",
        ]  # fmt: skip
        newest = await client.responses.input_items.list(third.id, limit=2)
        assert [item.id for item in newest.data] == [listed.data[4].id, listed.data[3].id] and newest.has_more
        rest = await client.responses.input_items.list(third.id, limit=2, after=newest.data[-1].id)
        assert [item.id for item in rest.data] == [listed.data[2].id, listed.data[1].id]


async def test_a_response_is_retrieved_as_it_was_answered_and_deleted(live: ServerFixture) -> None:
    async with sdk(live) as client, sdk(live, "other") as stranger:
        made = await client.responses.create(model=MODEL, input="Hi.", metadata={"a": "b"})
        assert await client.responses.retrieve(made.id) == made
        with pytest.raises(openai.NotFoundError):
            await stranger.responses.retrieve(made.id)
        with pytest.raises(openai.BadRequestError):
            await client.responses.cancel(made.id)
        await client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model=MODEL, input="And?", previous_response_id=made.id)
        assert caught.value.code == "previous_response_not_found" and caught.value.param == "previous_response_id"


async def test_what_is_not_to_be_stored_is_not(live: ServerFixture) -> None:
    async with sdk(live) as client:
        made = await client.responses.create(model=MODEL, input="Hi.", store=False)
        assert made.model_extra is not None and made.to_dict()["store"] is False
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)


async def test_a_server_without_memory_says_so(open_world: OpenWorld) -> None:
    async with open_world(responses={"max_key_entries": 0}) as world:
        answer = (await world.respond()).json()
        assert answer["store"] is False
        check_error(
            await world.client.get(f"/v1/responses/{answer['id']}"), 404, param="response_id", code="response_not_found"
        )
        check_error(await world.client.post("/v1/conversations", json={}), 413, code="conversation_too_large")


async def test_items_are_referred_to_by_id(world: ServerFixture) -> None:
    first = (await world.respond()).json()
    reference = {"type": "item_reference", "id": first["output"][0]["id"]}
    hi, more = {"role": "user", "content": "Hi."}, {"role": "user", "content": "And?"}
    second = await world.respond(input=[hi, reference, more])
    assert second.status_code == 200, second.text
    await world.respond(input=[hi, {"role": "assistant", "content": "Hello, world!"}, more])
    assert world.engine.prompts[1] == world.engine.prompts[2]
    listed = (await world.client.get(f"/v1/responses/{second.json()['id']}/input_items?order=asc")).json()
    assert [item["role"] for item in listed["data"]] == ["user", "assistant", "user"]
    assert listed["data"][1]["id"] == reference["id"]
    unknown = await world.respond(input=[{"type": "item_reference", "id": "msg_none"}, more])
    check_error(unknown, 404, param="input[0].id", code="item_not_found")


async def test_a_call_is_answered_in_the_next_request(open_world: OpenWorld) -> None:
    answers = [say(CALL), say("Done."), say("Done.")]
    async with open_world(engine=FakeEngine(script=lambda *_: answers.pop(0))) as world:
        first = (await world.respond(tools=[FUNCTION])).json()
        (call,) = first["output"]
        result = {
            "type": "function_call_output",
            "call_id": call["call_id"],
            "output": [{"type": "input_text", "text": "Rain."}, {"type": "input_image", "image_url": URL}],
        }
        second = await world.respond(tools=[FUNCTION], previous_response_id=first["id"], input=[result])
        assert second.status_code == 200, second.text
        assert "<tool_response>\nRain.<|vision_start|>" in rendered(world)
        third = await world.respond(input=[{"type": "item_reference", "id": call["id"]}, result])
        assert third.status_code == 200 and "<tool_call>" in rendered(world)
        unanswered = await world.respond(previous_response_id=first["id"])
        check_error(unanswered, 400, param="previous_response_id[1]", code="invalid_value")


async def test_media_of_earlier_requests_are_shown_again(world: ServerFixture) -> None:
    picture = {"type": "input_image", "image_url": URL, "detail": "low"}
    first = (await world.respond(input=[{"role": "user", "content": [picture]}])).json()
    assert (await world.respond(previous_response_id=first["id"], input="And?")).status_code == 200
    one, again = world.media.parts
    assert (one.source, one.limits) == (again.source, again.limits)
    assert again.param == "previous_response_id[0].content[0].image_url"


async def test_an_uploaded_file_is_kept_by_its_id_and_looked_up_again(world: ServerFixture) -> None:
    form = {"files": {"file": ("a.png", png())}, "data": {"purpose": "vision"}}
    file = (await world.client.post("/v1/files", **cast(Any, form))).json()["id"]
    picture = {"type": "input_image", "file_id": file}
    first = (await world.respond(input=[{"role": "user", "content": [picture]}])).json()
    listed = (await world.client.get(f"/v1/responses/{first['id']}/input_items")).json()
    assert listed["data"][0]["content"] == [picture]
    assert (await world.respond(previous_response_id=first["id"], input="And?")).status_code == 200
    await world.client.delete(f"/v1/files/{file}")
    gone = await world.respond(previous_response_id=first["id"], input="And?")
    check_error(gone, 404, param="previous_response_id[0].content[0].file_id", code="file_not_found")


async def test_tokens_are_counted(live: ServerFixture) -> None:
    async with sdk(live) as client:
        made = await client.responses.create(model=MODEL, input="Hi.", instructions="Be brief.", tools=[FUNCTION])
        counted = await client.responses.input_tokens.count(
            model=MODEL, input="Hi.", instructions="Be brief.", tools=[FUNCTION]
        )
        assert made.usage is not None and counted.input_tokens == made.usage.input_tokens
        assert counted.object == "response.input_tokens"
        longer = await client.responses.input_tokens.count(model=MODEL, input="Hi.", previous_response_id=made.id)
        assert longer.input_tokens > counted.input_tokens - 200
    assert len(live.engine.prompts) == 1


async def test_conversations(live: ServerFixture) -> None:
    async with sdk(live) as client:
        conversation = await client.conversations.create(
            items=[{"type": "message", "role": "user", "content": "Hi."}], metadata={"topic": "t"}
        )
        made = await client.responses.create(model=MODEL, input="And?", conversation=conversation.id)
        assert made.conversation is not None and made.conversation.id == conversation.id
        await client.responses.create(model=MODEL, input="So?", conversation=conversation.id, store=False)
        items = [item async for item in client.conversations.items.list(conversation.id, order="asc", limit=2)]
        texts = [cast(Any, item).content[0].text for item in items]
        assert texts == ["Hi.", "And?", "Hello, world!", "So?", "Hello, world!"]
        added = await client.conversations.items.create(
            conversation.id, items=[cast(Any, item.to_dict()) for item in items[:1]]
        )
        assert [item.id for item in added.data] == [items[0].id]
        reordered = [item.id async for item in client.conversations.items.list(conversation.id, order="asc")]
        assert reordered == [*(item.id for item in items[1:]), items[0].id]
        await client.conversations.items.delete(cast(str, items[0].id), conversation_id=conversation.id)
        with pytest.raises(openai.NotFoundError):
            await client.conversations.items.retrieve(cast(str, items[0].id), conversation_id=conversation.id)
        changed = await client.conversations.update(conversation.id, metadata={"topic": "u"})
        assert changed.metadata == {"topic": "u"}
        assert (await client.conversations.retrieve(conversation.id)).metadata == {"topic": "u"}
        assert (await client.conversations.delete(conversation.id)).deleted
        with pytest.raises(openai.NotFoundError) as caught:
            await client.responses.create(model=MODEL, input="And?", conversation=conversation.id)
        assert caught.value.code == "conversation_not_found"


async def test_a_stream_is_remembered_before_its_end_is_told(world: ServerFixture) -> None:
    events = response_events(await world.respond(stream=True))
    ended = events[-1]["response"]
    assert (await world.client.get(f"/v1/responses/{ended['id']}")).json() == ended


@pytest.mark.parametrize(
    ("path", "param", "code"),
    [
        ("/v1/responses/{id}?stream=true", "stream", "invalid_value"),
        ("/v1/responses/{id}/input_items?limit=0", "limit", "invalid_value"),
        ("/v1/responses/{id}/input_items?order=up", "order", "invalid_value"),
        ("/v1/responses/{id}/input_items?what=1", "what", "unknown_parameter"),
    ],
)
async def test_queries_are_checked(world: ServerFixture, path: str, param: str, code: str) -> None:
    made = (await world.respond()).json()
    check_error(await world.client.get(path.format(id=made["id"])), 400, param=param, code=code)
    unknown = await world.client.get(f"/v1/responses/{made['id']}/input_items?after=msg_none")
    check_error(unknown, 404, param="after", code="item_not_found")


async def test_two_ways_to_go_on_exclude_each_other(world: ServerFixture) -> None:
    answer = await world.respond(previous_response_id="resp_a", conversation="conv_a")
    check_error(answer, 400, param="conversation", code="invalid_value")
