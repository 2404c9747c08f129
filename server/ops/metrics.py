"""`GET /metrics`: the metrics in Prometheus' text format."""

from fastapi import APIRouter, Response

from server.api.openapi import errors
from server.core.metrics import CONTENT_TYPE
from server.generation.dependencies import ModelServiceDep

router = APIRouter()


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    operation_id="metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The metrics."},
        **errors(401, 500),
    },
)
async def metrics(service: ModelServiceDep) -> Response:
    """The server's metrics, and the engine's current statistics while it is ready."""
    return Response(await service.measurements(), headers={"Content-Type": CONTENT_TYPE})
