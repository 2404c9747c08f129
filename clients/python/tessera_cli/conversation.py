"""Conversation mode of `tessera ask`: one line after another, images and videos added between them."""

import contextlib
import importlib.util
import shlex
from pathlib import Path
from typing import Any

import openai
from rich.console import Console

from tessera_cli.answer import GROUNDED, boxes_in_pixels, show
from tessera_cli.connection import UsageError, sentence
from tessera_cli.grounded_text import may_have_boxes, without_tokens
from tessera_cli.sources import source_of
from tessera_cli.terminal import uploading
from tessera_client.parts import MediaError, Part, text
from tessera_client.uploads import content

HELP = """\
/add FILE_OR_URL …   show the model images and videos with the next line
/new                 forget the conversation
/quit, Ctrl-D        leave; Ctrl-C stops an answer"""


def talk(client: openai.OpenAI, model: str, messages: list[Any], fields: dict[str, Any], console: Console) -> int:
    """Read lines and answer them until the end of input; returns the exit status.

    Args:
        client: of the server.
        model: what to ask.
        messages: what was said before; what is said is added.
        fields: of every request.
        console: for what is no answer.
    """
    if importlib.util.find_spec("readline") is not None:
        importlib.import_module("readline")  # line editing and history for input()
    console.print(f"[dim]{model} listens; /help lists the commands[/dim]")
    first = [message for message in messages if message["role"] == "system"]
    shown: list[Part | Path] = []
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return 0
        except KeyboardInterrupt:
            continue
        command, _, rest = line.partition(" ")
        match command:
            case "":
                continue
            case "/quit":
                return 0
            case "/help":
                console.print(HELP, markup=False)
            case "/new":
                messages[:], shown = first, []
            case "/add":
                shown += _added(rest, console)
            case _ if command.startswith("/"):
                console.print(f"there is no command {command}; /help lists them", markup=False)
            case _:
                if _say(client, model, messages, fields, console, line, shown):
                    shown = []


def _added(names: str, console: Console) -> list[Part | Path]:
    try:
        return [source_of(name) for name in shlex.split(names)]
    except (UsageError, ValueError) as error:
        console.print(str(error), markup=False)
        return []


def _say(
    client: openai.OpenAI,
    model: str,
    messages: list[Any],
    fields: dict[str, Any],
    console: Console,
    line: str,
    shown: list[Part | Path],
) -> bool:
    """One turn; returns whether it became part of the conversation."""
    with contextlib.suppress(KeyboardInterrupt):  # an answer that was stopped leaves no trace
        try:
            with uploading(console) as on_upload:
                parts = content(*shown, text(line), client=client, on_upload=on_upload)
            turn = {"role": "user", "content": parts}
            answer, report = show(client, model, [*messages, turn], {**fields, **GROUNDED}, console)
        except (openai.OpenAIError, MediaError) as error:
            said = sentence(error) if isinstance(error, openai.OpenAIError) else str(error)
            console.print(said, markup=False)
            return False
        for box in (boxes_in_pixels(answer, report) or ()) if may_have_boxes(answer) else ():
            place = f"{box.left:.0f}, {box.top:.0f} to {box.right:.0f}, {box.bottom:.0f} px"
            console.print(f"  {box.label or 'box'}: {place}", style="dim", markup=False, highlight=False)
        messages += [turn, {"role": "assistant", "content": without_tokens(answer)}]
        return True
    return False
