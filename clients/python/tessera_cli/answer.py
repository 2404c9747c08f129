"""An answer, written to stdout as it comes; meanwhile, on stderr, what is being waited for."""

from typing import Any

import openai
from rich.console import Console

from tessera_cli.terminal import waiting, write
from tessera_client.stream import Waiting, stream


def show(
    client: openai.OpenAI, model: str, messages: list[Any], fields: dict[str, Any], console: Console
) -> tuple[str, list[dict[str, Any]]]:
    """Ask, and write the answer to stdout as it comes.

    Returns:
        The answer, and what was done to the media where `fields` asked for it.
    """
    pieces: list[str] = []
    report: list[dict[str, Any]] = []
    finish_reason = None
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
                    write(piece)
    finally:
        status.stop()
        if pieces:
            write("\n")
    if finish_reason == "length":
        console.print("[dim](cut off: the answer reached its longest length)[/dim]")
    return "".join(pieces), report
