"""The use case: Responses API requests, answered by the chat use case (`server/chat/serving.py`). Nothing is stored."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from server.chat.serving import Chat
from server.core.errors import as_api_error
from server.media.progress import Progress
from server.responses.encoder import ResponseAnswer
from server.responses.reader import read_request
from server.responses.request import ResponseRequest
from server.responses.response import ResponseEvent, ResponseObject


class ResponseStream:
    """One response while it grows.

    Args:
        chat: what answers.
        request: what was asked.
        tenant: whose caches may be used; the empty string where there is one tenant only.
        progress: how far the media are, kept up to date meanwhile.
    """

    def __init__(self, chat: Chat, request: ResponseRequest, tenant: str, progress: Progress | None = None) -> None:
        self._chat = chat
        self._request = request
        self._tenant = tenant
        self._progress = progress
        self._answer = ResponseAnswer(request)
        self.failed = self._answer.failed
        """What to send where `events` raises after a stream was opened."""

    async def events(self) -> AsyncGenerator[ResponseEvent, None]:
        """Everything there is to tell, in order; nothing before the engine's first delta.

        Raises:
            ApiError: the request, or one of its media, cannot be served, or the engine fails.
        """
        asked, places = read_request(self._request)
        try:
            async with aclosing(self._chat.stream(asked, self._tenant, self._progress)) as chunks:
                async for chunk in chunks:
                    for event in self._answer.add(chunk):
                        yield event
        except Exception as error:
            failure = as_api_error(error)
            places.rename(failure)
            raise failure from (None if failure is error else error)

    async def whole(self) -> ResponseObject:
        """The response at its end.

        Raises:
            ApiError: as `events`.
        """
        async with aclosing(self.events()) as events:
            async for _ in events:
                pass
        return self._answer.response()
