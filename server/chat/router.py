"""`POST /v1/chat/completions`."""

from fastapi import APIRouter, Request, Response

from server.api.openapi import errors, event_stream, json_body
from server.api.request_body import read_json
from server.api.sse import EventStream
from server.auth.rate_limits import key_usage_of
from server.chat.request import ChatCompletionRequest
from server.chat.response import ChatCompletion, ChatCompletionChunk
from server.generation.model_service import Service
from server.media.progress import Progress

router = APIRouter()


@router.post(
    "/v1/chat/completions",
    summary="Answer a conversation",
    operation_id="createChatCompletion",
    response_class=Response,
    openapi_extra=json_body(ChatCompletionRequest),
    responses={
        200: {"model": ChatCompletion, "content": event_stream(ChatCompletionChunk), "description": "The answer."},
        **errors(400, 401, 404, 413, 429, 500, 503, 504),
    },
)
async def create_chat_completion(request: Request) -> Response:
    """Answer a conversation of text, pictures and clips, as a whole or as a stream of server-sent events."""
    service: Service = request.app.state.service
    chat = service.chat(key_usage_of(request))
    body = await read_json(request, ChatCompletionRequest)
    service.require_model(body.model)
    tenant: str = request.state.tenant
    if body.stream:
        progress = Progress()
        events = chat.stream(body, tenant, progress)
        return EventStream(events, keep_alive_s=service.keep_alive_s, status=progress.text)
    answer = await chat.complete(body, tenant)
    return Response(answer.encode(), media_type="application/json")
