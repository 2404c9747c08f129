"""`POST /v1/responses`."""

from fastapi import APIRouter, Request, Response

from server.api.openapi import errors, json_body, named_events
from server.api.request_body import read_json
from server.api.sse import EventStream
from server.auth.rate_limits import key_usage_of
from server.generation.model_service import Service
from server.media.progress import Progress
from server.responses.request import ResponseRequest
from server.responses.response import ResponseObject
from server.responses.serving import ResponseStream

router = APIRouter()


@router.post(
    "/v1/responses",
    summary="Answer a request of the Responses API",
    operation_id="createResponse",
    response_class=Response,
    openapi_extra=json_body(ResponseRequest),
    responses={
        200: {"model": ResponseObject, "content": named_events(), "description": "The answer."},
        **errors(400, 401, 404, 413, 429, 500, 503, 504),
    },
)
async def create_response(request: Request) -> Response:
    """Answer texts, pictures and clips, as a whole or as a stream of typed events; nothing is stored."""
    service: Service = request.app.state.service
    chat = service.chat(key_usage_of(request))
    body = await read_json(request, ResponseRequest)
    service.require_model(body.model)
    progress = Progress()
    stream = ResponseStream(chat, body, request.state.tenant, progress)
    if not body.stream:
        return Response((await stream.whole()).encode(), media_type="application/json")
    return EventStream(
        stream.events(),
        keep_alive_s=service.keep_alive_s,
        status=progress.text,
        failure=stream.failed,
        named=True,
    )
