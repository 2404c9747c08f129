"""The response that streams a file's content, read in a thread at the client's pace."""

from pathlib import Path
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.core.concurrency import run_to_completion
from server.core.errors import NotFoundError

_CHUNK_BYTES = 1 << 18


class Download(Response):
    """A file that browsers save and never display.

    Args:
        path: the file.
        num_bytes: its size.
        filename: the name to save it under.
    """

    def __init__(self, path: Path, *, num_bytes: int, filename: str) -> None:
        super().__init__(media_type="application/octet-stream")
        self._path = path
        self.headers["content-length"] = str(num_bytes)
        self.headers["content-disposition"] = f"attachment; filename*=utf-8''{quote(filename, safe='')}"
        self.headers["x-content-type-options"] = "nosniff"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file.

        Raises:
            NotFoundError: it has been deleted.
        """
        try:
            file = await run_to_completion(lambda: self._path.open("rb", buffering=0))
        except FileNotFoundError as error:
            raise NotFoundError(
                "No such File object: it has been deleted", param="id", code="file_not_found"
            ) from error
        with file:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while chunk := await run_to_completion(lambda: file.read(_CHUNK_BYTES)):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
