"""An answer, written to stdout as it comes; meanwhile, on stderr, what is being waited for."""

from typing import Any

import openai
from rich.console import Console

from tessera_cli.grounded_text import GroundedText
from tessera_cli.terminal import waiting, write
from tessera_client.boxes import Box, boxes
from tessera_client.stream import Waiting, stream

GROUNDED: dict[str, Any] = {"skip_special_tokens": False, "include": ["media"]}
"""Fields of a request whose boxes are to be found: their tokens, and what was done to the media."""


def boxes_in_pixels(answer: str, report: list[dict[str, Any]]) -> list[Box] | None:
    """The boxes of an answer, in the pixels of the one image that was sent; None where there is not one."""
    images = [media_item for media_item in report if media_item["modality"] == "image"]
    if len(images) != 1:
        return None
    size, extent = images[0]["source_size"], images[0]["box_extent"]
    return boxes(answer, width=size["width"], height=size["height"], extent=(extent["width"], extent["height"]))


def show(
    client: openai.OpenAI, model: str, messages: list[Any], fields: dict[str, Any], console: Console
) -> tuple[str, list[dict[str, Any]]]:
    """Ask, and write the answer to stdout as it comes, boxes and their tokens left out.

    Returns:
        The answer as the server sent it, and what was done to the media where `fields` asked for it.
    """
    pieces: list[str] = []
    report: list[dict[str, Any]] = []
    finish_reason = None
    readable = GroundedText()
    status = waiting(console, "waiting for the answer")
    status.start()
    try:
        for event in stream(client, model=model, messages=messages, **fields):
            if isinstance(event, Waiting):
                status.update(event.text)
                continue
            report = ((event.model_extra or {}).get("tessera") or {}).get("media", report)
            for choice in event.choices:
                finish_reason = choice.finish_reason or finish_reason
                if piece := choice.delta.content:
                    status.stop()
                    pieces.append(piece)
                    write(readable.feed(piece))
    finally:
        status.stop()
        if pieces:
            write(readable.rest() + "\n")
    if finish_reason == "length":
        console.print("[dim](cut off: the answer reached its longest length)[/dim]")
    return "".join(pieces), report
