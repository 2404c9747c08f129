"""`POST /v1/chat/completions/preview`; answered while the engine is away, too."""

from fastapi import APIRouter, Request, Response

from server.api.openapi import errors, json_body
from server.api.request_body import read_json
from server.chat.preview import preview
from server.chat.preview_response import ChatPreview
from server.chat.request import ChatCompletionRequest
from server.generation.model_service import Service

router = APIRouter()


@router.post(
    "/v1/chat/completions/preview",
    summary="Show the prompt of a conversation",
    operation_id="previewChatCompletion",
    response_class=Response,
    openapi_extra=json_body(ChatCompletionRequest),
    responses={
        200: {"model": ChatPreview, "description": "The prompt, its tokens, and what was done to the media."},
        **errors(400, 401, 404, 413, 429, 500, 503, 504),
    },
)
async def preview_chat_completion(request: Request) -> Response:
    """The prompt a conversation becomes, its tokens by part, and what was done to its media, without an answer."""
    service: Service = request.app.state.service
    model = service.opened_model()
    body = await read_json(request, ChatCompletionRequest)
    service.require_model(body.model)
    told = await preview(body, model, request.state.tenant)
    return Response(told.encode(), media_type="application/json")
