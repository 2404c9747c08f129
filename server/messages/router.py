"""`POST /v1/messages` and `POST /v1/messages/count_tokens`; the latter is answered while the engine is away, too."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from server.api.dependencies import ServerSettings, Tenant
from server.api.openapi import Schemas, errors, json_request, named_events
from server.api.sse import EventStream
from server.generation.count import count_tokens
from server.generation.dependencies import LoadedModel, ReadyGenerator, model_body
from server.media.progress import Progress
from server.messages import response as wire
from server.messages.encoder import MessageEncoder
from server.messages.errors import error_event
from server.messages.reader import read_conversation, read_request
from server.messages.request import CountTokensRequest, MessagesRequest
from server.messages.tools import left_out

router = APIRouter()
_EVENTS = (
    wire.BlockDelta,
    wire.BlockStart,
    wire.BlockStop,
    wire.MessageDelta,
    wire.MessageStart,
    wire.MessageStop,
    wire.MessagesError,
)
SCHEMAS = Schemas(read=[MessagesRequest, CountTokensRequest], streamed=_EVENTS)


@router.post(
    "/v1/messages",
    summary="Answer a conversation of Anthropic's Messages API",
    operation_id="createMessage",
    response_class=Response,
    openapi_extra=json_request(MessagesRequest),
    responses={
        200: {"model": wire.AnthropicMessage, "content": named_events(_EVENTS), "description": "The answer."},
        **errors(400, 401, 404, 413, 429, 500, 503, 504, body=wire.MessagesError),
    },
)
async def create_message(
    generator: ReadyGenerator,
    body: Annotated[MessagesRequest, Depends(model_body(MessagesRequest))],
    tenant: Tenant,
    settings: ServerSettings,
    http: Request,
) -> Response:
    """Answer text, images and videos, with or without streaming, in the words of Anthropic's clients."""
    request = read_request(body, tenant)
    http.state.ignored += generator.left_out(request)
    encoder = MessageEncoder(request, body.max_tokens)
    if body.stream:
        progress = Progress()
        return EventStream(
            generator.generate(request, progress),
            encoder.encode,
            keep_alive_s=settings.keep_alive_s,
            status=progress.text,
            failure=error_event,
            end=b"",
        )
    await generator.run(request, encoder.add)
    return Response(encoder.message().encode(), media_type="application/json")


@router.post(
    "/v1/messages/count_tokens",
    summary="Count the tokens of a conversation",
    operation_id="countMessageTokens",
    response_class=Response,
    openapi_extra=json_request(CountTokensRequest),
    responses={
        200: {"model": wire.TokenCount, "description": "The number of tokens, those of media included."},
        **errors(400, 401, 404, 413, 429, 500, 503, 504, body=wire.MessagesError),
    },
)
async def count_message_tokens(
    model: LoadedModel,
    body: Annotated[CountTokensRequest, Depends(model_body(CountTokensRequest))],
    tenant: Tenant,
    http: Request,
) -> Response:
    """The length of the prompt a conversation becomes, without an answer."""
    http.state.ignored += left_out(body.tools)
    counted = wire.TokenCount(input_tokens=await count_tokens(model, read_conversation(body), tenant))
    return Response(counted.encode(), media_type="application/json")
