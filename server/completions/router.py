"""`POST /v1/completions`."""

from fastapi import APIRouter, Request, Response

from server.api.openapi import errors, event_stream, json_body
from server.api.request_body import read_json
from server.api.sse import EventStream
from server.auth.rate_limits import key_usage_of
from server.completions.protocol import Completion, CompletionRequest
from server.generation.model_service import Service

router = APIRouter()


@router.post(
    "/v1/completions",
    summary="Continue texts",
    operation_id="createCompletion",
    response_class=Response,
    openapi_extra=json_body(CompletionRequest),
    responses={
        200: {"model": Completion, "content": event_stream(Completion), "description": "The answer."},
        **errors(400, 401, 404, 413, 429, 500, 503),
    },
)
async def create_completion(request: Request) -> Response:
    """Continue one or several texts as they stand, without a chat's turns, as a whole or as server-sent events."""
    service: Service = request.app.state.service
    completions = service.completions(key_usage_of(request))
    body = await read_json(request, CompletionRequest)
    service.require_model(body.model)
    tenant: str = request.state.tenant
    if body.stream:
        return EventStream(completions.stream(body, tenant), keep_alive_s=service.keep_alive_s)
    answer = await completions.complete(body, tenant)
    return Response(answer.encode(), media_type="application/json")
