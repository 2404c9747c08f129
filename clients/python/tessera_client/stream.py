"""A streamed answer with what the `openai` package drops: the comments that tell how far media are prepared."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import openai
from openai.types.chat import ChatCompletionChunk

from tessera_client.session import session_headers


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing was generated yet; the server says why, as in `preparing media 40 %`."""

    text: str


def stream(
    client: openai.OpenAI, *, model: str, messages: Sequence[Any], **fields: Any
) -> Iterator[ChatCompletionChunk | Waiting]:
    """Ask, and hand on what comes as it comes. Closing the iterator ends the request.

    Args:
        client: of any server that speaks the OpenAI API.
        model: what to ask.
        messages: the conversation.
        fields: further fields of the request, the server's own included.

    Raises:
        openai.OpenAIError: the request is refused, the server is away, or the answer broke off.
    """
    create = client.chat.completions.with_streaming_response.create
    headers = session_headers(messages)
    with create(
        model=model, messages=list(messages), stream=True, extra_body=fields, extra_headers=headers
    ) as response:
        request = response.http_request
        for kind, value in events(_lines(response.iter_lines(), request)):
            if kind == "comment":
                yield Waiting(value)
            elif value != "[DONE]":
                yield _chunk(value, request)


def events(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Server-sent events and comments of a stream of lines, as (`data` or `comment`, text). Pure.

    Source: HTML standard, section 9.2.6.
    """
    data: list[str] = []
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line.startswith(":"):
            yield "comment", value
        elif field == "data":
            data.append(value)
        elif not line and data:
            yield "data", "\n".join(data)
            data = []
    # An event that its blank line did not end is not an event.


def _lines(lines: Iterator[str], request: Any) -> Iterator[str]:
    try:
        yield from lines
    except Exception as error:  # of whichever HTTP library the openai package uses
        raise openai.APIConnectionError(message="The answer broke off.", request=request) from error


def _chunk(data: str, request: Any) -> ChatCompletionChunk:
    try:
        event = json.loads(data)
    except ValueError as error:
        raise openai.APIError("the server sent an event that is no JSON", request, body=data) from error
    if not isinstance(event, dict):
        raise openai.APIError("the server sent an event that is no object", request, body=event)
    if failure := event.get("error"):
        message = failure.get("message") if isinstance(failure, dict) else str(failure)
        raise openai.APIError(message or "the answer broke off", request, body=failure)
    return ChatCompletionChunk.construct(**event)
