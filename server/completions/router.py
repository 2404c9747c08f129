"""`POST /v1/completions`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from server.api.dependencies import ServerSettings, Tenant
from server.api.openapi import Schemas, errors, event_stream, json_request
from server.api.sse import EventStream
from server.completions.encoder import CompletionEncoder
from server.completions.protocol import Completion, CompletionRequest
from server.completions.reader import read_request
from server.generation.dependencies import ReadyGenerator, model_body

router = APIRouter()
SCHEMAS = Schemas(read=[CompletionRequest], streamed=[Completion])


@router.post(
    "/v1/completions",
    summary="Continue texts",
    operation_id="createCompletion",
    response_class=Response,
    openapi_extra=json_request(CompletionRequest),
    responses={
        200: {"model": Completion, "content": event_stream(Completion), "description": "The answer."},
        **errors(400, 401, 404, 413, 429, 500, 503),
    },
)
async def create_completion(
    generator: ReadyGenerator,
    body: Annotated[CompletionRequest, Depends(model_body(CompletionRequest))],
    tenant: Tenant,
    settings: ServerSettings,
) -> Response:
    """Continue one or several texts as they stand, without a chat's turns, with or without streaming."""
    request = read_request(body, tenant)
    encoder = CompletionEncoder(body, request)
    if body.stream:
        return EventStream(generator.generate(request), encoder.encode, keep_alive_s=settings.keep_alive_s)
    await generator.run(request, encoder.add)
    return Response(encoder.completion().encode(), media_type="application/json")
