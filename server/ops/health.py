"""`GET /health`: the engine's state."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from server.api.error_schema import Health, UnhealthyResponse
from server.api.openapi import errors
from server.core.errors import UnavailableError
from server.generation.dependencies import ModelServiceDep

router = APIRouter()


@router.get(
    "/health",
    summary="Health of the engine",
    operation_id="health",
    responses={
        200: {"model": Health},
        **errors(500),
        503: {"model": UnhealthyResponse, "description": "The engine is not ready."},
    },
)
async def health(service: ModelServiceDep) -> JSONResponse:
    """Status 200 while the engine is ready, otherwise 503 with its state. Requires no key."""
    try:
        service.model()
    except UnavailableError as error:
        return JSONResponse({"status": service.state.value, **error.body()}, error.status, error.headers)
    return JSONResponse({"status": service.state.value})
