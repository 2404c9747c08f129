"""`GET /health`: whether the engine answers."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from server.api.error_schema import Health, UnhealthyResponse
from server.api.openapi import errors
from server.core.errors import UnavailableError
from server.generation.model_service import Service

router = APIRouter()


@router.get(
    "/health",
    summary="Whether the engine answers",
    operation_id="health",
    responses={200: {"model": Health}, **errors(500), 503: {"model": UnhealthyResponse, "description": "Not now."}},
)
async def health(request: Request) -> JSONResponse:
    """200 once the engine answers; until then, and whenever it does not, 503 with its state. Needs no key."""
    service: Service = request.app.state.service
    try:
        service.model()
    except UnavailableError as error:
        return JSONResponse({"status": service.state.value, **error.body()}, error.status, error.headers)
    return JSONResponse({"status": service.state.value})
