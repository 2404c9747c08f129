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
    state = app.state
    return JSONResponse(describe(app, state.schemas, needs_key=state.needs_key, open_paths=state.open_paths))
