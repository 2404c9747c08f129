"""`GET /` and the files below `/playground/`: the playground page. They require no key."""

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from server.core.errors import NotFoundError
from server.ops.playground_files import FILES_PATH, HEADERS, INDEX_PATH, PageFile

router = APIRouter(include_in_schema=False)


@router.get(INDEX_PATH)
@router.get(FILES_PATH + "{name:path}")
async def page_file(request: Request) -> Response:
    """The file at the request's path, or status 304 if the browser's copy is current."""
    files: Mapping[str, PageFile] = request.app.state.page
    path: str = request.scope["path"]
    if path not in files:
        raise NotFoundError(f"There is no route GET {path[:200]}.", code="unknown_url")
    file = files[path]
    headers = {**HEADERS, "ETag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
