"""`POST /v1/responses` and `POST /v1/responses/input_tokens`."""

import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from server.api.dependencies import ServerSettings, Tenant
from server.api.openapi import Schemas, errors, json_request, named_events
from server.api.sse import Event, EventStream
from server.generation.count import count_tokens
from server.generation.dependencies import LoadedModel, ReadyGenerator, model_body
from server.generation.output_events import GenerationEnd, OutputEvent
from server.media.progress import Progress
from server.prompt.conversation import Conversation
from server.responses import response as wire
from server.responses.encoder import ResponseEncoder
from server.responses.memory.dependencies import FindFileDep, MemoryDep
from server.responses.memory.history import History, read_history
from server.responses.memory.items import stored_output
from server.responses.memory.store import Memory, StoredResponse
from server.responses.memory.wire import InputTokens
from server.responses.reader import read_request
from server.responses.request import ResponseRequest

router = APIRouter()
_EVENTS = (
    wire.ArgumentsDeltaEvent,
    wire.ArgumentsDoneEvent,
    wire.ErrorEvent,
    wire.ItemEvent,
    wire.LifecycleEvent,
    wire.PartEvent,
    wire.TextDeltaEvent,
    wire.TextDoneEvent,
)
SCHEMAS = Schemas(read=[ResponseRequest], streamed=_EVENTS)
_Body = Annotated[ResponseRequest, Depends(model_body(ResponseRequest))]


@router.post(
    "/v1/responses",
    summary="Answer a request of the Responses API",
    operation_id="createResponse",
    response_class=Response,
    openapi_extra=json_request(ResponseRequest),
    responses={
        200: {"model": wire.ResponseObject, "content": named_events(_EVENTS), "description": "The answer."},
        **errors(400, 401, 404, 413, 429, 500, 503, 504),
    },
)
async def create_response(
    generator: ReadyGenerator,
    body: _Body,
    tenant: Tenant,
    settings: ServerSettings,
    memory: MemoryDep,
    find_file: FindFileDep,
    http: Request,
) -> Response:
    """Answer text, images and videos, with or without streaming; remembered unless `store` is false."""
    history = await read_history(body, memory, tenant, find_file)
    request = read_request(body, history.items, tenant, default_max_tokens=settings.default_max_tokens)
    http.state.ignored += generator.left_out(request)
    stores = memory.is_on and body.store is not False
    encoder = ResponseEncoder(body, request, stores=stores)

    async def keep() -> None:
        await _remember(encoder.response(), history, memory, tenant, stores=stores)

    if body.stream:
        progress = Progress()
        return EventStream(
            _events(generator.generate(request, progress), encoder, keep),
            _frames,
            keep_alive_s=settings.keep_alive_s,
            status=progress.text,
            failure=encoder.encode_failure,
            end=b"",
        )
    await generator.run(request, encoder.add)
    await keep()
    return Response(encoder.response().encode(), media_type="application/json")


@router.post(
    "/v1/responses/input_tokens",
    summary="Count the tokens of a request",
    operation_id="countResponseInputTokens",
    openapi_extra=json_request(ResponseRequest),
    responses=errors(400, 401, 404, 413, 429, 500, 503, 504),
)
async def count_input_tokens(
    model: LoadedModel, body: _Body, tenant: Tenant, memory: MemoryDep, find_file: FindFileDep
) -> InputTokens:
    """The length of the prompt a request becomes, media included, without an answer."""
    history = await read_history(body, memory, tenant, find_file)
    conversation = read_request(body, history.items, tenant).prompt
    assert isinstance(conversation, Conversation)
    return InputTokens(input_tokens=await count_tokens(model, conversation, tenant))


async def _events(
    source: AsyncGenerator[OutputEvent, None], encoder: ResponseEncoder, keep: Callable[[], Awaitable[None]]
) -> AsyncGenerator[wire.ResponseEvent, None]:
    """The events of a stream; the response is remembered before its last one is sent."""
    async with aclosing(source) as events:
        async for event in events:
            made = encoder.add(event)
            if isinstance(event, GenerationEnd):
                await keep()
            for one in made:
                yield one


def _frames(event: wire.ResponseEvent) -> list[Event]:
    return [Event(event.encode(), event.type)]


async def _remember(
    response: wire.ResponseObject, history: History, memory: Memory, tenant: str, *, stores: bool
) -> None:
    output = stored_output(response.output)
    if stores:
        await memory.put(tenant, StoredResponse(response.id, response.encode(), history.stored, output))
    if history.conversation is not None:
        await memory.put(tenant, dataclasses.replace(history.conversation, items=(*history.stored, *output)))
