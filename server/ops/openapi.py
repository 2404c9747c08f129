"""`GET /openapi.json`: the OpenAPI document."""

from functools import lru_cache

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse

from server.api.openapi import describe

router = APIRouter()


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> JSONResponse:
    """The document, generated once."""
    return _document(request.app)


@lru_cache(maxsize=1)
def _document(app: FastAPI) -> JSONResponse:
    return JSONResponse(describe(app, app.state.schemas, needs_key=app.state.needs_key))
