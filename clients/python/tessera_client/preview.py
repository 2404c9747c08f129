"""What a server would give its model: `POST /v1/chat/completions/preview`."""

from collections.abc import Sequence
from typing import Any

import openai

from tessera_client.session import session_headers


def preview(client: openai.OpenAI, *, model: str, messages: Sequence[Any], **fields: Any) -> dict[str, Any]:
    """The rendered prompt, its tokens part by part, and size, grid, frames and times of all media; no answer.

    Args:
        client: of a Tessera server; others do not have this route.
        model: as for an answer.
        messages: as for an answer.
        fields: further fields of the request.

    Raises:
        openai.OpenAIError: the request is refused, or the server away.
    """
    body = {"model": model, "messages": list(messages), **fields}
    headers = session_headers(messages)  # so that the answer finds what the preview has prepared
    answer = client.post("/chat/completions/preview", body=body, cast_to=object, options={"headers": headers})
    assert isinstance(answer, dict)
    return answer
