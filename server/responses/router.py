"""`POST /v1/responses`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from server.api.dependencies import ServerSettings, Tenant
from server.api.openapi import Schemas, errors, json_request, named_events
from server.api.sse import EventStream
from server.generation.dependencies import ReadyGenerator, model_body
from server.media.progress import Progress
from server.responses import response as wire
from server.responses.encoder import ResponseEncoder
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
    body: Annotated[ResponseRequest, Depends(model_body(ResponseRequest))],
    tenant: Tenant,
    settings: ServerSettings,
    http: Request,
) -> Response:
    """Answer text, images and videos, with or without streaming; nothing is stored."""
    request = read_request(body, tenant, default_max_tokens=settings.default_max_tokens)
    http.state.ignored += generator.left_out(request)
    encoder = ResponseEncoder(body, request)
    if body.stream:
        progress = Progress()
        return EventStream(
            generator.generate(request, progress),
            encoder.encode,
            keep_alive_s=settings.keep_alive_s,
            status=progress.text,
            failure=encoder.encode_failure,
            end=b"",
        )
    await generator.run(request, encoder.add)
    return Response(encoder.response().encode(), media_type="application/json")
