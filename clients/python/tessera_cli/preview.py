"""`tessera preview photo.jpg video.mp4`: sizes, grids, frames and tokens, without an answer."""

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from tessera_cli.connection import Parser, UsageError, add_connection, connected, model_of, run
from tessera_cli.sources import source_of
from tessera_cli.terminal import stderr, uploading, waiting
from tessera_client import preview as asked
from tessera_client.parts import MediaError, text
from tessera_client.uploads import content

SHOWN_TIMES = 4
"""Timestamps of a video that are shown from its beginning; the last one is always shown."""


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status."""
    parser = Parser(
        prog="tessera preview", description="Show what the model would see, without asking it (Tessera servers only)."
    )
    parser.add_argument("media", nargs="*", help="images and videos: files, URLs, or - for the bytes on stdin")
    parser.add_argument("--question", metavar="TEXT", help="text after the media")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told to be")
    parser.add_argument("--prompt", action="store_true", help="print the rendered prompt, too")
    parser.add_argument("--json", action="store_true", help="print the server's whole answer as JSON")
    add_connection(parser)
    options = parser.parse_intermixed_args(arguments)
    return run(parser, lambda: _preview(options))


def _preview(options: argparse.Namespace) -> int:
    if not options.media and not options.question:
        raise UsageError("there is nothing to preview: name images, videos or a --question")
    console = stderr()
    sources = [source_of(name) for name in options.media]
    with connected(options) as client:
        model = model_of(client, options)
        try:
            with uploading(console) as on_upload:
                words = [text(options.question)] if options.question else []
                parts = content(*sources, *words, client=client, on_upload=on_upload)
        except MediaError as error:
            raise UsageError(str(error)) from error
        messages = [{"role": "system", "content": options.system}] if options.system else []
        messages.append({"role": "user", "content": parts})
        with waiting(console, "preparing"):
            shown = asked(client, model=model, messages=messages)
    if options.json:
        print(json.dumps(shown, ensure_ascii=False))
        return 0
    out = Console(highlight=False)
    if shown["media"]:
        out.print(_table(options.media, shown["media"]))
    counts = shown["prompt_tokens_details"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    out.print(f"{shown['prompt_tokens']} prompt tokens ({kinds}) of {shown['max_model_len']}")
    if options.prompt:
        out.print(shown["prompt"], markup=False)
    return 0


def _table(names: list[str], media: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("file", "sent", "seen", "grid", "tokens", "frames"):
        table.add_column(heading, justify="left" if heading in ("file", "frames") else "right", overflow="fold")
    for name, media_item in zip(names, media, strict=True):
        sent, seen = media_item["source_size"], media_item["size"]
        table.add_row(
            name,
            f"{sent['width']}x{sent['height']}",
            f"{seen['width']}x{seen['height']}",
            "x".join(map(str, media_item["grid"])),
            str(media_item["tokens"]),
            _frames(media_item),
        )
        for note in media_item["notes"]:
            table.add_row(f"  {note}")
    return table


def _frames(media_item: dict[str, Any]) -> str:
    times: list[float] | None = media_item["timestamps"]
    if times is None:
        return ""
    shown = [f"{time_s:.2f}" for time_s in times]
    if len(shown) > SHOWN_TIMES + 1:
        shown = [*shown[:SHOWN_TIMES], "…", shown[-1]]
    return f"{len(times)} at {' '.join(shown)} s"
