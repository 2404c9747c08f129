"""`POST /v1/chat/completions/preview`; answered while the engine is away, too."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from server.api.dependencies import Tenant
from server.api.openapi import errors, json_request
from server.chat.preview import preview
from server.chat.preview_response import ChatPreview
from server.chat.request import ChatCompletionRequest
from server.generation.dependencies import LoadedModel, model_body

router = APIRouter()


@router.post(
    "/v1/chat/completions/preview",
    summary="Show the prompt of a conversation",
    operation_id="previewChatCompletion",
    response_class=Response,
    openapi_extra=json_request(ChatCompletionRequest),
    responses={
        200: {"model": ChatPreview, "description": "The prompt, its tokens, and what was done to the media."},
        **errors(400, 401, 404, 413, 429, 500, 503, 504),
    },
)
async def preview_chat_completion(
    model: LoadedModel,
    body: Annotated[ChatCompletionRequest, Depends(model_body(ChatCompletionRequest))],
    tenant: Tenant,
) -> Response:
    """The prompt a conversation becomes, its tokens by part, and what was done to its media, without an answer."""
    made = await preview(body, model, tenant)
    return Response(made.encode(), media_type="application/json")
