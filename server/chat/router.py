"""`POST /v1/chat/completions`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from server.api.dependencies import ServerSettings, Tenant
from server.api.openapi import Schemas, errors, event_stream, json_request
from server.api.sse import EventStream
from server.chat.encoder import ChunkEncoder, CompletionEncoder
from server.chat.reader import read_request
from server.chat.request import ChatCompletionRequest
from server.chat.response import ChatCompletion, ChatCompletionChunk
from server.generation.dependencies import ReadyGenerator, model_body
from server.media.progress import Progress

router = APIRouter()
SCHEMAS = Schemas(read=[ChatCompletionRequest], streamed=[ChatCompletionChunk])


@router.post(
    "/v1/chat/completions",
    summary="Answer a conversation",
    operation_id="createChatCompletion",
    response_class=Response,
    openapi_extra=json_request(ChatCompletionRequest),
    responses={
        200: {"model": ChatCompletion, "content": event_stream(ChatCompletionChunk), "description": "The answer."},
        **errors(400, 401, 404, 413, 429, 500, 503, 504),
    },
)
async def create_chat_completion(
    generator: ReadyGenerator,
    body: Annotated[ChatCompletionRequest, Depends(model_body(ChatCompletionRequest))],
    tenant: Tenant,
    settings: ServerSettings,
    http: Request,
) -> Response:
    """Answer a conversation of text, images and videos, with or without streaming."""
    request = read_request(body, tenant, default_max_tokens=settings.default_max_tokens)
    http.state.ignored += generator.left_out(request)
    if body.stream:
        progress = Progress()
        return EventStream(
            generator.generate(request, progress),
            ChunkEncoder(body, request).encode,
            keep_alive_s=settings.keep_alive_s,
            status=progress.text,
        )
    encoder = CompletionEncoder(body, request)
    await generator.run(request, encoder.add)
    return Response(encoder.completion().encode(), media_type="application/json")
